//! The hub's own announcement as a node of its fabric: where devices with long idle times send their check-ins to (Matter Core
//! 4.3.2). Not here: who asks for it (`hub::icd`).

use mdns_sd::{ServiceDaemon, ServiceInfo};

use super::nodes_of;
use crate::node::OperationalIdentity;

/// What is announced, and under which host name.
#[derive(Debug)]
pub(super) struct Own {
    name: OperationalIdentity,
    port: u16,
    host: String,
}

impl Own {
    /// The node with this name listens on `port`.
    pub(super) fn new(name: OperationalIdentity, port: u16) -> Self {
        // 16 hexadecimal digits as a host of Matter has it (4.3.1.1); random, because it says nothing about the machine.
        let host = format!("{:016X}.local.", rand::random::<u64>());
        Self { name, port, host }
    }

    /// Whether somebody heard the hub itself.
    pub(super) fn is(&self, instance: &str) -> bool {
        self.name.instance().eq_ignore_ascii_case(instance)
    }

    /// Has mdns-sd announce it, on its interfaces and with their addresses.
    pub(super) fn announce(&self, mdns: &ServiceDaemon) -> Result<(), mdns_sd::Error> {
        // One subtype for a service: the one that operational nodes have.
        let service_type = nodes_of(self.name.compressed_fabric_id);
        let none: &[(&str, &str)] = &[];
        let service = ServiceInfo::new(&service_type, &self.name.instance(), &self.host, (), self.port, none)?;
        let mut service = service.enable_addr_auto();
        // The name is the fabric's and the node's id: nobody else has it.
        service.set_requires_probe(false);
        mdns.register(service)
    }
}
