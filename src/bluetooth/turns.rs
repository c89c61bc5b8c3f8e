//! Who has the adapter: whoever scans gives way to whoever connects. A controller connects to a device when it hears it, and while
//! it scans it passes on each device once in a scan of ten seconds: a connection that is asked for in between waits for the next.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// See the module. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct AdapterTurns {
    adapter: Arc<Mutex<()>>,
    /// How many want to connect.
    connecting: watch::Sender<usize>,
}

/// A turn; it ends when this is dropped.
pub(super) struct Turn {
    _adapter: OwnedMutexGuard<()>,
    _wanted: Option<Wanted>,
}

/// Somebody wants to connect, for as long as this lives.
struct Wanted(watch::Sender<usize>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.send_modify(|connecting| *connecting -= 1);
    }
}

impl Default for AdapterTurns {
    fn default() -> Self {
        Self { adapter: Arc::default(), connecting: watch::Sender::new(0) }
    }
}

impl AdapterTurns {
    /// To scan: comes back when nobody connects. Ends at `is_over`.
    pub(super) async fn scan(&self) -> Turn {
        Turn { _adapter: Arc::clone(&self.adapter).lock_owned().await, _wanted: None }
    }

    /// Whoever scans stops now, and gives its turn back.
    pub(super) async fn is_over(&self) {
        let mut connecting = self.connecting.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        drop(connecting.wait_for(|connecting| *connecting > 0).await);
    }

    /// To connect: comes back when nobody scans.
    pub(super) async fn connect(&self) -> Turn {
        self.connecting.send_modify(|connecting| *connecting += 1);
        let wanted = Wanted(self.connecting.clone());
        Turn { _adapter: Arc::clone(&self.adapter).lock_owned().await, _wanted: Some(wanted) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_scan_gives_way_to_a_connection_and_goes_on_afterwards() {
        let turns = AdapterTurns::default();
        let scan = turns.scan().await;
        let quiet = tokio::time::timeout(Duration::from_secs(60), turns.is_over()).await;
        assert!(quiet.is_err(), "nobody wants to connect");
        let mut connect = std::pin::pin!(turns.connect());
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut connect).await.is_err(), "the scan has not stopped");
        turns.is_over().await;
        drop(scan);
        let mut again = std::pin::pin!(turns.scan());
        let connection = connect.await;
        assert!(tokio::time::timeout(Duration::from_secs(60), &mut again).await.is_err(), "it still connects");
        drop(connection);
        let _scan = again.await;
        assert!(tokio::time::timeout(Duration::from_secs(60), turns.is_over()).await.is_err(), "nobody connects");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_for_a_scan_does_not_hold_up_the_next() {
        let turns = AdapterTurns::default();
        let scan = turns.scan().await;
        assert!(tokio::time::timeout(Duration::from_secs(1), turns.connect()).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(1), turns.is_over()).await.is_err(), "nobody wants to");
        drop(scan);
        drop(turns.connect().await);
        drop(turns.scan().await);
    }
}
