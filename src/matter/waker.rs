//! A waker whose vtable is one `static`, for polling everything that rs-matter runs.
//!
//! `Waker::will_wake` compares vtable addresses. The vtables of executors are promoted constants of generic functions, and
//! an optimising build may hold several copies of one, so that `waker.clone().will_wake(&waker)` is false. rs-matter's
//! `Signal` then believes that another task waits and wakes it, which is itself: the thread spins at 100 % CPU. With this
//! waker around the root future it idles.
//!
//! rs-matter's transport also looks every 50 and every 100 ms whether a received message or a dropped exchange was forgotten.
//! Where nothing was sent, received or asked for a while there is none, and alarms do not wake the thread any more: it looks
//! after a second, and then rarely. Not here: which futures run (`matter::stack`).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// So long after the last message alarms are still heard. What has to be said then was said: an acknowledgement leaves with its
/// exchange, and jobs hear every alarm while they run.
const SETTLED: Duration = Duration::from_millis(20);
/// When the thread looks then: a message that nobody accepts goes after half a second.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// And after that.
const LATER_LOOK: Duration = Duration::from_secs(16);

/// What timers may be needed for.
#[derive(Clone)]
pub(crate) struct Activity(Rc<State>);

struct State {
    /// When something was said or heard last.
    last: Cell<Instant>,
    /// Whether somebody waits for an answer; then every alarm counts, however long a poll takes.
    running: Cell<bool>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Rc::new(State { last: Cell::new(Instant::now()), running: Cell::new(false) }))
    }

    /// Something is said or heard.
    pub(crate) fn note_traffic(&self) {
        self.0.last.set(Instant::now());
    }

    /// Whether jobs are under way.
    pub(crate) fn set_running(&self, running: bool) {
        self.0.running.set(running);
    }

    fn is_over(&self, now: Instant) -> bool {
        !self.0.running.get() && now.duration_since(self.0.last.get()) > SETTLED
    }

    fn next_look(&self, now: Instant) -> Instant {
        let first = self.0.last.get() + FIRST_LOOK;
        if first > now { first } else { now + LATER_LOOK }
    }
}

/// The thread in which embassy's alarms ring; learnt from one.
static ALARMS: OnceLock<ThreadId> = OnceLock::new();

struct LearnsItsThread;

impl Wake for LearnsItsThread {
    fn wake(self: Arc<Self>) {
        let _ = ALARMS.set(std::thread::current().id());
    }
}

/// Sets an alarm that tells in which thread it rings.
fn learn_alarms() {
    let waker = Waker::from(Arc::new(LearnsItsThread));
    let mut alarm = pin!(embassy_time::Timer::after_millis(1));
    if alarm.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
        tracing::debug!("an alarm was late at once; the Matter thread idles as often as rs-matter likes");
    }
}

/// The executor's own waker, renewed at every poll.
#[derive(Default)]
struct Shared {
    waker: Mutex<Option<Waker>>,
    /// Alarms have nothing to say.
    calm: AtomicBool,
}

impl Shared {
    fn set(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    fn wake(&self) {
        if self.calm.load(Ordering::Acquire) && ALARMS.get() == Some(&std::thread::current().id()) {
            return;
        }
        // The lock is released before waking: waking may poll, and polling sets.
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

/// Runs `future` with the one waker; once `activity` is over, alarms are heard when the thread looks.
pub(crate) async fn calm<F: Future>(future: F, activity: Activity) -> F::Output {
    learn_alarms();
    let mut look = pin!(tokio::time::sleep(FIRST_LOOK));
    run(future, move |shared, context| {
        let now = Instant::now();
        let calm = activity.is_over(now);
        shared.calm.store(calm, Ordering::Release);
        let next = activity.next_look(now).into();
        // It may have been set when nothing had happened for long.
        if calm && (look.deadline() > next || look.as_mut().poll(context).is_ready()) {
            look.as_mut().reset(next);
            while look.as_mut().poll(context).is_ready() {}
        }
    })
    .await
}

/// Runs `future` with the one waker, and hears every alarm at once: the virtual device does.
#[cfg(any(feature = "sim", test))]
pub(crate) async fn stable<F: Future>(future: F) -> F::Output {
    run(future, |_, _| {}).await
}

async fn run<F: Future>(future: F, mut after: impl FnMut(&Shared, &mut Context<'_>)) -> F::Output {
    let mut future = pin!(future);
    let shared = Arc::new(Shared::default());
    let pointer = Arc::into_raw(Arc::clone(&shared)).cast::<()>();
    // SAFETY: see the vtable's functions; this waker owns the strong count that `into_raw` gave up.
    let waker = unsafe { Waker::from_raw(RawWaker::new(pointer, &VTABLE)) };
    poll_fn(move |context| {
        shared.set(context.waker());
        // What rings while it is polled must be heard.
        shared.calm.store(false, Ordering::Release);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            after(&shared, context);
        }
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    use tokio::time::timeout;

    #[tokio::test]
    async fn a_clone_wakes_the_same_task() {
        let same = stable(poll_fn(|context| {
            let clone = context.waker().clone();
            Poll::Ready(clone.will_wake(context.waker()) && context.waker().will_wake(&clone))
        }));
        assert!(same.await);
    }

    #[tokio::test]
    async fn alarms_are_heard_rarely_where_nothing_happens() {
        // As rs-matter does it.
        let polls = Cell::new(0u32);
        let alarms = || async {
            loop {
                embassy_time::Timer::after_millis(10).await;
                polls.set(polls.get() + 1);
            }
        };
        let activity = Activity::new();
        activity.set_running(true);
        assert!(timeout(FIRST_LOOK, calm(alarms(), activity.clone())).await.is_err());
        let busy = polls.replace(0);
        assert!(busy > 10, "{busy}");
        activity.set_running(false);
        assert!(timeout(FIRST_LOOK * 3, calm(alarms(), activity)).await.is_err());
        let calm = polls.get();
        assert!((1..=5).contains(&calm), "{calm}");
    }

    #[test]
    fn the_thread_looks_a_second_after_the_last_word_and_then_rarely() {
        let (activity, now) = (Activity::new(), Instant::now());
        for (quiet, pause) in [(0, 1000), (200, 800), (1000, 16_000), (60_000, 16_000)] {
            activity.0.last.set(now - Duration::from_millis(quiet));
            assert_eq!(activity.next_look(now), now + Duration::from_millis(pause));
        }
    }

    #[tokio::test]
    async fn a_wake_from_another_thread_arrives() {
        let mut started = false;
        stable(poll_fn(move |context| {
            if started {
                return Poll::Ready(());
            }
            started = true;
            let waker = context.waker().clone();
            std::thread::spawn(move || waker.wake());
            Poll::Pending
        }))
        .await;
    }
}
