//! Why a use case was not done, as a person reads it: a stable code, who can help, what happened, what to do now.
//! Not here: how that is answered over HTTP (`admin`) or becomes an exit code (`cli`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::inventory::NodeRef;
use crate::commissioning::error::{CommissioningError, Disposition};
use crate::commissioning::step::Step;
use crate::durable::StoreError;
use crate::node::NodeId;

/// What a use case answers that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
#[schema(as = ApiError)]
pub struct Refusal {
    /// The commissioning step, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// A stable kebab-case word.
    pub code: String,
    /// Who can do something about it.
    pub disposition: Disposition,
    /// What happened, as a sentence with its values.
    pub message: String,
    /// What to do now.
    pub hint: String,
}

impl Refusal {
    /// An error outside a commissioning step.
    pub fn new(code: &str, disposition: Disposition, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { step: None, code: code.to_owned(), disposition, message: message.into(), hint: hint.into() }
    }

    /// The request does not make sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new("bad-request", Disposition::UserAction, message, "see GET /v1/openapi.json")
    }

    /// Nothing in our records bears that id or name.
    pub fn unknown_node(node: &NodeRef) -> Self {
        let message = format!("there is no node {node}");
        Self::new("unknown-node", Disposition::UserAction, message, "`matterbind nodes` lists them")
    }

    /// A name that several nodes have.
    pub fn ambiguous_node(name: &str, nodes: &[NodeId]) -> Self {
        let ids = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("several nodes have the name {name:?}: {ids}");
        Self::new("ambiguous-node", Disposition::UserAction, message, "name it by its node id")
    }

    /// No such outbox row.
    pub fn unknown_outbox_entry(id: i64) -> Self {
        let message = format!("the outbox holds no entry {id}");
        Self::new("unknown-outbox-entry", Disposition::UserAction, message, "`matterbind outbox` lists what it holds")
    }

    /// Discovery or the Matter stack does not run yet.
    pub fn not_ready(what: &str) -> Self {
        let message = format!("{what} does not run yet");
        Self::new("not-ready", Disposition::Retry, message, "try again in a moment; `matterbind status` tells")
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), Disposition::from(&error), error.to_string(), error.hint())
    }
}

impl From<&CommissioningError> for Refusal {
    fn from(error: &CommissioningError) -> Self {
        Self {
            step: Some(error.step()),
            code: error.code().to_owned(),
            disposition: error.disposition(),
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}
