//! Whose turn it is with one thing of many, and answers that all who ask together share: a device has room for a few sessions,
//! and a page that is open on ten telephones asks ten times. Not here: what is asked.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::OwnedMutexGuard;

/// A turn for each key, with what whoever has it leaves to the next. Nothing is kept once nobody has it or waits for it.
#[derive(Debug)]
pub(crate) struct Turns<K, T = ()>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<T>>>>);

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, T: Default> Turns<K, T> {
    /// Waits for the turn; it ends with the guard.
    pub(super) async fn take(&self, key: K) -> OwnedMutexGuard<T> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(&key).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(key, Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}

/// One answer for all who ask the same at the same time.
///
/// An answer is never older than its question: whoever asks while one is being made waits for the next one, together with
/// everybody who does the same.
#[derive(Debug)]
pub(crate) struct Answers<K, A>(Turns<K, Option<(Instant, A)>>);

impl<K, A> Default for Answers<K, A> {
    fn default() -> Self {
        Self(Turns::default())
    }
}

impl<K: Hash + Eq, A: Clone> Answers<K, A> {
    /// An answer that was begun after this was called; `make` makes it, unless somebody else's does.
    ///
    /// # Errors
    /// Those of `make`, which nobody shares.
    pub(crate) async fn get<E>(&self, key: K, make: impl Future<Output = Result<A, E>>) -> Result<A, E> {
        let asked = Instant::now();
        let mut last = self.0.take(key).await;
        if let Some((began, answer)) = &*last
            && *began >= asked
        {
            return Ok(answer.clone());
        }
        let began = Instant::now();
        let answer = make.await?;
        *last = Some((began, answer.clone()));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU8, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    fn keeps_nothing<K, A>(shared: &Answers<K, A>) -> bool {
        shared.0.0.lock().unwrap().values().all(|turn| turn.strong_count() == 0)
    }

    #[tokio::test]
    async fn who_asks_while_one_is_made_shares_the_next() {
        let (shared, made, go_on) = (Answers::default(), AtomicU8::new(0), Arc::new(Notify::new()));
        let ask = || {
            shared.get((), async {
                go_on.notified().await;
                Ok::<_, Infallible>(made.fetch_add(1, Ordering::Relaxed))
            })
        };
        let mut first = Box::pin(ask());
        assert!((&mut first).now_or_never().is_none(), "it is being made");
        let mut others: Vec<_> = (0..200).map(|_| Box::pin(ask())).collect();
        assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
        go_on.notify_one();
        assert_eq!(first.await, Ok(0));
        go_on.notify_one();
        for other in join_all(others).await {
            assert_eq!(other, Ok(1), "it was begun after they had asked");
        }
        assert_eq!((made.load(Ordering::Relaxed), keeps_nothing(&shared)), (2, true));
        // One that is given up leaves its turn to the next.
        let mut given_up = Box::pin(ask());
        assert!((&mut given_up).now_or_never().is_none());
        let mut next = Box::pin(ask());
        assert!((&mut next).now_or_never().is_none());
        drop(given_up);
        go_on.notify_one();
        assert_eq!(next.await, Ok(2));
    }

    #[tokio::test]
    async fn those_who_ask_together_share_and_none_gets_an_older_answer() {
        let (shared, made) = (Answers::default(), AtomicU8::new(0));
        let one = |node: u64| {
            shared.get(node, async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(made.fetch_add(1, Ordering::SeqCst))
            })
        };
        let answers = join_all((0..250).map(|_| one(1))).await;
        // One under way, and one for all who came meanwhile.
        assert_eq!(made.load(Ordering::SeqCst), 2);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(one(1).await, Ok(2), "what is over answers nobody who asks later");
        assert_eq!(join_all([one(1), one(2)]).await, [Ok(3), Ok(4)], "another node is another question");
    }
}
