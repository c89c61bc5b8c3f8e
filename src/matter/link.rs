//! The hub's Matter side as the rest of it sees it: the port `MatterLink`, implemented.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::commissioning::ports::{IssuedNoc, LinkError, MatterLink};
use crate::commissioning::radio::Radio;
use crate::matter::btp;
use crate::matter::credentials::{CredentialError, Credentials};
use crate::matter::handshake::Goal;
use crate::matter::operational::CaseLink;
use crate::matter::pase::PaseLink;
use crate::matter::session;
use crate::matter::stack::Stack;
use crate::node::{NodeId, Peer};
use crate::secret::Passcode;

/// See [`MatterLink`]. Clones share the stack.
#[derive(Clone)]
pub struct Link {
    stack: Stack,
    credentials: Arc<Credentials>,
    radio: Arc<dyn Radio>,
}

impl Link {
    /// A link over a running stack that was started with the same bundle.
    pub fn new(stack: Stack, credentials: Arc<Credentials>, radio: Arc<dyn Radio>) -> Self {
        Self { stack, credentials, radio }
    }

    /// The stack under this link and all that were opened by it.
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

    async fn open_pase(&self, peers: &[Peer], passcode: &Passcode, budget: Duration) -> Result<PaseLink, LinkError> {
        let (stack, credentials) = (self.stack.clone(), Arc::clone(&self.credentials));
        let (peers, passcode) = (peers.to_vec(), passcode.clone());
        // A device is either on the network or on Bluetooth; one that shows itself on both is two candidates.
        let connection = match peers.first() {
            Some(Peer::Bluetooth(address)) => Some(btp::connect(&stack, self.radio.as_ref(), *address, budget).await?),
            Some(Peer::Udp(_)) | None => None,
        };
        self.stack
            .run(move |context| async move {
                let opening = session::open(&context, &peers, budget, Goal::Pase(passcode));
                let opened = match &connection {
                    None => opening.await?,
                    Some(connection) => connection.or_lost(opening).await?,
                };
                let challenge = opened
                    .challenge
                    .ok_or_else(|| LinkError::Stack { what: "PASE gave no attestation challenge".to_owned() })?;
                Ok(PaseLink { session: opened.session(stack, connection), challenge, credentials })
            })
            .await
    }

    async fn open_case(&self, node: NodeId, addresses: &[SocketAddr], budget: Duration) -> Result<CaseLink, LinkError> {
        let (stack, peers) = (self.stack.clone(), addresses.iter().copied().map(Peer::Udp).collect::<Vec<_>>());
        self.stack
            .run(move |context| async move {
                let opened = session::open(&context, &peers, budget, Goal::Case(node)).await?;
                let no_address = || LinkError::Stack { what: "CASE over Bluetooth".to_owned() };
                let at = opened.peer.udp().ok_or_else(no_address)?;
                Ok(CaseLink { session: opened.session(stack, None), at })
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
