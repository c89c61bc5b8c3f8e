//! What a watcher is told of Bluetooth: who came, changed and went, out of who is heard now. Pure. Not here: who listens
//! (`bluetooth`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{DiscoverChange, DiscoveredNode};
use crate::commissioning::radio::{BluetoothUnavailable, Heard};
use crate::node::{BluetoothAddress, BluetoothNode};

/// A device is gone when it was not heard for so long: a scan pauses while somebody connects, and begins with nothing.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// What one watcher knows already.
#[derive(Debug, Default)]
pub(super) struct Told {
    there: BTreeMap<BluetoothAddress, Shown>,
    unavailable: Option<BluetoothUnavailable>,
}

#[derive(Debug)]
struct Shown {
    node: BluetoothNode,
    missed_since: Option<Instant>,
}

impl Told {
    /// What is new to the watcher, now that this is heard.
    pub(super) fn news(&mut self, heard: &Heard, now: Instant) -> Vec<DiscoverChange> {
        let mut news = Vec::new();
        let (nodes, unavailable) = match heard {
            Ok(nodes) => (nodes.as_slice(), None),
            Err(why) => (&[][..], Some(why)),
        };
        if let Some(why) = unavailable.filter(|why| self.unavailable.as_ref() != Some(why)) {
            let (message, hint) = (why.to_string(), why.hint().to_owned());
            news.push(DiscoverChange::BluetoothUnavailable { message, hint });
        }
        self.unavailable = unavailable.cloned();
        for node in nodes {
            let shown = Shown { node: node.clone(), missed_since: None };
            match self.there.insert(node.address, shown) {
                None => news.push(DiscoverChange::Appeared(node.into())),
                Some(before) if !is_the_same(&before.node, node) => news.push(DiscoverChange::Changed(node.into())),
                Some(_) => {}
            }
        }
        self.there.retain(|address, shown| {
            if nodes.iter().any(|node| node.address == *address) {
                return true;
            }
            let is_gone = now >= *shown.missed_since.get_or_insert(now) + GONE_AFTER;
            if is_gone {
                news.push(DiscoverChange::Disappeared(DiscoveredNode::from(&shown.node)));
            }
            !is_gone
        });
        news
    }

    /// When somebody will be gone who is not heard now.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = self.there.values().filter_map(|shown| shown.missed_since).min();
        first.map(|missed_since| missed_since + GONE_AFTER)
    }
}

/// How strongly a device is received goes up and down all the time, and is no news.
fn is_the_same(before: &BluetoothNode, now: &BluetoothNode) -> bool {
    *before == BluetoothNode { rssi: before.rssi, ..now.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(last: u8, discriminator: u16, rssi: i16) -> BluetoothNode {
        let address = BluetoothAddress([2, 0, 0, 0, 0, last]);
        BluetoothNode { address, discriminator, vendor_id: 0xFFF1, product_id: 0x8001, additional_data: false, rssi }
    }

    fn told(news: &[DiscoverChange]) -> Vec<String> {
        let of = |sign: &str, node: &DiscoveredNode| format!("{sign} {}", node.txt["discriminator"]);
        let each = news.iter().map(|change| match change {
            DiscoverChange::Appeared(node) => of("+", node),
            DiscoverChange::Changed(node) => of("~", node),
            DiscoverChange::Disappeared(node) => of("-", node),
            DiscoverChange::BluetoothUnavailable { message, .. } => message.clone(),
        });
        each.collect()
    }

    #[test]
    fn who_comes_changes_and_goes_is_told_once() {
        let (begin, mut watcher) = (Instant::now(), Told::default());
        let mut hear = |nodes: &[BluetoothNode], seconds: u64| {
            let news = watcher.news(&Ok(nodes.to_vec()), begin + Duration::from_secs(seconds));
            (told(&news), watcher.due().map(|due| (due - begin).as_secs()))
        };
        let nothing = Vec::<String>::new();
        assert_eq!(hear(&[], 0), (nothing.clone(), None));
        assert_eq!(hear(&[device(1, 10, -60), device(2, 20, -60)], 1), (vec!["+ 10".into(), "+ 20".into()], None));
        assert_eq!(
            hear(&[device(1, 10, -80), device(2, 20, -40)], 2),
            (nothing.clone(), None),
            "signals go up and down"
        );
        assert_eq!(hear(&[device(1, 11, -80), device(2, 20, -40)], 3), (vec!["~ 11".into()], None));
        // A scan that paused begins with nothing.
        assert_eq!(hear(&[], 10), (nothing.clone(), Some(15)));
        assert_eq!(hear(&[device(1, 11, -80)], 12), (nothing.clone(), Some(15)));
        assert_eq!(hear(&[device(1, 11, -80)], 15), (vec!["- 20".into()], None));
        assert_eq!(hear(&[device(1, 11, -80), device(2, 20, -70)], 16), (vec!["+ 20".into()], None));
    }

    #[test]
    fn why_nobody_is_heard_is_said_once_for_each_reason() {
        let (begin, mut watcher) = (Instant::now(), Told::default());
        let (gone, off) = (BluetoothUnavailable::NoBlueZ, BluetoothUnavailable::SwitchedOff);
        let mut hear = |heard: Heard, seconds: u64| told(&watcher.news(&heard, begin + Duration::from_secs(seconds)));
        let nothing = Vec::<String>::new();
        assert_eq!(hear(Err(gone.clone()), 0), [gone.to_string()]);
        assert_eq!(hear(Err(gone.clone()), 2), nothing, "it was tried again in vain");
        assert_eq!(hear(Err(off.clone()), 4), [off.to_string()]);
        assert_eq!(hear(Ok(vec![device(1, 10, -60)]), 6), ["+ 10"]);
        assert_eq!(hear(Err(gone.clone()), 8), [gone.to_string()]);
        assert_eq!(hear(Err(gone), 13), ["- 10"]);
    }
}
