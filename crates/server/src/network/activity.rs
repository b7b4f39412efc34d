//! What happens on a connection, and when something last did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Shared by the tasks of a connection.
pub(crate) struct Activity {
    begun: Instant,
    /// Requests that have no answer yet.
    handling: AtomicUsize,
    /// Those of them that are still being sent.
    receiving: AtomicUsize,
    /// Milliseconds from the beginning to the last progress.
    progress: AtomicU64,
    close: Notify,
}

/// How little a connection would be missed; the first is closed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quiet {
    /// A request is being sent.
    receiving: bool,
    /// When something last happened.
    since: Instant,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            handling: AtomicUsize::new(0),
            receiving: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            close: Notify::new(),
        }
    }

    /// Something happened.
    pub(crate) fn progress(&self) {
        self.progress.fetch_max(self.begun.elapsed().as_millis() as u64, Relaxed);
    }

    /// A request arrived; its answer is awaited until the value is dropped.
    pub(crate) fn handle(self: &Arc<Self>) -> Handling {
        self.handling.fetch_add(1, Relaxed);
        self.progress();
        Handling(self.clone())
    }

    /// A request has a body, which is being sent until the value is dropped.
    pub(crate) fn receive(self: &Arc<Self>) -> Receiving {
        self.receiving.fetch_add(1, Relaxed);
        Receiving(self.clone())
    }

    fn since(&self) -> Instant {
        self.begun + Duration::from_millis(self.progress.load(Relaxed))
    }

    /// When the connection has been silent for too long, as things stand.
    pub(crate) fn deadline(&self, idle: Duration) -> Instant {
        let since = if self.handling.load(Relaxed) > 0 { Instant::now() } else { self.since() };
        since + idle
    }

    /// `None` if an answer is being worked out.
    pub(crate) fn quiet(&self) -> Option<Quiet> {
        let (handling, receiving) = (self.handling.load(Relaxed), self.receiving.load(Relaxed));
        let quiet = Quiet { receiving: handling > 0, since: self.since() };
        (handling <= receiving).then_some(quiet)
    }

    /// Asks the connection's task to close it.
    pub(crate) fn close(&self) {
        self.close.notify_one();
    }

    /// Waits until closing is asked for.
    pub(crate) async fn closing(&self) {
        self.close.notified().await;
    }
}

/// A request without an answer.
pub(crate) struct Handling(Arc<Activity>);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.progress();
        self.0.handling.fetch_sub(1, Relaxed);
    }
}

/// A request that is being sent.
pub(crate) struct Receiving(Arc<Activity>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.receiving.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_quiet_unless_an_answer_is_worked_out() {
        let activity = Arc::new(Activity::new());
        assert!(activity.quiet().is_some_and(|quiet| !quiet.receiving));
        let handling = activity.handle();
        assert_eq!(activity.quiet(), None);
        let receiving = activity.receive();
        assert!(activity.quiet().is_some_and(|quiet| quiet.receiving));
        drop(receiving);
        assert_eq!(activity.quiet(), None);
        drop(handling);
        assert!(activity.quiet().is_some());
    }

    #[test]
    fn idle_connections_are_closed_before_senders_and_the_quietest_first() {
        let now = Instant::now();
        let at = |receiving, seconds| Quiet { receiving, since: now + Duration::from_secs(seconds) };
        let mut all = [at(true, 0), at(false, 2), at(false, 1)];
        all.sort();
        assert_eq!(all, [at(false, 1), at(false, 2), at(true, 0)]);
    }
}
