//! One open browse of mdns-sd and what is still incomplete in it. No decisions about when to ask (`actor`, `schedule`).

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use mdns_sd::{Receiver, ServiceEvent};

use super::cache::Kind;

/// The records of one node come in one packet or shortly after each other; later, one of them was lost. It must be more
/// than the second for which mdns-sd keeps what has said goodbye: a restart within it would swallow the goodbye.
pub(crate) const INCOMPLETE_AFTER: Duration = Duration::from_millis(1250);
/// An instance that stays incomplete through this many restarts is broken, not unlucky.
const MAX_RESTARTS: u8 = 3;
/// What is beyond help is forgotten after this, so that a repaired device gets its chance.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Bounds what a flood of incomplete instances can make us remember.
const MAX_INCOMPLETE: usize = 256;

/// The browse of one service type or subtype.
pub(crate) struct Browse {
    /// Which of the two service types, or a subtype of it.
    pub kind: Kind,
    /// As mdns-sd wants it: `_L3840._sub._matterc._udp.local.`
    pub service_type: String,
    /// Opening a browse again gives a new channel; the old one is read to its end first, so that order is kept.
    channels: VecDeque<BoxStream<'static, ServiceEvent>>,
    /// Instances that were named but not resolved: since when, and after how many restarts.
    incomplete: HashMap<String, (Instant, u8)>,
}

impl Browse {
    pub(crate) fn new(kind: Kind, service_type: String) -> Self {
        Self { kind, service_type, channels: VecDeque::new(), incomplete: HashMap::new() }
    }

    /// Reads from `channel` after everything before it.
    pub(crate) fn push(&mut self, channel: Receiver<ServiceEvent>) {
        self.channels.push_back(channel.into_stream().boxed());
    }

    /// The next event; `None` once where the newest channel has ended.
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<ServiceEvent>> {
        while let Some(channel) = self.channels.front_mut() {
            match channel.poll_next_unpin(context) {
                Poll::Ready(Some(event)) => return Poll::Ready(Some(event)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    self.channels.pop_front();
                    if self.channels.is_empty() {
                        return Poll::Ready(None);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// How many instances were named of which nothing else is known.
    pub(crate) fn unresolved(&self) -> usize {
        self.incomplete.len()
    }

    /// mdns-sd was started anew: nothing of what it told holds.
    pub(crate) fn handle_new_daemon(&mut self) {
        self.channels.clear();
        self.incomplete.clear();
    }

    /// An instance was named; its other records should come soon.
    pub(crate) fn handle_found(&mut self, fullname: &str, now: Instant) {
        if self.incomplete.len() < MAX_INCOMPLETE {
            self.incomplete.entry(fullname.to_owned()).or_insert((now, 0));
        }
    }

    /// An instance is complete or gone.
    pub(crate) fn handle_settled(&mut self, fullname: &str) {
        self.incomplete.remove(fullname);
    }

    /// Everything is asked for anew.
    pub(crate) fn handle_restart(&mut self, now: Instant) {
        self.incomplete.retain(|_, (since, restarts)| *restarts < MAX_RESTARTS || now < *since + FORGOTTEN_AFTER);
        for (_, restarts) in self.incomplete.values_mut() {
            *restarts = restarts.saturating_add(1);
        }
    }

    /// From when on the records that an instance lacks count as lost; `None` where nothing is missing, or for ever.
    pub(crate) fn overdue_at(&self) -> Option<Instant> {
        self.hopeful().min().map(|since| since + INCOMPLETE_AFTER)
    }

    fn hopeful(&self) -> impl Iterator<Item = Instant> {
        self.incomplete.values().filter(|(_, restarts)| *restarts < MAX_RESTARTS).map(|(since, _)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_instance_is_not_asked_for_for_ever() {
        let start = Instant::now();
        let mut browse = Browse::new(Kind::Commissionable, "_matterc._udp.local.".to_owned());
        browse.handle_found("A", start);
        for _ in 0..MAX_RESTARTS {
            assert_eq!(browse.overdue_at(), Some(start + INCOMPLETE_AFTER));
            browse.handle_restart(start + INCOMPLETE_AFTER);
        }
        assert_eq!(browse.overdue_at(), None);
        browse.handle_restart(start + FORGOTTEN_AFTER);
        browse.handle_found("A", start + FORGOTTEN_AFTER);
        assert_eq!(browse.overdue_at(), Some(start + FORGOTTEN_AFTER + INCOMPLETE_AFTER));
        browse.handle_settled("A");
        assert_eq!(browse.overdue_at(), None);
    }
}
