//! Nodes that do not answer are flagged, as many as there are in one transaction. Not here: who is silent (`hub::probe`).

use jiff::Timestamp;

use super::Store;
use super::nodes::{put, record};
use crate::durable::StoreError;
use crate::node::{NodeId, NodeRecord, NodeState};

impl Store {
    /// Flags the nodes that count as operational until now, each with when it was last heard of, where that is known. Answers
    /// the records that were changed; a node that has gone meanwhile is no error.
    pub async fn flag_silent(&self, nodes: Vec<(NodeId, Option<Timestamp>)>) -> Result<Vec<NodeRecord>, StoreError> {
        self.write(move |tx| {
            let mut flagged = Vec::new();
            for (node, last) in nodes {
                let Some(mut silent) = record(tx, node)?.filter(|known| known.state == NodeState::Operational) else {
                    continue;
                };
                silent.state = NodeState::Unreachable;
                silent.last_seen_at = last.or(silent.last_seen_at);
                put(tx, &silent)?;
                flagged.push(silent);
            }
            Ok(flagged)
        })
        .await
    }
}
