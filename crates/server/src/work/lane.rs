//! Blocking work of one kind on threads of its own, with a limit on how much runs at once and how much waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use semblance_index::Cancel;
use tokio::sync::Semaphore;

use crate::problem::{Answer, Problem};

/// Work of one kind. What is under way keeps its place until it ends, even if nobody waits for it any more, so that work
/// that hangs (a disk, a network mount) can take up this lane and nothing else.
pub(crate) struct Lane {
    what: &'static str,
    places: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
    most_waiting: usize,
}

impl Lane {
    /// A lane for `what` (in the plural), `size` at once and `most_waiting` before it.
    pub(crate) fn new(what: &'static str, size: usize, most_waiting: usize) -> Self {
        let size = size.max(1);
        Self {
            what,
            places: Arc::new(Semaphore::new(size)),
            size,
            waiting: AtomicUsize::new(0),
            most_waiting,
        }
    }

    /// Does the work once it is its turn, unless it was cancelled before. A panic in it fails the request and nothing
    /// else.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        cancel: &Cancel,
        work: impl FnOnce() -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let waiting = Waiting(&self.waiting);
                if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most_waiting {
                    return Err(Problem::busy(format!("too many {} wait: try again in a moment", self.what)));
                }
                let place = self.places.clone().acquire_owned().await.map_err(Problem::internal)?;
                drop(waiting);
                place
            }
        };
        let cancel = cancel.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            cancel.check()?;
            work()
        });
        match done.await {
            Ok(done) => done,
            Err(error) => Err(Problem::internal(error)),
        }
    }

    /// Waits until nothing is under way; false if that took longer than `time`.
    pub(crate) async fn drain(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.places.acquire_many(self.size as u32)).await.is_ok()
    }
}

/// A place in the queue, given up when dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_hangs_keeps_its_place_and_the_queue_is_bounded() {
        let lane = Arc::new(Lane::new("files", 1, 1));
        let (release, wait) = channel::<()>();
        let hanging = {
            let lane = lane.clone();
            tokio::spawn(async move { lane.run(&Cancel::default(), move || Ok(wait.recv().is_ok())).await })
        };
        while lane.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        // Giving up does not free the place.
        hanging.abort();
        assert!(!lane.drain(Duration::from_millis(20)).await);
        let waiting = {
            let lane = lane.clone();
            tokio::spawn(async move { lane.run(&Cancel::default(), || Ok(7)).await })
        };
        while lane.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lane.run(&Cancel::default(), || Ok(0)).await.unwrap_err().status(), 503);
        release.send(()).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 7);
        assert!(lane.drain(Duration::from_secs(60)).await);
        let cancel = Cancel::default();
        cancel.cancel();
        assert_eq!(lane.run(&cancel, || Ok(0)).await.unwrap_err().status(), 503);
        let panicked = lane.run(&Cancel::default(), || -> Answer<()> { panic!("a fault") }).await;
        assert_eq!(panicked.unwrap_err().status(), 500);
        assert!(lane.drain(Duration::from_secs(60)).await, "a panic gives its place back");
    }
}
