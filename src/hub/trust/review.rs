//! Judges every node again when what is trusted has changed: a device whose certificate was revoked since it joined is
//! named, and so is one that can be accepted now. It stays commissioned either way; that is a person's decision.
//! Not here: the trust store and policy (`judge`), fetching it (`refresh`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::attestation::TrustStore;
use crate::attestation::finding::{Code, Finding, Severity};
use crate::attestation::policy::Outcome;
use crate::durable::StoreError;
use crate::hub::Hub;
use crate::hub::world::World;
use crate::journal::{Event, EventSink, Level};
use crate::node::NodeRecord;
use crate::rhythm::together;

/// `attestation update-paa` writes files and tells nobody.
const LOOK: Duration = Duration::from_secs(15);

/// Runs until the daemon stops.
pub(in crate::hub) async fn follow<W: World>(hub: Arc<Hub<W>>, began: Instant) {
    let mut reviewed: Option<Arc<TrustStore>> = None;
    loop {
        let trust = hub.judge.trust();
        // Where nobody is trusted yet, nothing is known of anybody.
        if trust.paa_count() > 0 && !reviewed.as_ref().is_some_and(|last| Arc::ptr_eq(last, &trust)) {
            match review(&hub, &trust).await {
                Ok(()) => reviewed = Some(trust),
                Err(error) => tracing::warn!(%error, "cannot judge the nodes again now"),
            }
        }
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(together(began.elapsed(), LOOK)) => {}
        }
    }
}

async fn review<W: World>(hub: &Hub<W>, trust: &TrustStore) -> Result<(), StoreError> {
    for record in hub.store.nodes().await? {
        let kept = hub.store.evidence(record.node_id).await?;
        let Some(judgement) = kept.and_then(|kept| hub.judge.again(&kept, trust)) else { continue };
        let (summary, verdict) = (judgement.summary(), &judgement.verdict);
        if codes(&summary.findings) == codes(&record.attestation.findings) {
            continue;
        }
        let now_known = summary.clone();
        match hub.store.modify_node(record.node_id, move |record| record.attestation = now_known).await {
            Ok(_) => {}
            // Removed meanwhile.
            Err(StoreError::Missing(_)) => continue,
            Err(error) => return Err(error),
        }
        hub.journal.record(changed(&record, verdict.outcome, &verdict.reasons()).with("verdict", summary.verdict));
    }
    Ok(())
}

/// What makes one verdict differ from another; wording may change with our version.
fn codes(findings: &[Finding]) -> BTreeSet<(Code, Severity)> {
    findings.iter().map(|finding| (finding.code, finding.severity)).collect()
}

fn changed(record: &NodeRecord, outcome: Outcome, reasons: &str) -> Event {
    let (level, message) = match outcome {
        Outcome::Rejected => {
            (Level::Warn, format!("would not be accepted today: {reasons}; it stays until somebody removes it"))
        }
        Outcome::AcceptedByOverride => (Level::Warn, format!("is accepted because somebody said so only: {reasons}")),
        Outcome::AcceptedWithWarnings => (Level::Warn, format!("is accepted with warnings now: {reasons}")),
        Outcome::Accepted => (Level::Info, "is accepted".to_owned()),
    };
    let message = format!("node {} ({}) {message}", record.node_id, record.name);
    Event::new(Timestamp::now(), level, "attestation-changed", message).with_node(record.node_id)
}
