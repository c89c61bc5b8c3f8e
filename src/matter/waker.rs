//! A waker whose vtable is one `static`, for polling everything that rs-matter runs.
//!
//! `Waker::will_wake` compares vtable addresses. The vtables of executors are promoted constants of generic functions, and
//! an optimising build may hold several copies of one, so that `waker.clone().will_wake(&waker)` is false. rs-matter's
//! `Signal` then believes that another task waits and wakes it, which is itself: the thread spins at 100 % CPU. With this
//! waker around the root future it idles. Not here: which futures run (`matter::stack`).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// The executor's own waker, renewed at every poll.
struct Shared(Mutex<Option<Waker>>);

impl Shared {
    fn set(&self, waker: &Waker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    fn wake(&self) {
        // The lock is released before waking: waking may poll, and polling sets.
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

// SAFETY (all four): the pointer comes from `Arc::into_raw` in `stable` or from `clone`, and each waker owns exactly one
// strong count, which `wake` and `release` give back. `Shared` is Send and Sync.
unsafe fn clone(pointer: *const ()) -> RawWaker {
    unsafe { Arc::increment_strong_count(pointer.cast::<Shared>()) };
    RawWaker::new(pointer, &VTABLE)
}

unsafe fn wake(pointer: *const ()) {
    unsafe { Arc::from_raw(pointer.cast::<Shared>()) }.wake();
}

unsafe fn wake_by_ref(pointer: *const ()) {
    unsafe { &*pointer.cast::<Shared>() }.wake();
}

unsafe fn release(pointer: *const ()) {
    drop(unsafe { Arc::from_raw(pointer.cast::<Shared>()) });
}

/// Runs `future` with the one waker.
pub async fn stable<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let shared = Arc::new(Shared(Mutex::new(None)));
    let pointer = Arc::into_raw(Arc::clone(&shared)).cast::<()>();
    // SAFETY: see the vtable's functions; this waker owns the strong count that `into_raw` gave up.
    let waker = unsafe { Waker::from_raw(RawWaker::new(pointer, &VTABLE)) };
    poll_fn(move |context| {
        shared.set(context.waker());
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    #[test]
    fn a_clone_wakes_the_same_task() {
        let same = async_io::block_on(stable(poll_fn(|context| {
            let clone = context.waker().clone();
            Poll::Ready(clone.will_wake(context.waker()) && context.waker().will_wake(&clone))
        })));
        assert!(same);
    }

    #[test]
    fn a_wake_from_another_thread_arrives() {
        let mut started = false;
        async_io::block_on(stable(poll_fn(move |context| {
            if started {
                return Poll::Ready(());
            }
            started = true;
            let waker = context.waker().clone();
            std::thread::spawn(move || waker.wake());
            Poll::Pending
        })));
    }
}
