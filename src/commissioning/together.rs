//! What attempts that run side by side know of each other: who works on which device, and which passcodes were refused. Not
//! here: what follows from it (`candidates`).

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
        let mut eligibility = Eligibility::Free;
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

    /// How many refused tries of ours a device has borne.
    pub(crate) fn borne(&self, node: &Announced, announced: &[Announced], now: Instant) -> usize {
        self.0.state().refusals.borne(node, announced, now)
    }

    /// A device refused a passcode.
    pub(crate) fn refused(&self, node: &Announced, now: Instant) {
        self.0.state().refusals.note(node, now);
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
