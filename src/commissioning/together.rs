//! What attempts that run side by side know of each other: who works on which device, which passcodes were refused, and which
//! interrupted attempts may still go on. Not here: what follows from it (`candidates`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::commissioning::candidates::{Eligibility, MOST_TRIES, Refusals};
use crate::node::{Announced, Peer};
use crate::onboarding::OnboardingPayload;

/// Shared by all attempts; clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Together(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    radio: RadioTurn,
}

/// One radio is used by one attempt at a time.
#[derive(Debug)]
struct RadioTurn(Arc<Semaphore>);

impl Default for RadioTurn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

#[derive(Debug, Default)]
struct State {
    claims: Vec<Claim>,
    refusals: Refusals,
    interrupted: Vec<OpenAttempt>,
}

/// An attempt whose device is on our fabric while its fail-safe lasts.
#[derive(Debug)]
struct OpenAttempt {
    expected: Expected,
    went_on: watch::Sender<bool>,
}

/// What is known of an attempt that may go on.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) attempt: Uuid,
    /// What recognises its code.
    pub(crate) fingerprint: Option<u16>,
    pub(crate) discriminator: Option<u16>,
    /// Where its device was, as records write it.
    pub(crate) addresses: Vec<String>,
    /// Then the device has rolled back.
    pub(crate) until: Instant,
}

impl Expected {
    fn is_at(&self, node: &Announced) -> bool {
        node.lan().is_some_and(|node| node.addresses.iter().any(|one| self.addresses.contains(&one.to_string())))
    }

    fn is_of(&self, fingerprint: u16, payload: &OnboardingPayload) -> bool {
        let fits = self.discriminator.is_none_or(|discriminator| payload.discriminator.matches(discriminator));
        fits && self.fingerprint == Some(fingerprint)
    }
}

/// An interrupted attempt as the one sees it that goes on with it: nobody else works on its device until this is dropped.
#[derive(Debug)]
pub(crate) struct Resuming {
    shared: Arc<Shared>,
    attempt: Uuid,
}

/// The same as an attempt with the same code sees it.
#[derive(Debug)]
pub(crate) struct Resumable {
    pub(crate) attempt: Uuid,
    pub(crate) until: Instant,
    went_on: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Claim {
    attempt: Uuid,
    payload: OnboardingPayload,
    instance: String,
    peers: Vec<Peer>,
    proved: bool,
}

impl Claim {
    fn is_on(&self, node: &Announced) -> bool {
        let same = self.instance == node.instance() && !self.instance.is_empty();
        same || node.peers().iter().any(|peer| self.peers.contains(peer))
    }
}

/// A device that one attempt works on, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claimed {
    shared: Arc<Shared>,
    attempt: Uuid,
}

impl Together {
    /// Whether `attempt` may try its passcode on a device; `announced` is who announces itself now.
    pub(crate) fn eligibility(
        &self,
        attempt: Uuid,
        payload: &OnboardingPayload,
        node: &Announced,
        announced: &[Announced],
        now: Instant,
    ) -> Eligibility {
        let state = self.0.state();
        let others = state.claims.iter().filter(|claim| claim.attempt != attempt && claim.is_on(node));
        let is_left =
            state.interrupted.iter().any(|left| left.expected.attempt != attempt && left.expected.is_at(node));
        let mut eligibility = if is_left { Eligibility::BeingTried } else { Eligibility::Free };
        for claim in others {
            eligibility = match (claim.proved, claim.payload.passcode == payload.passcode) {
                (true, true) => return Eligibility::Taken(claim.attempt),
                (true, false) => return Eligibility::NotMeant,
                (false, _) => Eligibility::BeingTried,
            };
        }
        if eligibility == Eligibility::Free && state.refusals.borne(node, announced, now) >= MOST_TRIES {
            eligibility = Eligibility::Forbidden;
        }
        eligibility
    }

    /// Takes a device for an attempt, which works on one at a time; `None` where another attempt was faster.
    pub(crate) fn claim(&self, attempt: Uuid, payload: &OnboardingPayload, node: &Announced) -> Option<Claimed> {
        let mut state = self.0.state();
        if state.claims.iter().any(|claim| claim.attempt != attempt && claim.is_on(node)) {
            return None;
        }
        state.claims.push(Claim {
            attempt,
            payload: payload.clone(),
            instance: node.instance(),
            peers: node.peers(),
            proved: false,
        });
        Some(Claimed { shared: Arc::clone(&self.0), attempt })
    }

    /// An attempt was interrupted that may go on.
    pub(crate) fn expect(&self, expected: Expected) -> Resuming {
        let attempt = expected.attempt;
        self.0.state().interrupted.push(OpenAttempt { expected, went_on: watch::Sender::new(false) });
        Resuming { shared: Arc::clone(&self.0), attempt }
    }

    /// Whether it may still go on.
    pub(crate) fn expects(&self, attempt: Uuid) -> bool {
        self.0.state().interrupted.iter().any(|left| left.expected.attempt == attempt)
    }

    /// The attempt with this code that may still go on.
    pub(crate) fn resumable(&self, fingerprint: u16, payload: &OnboardingPayload) -> Option<Resumable> {
        let state = self.0.state();
        // The last one: whoever came before has left nothing on the device any more.
        let left = state.interrupted.iter().rev().find(|left| left.expected.is_of(fingerprint, payload))?;
        let Expected { attempt, until, .. } = left.expected;
        Some(Resumable { attempt, until, went_on: left.went_on.subscribe() })
    }

    /// How many refused tries of ours a device has borne.
    pub(crate) fn borne(&self, node: &Announced, announced: &[Announced], now: Instant) -> usize {
        self.0.state().refusals.borne(node, announced, now)
    }

    /// A device refused a passcode.
    pub(crate) fn refused(&self, node: &Announced, now: Instant) {
        self.0.state().refusals.add(node, now);
    }

    /// The turn with the radio, if nobody has it.
    pub(crate) fn try_radio(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.radio.0).try_acquire_owned().ok()
    }

    /// The next turn with the radio; `None` never, as nobody closes it.
    pub(crate) async fn radio(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.radio.0).acquire_owned().await.ok()
    }

    /// What changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }
}

impl Shared {
    /// Each use leaves the state whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resuming {
    /// Its device is recorded.
    pub(crate) fn finish(&self) {
        let state = self.shared.state();
        for left in state.interrupted.iter().filter(|left| left.expected.attempt == self.attempt) {
            left.went_on.send_replace(true);
        }
    }
}

impl Drop for Resuming {
    fn drop(&mut self) {
        self.shared.state().interrupted.retain(|left| left.expected.attempt != self.attempt);
        self.shared.changes.send_replace(());
    }
}

impl Resumable {
    /// Comes back when it has ended: whether its device is recorded.
    pub(crate) async fn ended(&mut self) -> bool {
        // An error says that nobody works on it any more.
        let _ = self.went_on.wait_for(|went_on| *went_on).await;
        *self.went_on.borrow()
    }
}

impl Claimed {
    /// The device took the passcode, so it is the one that the code is for.
    pub(crate) fn prove(&self) {
        let mut state = self.shared.state();
        state.claims.iter_mut().filter(|claim| claim.attempt == self.attempt).for_each(|claim| claim.proved = true);
        drop(state);
        self.shared.changes.send_replace(());
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.shared.state().claims.retain(|claim| claim.attempt != self.attempt);
        self.shared.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{CommissionableNode, CommissionableTxt, ScopedAddress};
    use crate::onboarding::{Discriminator, OnboardingPayload, Rendezvous};
    use crate::secret::Passcode;

    fn payload(passcode: u32) -> OnboardingPayload {
        OnboardingPayload {
            discriminator: Discriminator::Short(15),
            passcode: Passcode::new(passcode),
            vid_pid: None,
            flow: None,
            rendezvous: Rendezvous::ANYWHERE,
        }
    }

    fn node(instance: &str) -> Announced {
        Announced::Lan(CommissionableNode {
            instance: instance.to_owned(),
            addresses: vec![ScopedAddress { ip: std::net::Ipv4Addr::new(192, 0, 2, 1).into(), scope: None }],
            port: 5540,
            txt: CommissionableTxt::default(),
        })
    }

    #[test]
    fn a_device_belongs_to_one_attempt_at_a_time() {
        let together = Together::default();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (own, other, device) = (payload(1), payload(2), node("A"));
        let eligibility =
            |payload: &OnboardingPayload| together.eligibility(second, payload, &device, &[], Instant::now());
        let claimed = together.claim(first, &own, &device).expect("nobody has it");
        assert!(together.claim(second, &other, &device).is_none());
        assert_eq!(eligibility(&other), Eligibility::BeingTried);
        claimed.prove();
        assert_eq!(eligibility(&own), Eligibility::Taken(first));
        assert_eq!(eligibility(&other), Eligibility::NotMeant);
        drop(claimed);
        assert_eq!(eligibility(&other), Eligibility::Free);
    }

    #[tokio::test]
    async fn a_device_that_was_left_in_the_middle_is_nobody_elses() {
        let together = Together::default();
        let (left, next, device) = (Uuid::from_u128(1), Uuid::from_u128(2), node("A"));
        let eligibility = || together.eligibility(next, &payload(1), &device, &[], Instant::now());
        let until = Instant::now();
        for went_on in [false, true] {
            let addresses = vec!["192.0.2.1".to_owned()];
            let expected =
                Expected { attempt: left, fingerprint: Some(7), discriminator: Some(0xF00), addresses, until };
            let resuming = together.expect(expected);
            assert_eq!((eligibility(), together.expects(left)), (Eligibility::BeingTried, true));
            assert!(together.resumable(8, &payload(1)).is_none());
            let mut resumable = together.resumable(7, &payload(1)).expect("it has this code");
            assert_eq!(resumable.attempt, left);
            if went_on {
                resuming.finish();
            } else {
                drop(resuming);
            }
            assert_eq!(resumable.ended().await, went_on);
        }
        assert_eq!((eligibility(), together.expects(left)), (Eligibility::Free, false));
    }

    #[test]
    fn the_limit_holds_over_attempts() {
        let together = Together::default();
        let device = node("A");
        let announced = [device.clone()];
        let eligibility = || together.eligibility(Uuid::nil(), &payload(1), &device, &announced, Instant::now());
        for _ in 0..MOST_TRIES {
            assert_eq!(eligibility(), Eligibility::Free);
            together.refused(&device, Instant::now());
        }
        assert_eq!(eligibility(), Eligibility::Forbidden);
        assert_eq!(together.borne(&device, &announced, Instant::now()), MOST_TRIES);
    }
}
