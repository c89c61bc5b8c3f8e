//! The outbox's entries in the admin log: one for each change that means something to a person.

use jiff::Timestamp;

use crate::journal::{Event, Level};
use crate::outbox::ports::{OutboxEntry, OutboxState, OutboxTask};
use crate::outbox::schedule::{ReadBack, SendOutcome};

/// The cloud acknowledged a bind and shows something else.
pub(super) fn alarm(entry: &OutboxEntry, outcome: &SendOutcome, now: Timestamp) -> Option<Event> {
    let SendOutcome::ReadBack(ReadBack::Differs(fields)) = outcome else { return None };
    if entry.last_code != Some(200) {
        return None;
    }
    let names: Vec<&str> = fields.iter().map(|field| field.field.as_str()).collect();
    let message =
        format!("the cloud acknowledged the bind of node {} and shows another {}", entry.node_id, names.join(", "));
    let differences = serde_json::to_value(fields).unwrap_or_default();
    Some(about(entry, Event::new(now, Level::Error, "cloud-ids-differ", message)).with("differences", differences))
}

/// The row is done.
pub(super) fn done(entry: &OutboxEntry, now: Timestamp) -> Event {
    let node = entry.node_id;
    let (kind, message) = match &entry.task {
        OutboxTask::Bind(_) => ("node-bound", format!("node {node} is bound in the cloud and read back")),
        OutboxTask::UpdateMatterInfo(_) => {
            ("node-bound", format!("node {node} is bound in the cloud with its new Matter identity and read back"))
        }
        OutboxTask::Unbind(_) => ("node-unbound", format!("node {node} is no longer bound in the cloud")),
        OutboxTask::Rename { .. } => ("node-renamed-in-cloud", format!("the cloud shows the new name of node {node}")),
        OutboxTask::MoveRoom { .. } => ("node-moved-in-cloud", format!("the cloud shows the new room of node {node}")),
    };
    about(entry, Event::new(now, Level::Info, kind, message)).with("tries", entry.tries)
}

/// The row stands differently than before; `None` where it only waits on for the same reason.
pub(super) fn standing(before: &OutboxEntry, entry: &OutboxEntry, now: Timestamp) -> Option<Event> {
    let key = |entry: &OutboxEntry| (waits(entry.state), entry.last_code, entry.tries == 0);
    if key(before) == key(entry) {
        return None;
    }
    let bind = matches!(entry.task, OutboxTask::Bind(_) | OutboxTask::UpdateMatterInfo(_));
    let (level, kind) = match (entry.state, bind) {
        (OutboxState::Rejected, true) => (Level::Error, "bind-rejected"),
        (OutboxState::Rejected, false) => (Level::Error, "cloud-work-rejected"),
        (OutboxState::WaitingForOperator, _) => (Level::Warn, "needs-operator"),
        (OutboxState::Pending | OutboxState::Sending | OutboxState::Unsettled, true) => (Level::Info, "bind-pending"),
        (OutboxState::Pending | OutboxState::Sending | OutboxState::Unsettled, false) => {
            (Level::Info, "cloud-work-pending")
        }
    };
    let reason = match (entry.last_code, entry.last_message.as_str()) {
        (Some(code), message) => format!("{code} {message}"),
        (None, "") => "not sent yet".to_owned(),
        (None, message) => message.to_owned(),
    };
    let message = format!("{} of node {}: {reason}", entry.task.kind(), entry.node_id);
    let mut event = about(entry, Event::new(now, level, kind, message)).with("tries", entry.tries);
    if !entry.hint.is_empty() {
        event = event.with("hint", entry.hint.as_str());
    }
    if let Some(at) = entry.next_try_at {
        event = event.with("next_try_at", at.to_string());
    }
    Some(event)
}

/// Waiting for the clock is one standing, whatever is done when it has come.
fn waits(state: OutboxState) -> u8 {
    match state {
        OutboxState::Pending | OutboxState::Sending | OutboxState::Unsettled => 0,
        OutboxState::WaitingForOperator => 1,
        OutboxState::Rejected => 2,
    }
}

fn about(entry: &OutboxEntry, event: Event) -> Event {
    let event = event.with_node(entry.node_id).with_outbox(entry.id.0).with("task", entry.task.kind());
    match entry.last_code {
        Some(code) => event.with("code", code),
        None => event,
    }
}
