//! What is kept of a sign-in over a restart, and the port to whatever keeps it.

use std::future::Future;
use std::sync::Mutex;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::durable::StoreError;
use crate::secret::{AccessToken, RefreshToken};

/// Both tokens. Times are by the local clock: the lifetime that the answer gave, counted from when it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// Sent with every call.
    pub access: AccessToken,
    pub access_expires_at: Timestamp,
    /// Buys a new pair.
    pub refresh: RefreshToken,
    pub refresh_expires_at: Timestamp,
}

/// Signing in is not possible now (cloud-contract 2.3). Kept, so that a restart does not cost the account one more try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInBlock {
    pub code: i64,
    /// What to tell the operator.
    pub message: String,
    /// `None`: not before the operator has changed password or secret.
    pub not_before: Option<Timestamp>,
    /// Digest of the credentials that were refused, to notice a change.
    pub credentials: String,
}

/// Everything that a restart must not forget. Secret as a whole: keep it sealed or with mode 0600.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredTokens {
    /// Whose: service, domain and account. Those of another account are not used.
    pub account: String,
    /// The tokens, if signed in.
    pub pair: Option<TokenPair>,
    /// Why no sign-in is tried, if none is.
    pub block: Option<SignInBlock>,
}

/// [`StoredTokens`] in bytes.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    account: std::borrow::Cow<'a, str>,
    pair: Option<WirePair<'a>>,
    block: Option<std::borrow::Cow<'a, SignInBlock>>,
}

#[derive(Serialize, Deserialize)]
struct WirePair<'a> {
    access: std::borrow::Cow<'a, str>,
    access_expires_at: Timestamp,
    refresh: std::borrow::Cow<'a, str>,
    refresh_expires_at: Timestamp,
}

impl StoredTokens {
    /// As bytes, for a store that seals them.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let wire = Wire {
            account: self.account.as_str().into(),
            pair: self.pair.as_ref().map(|pair| WirePair {
                access: pair.access.expose().into(),
                access_expires_at: pair.access_expires_at,
                refresh: pair.refresh.expose().into(),
                refresh_expires_at: pair.refresh_expires_at,
            }),
            block: self.block.as_ref().map(std::borrow::Cow::Borrowed),
        };
        Zeroizing::new(serde_json::to_vec(&wire).expect("strings and times always serialise"))
    }

    /// The inverse of [`Self::to_bytes`]; `None` for anything else. Losing tokens only costs a sign-in.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let wire: Wire<'_> = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            account: wire.account.into_owned(),
            pair: wire.pair.map(|pair| TokenPair {
                access: AccessToken::new(pair.access),
                access_expires_at: pair.access_expires_at,
                refresh: RefreshToken::new(pair.refresh),
                refresh_expires_at: pair.refresh_expires_at,
            }),
            block: wire.block.map(std::borrow::Cow::into_owned),
        })
    }
}

/// Keeps tokens over a restart.
pub trait TokenStore: Send + Sync + 'static {
    /// What was saved last, if anything.
    fn load(&self) -> impl Future<Output = Result<Option<StoredTokens>, StoreError>> + Send;
    /// Replaces it; durable when it returns.
    fn save(&self, tokens: &StoredTokens) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Forgets everything with the process; for tests and for `demo`.
#[derive(Debug, Default)]
pub struct MemoryTokens(Mutex<Option<StoredTokens>>);

impl MemoryTokens {
    /// Starts with what an earlier process would have left.
    pub fn holding(tokens: StoredTokens) -> Self {
        Self(Mutex::new(Some(tokens)))
    }

    /// Forgets it now.
    pub fn forget(&self) {
        *self.0.lock().expect("nothing panics while it holds the lock") = None;
    }

    /// What it holds.
    pub fn current(&self) -> Option<StoredTokens> {
        self.0.lock().expect("nothing panics while it holds the lock").clone()
    }
}

impl TokenStore for MemoryTokens {
    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        Ok(self.current())
    }

    async fn save(&self, tokens: &StoredTokens) -> Result<(), StoreError> {
        *self.0.lock().expect("nothing panics while it holds the lock") = Some(tokens.clone());
        Ok(())
    }
}

impl<T: TokenStore> TokenStore for std::sync::Arc<T> {
    fn load(&self) -> impl Future<Output = Result<Option<StoredTokens>, StoreError>> + Send {
        T::load(self)
    }

    fn save(&self, tokens: &StoredTokens) -> impl Future<Output = Result<(), StoreError>> + Send {
        T::save(self, tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_garbage_is_no_token() {
        let tokens = StoredTokens {
            account: "a".to_owned(),
            pair: Some(TokenPair {
                access: AccessToken::new("Bearer \"x\""),
                access_expires_at: Timestamp::UNIX_EPOCH,
                refresh: RefreshToken::new("Bearer y"),
                refresh_expires_at: Timestamp::UNIX_EPOCH,
            }),
            block: Some(SignInBlock {
                code: 5147,
                message: "locked".to_owned(),
                not_before: None,
                credentials: "d".to_owned(),
            }),
        };
        assert_eq!(StoredTokens::from_bytes(&tokens.to_bytes()), Some(tokens));
        assert_eq!(StoredTokens::from_bytes(b"garbage"), None);
    }
}
