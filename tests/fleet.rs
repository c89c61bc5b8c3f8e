//! A thousand hubs of one vendor after a common power cut and an outage of the cloud: they must not come back together.
//!
//! ```text
//! power cut at 0 ── all hubs start ── cloud away from 30 to 90 min ── 8 h: requests counted by the minute
//! ```
//! The product's own schedules (`rhythm`, `outbox::schedule`) on a virtual clock, without a network. Each hub lists its account;
//! every tenth has a bind that waits. Measured is the busiest minute over the mean minute of its hour, for each hour: in the
//! course of a night rounds get longer, and that the evening is busier than the night is not marching in step.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use jiff::Timestamp;
use matterbind::bind::{BindRequest, CloudDevice, MatterInfo};
use matterbind::node::{FabricId, NodeId};
use matterbind::outbox::ports::{OutboxEntry, OutboxId, OutboxState, OutboxTask};
use matterbind::outbox::schedule::{Action, Outcome, ReadBack, Step, action, advance, begin_sending};
use matterbind::rhythm::Place;
use matterbind::secret::BindingCode;

const HUBS: u64 = 1000;
const MINUTES: usize = 8 * 60;
const EVERY: Duration = Duration::from_secs(15 * 60);
const OUTAGE: std::ops::Range<Duration> = Duration::from_secs(30 * 60)..Duration::from_secs(90 * 60);
const START: Timestamp = Timestamp::constant(1_795_000_000, 0);

/// Requests by the minute.
struct Door(Vec<u32>);

impl Door {
    fn comes(&mut self, at: Duration) {
        if let Some(minute) = self.0.get_mut((at.as_secs() / 60) as usize) {
            *minute += 1;
        }
    }
}

fn lists(hub: u64, door: &mut Door) {
    let place = Place::of(hub);
    let mut at = place.first(EVERY);
    let mut quiet = 0;
    while at.as_secs() / 60 < MINUTES as u64 {
        door.comes(at);
        // That the cloud went away, and came back, is a change.
        quiet = if OUTAGE.contains(&at) { 0 } else { quiet + 1 };
        at += place.next(at, EVERY, quiet);
    }
}

fn bind(hub: u64) -> OutboxEntry {
    let request = BindRequest {
        device: CloudDevice { product_key: "p".to_owned(), device_key: format!("dev{hub}") },
        binding_code: BindingCode::new("0123456789ABCDEF"),
        device_name: None,
        family_id: None,
        room_id: None,
        capabilities_bitmask: 10,
        options: Default::default(),
        matter_info: MatterInfo {
            fabric_id: FabricId(1),
            node_id: NodeId(hub + 1),
            vendor_id: 1,
            product_id: 1,
            discriminator: Some(0),
            matter_version: "1.4".to_owned(),
            cats: Vec::new(),
        },
    };
    OutboxEntry {
        id: OutboxId(1),
        node_id: NodeId(hub + 1),
        task: OutboxTask::Bind(Box::new(request)),
        state: OutboxState::Pending,
        tries: 0,
        tries_in_class: 0,
        last_code: None,
        last_message: String::new(),
        next_try_at: Some(START),
        created_at: START,
        first_sent_at: None,
        hint: String::new(),
    }
}

/// A device that was commissioned while the cloud was away, each when its owner wanted to.
fn binds(hub: u64, door: &mut Door) {
    let mut entry = bind(hub);
    let mut at = OUTAGE.start + (OUTAGE.end - OUTAGE.start) / HUBS as u32 * hub as u32;
    loop {
        let now = START + at;
        door.comes(at);
        let away = OUTAGE.contains(&at);
        let outcome = match action(&entry) {
            Action::Send if away => Outcome::NotSent { cause: "no route".to_owned() },
            Action::ReadBack if away => Outcome::Ambiguous { cause: "no answer".to_owned() },
            Action::Send => Outcome::Accepted,
            Action::ReadBack => Outcome::ReadBack(ReadBack::InEffect),
            Action::Nothing => return,
        };
        if action(&entry) == Action::Send {
            entry = begin_sending(&entry, now);
        }
        let verdict = advance(&entry, &outcome, now, hub << 20 ^ u64::from(entry.tries));
        if verdict.step == Step::Done {
            return;
        }
        entry = verdict.entry;
        at += Duration::try_from(entry.next_try_at.unwrap().duration_since(now)).unwrap();
    }
}

#[test]
fn a_thousand_hubs_do_not_come_back_together() {
    let mut door = Door(vec![0; MINUTES]);
    for hub in 0..HUBS {
        lists(hub, &mut door);
        if hub % 10 == 0 {
            binds(hub, &mut door);
        }
    }
    for (hour, minutes) in door.0.chunks(60).enumerate() {
        let mean = f64::from(minutes.iter().sum::<u32>()) / 60.0;
        let peak = f64::from(*minutes.iter().max().unwrap());
        println!("hour {hour}: mean {mean:.1} requests a minute, peak {peak}, peak over mean {:.2}", peak / mean);
        assert!(peak <= 2.0 * mean, "hour {hour}: {minutes:?}");
    }
}
