//! A device that sleeps long: it hears nothing then, and checks in with who has registered when it wakes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Device, Home};
use crate::commissioning::ports::CheckInMessage;
use crate::matter::check_in::seal;
use crate::node::{IcdParameters, NodeId};
use crate::secret::CheckInKey;

/// A device that checks in with who has registered.
#[derive(Default)]
pub(super) struct LongIdle {
    asleep: bool,
    clients: Vec<(NodeId, CheckInKey)>,
    counter: u32,
}

impl LongIdle {
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep
    }

    pub(super) fn forget(&mut self) {
        self.clients.clear();
    }

    pub(super) fn parameters(&self) -> IcdParameters {
        IcdParameters {
            checks_in: true,
            idle: Duration::from_secs(3600),
            active_threshold: Duration::from_secs(5),
            clients: self.clients.iter().map(|(client, _)| client.0).collect(),
            trigger: 1 << 12,
            ..IcdParameters::default()
        }
    }

    /// Takes a client's key, and tells its counter.
    pub(super) fn register(&mut self, client: NodeId, key: &CheckInKey) -> u32 {
        self.clients.retain(|(known, _)| *known != client);
        self.clients.push((client, key.clone()));
        self.counter
    }
}

impl Device {
    /// It sleeps, as a device does some seconds after it was spoken to.
    pub(crate) fn fall_asleep(&self) {
        self.state().long_idle.as_mut().unwrap().asleep = true;
    }

    /// Who is registered with it.
    pub(crate) fn clients(&self) -> Vec<NodeId> {
        let state = self.state();
        state.long_idle.iter().flat_map(|icd| &icd.clients).map(|(client, _)| *client).collect()
    }

    /// It forgets who is registered, as after a reset of its memory.
    pub(crate) fn forget_clients(&self) {
        self.state().long_idle.as_mut().unwrap().clients.clear();
    }
}

impl Home {
    /// A device that sleeps long; it is awake until it is put to sleep.
    pub(crate) fn plug_in_sleeper(&self, host: u8, discriminator: u16, passcode: u32) -> Arc<Device> {
        let device = self.plug_in(host, discriminator, passcode);
        device.state().long_idle = Some(LongIdle { counter: 4711, ..LongIdle::default() });
        device
    }

    /// It wakes, and checks in with whoever has registered, where the hub can be found; the messages that it sent.
    pub(crate) async fn check_in(&self, device: &Device) -> Vec<CheckInMessage> {
        let from = device.address();
        let hub = *self.0.hub.lock().unwrap();
        let messages: Vec<_> = {
            let mut state = device.state();
            let Some(icd) = &mut state.long_idle else { return Vec::new() };
            (icd.asleep, icd.counter) = (false, icd.counter.wrapping_add(1));
            let found = icd.clients.iter().filter(|(client, _)| Some(*client) == hub);
            found.map(|(_, key)| CheckInMessage { from, payload: seal(key, icd.counter, 5_000) }).collect()
        };
        for message in &messages {
            self.send_check_in(message.clone()).await;
        }
        messages
    }

    /// Anybody can send one.
    pub(crate) async fn send_check_in(&self, message: CheckInMessage) {
        let sender = self.0.check_ins.lock().unwrap().clone();
        sender.expect("somebody takes check-ins").send(message).await.unwrap();
    }

    pub(crate) fn take_check_ins(&self) -> Option<mpsc::Receiver<CheckInMessage>> {
        let (sender, receiver) = mpsc::channel(16);
        *self.0.check_ins.lock().unwrap() = Some(sender);
        Some(receiver)
    }

    /// How many were sent and not taken yet.
    pub(crate) fn check_ins_waiting(&self) -> usize {
        let sender = self.0.check_ins.lock().unwrap();
        sender.as_ref().map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }

    pub(crate) fn takes_check_ins(&self) -> bool {
        self.0.check_ins.lock().unwrap().as_ref().is_some_and(|sender| !sender.is_closed())
    }

    pub(crate) fn hub_announced(&self, hub: NodeId) {
        *self.0.hub.lock().unwrap() = Some(hub);
    }
}
