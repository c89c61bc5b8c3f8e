//! Checks of one node that are asked for together are one check: a device has room for a few sessions, and a page that is open
//! on ten telephones asks ten times. Whoever asks while one is under way gets the next, with all others who wait for it.
//! Not here: what a check is (`inventory`).

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::inventory::NodeCheck;
use super::refusal::Refusal;
use crate::node::NodeId;

type Answer = Result<NodeCheck, Refusal>;
/// When the last check of a node began, and what came of it.
type Last = tokio::sync::Mutex<Option<(Instant, Answer)>>;

/// The checks under way.
#[derive(Default)]
pub(crate) struct Checks(Mutex<HashMap<NodeId, Weak<Last>>>);

impl Checks {
    /// The answer of a check that began after this was asked for: this one's, or another's.
    pub(super) async fn share(&self, node: NodeId, check: impl Future<Output = Answer>) -> Answer {
        let asked = Instant::now();
        let last = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, last| last.strong_count() > 0);
            let last = all.get(&node).and_then(Weak::upgrade).unwrap_or_default();
            all.insert(node, Arc::downgrade(&last));
            last
        };
        let mut last = last.lock().await;
        if let Some((began, answer)) = &*last
            && *began >= asked
        {
            return answer.clone();
        }
        let began = Instant::now();
        let answer = check.await;
        *last = Some((began, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::join_all;

    use super::*;

    fn check(duration_ms: u64) -> NodeCheck {
        NodeCheck {
            node_id: NodeId(1),
            reachable: true,
            address: None,
            duration_ms,
            message: String::new(),
            device: serde_json::Value::Null,
            differences: Vec::new(),
        }
    }

    #[tokio::test]
    async fn those_who_ask_together_share_and_none_gets_an_older_answer() {
        let (checks, made) = (Checks::default(), AtomicU64::new(0));
        let one = || {
            checks.share(NodeId(1), async {
                tokio::task::yield_now().await;
                Ok(check(made.fetch_add(1, Ordering::SeqCst)))
            })
        };
        let answers = join_all((0..250).map(|_| one())).await;
        // One under way, and one for all who came meanwhile.
        assert_eq!(made.load(Ordering::SeqCst), 2);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(one().await.map(|check| check.duration_ms), Ok(2), "what is over answers nobody who asks later");
    }
}
