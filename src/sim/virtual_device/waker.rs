//! Polls one root future with a waker whose vtable is one `static`.
//!
//! `Waker::will_wake` compares vtable addresses. The vtables of tokio's and the standard library's wakers are promoted
//! constants of generic functions, so an optimised build may hold several copies; rs-matter's `Signal`, which keeps one
//! waker, then takes a clone for another task, wakes it, that is itself, and the thread spins at 100 % CPU.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// The runtime's waker of the latest poll, behind a stable identity.
struct Relay(Mutex<Option<Waker>>);

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

impl Relay {
    fn wake(&self) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(inner) = inner {
            inner.wake();
        }
    }
}

// SAFETY of the four: `data` always comes from `Arc::<Relay>::into_raw` in `stable` or from `clone`, and every waker
// owns exactly one strong count, which `wake` and `release` give back. `Relay` is Send and Sync.
unsafe fn clone(data: *const ()) -> RawWaker {
    unsafe { Arc::increment_strong_count(data.cast::<Relay>()) };
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    unsafe { Arc::from_raw(data.cast::<Relay>()) }.wake();
}

unsafe fn wake_by_ref(data: *const ()) {
    unsafe { &*data.cast::<Relay>() }.wake();
}

unsafe fn release(data: *const ()) {
    drop(unsafe { Arc::from_raw(data.cast::<Relay>()) });
}

/// Runs `future` with the stable waker. The whole rs-matter stack of a thread has to be inside.
pub(super) async fn stable<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let relay = Arc::new(Relay(Mutex::new(None)));
    let data = Arc::into_raw(relay.clone()).cast::<()>();
    // SAFETY: see above; the strong count made by `into_raw` belongs to this waker.
    let waker = unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) };
    poll_fn(move |cx| {
        *relay.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clone_wakes_the_same_task_and_the_runtime_is_woken() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<u8>();
        let task = tokio::spawn(stable(async move {
            poll_fn(|cx| {
                assert!(cx.waker().clone().will_wake(cx.waker()));
                std::task::Poll::Ready(())
            })
            .await;
            receiver.await
        }));
        tokio::task::yield_now().await;
        sender.send(7).unwrap();
        assert_eq!(task.await.unwrap(), Ok(7));
    }
}
