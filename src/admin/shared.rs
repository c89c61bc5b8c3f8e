//! One answer for all who ask at the same time: a long list is made once, and its bytes are shared. Not here: what is asked.
//!
//! An answer is never older than its question: whoever asks while one is being made waits for the next one, together with
//! everybody who does the same. Nothing is kept once the last of them has gone.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;

/// The answers to one question.
#[derive(Debug, Default)]
pub(super) struct Shared {
    turn: tokio::sync::Mutex<()>,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    begun: u64,
    waiting: usize,
    /// The latest, with its number.
    latest: Option<(u64, Bytes)>,
}

impl Shared {
    /// An answer that was begun after this was called; `make` makes it, unless somebody else's does.
    ///
    /// # Errors
    /// Those of `make`, which nobody shares.
    pub(super) async fn get<E>(&self, make: impl Future<Output = Result<Bytes, E>>) -> Result<Bytes, E> {
        let (_waiting, begun_before) = Waiting::enter(self);
        let _turn = self.turn.lock().await;
        let number = {
            let mut answers = self.answers();
            if let Some((number, answer)) = &answers.latest
                && *number > begun_before
            {
                return Ok(answer.clone());
            }
            answers.begun += 1;
            answers.begun
        };
        let made = make.await?;
        self.answers().latest = Some((number, made.clone()));
        Ok(made)
    }

    /// Each use leaves them whole.
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits; the last to go takes the answer along.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn enter(shared: &'a Shared) -> (Self, u64) {
        let mut answers = shared.answers();
        answers.waiting += 1;
        (Self(shared), answers.begun)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut answers = self.0.answers();
        answers.waiting -= 1;
        if answers.waiting == 0 {
            answers.latest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use futures_util::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_asks_while_one_is_made_shares_the_next() {
        let (shared, made, go_on) = (Shared::default(), AtomicU8::new(0), Arc::new(Notify::new()));
        let ask = || {
            shared.get(async {
                go_on.notified().await;
                Ok::<_, Infallible>(Bytes::from(vec![made.fetch_add(1, Ordering::Relaxed)]))
            })
        };
        let mut first = Box::pin(ask());
        assert!((&mut first).now_or_never().is_none(), "it is being made");
        let mut others: Vec<_> = (0..200).map(|_| Box::pin(ask())).collect();
        assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
        go_on.notify_one();
        assert_eq!(first.await.unwrap(), [0].as_slice());
        go_on.notify_one();
        for other in futures_util::future::join_all(others).await {
            assert_eq!(other.unwrap(), [1].as_slice(), "it was begun after they had asked");
        }
        assert_eq!((made.load(Ordering::Relaxed), shared.answers().latest.is_none()), (2, true));
        // One that is given up leaves its turn to the next.
        let mut given_up = Box::pin(ask());
        assert!((&mut given_up).now_or_never().is_none());
        let mut next = Box::pin(ask());
        assert!((&mut next).now_or_never().is_none());
        drop(given_up);
        go_on.notify_one();
        assert_eq!(next.await.unwrap(), [2].as_slice());
    }
}
