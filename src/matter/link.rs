//! The hub's Matter side as the rest of it sees it: the port `MatterLink`, implemented.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::commissioning::ports::{IssuedNoc, LinkError, MatterLink};
use crate::matter::credentials::{CredentialError, Credentials};
use crate::matter::handshake::Goal;
use crate::matter::operational::CaseLink;
use crate::matter::pase::PaseLink;
use crate::matter::session;
use crate::matter::stack::Stack;
use crate::node::NodeId;
use crate::secret::Passcode;

/// See [`MatterLink`]. Clones share the stack.
#[derive(Clone)]
pub struct Link {
    stack: Stack,
    credentials: Arc<Credentials>,
}

impl Link {
    /// A link over a running stack that was started with the same bundle.
    pub fn new(stack: Stack, credentials: Arc<Credentials>) -> Self {
        Self { stack, credentials }
    }

    /// The stack.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The fabric's credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

impl MatterLink for Link {
    type Pase = PaseLink;
    type Case = CaseLink;

    async fn open_pase(
        &self,
        addresses: &[SocketAddr],
        passcode: &Passcode,
        budget: Duration,
    ) -> Result<PaseLink, LinkError> {
        let (stack, credentials) = (self.stack.clone(), Arc::clone(&self.credentials));
        let (addresses, passcode) = (addresses.to_vec(), passcode.clone());
        self.stack
            .run(move |context| async move {
                let opened = session::open(&context, &addresses, budget, Goal::Pase(passcode)).await?;
                let challenge = opened
                    .challenge
                    .ok_or_else(|| LinkError::Stack { what: "PASE gave no attestation challenge".to_owned() })?;
                Ok(PaseLink { session: opened.session(stack), challenge, credentials })
            })
            .await
    }

    async fn open_case(&self, node: NodeId, addresses: &[SocketAddr], budget: Duration) -> Result<CaseLink, LinkError> {
        let (stack, addresses) = (self.stack.clone(), addresses.to_vec());
        self.stack
            .run(move |context| async move {
                let opened = session::open(&context, &addresses, budget, Goal::Case(node)).await?;
                Ok(CaseLink { session: opened.session(stack) })
            })
            .await
    }

    async fn issue_noc(&self, node: NodeId, csr: &[u8]) -> Result<IssuedNoc, LinkError> {
        let (credentials, csr) = (Arc::clone(&self.credentials), csr.to_vec());
        // Two signatures and a verification: not on tokio's workers.
        let noc = tokio::task::spawn_blocking(move || credentials.issue_noc(node, &csr))
            .await
            .map_err(|error| LinkError::Stack { what: error.to_string() })?
            .map_err(|error| match error {
                CredentialError::Csr => LinkError::Malformed { what: error.to_string() },
                CredentialError::TooManyCats(_)
                | CredentialError::TwoVersions(_)
                | CredentialError::Validity(_)
                | CredentialError::Unusable(_) => LinkError::Stack { what: error.to_string() },
            })?;
        Ok(IssuedNoc { node_id: node, noc })
    }
}
