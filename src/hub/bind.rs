//! Joins store, cloud and devices for the outbox: where tokens are kept, and where fresh binding codes come from.

use std::sync::Arc;
use std::time::Duration;

use super::reach::{OPEN, Reach};
use super::world::World;
use crate::bind::MatterInfo;
use crate::cloud::{StoredTokens, TokenStore};
use crate::commissioning::identity::{Profile, binding_code_from};
use crate::durable::StoreError;
use crate::node::NodeId;
use crate::outbox::ports::BindingCodeSource;
use crate::secret::BindingCode;
use crate::store::{Store, TOKENS};

/// Asking a device for a fresh code may take no longer; the outbox waits meanwhile.
const FRESH_CODE: Duration = Duration::from_secs(20);

/// Tokens in the database, sealed.
pub(crate) struct StoredTokenStore {
    store: Store,
}

impl StoredTokenStore {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl TokenStore for StoredTokenStore {
    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        // Tokens that cannot be read are no loss: the client signs in again.
        Ok(self.store.load_secret(TOKENS).await?.and_then(|bytes| StoredTokens::from_bytes(&bytes)))
    }

    async fn save(&self, tokens: &StoredTokens) -> Result<(), StoreError> {
        self.store.save_secret(TOKENS, &tokens.to_bytes()).await
    }
}

/// Fresh binding codes, by the product's profile.
pub(crate) struct DeviceCodes<W: World> {
    pub(crate) store: Store,
    pub(crate) reach: Arc<Reach<W>>,
    pub(crate) profiles: Vec<Profile>,
}

impl<W: World> BindingCodeSource for DeviceCodes<W> {
    async fn fresh_code(&self, node: NodeId, info: &MatterInfo) -> Option<BindingCode> {
        let profile = Profile::of(&self.profiles, (info.vendor_id, info.product_id))?;
        let fresh = async {
            let record = self.store.node(node).await.ok().flatten()?;
            let session = self.reach.open(&record, OPEN).await.ok()?;
            binding_code_from(profile.binding_code, &session).await.ok()
        };
        tokio::time::timeout(FRESH_CODE, fresh).await.ok().flatten()
    }
}
