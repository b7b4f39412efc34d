//! Group commit: writers that wait for durability at the same time share one sync.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::error::Result;

#[derive(Default)]
struct Tickets {
    /// Syncs begun.
    begun: u64,
    running: bool,
    /// Number of the last sync that succeeded.
    succeeded: u64,
}

/// Lets one of many waiting writers sync for all.
#[derive(Default)]
pub(crate) struct GroupCommit {
    tickets: Mutex<Tickets>,
    turn: Condvar,
}

/// A sync under way. When it is dropped, also by a panic, the next writer takes its turn.
struct Running<'a> {
    commit: &'a GroupCommit,
    number: u64,
    succeeded: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut tickets = self.commit.tickets();
        tickets.running = false;
        if self.succeeded {
            tickets.succeeded = self.number;
        }
        self.commit.turn.notify_all();
    }
}

impl GroupCommit {
    /// Returns once a `sync` that began after this call has succeeded, this caller's own or another's.
    pub(crate) fn wait(&self, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut tickets = self.tickets();
        // A sync already running may have begun before our write: the next one will do.
        let mine = tickets.begun + 1;
        while tickets.running {
            tickets = self.turn.wait(tickets).unwrap_or_else(|e| e.into_inner());
            if tickets.succeeded >= mine {
                return Ok(());
            }
        }
        tickets.running = true;
        tickets.begun += 1;
        let number = tickets.begun;
        drop(tickets);
        let mut running = Running { commit: self, number, succeeded: false };
        let result = sync();
        running.succeeded = result.is_ok();
        result
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    #[test]
    fn many_writers_share_syncs_and_each_is_covered() {
        let (commit, written, synced, syncs) =
            (GroupCommit::default(), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let mine = written.fetch_add(1, SeqCst) + 1;
                        commit
                            .wait(|| {
                                let all = written.load(SeqCst);
                                std::thread::sleep(std::time::Duration::from_micros(300));
                                synced.fetch_max(all, SeqCst);
                                syncs.fetch_add(1, SeqCst);
                                Ok(())
                            })
                            .unwrap();
                        assert!(synced.load(SeqCst) >= mine);
                    }
                });
            }
        });
        assert_eq!(written.load(SeqCst), 400);
        assert!(syncs.load(SeqCst) < 300, "{} syncs for 400 writes of 8 threads", syncs.load(SeqCst));
    }

    #[test]
    fn a_sync_that_panics_leaves_the_turn_to_the_next_writer() {
        let commit = GroupCommit::default();
        let sync = || commit.wait(|| panic!("the disk is gone"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(sync)).unwrap_err();
        commit.wait(|| Ok(())).unwrap();
    }
}
