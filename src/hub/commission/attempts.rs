//! The attempts under way: how many there may be, who listens to each, and whose turn it is. Whoever asks for a device that an
//! attempt is bringing in listens to that one. Not here: what an attempt does (`commission`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use super::{CommissionEvent, CommissionResult, ProgressSink};
use crate::commissioning::error::Disposition;
use crate::hub::refusal::Refusal;
use crate::onboarding::OnboardingPayload;

/// More at once than this are no home's: a script has gone wild.
const MOST: usize = 64;

pub(crate) struct Attempts {
    turns: Arc<Semaphore>,
    under_way: Arc<Mutex<HashMap<Uuid, Arc<UnderWay>>>>,
}

/// One attempt and who listens to it.
pub(super) struct UnderWay {
    payload: OnboardingPayload,
    address: Option<SocketAddr>,
    listeners: Mutex<Listeners>,
    result: watch::Sender<Option<CommissionResult>>,
}

#[derive(Default)]
struct Listeners {
    told: Vec<CommissionEvent>,
    all: Vec<ProgressSink>,
}

/// What became of a request.
pub(super) enum Begun {
    /// It is an attempt of its own; it is under way until the guard goes.
    New(Guard),
    /// An attempt with this code is under way.
    Joined(Arc<UnderWay>),
}

/// Takes the attempt out when it has ended.
pub(super) struct Guard {
    id: Uuid,
    attempt: Arc<UnderWay>,
    under_way: Arc<Mutex<HashMap<Uuid, Arc<UnderWay>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attempts {
    /// `at_once` of them may work on a device at the same time.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once)), under_way: Arc::default() }
    }

    /// How many there are.
    pub(in crate::hub) fn count(&self) -> usize {
        locked(&self.under_way).len()
    }

    /// Whether this one is under way.
    pub(in crate::hub) fn contains(&self, attempt: Uuid) -> bool {
        locked(&self.under_way).contains_key(&attempt)
    }

    pub(super) fn get(&self, attempt: Uuid) -> Option<Arc<UnderWay>> {
        locked(&self.under_way).get(&attempt).cloned()
    }

    /// Begins an attempt, or joins the one with the same code.
    pub(super) fn begin(
        &self,
        id: Uuid,
        payload: &OnboardingPayload,
        address: Option<SocketAddr>,
        progress: ProgressSink,
    ) -> Result<Begun, Refusal> {
        let mut under_way = locked(&self.under_way);
        if let Some(same) = under_way.values().find(|other| other.payload == *payload && other.address == address) {
            same.join(progress);
            return Ok(Begun::Joined(Arc::clone(same)));
        }
        if under_way.len() >= MOST {
            let message = format!("{MOST} attempts are under way already");
            let hint = "wait until some of them have ended: `matterbind status` tells how many are left";
            return Err(Refusal::new("too-many-attempts", Disposition::Retry, message, hint));
        }
        let attempt = Arc::new(UnderWay {
            payload: payload.clone(),
            address,
            listeners: Mutex::default(),
            result: watch::Sender::new(None),
        });
        attempt.join(progress);
        attempt.report(CommissionEvent::Accepted { attempt_id: id });
        under_way.insert(id, Arc::clone(&attempt));
        Ok(Begun::New(Guard { id, attempt, under_way: Arc::clone(&self.under_way) }))
    }

    /// The next turn to work on a device; `None` only where the daemon ends.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }
}

impl UnderWay {
    fn join(&self, progress: ProgressSink) {
        let mut listeners = locked(&self.listeners);
        listeners.told.iter().for_each(|event| progress.report(event.clone()));
        listeners.all.push(progress);
    }

    /// Tells everybody who listens, and who will.
    pub(super) fn report(&self, event: CommissionEvent) {
        let mut listeners = locked(&self.listeners);
        listeners.all.iter().for_each(|listener| listener.report(event.clone()));
        listeners.told.push(event);
    }

    /// Comes back when nobody listens any more.
    pub(super) async fn abandoned(&self) {
        loop {
            let Some(listener) = locked(&self.listeners).all.iter().find(|one| !one.has_left()).cloned() else {
                return;
            };
            listener.left().await;
        }
    }

    /// What comes of it; `None` where it ended without a result, which only a panic brings about.
    pub(super) async fn result(&self) -> Option<CommissionResult> {
        let mut result = self.result.subscribe();
        let known = result.wait_for(Option::is_some).await.ok()?;
        known.clone()
    }
}

impl Guard {
    pub(super) fn attempt(&self) -> &UnderWay {
        &self.attempt
    }

    /// The attempt has ended. It is taken out first, so that nobody joins what is over.
    pub(super) fn finish(self, result: &CommissionResult) {
        locked(&self.under_way).remove(&self.id);
        self.attempt.result.send_replace(Some(result.clone()));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        locked(&self.under_way).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onboarding::SetupCode;

    fn payload(code: &str) -> OnboardingPayload {
        SetupCode::new(code).parse().expect("a code")
    }

    fn begin(
        attempts: &Attempts,
        id: u128,
        code: &str,
    ) -> (Result<Begun, Refusal>, tokio::sync::mpsc::UnboundedReceiver<CommissionEvent>) {
        let (progress, events) = ProgressSink::channel();
        (attempts.begin(Uuid::from_u128(id), &payload(code), None, progress), events)
    }

    #[tokio::test]
    async fn a_second_request_for_a_device_hears_what_the_first_hears() {
        let attempts = Attempts::new(1);
        let (Ok(Begun::New(first)), mut heard) = begin(&attempts, 1, "34970112332") else { panic!("it begins") };
        let (Ok(Begun::Joined(second)), mut also) = begin(&attempts, 2, "3497-011-2332") else { panic!("it joins") };
        assert!(matches!(begin(&attempts, 3, "MT:-24J0AFN00KA0648G00").0, Ok(Begun::New(_))));
        let note = CommissionEvent::Note { message: "on its way".to_owned() };
        first.attempt().report(note.clone());
        for events in [&mut heard, &mut also] {
            assert_eq!(events.recv().await, Some(CommissionEvent::Accepted { attempt_id: Uuid::from_u128(1) }));
            assert_eq!(events.recv().await, Some(note.clone()));
        }
        let error = crate::commissioning::error::CommissioningError::Abandoned;
        let result = CommissionResult::Failed(super::super::Failure::new(Uuid::from_u128(1), &error));
        first.finish(&result);
        assert_eq!(second.result().await, Some(result));
        assert_eq!(attempts.count(), 0);
    }

    #[tokio::test]
    async fn an_attempt_is_abandoned_when_the_last_of_its_clients_has_left() {
        let attempts = Attempts::new(1);
        let (Ok(Begun::New(first)), heard) = begin(&attempts, 1, "34970112332") else { panic!("it begins") };
        let (Ok(Begun::Joined(_)), also) = begin(&attempts, 2, "34970112332") else { panic!("it joins") };
        drop(heard);
        let waiting = first.attempt().abandoned();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(also);
        waiting.await;
    }

    #[tokio::test]
    async fn there_is_a_bound() {
        let attempts = Attempts::new(1);
        let mut begun = Vec::new();
        for id in 0..MOST as u128 {
            let (progress, _) = ProgressSink::channel();
            let payload = OnboardingPayload {
                passcode: crate::secret::Passcode::new(1000 + id as u32),
                ..payload("34970112332")
            };
            begun.push(attempts.begin(Uuid::from_u128(id), &payload, None, progress).expect("there is room"));
        }
        let refused = begin(&attempts, 99, "34970112332").0.err().expect("there is none left");
        assert_eq!(refused.code, "too-many-attempts");
        begun.pop();
        assert!(begin(&attempts, 99, "34970112332").0.is_ok());
    }
}
