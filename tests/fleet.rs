//! A thousand hubs of one vendor after a common power cut and an outage of the cloud: they must not come back together.
//!
//! ```text
//! power cut at 0 ── all hubs start ── cloud away from 30 to 90 min ── 8 h: requests counted by the minute
//! ```
//! The product's own schedules (`rhythm`, `outbox::schedule`, `dcl::schedule`, `cloud::budget`) on a virtual clock, without a
//! network. Each hub lists its account and renews its token; every tenth has a bind that waits. Measured is the busiest minute
//! over the mean minute of its hour, for each hour: in the course of a night rounds get longer, and that the evening is busier
//! than the night is not marching in step.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use jiff::Timestamp;
use matterbind::facade::bind::{BindRequest, CloudDevice, MatterInfo};
use matterbind::facade::cloud::RENEW_AHEAD;
use matterbind::facade::cloud::budget::Budget;
use matterbind::facade::dcl::schedule::{self, History};
use matterbind::facade::node::{FabricId, NodeId};
use matterbind::facade::outbox::foreign::ForeignAnswer;
use matterbind::facade::outbox::ports::{OutboxEntry, OutboxId, OutboxState, OutboxTask};
use matterbind::facade::outbox::schedule::{ReadBack, RowAction, RowStep, SendOutcome, action, advance, begin_sending};
use matterbind::facade::rhythm::Place;
use matterbind::facade::secret::BindingCode;

const HUBS: u64 = 1000;
const MINUTES: usize = 8 * 60;
const EVERY: Duration = Duration::from_secs(15 * 60);
const OUTAGE: std::ops::Range<Duration> = Duration::from_secs(30 * 60)..Duration::from_secs(90 * 60);
/// What an access token lives.
const TOKEN: Duration = Duration::from_secs(2 * 3600);
const START: Timestamp = Timestamp::constant(1_795_000_000, 0);

/// Requests by the minute.
struct Door(Vec<u32>);

impl Door {
    fn open_for(minutes: usize) -> Self {
        Self(vec![0; minutes])
    }

    fn comes(&mut self, at: Duration) {
        if let Some(minute) = self.0.get_mut((at.as_secs() / 60) as usize) {
            *minute += 1;
        }
    }

    /// The peak over the mean of its span, for spans of `minutes`, each counted by `width` minutes; at most 2.
    fn check(&self, what: &str, minutes: usize, width: usize) {
        for (number, span) in self.0.chunks(minutes).enumerate() {
            let parts: Vec<u32> = span.chunks(width).map(|part| part.iter().sum()).collect();
            let mean = f64::from(parts.iter().sum::<u32>()) / parts.len() as f64;
            let peak = f64::from(*parts.iter().max().unwrap());
            println!("{what} {number}: mean {mean:.1} in {width} min, peak {peak}, peak over mean {:.2}", peak / mean);
            assert!(peak <= 2.0 * mean, "{what} {number}: {parts:?}");
        }
    }
}

/// Lists the account, and renews the token when it comes to its end: all hubs hold one of before the power cut.
fn lists(hub: u64, door: &mut Door) {
    let place = Place::of(hub);
    let mut at = place.first(EVERY);
    let mut quiet = 0;
    // The power was away for longer than a token lives.
    let mut token_ends = Duration::ZERO;
    while at.as_secs() / 60 < MINUTES as u64 {
        door.comes(at);
        if at + Place::of(!hub).between(RENEW_AHEAD, TOKEN / 2) >= token_ends {
            door.comes(at);
            if !OUTAGE.contains(&at) {
                token_ends = at + TOKEN;
            }
        }
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
            RowAction::Send if away => SendOutcome::NotSent { cause: "no route".to_owned() },
            RowAction::ReadBack if away => SendOutcome::Ambiguous { cause: "no answer".to_owned() },
            RowAction::Send => SendOutcome::Accepted,
            RowAction::ReadBack => SendOutcome::ReadBack(ReadBack::InEffect),
            RowAction::Nothing => return,
        };
        if action(&entry) == RowAction::Send {
            entry = begin_sending(&entry, now);
        }
        let verdict = advance(&entry, &outcome, now, hub << 20 ^ u64::from(entry.tries));
        if verdict.step == RowStep::Done {
            return;
        }
        entry = verdict.entry;
        at += Duration::try_from(entry.next_try_at.unwrap().duration_since(now)).unwrap();
    }
}

/// Asks the ledger: a day is longer or shorter for each hub, and after the power cut each waits for its turn in the hour.
fn asks_the_ledger(hub: u64, days: u64, door: &mut Door) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let place = Place::of(hub);
    let every = place.period(DAY);
    let mut history = History::default();
    let mut at = place.first(Duration::from_secs(3600));
    while at < DAY * u32::try_from(days).unwrap() {
        let now = START + at;
        let wait = schedule::wait(&history, every, now);
        if !wait.is_zero() {
            at += wait;
            continue;
        }
        door.comes(at);
        history.attempted_at = Some(now);
        if OUTAGE.contains(&at) {
            history.failures += 1;
        } else {
            (history.failures, history.succeeded_at) = (0, Some(now));
        }
        at += Duration::from_secs(60);
    }
}

#[test]
fn a_thousand_hubs_do_not_ask_the_ledger_together() {
    let days = 3;
    let mut door = Door::open_for(days as usize * 24 * 60);
    for hub in 0..HUBS {
        asks_the_ledger(hub, days, &mut door);
    }
    let total: u32 = door.0.iter().sum();
    assert!(total >= 3 * HUBS as u32 - HUBS as u32 / 2, "each asks about once a day: {total}");
    // The first two hours, with the outage in them; then the days, of which only the span counts in which hubs are due.
    let mut first = Door(door.0[..120].to_vec());
    first.0.resize(120, 0);
    first.check("ledger, half hour", 30, 5);
    let days: Vec<u32> = door.0.split_off(120).into_iter().collect();
    let busy = |from: usize, to: usize| Door(days[from - 120..to - 120].to_vec());
    busy(22 * 60, 27 * 60).check("ledger, second day", 300, 30);
}

/// A cloud that says 429 to a hub: whatever the hub has to do, one request in each pause is all that comes.
#[test]
fn a_hub_that_is_told_to_wait_sends_one_request_in_each_pause() {
    for (retry_after, longest) in [(Some(60), 61), (Some(86_400), 5), (None, 8)] {
        let answer = ForeignAnswer {
            status: 429,
            retry_after: retry_after.map(Duration::from_secs),
            ..ForeignAnswer::default()
        };
        let (mut budget, mut sent) = (Budget::default(), 0);
        // In an hour a list, a bind and a token each second.
        for second in 0..3600 {
            let now = START + Duration::from_secs(second);
            for _ in 0..3 {
                if budget.admit(now).is_ok() {
                    sent += 1;
                    budget.handle_foreign(&answer, now);
                }
            }
        }
        assert!(sent <= longest, "{retry_after:?}: {sent} requests in an hour");
    }
}

#[test]
fn a_thousand_hubs_do_not_come_back_together() {
    let mut door = Door::open_for(MINUTES);
    for hub in 0..HUBS {
        lists(hub, &mut door);
        if hub % 10 == 0 {
            binds(hub, &mut door);
        }
    }
    door.check("hour", 60, 1);
}
