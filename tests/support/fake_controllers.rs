//! The pretended daemon's access, its networks, and its other controllers: one that is enrolled, and one open invitation.

use matterbind::facade::admin::wire::{
    AccessOutcome, AccessReport, AccessView, BundleNode, CertificateForms, ControllerBundle, ControllerName,
    ControllerOrder, ControllerRemoval, ControllerView, Controllers, EnrolRequest, Invitation, InviteOrder, InviteView,
    NetworkList, NetworkOrder, NetworkView, NodeAccess, Refusal, RenewOrder,
};
use matterbind::facade::commissioning::error::Disposition;
use matterbind::facade::controller::ControllerState;
use matterbind::facade::fabric::CatGrant;
use matterbind::facade::hub::doors::{AccessDoor, ControllersDoor, InvitesDoor, NetworksDoor};
use matterbind::facade::node::{NodeId, NodeState};
use matterbind::facade::secret::{IpkEpochKey, OperatorSecret};

use super::{Fake, at};

/// The code that enrols.
pub const CODE: &str = "123Z-5678-9ABC";

fn view() -> ControllerView {
    ControllerView {
        node_id: NodeId(1002),
        name: "Wall panel".to_owned(),
        state: ControllerState::Enrolled,
        certificate: "current".to_owned(),
        cats: vec![0x0002_0001],
        key: "ab".repeat(32),
        enrolled_at: at(0),
        issued_at: at(0),
        expires_at: Some(at(86_400)),
        expires_soon: true,
        waits_for: vec![ControllerName { node_id: NodeId(1003), name: "Bridge".to_owned() }],
        settles_at: Some(at(600)),
        pending_nodes: vec![NodeId(1001)],
    }
}

fn bundle(name: &str) -> ControllerBundle {
    let forms = |what: &str| CertificateForms { tlv: "FTAB".to_owned(), pem: format!("-----BEGIN {what}-----\n") };
    ControllerBundle {
        name: name.to_owned(),
        node_id: NodeId(1002),
        fabric_id: 1_234_567,
        compressed_fabric_id: 0x87E1_B004_E235_A130,
        admin_vendor_id: 0xFFF1,
        hub_node_id: NodeId(999),
        cats: vec![0x0002_0001],
        issued_at: at(0),
        expires_at: Some(at(86_400)),
        rcac: forms("RCAC"),
        icac: forms("ICAC"),
        noc: forms("NOC"),
        ipk: IpkEpochKey::new([7; 16]),
        private_key: None,
        nodes: vec![BundleNode {
            instance: "87E1B004E235A130-00000000000003E8".to_owned(),
            node_id: NodeId(1000),
            name: "Hall lamp".to_owned(),
            vendor_id: 0xFFF1,
            product_id: 0x8001,
            addresses: vec!["192.0.2.7".to_owned()],
            port: 5540,
        }],
        notes: vec!["a note".to_owned()],
    }
}

fn known(controller: &str) -> Result<ControllerView, Refusal> {
    if ["1002", "Wall panel"].contains(&controller) {
        return Ok(view());
    }
    Err(Refusal::new("unknown-controller", Disposition::UserAction, "there is no such controller", "list them"))
}

impl ControllersDoor for Fake {
    async fn controllers(&self) -> Result<Controllers, Refusal> {
        let invite = InviteView {
            id: "123Z".to_owned(),
            cats: vec![2],
            name: Some("Phone".to_owned()),
            expires_at: at(600),
            tries_left: 5,
        };
        Ok(Controllers { controllers: vec![view()], invites: vec![invite] })
    }

    async fn controller(&self, controller: &str) -> Result<ControllerView, Refusal> {
        known(controller)
    }

    async fn add_controller(&self, order: ControllerOrder, who: String) -> Result<ControllerBundle, Refusal> {
        assert!(!who.is_empty() && order.csr.contains("CERTIFICATE REQUEST"));
        Ok(bundle(&order.name))
    }

    async fn renew_controller(&self, controller: &str, _: RenewOrder, _: String) -> Result<ControllerBundle, Refusal> {
        known(controller).map(|known| bundle(&known.name))
    }

    async fn remove_controller(&self, controller: &str, now: bool, _: String) -> Result<ControllerRemoval, Refusal> {
        let known = known(controller)?;
        Ok(ControllerRemoval {
            node_id: known.node_id,
            name: known.name,
            state: if now { ControllerState::Removed } else { ControllerState::Leaving },
            complete: now,
            rotated: if now { vec![0x0002_0002] } else { Vec::new() },
            renew: known.waits_for,
            settles_at: known.settles_at,
            nodes: Vec::new(),
            message: "others have to renew first".to_owned(),
        })
    }
}

impl InvitesDoor for Fake {
    async fn invite(&self, order: InviteOrder, _: String) -> Result<Invitation, Refusal> {
        assert_eq!(order.cats, [2]);
        Ok(Invitation {
            id: "123Z".to_owned(),
            code: OperatorSecret::new(CODE),
            qr_payload: OperatorSecret::new(format!("https://192.0.2.1:8480/v1/enrol#code={CODE}&sha256=00")),
            urls: vec!["https://192.0.2.1:8480/v1/enrol".to_owned()],
            certificate_sha256: "00".repeat(32),
            expires_at: at(600),
        })
    }

    async fn withdraw_invite(&self, _: &str, _: String) -> Result<Controllers, Refusal> {
        Ok(Controllers { invites: Vec::new(), ..self.controllers().await? })
    }

    async fn enrol(&self, request: EnrolRequest, _: String) -> Result<ControllerBundle, Refusal> {
        if request.code.expose() == CODE {
            return Ok(bundle("Phone"));
        }
        Err(Refusal::new("code-refused", Disposition::UserAction, "this code cannot be used", "ask for another"))
    }
}

impl AccessDoor for Fake {
    async fn access(&self) -> Result<AccessView, Refusal> {
        let nodes = self.all().into_iter().map(|node| NodeAccess {
            node_id: node.node_id,
            name: node.name,
            state: "as-wanted".to_owned(),
            wanted: node.cats.clone(),
            cats: node.cats,
        });
        Ok(AccessView {
            admin_cat: 0x0001_0001,
            hub_cats: vec![0x0001_0001],
            grants: Vec::new(),
            tags: Vec::new(),
            nodes: nodes.collect(),
        })
    }

    async fn set_access(&self, node: Option<NodeId>, _: Option<Vec<CatGrant>>) -> Result<AccessReport, Refusal> {
        self.apply_access(node).await
    }

    async fn apply_access(&self, node: Option<NodeId>) -> Result<AccessReport, Refusal> {
        let asked = self.all().into_iter().filter(|record| node.is_none_or(|node| node == record.node_id));
        let nodes: Vec<AccessOutcome> = asked
            .map(|record| AccessOutcome {
                node_id: record.node_id,
                outcome: if record.state == NodeState::Operational { "written" } else { "pending" }.to_owned(),
                cats: record.cats,
                cloud_queued: false,
                code: String::new(),
                message: String::new(),
            })
            .collect();
        Ok(AccessReport { complete: nodes.iter().all(|node| node.outcome == "written"), rotated: None, nodes })
    }

    async fn rotate_cat(&self, identifier: u16) -> Result<AccessReport, Refusal> {
        let rotated = Some(u32::from(identifier) << 16 | 2);
        Ok(AccessReport { rotated, ..self.apply_access(None).await? })
    }
}

impl NetworksDoor for Fake {
    async fn networks(&self) -> Result<NetworkList, Refusal> {
        let home = NetworkView {
            name: "Home".to_owned(),
            kind: "wifi".to_owned(),
            id: "Home".to_owned(),
            default: true,
            configured: false,
            set_at: Some(at(0)),
        };
        let mesh = NetworkView {
            name: "六十四文字の名前をもつ Thread mesh of the whole house".to_owned(),
            kind: "thread".to_owned(),
            id: "1111111122222222".to_owned(),
            default: false,
            ..home.clone()
        };
        Ok(NetworkList { networks: vec![home, mesh] })
    }

    async fn set_network(&self, _: NetworkOrder, _: String) -> Result<NetworkList, Refusal> {
        NetworksDoor::networks(self).await
    }

    async fn forget_network(&self, name: &str, _: String) -> Result<NetworkList, Refusal> {
        match name {
            "Home" => Ok(NetworkList::default()),
            _ => Err(Refusal::bad_request("the hub knows no such network")),
        }
    }
}
