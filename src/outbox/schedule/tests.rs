//! Every code of cloud-contract 5 to its end, on a virtual clock, and the rules that hold for all of them.

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::bind::codes::meaning_of;
use crate::bind::{BindRequest, CloudDevice, CloudMatterInfo, MatterInfo};
use crate::node::{FabricId, NodeId};
use crate::outbox::ports::OutboxId;
use crate::secret::BindingCode;

const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn request() -> BindRequest {
    BindRequest {
        device: CloudDevice { product_key: "p1".to_owned(), device_key: "dev1".to_owned() },
        binding_code: BindingCode::new("0123456789ABCDEF"),
        device_name: Some("light".to_owned()),
        family_id: Some("f".to_owned()),
        room_id: Some("r".to_owned()),
        capabilities_bitmask: 10,
        options: Default::default(),
        matter_info: MatterInfo {
            fabric_id: FabricId(7),
            node_id: NodeId(1001),
            vendor_id: 1,
            product_id: 2,
            discriminator: Some(0),
            matter_version: "1.4".to_owned(),
            cats: Vec::new(),
        },
    }
}

fn row(task: OutboxTask, state: OutboxState) -> OutboxEntry {
    OutboxEntry {
        id: OutboxId(1),
        node_id: NodeId(1001),
        task,
        state,
        tries: 0,
        tries_in_class: 0,
        last_code: None,
        last_message: String::new(),
        next_try_at: Some(NOW),
        created_at: NOW,
        first_sent_at: None,
        hint: String::new(),
    }
}

fn bind() -> OutboxEntry {
    row(OutboxTask::Bind(Box::new(request())), OutboxState::Pending)
}

fn refused(code: i64) -> SendOutcome {
    SendOutcome::Refused { code, message: "no".to_owned() }
}

/// How a row ends, and what it took.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    state: OutboxState,
    sends: u32,
    looks: u32,
    fresh_codes: u32,
    took: Duration,
}

/// Answers every bind with `code` and every look with "not bound", until the row waits for a person or is refused.
fn live(code: i64, fresh: bool) -> Life {
    let mut entry = bind();
    let mut now = NOW;
    let mut life = Life { state: entry.state, sends: 0, looks: 0, fresh_codes: 0, took: Duration::ZERO };
    for seed in 0..200 {
        let verdict = match action(&entry) {
            RowAction::Send => {
                life.sends += 1;
                advance(&begin_sending(&entry, now), &refused(code), now, seed)
            }
            RowAction::ReadBack => {
                life.looks += 1;
                advance(&entry, &SendOutcome::ReadBack(ReadBack::NotInEffect), now, seed)
            }
            RowAction::Nothing => break,
        };
        assert_ne!(verdict.step, RowStep::Done, "nothing took effect");
        entry = verdict.entry;
        if verdict.step == RowStep::FreshCode {
            life.fresh_codes += 1;
            entry = advance(&entry, &SendOutcome::FreshCode(fresh), now, seed).entry;
        }
        match (entry.state, entry.next_try_at) {
            (OutboxState::WaitingForOperator | OutboxState::Rejected, _) => break,
            (_, at) => now = at.expect("a row that waits has a time"),
        }
    }
    life.state = entry.state;
    life.took = Duration::try_from(now.duration_since(NOW)).unwrap();
    assert!(!entry.hint.is_empty(), "{code} says nothing to the operator");
    life
}

#[rstest]
// The bind window: every 3 s for 120 s, then one look, then a person. 5460 may hide a success: a look each time.
#[case(5460, OutboxState::WaitingForOperator, 40, 40)]
#[case(5009, OutboxState::WaitingForOperator, 40, 1)]
#[case(5465, OutboxState::WaitingForOperator, 40, 1)]
#[case(5032, OutboxState::WaitingForOperator, 2, 0)]
#[case(5106, OutboxState::Rejected, 2, 0)]
#[case(5048, OutboxState::WaitingForOperator, 9, 9)]
#[case(5000, OutboxState::WaitingForOperator, 9, 9)]
#[case(5049, OutboxState::WaitingForOperator, 1, 1)]
#[case(5412, OutboxState::WaitingForOperator, 1, 1)]
#[case(5893, OutboxState::WaitingForOperator, 1, 1)]
#[case(5314, OutboxState::WaitingForOperator, 6, 0)]
#[case(5213, OutboxState::Rejected, 2, 2)]
#[case(5461, OutboxState::WaitingForOperator, 4, 4)]
#[case(5462, OutboxState::WaitingForOperator, 2, 2)]
#[case(5333, OutboxState::Rejected, 2, 0)]
#[case(5624, OutboxState::WaitingForOperator, 2, 0)]
#[case(5636, OutboxState::WaitingForOperator, 2, 0)]
#[case(5669, OutboxState::WaitingForOperator, 2, 0)]
#[case(5229, OutboxState::WaitingForOperator, 1, 0)]
#[case(6040, OutboxState::WaitingForOperator, 1, 0)]
#[case(6083, OutboxState::WaitingForOperator, 1, 0)]
#[case(5066, OutboxState::Rejected, 1, 0)]
#[case(5067, OutboxState::Rejected, 1, 0)]
#[case(5179, OutboxState::Rejected, 1, 0)]
#[case(5361, OutboxState::Rejected, 1, 0)]
#[case(5879, OutboxState::Rejected, 1, 0)]
#[case(5880, OutboxState::Rejected, 1, 0)]
#[case(5881, OutboxState::Rejected, 1, 0)]
#[case(5882, OutboxState::Rejected, 1, 0)]
#[case(5883, OutboxState::Rejected, 1, 0)]
#[case(5885, OutboxState::Rejected, 1, 0)]
#[case::unlisted(5884, OutboxState::WaitingForOperator, 1, 1)]
#[case::unlisted(-1, OutboxState::WaitingForOperator, 1, 1)]
fn a_code_that_stays_ends_as_the_contract_says(
    #[case] code: i64,
    #[case] state: OutboxState,
    #[case] sends: u32,
    #[case] looks: u32,
) {
    let life = live(code, true);
    assert_eq!((life.state, life.sends, life.looks), (state, sends, looks), "{life:?}");
    assert!(life.took <= Duration::from_secs(3600), "{life:?}");
}

#[test]
fn the_bind_window_is_120_seconds() {
    assert!(live(5460, true).took <= BIND_WINDOW);
    // An outage before the first answer does not use it up.
    let late = NOW.checked_add(Duration::from_secs(3600)).unwrap();
    let entry = OutboxEntry { first_sent_at: Some(NOW), ..bind() };
    for code in [5460, 5465] {
        let verdict = advance(&begin_sending(&entry, late), &refused(code), late, 0);
        let looked = match action(&verdict.entry) {
            RowAction::ReadBack => advance(&verdict.entry, &SendOutcome::ReadBack(ReadBack::NotInEffect), late, 0),
            RowAction::Send | RowAction::Nothing => verdict,
        };
        assert_eq!(looked.entry.state, OutboxState::Pending);
        assert_eq!(looked.entry.next_try_at, late.checked_add(WINDOW_CADENCE).ok());
    }
}

#[test]
fn without_a_fresh_code_a_person_is_asked_at_once() {
    for code in [5461, 5462] {
        let life = live(code, false);
        assert_eq!((life.state, life.sends, life.fresh_codes), (OutboxState::WaitingForOperator, 1, 1));
    }
    assert_eq!(live(5213, false).state, OutboxState::Rejected);
    // Nor does the daily look send an expired code again.
    let parked = OutboxEntry { state: OutboxState::WaitingForOperator, last_code: Some(5461), ..bind() };
    let verdict = advance(&parked, &SendOutcome::ReadBack(ReadBack::NotInEffect), NOW, 0);
    assert_eq!(verdict.step, RowStep::FreshCode);
}

#[test]
fn name_and_home_are_dropped_when_they_are_in_the_way() {
    let sent = begin_sending(&bind(), NOW);
    let task = |code| match advance(&sent, &refused(code), NOW, 0).entry.task {
        OutboxTask::Bind(request) => *request,
        other => panic!("{other:?}"),
    };
    assert_eq!(task(5333), BindRequest { device_name: None, ..request() });
    assert_eq!(task(5624), BindRequest { family_id: None, room_id: None, ..request() });
}

#[test]
fn a_person_is_waited_for_one_day() {
    let verdict = advance(&begin_sending(&bind(), NOW), &refused(5229), NOW, 0);
    assert_eq!(verdict.entry.next_try_at, NOW.checked_add(OPERATOR_RECHECK).ok());
    // Then it is looked up, and sent where it is not so.
    assert_eq!(action(&verdict.entry), RowAction::ReadBack);
    let again = advance(&verdict.entry, &SendOutcome::ReadBack(ReadBack::NotInEffect), NOW, 0);
    assert_eq!((again.entry.state, action(&again.entry)), (OutboxState::Pending, RowAction::Send));
}

#[test]
fn an_unreachable_cloud_is_tried_for_ever_at_a_growing_and_bounded_pace() {
    let mut entry = bind();
    let mut now = NOW;
    let mut last = Duration::ZERO;
    for seed in 0..40 {
        let outcome = SendOutcome::NotSent { cause: "no route".to_owned() };
        entry = advance(&begin_sending(&entry, now), &outcome, now, seed).entry;
        assert_eq!(entry.state, OutboxState::Pending);
        let wait = Duration::try_from(entry.next_try_at.unwrap().duration_since(now)).unwrap();
        assert!(wait >= Duration::from_millis(1500) && wait <= BACK_OFF_CAP);
        assert!(wait >= last * 3 / 4);
        (now, last) = (entry.next_try_at.unwrap(), wait);
    }
    assert!(last >= BACK_OFF_CAP * 3 / 4);
}

#[test]
fn other_ids_in_the_cloud_are_a_matter_for_a_person_but_what_an_update_is_for() {
    let mut record = CloudRecord {
        device: request().device,
        device_name: None,
        status: Some(1),
        device_type: Some(1),
        is_matter: true,
        matter_info: Some(CloudMatterInfo { fabric_id: Some(7), node_id: Some(1), ..Default::default() }),
        auth_key: None,
        binding_mode: None,
        family_id: None,
        room_id: None,
    };
    let looked = |task: OutboxTask, record: &CloudRecord, last_code| {
        let entry = OutboxEntry { last_code, ..row(task, OutboxState::Unsettled) };
        let answer = judge(&entry.task, Some(record));
        advance(&entry, &SendOutcome::ReadBack(answer), NOW, 0).entry
    };
    let update = OutboxTask::UpdateMatterInfo(Box::new(request()));
    let parked = looked(bind().task, &record, Some(5049));
    assert_eq!(parked.state, OutboxState::WaitingForOperator);
    assert!(parked.hint.contains("unbind and bind again"));
    assert_eq!(looked(update.clone(), &record, None).state, OutboxState::Pending);
    assert_eq!(looked(update, &record, Some(200)).state, OutboxState::WaitingForOperator, "the cloud bends the ids");
    record.device_type = Some(2);
    assert_eq!(judge(&bind().task, Some(&record)), ReadBack::NotOurs);
}

#[test]
fn signing_in_waits_for_its_time_or_for_a_person() {
    let at = NOW.checked_add(Duration::from_secs(1200)).unwrap();
    let outcome = |not_before| SendOutcome::SignIn { code: Some(5147), message: "locked".to_owned(), not_before };
    let waits = advance(&begin_sending(&bind(), NOW), &outcome(Some(at)), NOW, 0).entry;
    assert_eq!((waits.state, waits.next_try_at), (OutboxState::Pending, Some(at)));
    let asks = advance(&begin_sending(&bind(), NOW), &outcome(None), NOW, 0).entry;
    assert_eq!(asks.state, OutboxState::WaitingForOperator);
}

fn any_state() -> impl Strategy<Value = OutboxState> {
    prop_oneof![
        Just(OutboxState::Pending),
        Just(OutboxState::Sending),
        Just(OutboxState::Unsettled),
        Just(OutboxState::WaitingForOperator),
        Just(OutboxState::Rejected),
    ]
}

fn any_code() -> impl Strategy<Value = i64> {
    prop_oneof![5000i64..6100, Just(200), Just(0), any::<i64>()]
}

fn any_outcome() -> impl Strategy<Value = SendOutcome> {
    prop_oneof![
        Just(SendOutcome::Accepted),
        any_code().prop_map(refused),
        Just(SendOutcome::NotSent { cause: String::new() }),
        Just(SendOutcome::Ambiguous { cause: String::new() }),
        any::<Option<u32>>().prop_map(|at| SendOutcome::SignIn {
            code: None,
            message: String::new(),
            not_before: at.and_then(|at| Timestamp::from_second(i64::from(at)).ok()),
        }),
        prop_oneof![
            Just(ReadBack::InEffect),
            Just(ReadBack::NotInEffect),
            Just(ReadBack::NotOurs),
            Just(ReadBack::Differs(Vec::new()))
        ]
        .prop_map(SendOutcome::ReadBack),
        any::<bool>().prop_map(SendOutcome::FreshCode),
    ]
}

proptest! {
    #[test]
    fn no_answer_loses_a_row_or_sends_blindly(
        state in any_state(),
        outcome in any_outcome(),
        last_code in proptest::option::of(any_code()),
        tries in 0u32..50,
        seed: u64,
    ) {
        let before = OutboxEntry { last_code, tries, tries_in_class: tries, ..row(bind().task, state) };
        let Advance { entry, step } = advance(&before, &outcome, NOW, seed);
        // Done means that the cloud showed it.
        prop_assert_eq!(step == RowStep::Done, state != OutboxState::Rejected && outcome == SendOutcome::ReadBack(ReadBack::InEffect));
        // Only refused rows have no time, and no time lies in the past.
        prop_assert_eq!(entry.next_try_at.is_none() && state != OutboxState::Rejected,
            entry.state == OutboxState::Rejected && state != OutboxState::Rejected);
        prop_assert!(entry.next_try_at.is_none_or(|at| at >= NOW));
        // Whatever may have taken effect is looked up before it is sent again.
        let unknown = match &outcome {
            SendOutcome::Ambiguous { .. } | SendOutcome::Accepted => true,
            SendOutcome::Refused { code, .. } => meaning_of(*code).ambiguous,
            _ => false,
        };
        if unknown && state != OutboxState::Rejected {
            prop_assert_eq!(action(&entry), RowAction::ReadBack);
        }
        prop_assert!(step == RowStep::Done || entry.state != OutboxState::Sending);
    }
}

/// An outage passes by itself; a refusal that stays is somebody's work.
#[test]
fn a_read_back_that_keeps_being_refused_ends_with_a_person() {
    let mut entry = OutboxEntry { first_sent_at: Some(NOW), ..bind() };
    entry.state = OutboxState::Unsettled;
    let mut now = NOW;
    for _ in 0..100 {
        entry = advance(&entry, &refused(5041), now, 1).entry;
        if entry.state != OutboxState::Unsettled {
            break;
        }
        now = entry.next_try_at.unwrap();
    }
    assert_eq!(entry.state, OutboxState::WaitingForOperator);
    assert!(entry.hint.contains("outbox retry 1"), "{}", entry.hint);
    assert!(entry.last_message.contains("5041"), "{}", entry.last_message);
    let taken = Duration::try_from(now.duration_since(NOW)).unwrap();
    assert!(taken >= READ_BACK_PATIENCE && taken < 2 * READ_BACK_PATIENCE, "{taken:?}");
}

#[test]
fn a_cloud_that_cannot_be_reached_is_asked_for_ever() {
    let mut entry = OutboxEntry { first_sent_at: Some(NOW), ..bind() };
    entry.state = OutboxState::Unsettled;
    for _ in 0..100 {
        let now = entry.next_try_at.unwrap();
        entry = advance(&entry, &SendOutcome::NotSent { cause: "no route".to_owned() }, now, 1).entry;
    }
    assert_eq!(entry.state, OutboxState::Unsettled);
}
