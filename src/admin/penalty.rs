//! What a wrong token costs: time, one after the other, whoever shows it. A right one never waits. Not here: what is right
//! (`auth`), where it is told.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// What one wrong token costs.
const DELAY: Duration = Duration::from_millis(250);
/// So many may wait for their refusal; the next are refused at once with 429.
const WAITING: usize = 16;
/// An entry of the log says as much for all of this time.
const QUIET: Duration = Duration::from_secs(60);

/// Slows wrong tokens down, and knows when it is to be said that there are any.
#[derive(Debug)]
pub(super) struct Penalty {
    one: Semaphore,
    waiting: Semaphore,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    last: Option<Instant>,
    unsaid: u64,
}

/// Too many wrong tokens wait already.
pub(super) struct TooMany;

impl Default for Penalty {
    fn default() -> Self {
        Self { one: Semaphore::new(1), waiting: Semaphore::new(WAITING), log: Mutex::default() }
    }
}

impl Penalty {
    /// A wrong token was shown: how many there were since it was told last, where it is time to tell it again.
    pub(super) fn take_unsaid(&self) -> Option<u64> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).handle_wrong(Instant::now())
    }

    /// Waits until this wrong token may be answered.
    pub(super) async fn serve(&self) -> Result<(), TooMany> {
        let Ok(_waiting) = self.waiting.try_acquire() else { return Err(TooMany) };
        // Neither is ever closed.
        let _turn = self.one.acquire().await;
        tokio::time::sleep(DELAY).await;
        Ok(())
    }
}

impl Log {
    /// How many there were since the last line, where it is time for one.
    fn handle_wrong(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < QUIET) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_wrong_tokens_is_a_line_a_minute_with_its_number() {
        let (mut log, begun) = (Log::default(), Instant::now());
        assert_eq!(log.handle_wrong(begun), Some(1));
        assert!((0..4450).all(|_| log.handle_wrong(begun + Duration::from_secs(59)).is_none()));
        assert_eq!(log.handle_wrong(begun + QUIET), Some(4451));
        assert_eq!(log.handle_wrong(begun + QUIET), None);
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_wait_for_each_other_and_not_for_ever() {
        let penalty = Penalty::default();
        let begun = tokio::time::Instant::now();
        let all = futures_util::future::join_all((0..100).map(|_| penalty.serve())).await;
        assert_eq!(all.iter().filter(|served| served.is_ok()).count(), WAITING);
        assert_eq!(begun.elapsed(), DELAY * u32::try_from(WAITING).unwrap());
    }
}
