//! The hub's sign-in: one token pair, renewed ahead of time, by one request however many calls wait for it
//! (cloud-contract 2.3).
//!
//! Expiry is counted from the moment of the answer on the monotonic clock, so that a wrong wall clock does no harm.
//! A refused password is never tried again by itself: the account would be locked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::health::HealthCell;
use super::login;
use super::tokens::{SignInBlock, StoredTokens, TokenPair, TokenStore};
use super::transport::Transport;
use super::wire::TokensData;
use crate::config::CloudConfig;
use crate::config::secret_file::{self, SecretFileError};
use crate::failpoint;
use crate::outbox::ports::CloudError;
use crate::plain;
use crate::rhythm::Place;
use crate::secret::{AccessToken, OperatorSecret, RefreshToken};

mod judge;

const SIGN_IN: &str = "/v2/enduser/enduserapi/emailPwdLogin";
const REFRESH: &str = "/v2/enduser/enduserapi/refreshToken";
/// The access token is renewed this long before it expires at least, or at three quarters of a shorter life; and with half of
/// its life left at most.
pub const RENEW_AHEAD: Duration = Duration::from_secs(300);
/// After a renewal ahead of time that did not reach the service, the old token serves this much longer first.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// No lock lasts longer (5325: 24 h): a later time was written by a clock that was wrong.
const LONGEST_LOCK: SignedDuration = SignedDuration::from_hours(25);

/// An access token, and which of them it is.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) token: AccessToken,
    generation: u64,
}

/// How a token that the service refused is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// With the refresh token; by signing in where that fails.
    Refresh,
    /// With the password.
    SignIn,
}

/// Who signs in where.
struct Account {
    /// Service, domain and email, to know whose tokens are stored.
    label: String,
    user_domain: String,
    email: String,
    secret_file: std::path::PathBuf,
    password_file: std::path::PathBuf,
}

struct Live {
    pair: TokenPair,
    renew_at: Instant,
    expires_at: Instant,
}

#[derive(Default)]
struct State {
    loaded: bool,
    live: Option<Live>,
    block: Option<SignInBlock>,
    /// Counts token pairs.
    generation: u64,
    /// How the last attempt ended, if badly: those who waited for it share its outcome.
    failure: Option<(u64, CloudError)>,
}

pub(super) struct Session<T> {
    account: Account,
    transport: Arc<Transport>,
    store: T,
    state: Mutex<State>,
    /// Counts attempts to get a token that have failed; read before waiting for `state`, so that whoever waited while
    /// one failed knows it.
    failures: AtomicU64,
    health: Arc<HealthCell>,
    /// Hubs that signed in together do not renew together.
    place: Place,
}

impl<T: TokenStore> Session<T> {
    pub(super) fn new(config: &CloudConfig, transport: Arc<Transport>, store: T, health: Arc<HealthCell>) -> Self {
        let account = Account {
            label: format!("{} {} {}", config.base_url, config.user_domain, config.email),
            user_domain: config.user_domain.clone(),
            email: config.email.clone(),
            secret_file: config.user_domain_secret_file.clone(),
            password_file: config.password_file.clone(),
        };
        let (state, failures, place) = (Mutex::default(), AtomicU64::new(0), Place::of(rand::random()));
        Self { account, transport, store, state, failures, health, place }
    }

    /// A token that should be good for a while.
    pub(super) async fn lease(&self) -> Result<Lease, CloudError> {
        let seen = self.failures.load(Ordering::Acquire);
        let mut state = self.lock().await;
        match &state.live {
            Some(live) if Instant::now() < live.renew_at => return Ok(state.lease(live)),
            _ => state.share_failure_since(seen)?,
        }
        let still_good =
            state.live.as_ref().filter(|live| Instant::now() < live.expires_at).map(|live| state.lease(live));
        match (self.obtain(&mut state, Renewal::Refresh).await, still_good) {
            (Ok((lease, _)), _) => Ok(lease),
            // Too early to give up: what could not be renewed is good for some minutes yet.
            (Err(error), Some(lease)) => {
                tracing::warn!(%error, "cannot renew the cloud token ahead of time; using it until it expires");
                if let Some(live) = &mut state.live {
                    live.renew_at = Instant::now() + RENEW_AGAIN;
                }
                Ok(lease)
            }
            (Err(error), _) => Err(self.failed(&mut state, error)),
        }
    }

    /// Replaces a token that the service refused, unless another call has done so meanwhile.
    pub(super) async fn renew(&self, stale: &Lease, by: Renewal) -> Result<(Lease, Renewal), CloudError> {
        let seen = self.failures.load(Ordering::Acquire);
        let mut state = self.lock().await;
        if let Some(live) = state.live.as_ref().filter(|_| state.generation != stale.generation) {
            return Ok((state.lease(live), by));
        }
        state.share_failure_since(seen)?;
        match self.obtain(&mut state, by).await {
            Ok(renewed) => Ok(renewed),
            Err(error) => Err(self.failed(&mut state, error)),
        }
    }

    /// Lets the next call sign in again, whatever was refused before: an operator asked for it.
    pub(super) async fn forget_block(&self) {
        let mut state = self.lock().await;
        state.block = None;
        state.failure = None;
        self.keep(&state).await;
    }

    async fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().await;
        if !state.loaded {
            self.load(&mut state).await;
        }
        state
    }

    async fn load(&self, state: &mut State) {
        state.loaded = true;
        match self.store.load().await {
            Ok(Some(stored)) if stored.account == self.account.label => {
                state.block = stored.block;
                if let Some(pair) = stored.pair {
                    state.install(pair, self.place, Timestamp::now());
                }
                self.show(state);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read the kept cloud tokens; signing in again"),
        }
    }

    async fn keep(&self, state: &State) {
        let stored = StoredTokens {
            account: self.account.label.clone(),
            pair: state.live.as_ref().map(|live| live.pair.clone()),
            block: state.block.clone(),
        };
        failpoint::reach("tokens.before");
        if let Err(error) = self.store.save(&stored).await {
            tracing::warn!(%error, "cannot keep the cloud tokens; a restart will have to sign in again");
        }
        failpoint::reach("tokens.saved");
        self.show(state);
    }

    fn show(&self, state: &State) {
        self.health.update(|health| {
            health.token_expires_at = state.live.as_ref().map(|live| live.pair.access_expires_at);
            health.sign_in_blocked = state.block.as_ref().map(|block| block.message.clone());
            health.sign_in_not_before = state.block.as_ref().and_then(|block| block.not_before);
        });
    }

    fn failed(&self, state: &mut State, error: CloudError) -> CloudError {
        let number = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        state.failure = Some((number, error.clone()));
        error
    }

    async fn obtain(&self, state: &mut State, by: Renewal) -> Result<(Lease, Renewal), CloudError> {
        let refresh = state.live.as_ref().map(|live| live.pair.refresh.clone()).filter(|_| by == Renewal::Refresh);
        let (data, how) = match refresh {
            Some(token) => match self.refresh(&token).await {
                Ok(data) => (data, Renewal::Refresh),
                // Any answer but success means a full sign-in; no answer means that there is no service now.
                Err(CloudError::Code { .. }) => (self.sign_in(state).await?, Renewal::SignIn),
                Err(CloudError::Foreign { answer, .. }) if answer.status == 401 => {
                    (self.sign_in(state).await?, Renewal::SignIn)
                }
                Err(error) => return Err(judge::without_answer(error)),
            },
            None => (self.sign_in(state).await?, Renewal::SignIn),
        };
        let now = Timestamp::now();
        let Some(pair) = judge::tokens(data, now) else {
            let cause = "the cloud's sign-in answer has no tokens".to_owned();
            return Err(CloudError::NotSent { cause });
        };
        state.block = None;
        state.failure = None;
        state.install(pair, self.place, now);
        self.keep(state).await;
        tracing::info!(by = ?how, "signed in to the cloud");
        let live = state.live.as_ref().expect("installed above");
        Ok((state.lease(live), how))
    }

    async fn refresh(&self, token: &RefreshToken) -> Result<Value, CloudError> {
        // In the body, not in the query as documented: addresses get logged on the way (cloud-contract 1).
        let request = self.transport.request(Method::PUT, REFRESH).form(&[("refreshToken", token.expose())]);
        self.transport.send("refreshToken", request).await
    }

    async fn sign_in(&self, state: &mut State) -> Result<Value, CloudError> {
        let (secret, password) = self.read_secrets().await?;
        let credentials = login::signature(&[secret.expose(), "\n", &self.account.email, "\n", password.expose()]);
        if let Some(block) = &state.block {
            let now = Timestamp::now();
            let over = block.not_before.is_some_and(|time| time <= now || time > now + LONGEST_LOCK);
            if block.credentials == credentials && !over {
                return Err(judge::blocked(block));
            }
        }
        let random = login::fresh_random();
        let pwd = login::encrypt_password(password.expose(), &random);
        let signature = login::signature(&[&self.account.email, &pwd, &random, secret.expose()]);
        let form = [
            ("email", self.account.email.as_str()),
            ("pwd", &pwd),
            ("random", &random),
            ("signature", &signature),
            ("userDomain", &self.account.user_domain),
        ];
        let request = self.transport.request(Method::POST, SIGN_IN).form(&form);
        match self.transport.send("emailPwdLogin", request).await {
            Ok(data) => Ok(data),
            // Only the service's own word blocks: a page in between says nothing about the account.
            Err(CloudError::Code { code, message }) => {
                let block = judge::refusal(code, &message, credentials, Timestamp::now());
                tracing::warn!(code, message = block.message, not_before = ?block.not_before, "the cloud refused the sign-in");
                let error = judge::blocked(&block);
                state.block = Some(block);
                self.keep(state).await;
                Err(error)
            }
            Err(error) => Err(judge::without_answer(error)),
        }
    }

    async fn read_secrets(&self) -> Result<(OperatorSecret, OperatorSecret), CloudError> {
        let (secret, password) = (self.account.secret_file.clone(), self.account.password_file.clone());
        let read =
            tokio::task::spawn_blocking(move || Ok((secret_file::read(&secret)?, secret_file::read(&password)?)));
        let refused = |message: String| CloudError::SignIn { code: None, message, not_before: None };
        match read.await {
            Ok(Ok(secrets)) => Ok(secrets),
            Ok(Err::<_, SecretFileError>(error)) => Err(refused(plain::with_causes(&error))),
            Err(error) => Err(refused(format!("the secrets could not be read: {error}"))),
        }
    }
}

impl State {
    fn lease(&self, live: &Live) -> Lease {
        Lease { token: live.pair.access.clone(), generation: self.generation }
    }

    fn install(&mut self, pair: TokenPair, place: Place, now: Timestamp) {
        let left = Duration::try_from(pair.access_expires_at.duration_since(now)).unwrap_or_default();
        let expires_at = Instant::now() + left;
        self.generation += 1;
        self.live =
            Some(Live { pair, renew_at: expires_at - place.between(RENEW_AHEAD.min(left / 4), left / 2), expires_at });
    }

    fn share_failure_since(&self, seen: u64) -> Result<(), CloudError> {
        match &self.failure {
            Some((number, error)) if *number > seen => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
