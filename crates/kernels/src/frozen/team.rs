//! The threads that compute one run of a network, from its first layer to its last.
//!
//! A forward pass is a hundred short parallel loops. A helper that went back to the pool between them would have to be
//! woken for each, and gives its core away whenever it finds nothing to do. So helpers stay: they wait for the next
//! loop for as long as [`PATIENCE`], and only then return to the pool. The thread that runs the network never waits for
//! one that has not begun a task, so that a busy pool costs help but no time.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::Scope;

/// How long a helper waits for the next loop.
const PATIENCE: Duration = Duration::from_micros(200);
/// Looks at a shared variable between two at the clock.
const LOOKS: usize = 64;

/// A task of the loop at hand: the closure and its index.
type Call = unsafe fn(*const (), usize);

/// What the threads of a team share.
#[derive(Default)]
struct Board {
    /// Tasks that nobody has begun, `first << 32 | end`. The leader takes them from the front and helpers from the back,
    /// so that each keeps to its part of the maps from loop to loop.
    open: AtomicU64,
    finished: AtomicUsize,
    call: AtomicPtr<()>,
    closure: AtomicPtr<()>,
    /// Helpers that have been asked for and not returned to the pool.
    helpers: AtomicUsize,
    over: AtomicBool,
    panicked: AtomicBool,
}

/// The leader's view of its team.
pub(super) struct Team<'a, 'scope> {
    board: &'scope Board,
    scope: &'a Scope<'scope>,
    wanted: usize,
}

/// Runs `body` on a thread of the current rayon pool, with the others as its team.
pub(super) fn lead<R: Send>(body: impl FnOnce(&Team<'_, '_>) -> R + Send) -> R {
    let board = Board::default();
    rayon::scope(|scope| {
        let wanted = rayon::current_num_threads() - 1;
        let team = Team { board: &board, scope, wanted };
        body(&team)
    })
}

impl Team<'_, '_> {
    /// Calls `task` once with each of 0 .. `count`, in no order, on all threads that have time.
    ///
    /// Tasks must not wait for others of the same pool.
    ///
    /// # Panics
    /// If a task panics.
    pub(super) fn for_each<F: Fn(usize) + Sync>(&self, count: usize, task: F) {
        unsafe fn call<F: Fn(usize)>(closure: *const (), index: usize) {
            // SAFETY: `for_each` stores the closure's address beside this function and outlives all tasks.
            unsafe { (*closure.cast::<F>())(index) }
        }
        let count = u32::try_from(count).expect("a layer has fewer than 2³² tasks");
        if self.wanted == 0 || count < 2 {
            return (0..count as usize).for_each(task);
        }
        while self.board.helpers.load(Ordering::Relaxed) < self.wanted {
            self.board.helpers.fetch_add(1, Ordering::Relaxed);
            let board = self.board;
            self.scope.spawn(move |_| board.help());
        }
        let board = self.board;
        board.call.store(call::<F> as Call as *mut (), Ordering::Relaxed);
        board.closure.store((&raw const task).cast_mut().cast(), Ordering::Relaxed);
        board.finished.store(0, Ordering::Relaxed);
        board.open.store(u64::from(count), Ordering::Release);
        // Also if a task panics here, others may be at theirs and need the closure.
        let wait = Wait { board, count: count as usize };
        while let Some(index) = board.take(true) {
            let _done = Done(board);
            task(index);
        }
        drop(wait);
        assert!(!board.panicked.load(Ordering::Relaxed), "a task of a layer panicked");
    }
}

impl Drop for Team<'_, '_> {
    fn drop(&mut self) {
        self.board.over.store(true, Ordering::Release);
    }
}

impl Board {
    /// A task that nobody else gets.
    fn take(&self, front: bool) -> Option<usize> {
        let mut open = self.open.load(Ordering::Acquire);
        loop {
            let (first, end) = (open >> 32, open & u64::from(u32::MAX));
            if first >= end {
                return None;
            }
            let (left, index) = if front { (open + (1 << 32), first) } else { (open - 1, end - 1) };
            match self.open.compare_exchange_weak(open, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index as usize),
                Err(now) => open = now,
            }
        }
    }

    /// Takes tasks of one loop after the other until the run is over or nothing comes.
    fn help(&self) {
        let mut idle = None;
        let mut looks = 0;
        while !self.over.load(Ordering::Acquire) {
            if let Some(index) = self.take(false) {
                idle = None;
                let _done = Done(self);
                let call = self.call.load(Ordering::Relaxed);
                // SAFETY: `for_each` stored a `Call` and its closure before it opened this task, and waits until the task
                // is finished before either changes.
                unsafe {
                    std::mem::transmute::<*mut (), Call>(call)(self.closure.load(Ordering::Relaxed), index)
                };
                continue;
            }
            looks += 1;
            if looks % LOOKS == 0 && idle.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                break;
            }
            spin_loop();
        }
        self.helpers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a task as finished, however it ended.
struct Done<'a>(&'a Board);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::Relaxed);
        }
        self.0.finished.fetch_add(1, Ordering::Release);
    }
}

/// Waits for all tasks of a loop.
struct Wait<'a> {
    board: &'a Board,
    count: usize,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // Tasks are left only if one of the leader's panicked.
        while self.board.take(true).is_some() {
            self.board.finished.fetch_add(1, Ordering::Relaxed);
        }
        let mut looks = 0;
        while self.board.finished.load(Ordering::Acquire) < self.count {
            looks += 1;
            // A helper whose core was taken away may need this one.
            if looks > 100 * LOOKS { std::thread::yield_now() } else { spin_loop() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_task_of_every_loop_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let counts: Vec<usize> = (0..300).map(|i| i * 7 % 40).collect();
            let seen: Vec<Vec<AtomicUsize>> =
                counts.iter().map(|&c| (0..c).map(|_| AtomicUsize::new(0)).collect()).collect();
            let sum = pool(threads).install(|| {
                lead(|team| {
                    for (at, seen) in seen.iter().enumerate() {
                        if at % 100 == 99 {
                            // Helpers return to the pool and are asked for again.
                            std::thread::sleep(2 * PATIENCE);
                        }
                        team.for_each(seen.len(), |i| {
                            seen[i].fetch_add(1, Ordering::Relaxed);
                        });
                        // A loop is over when the call returns.
                        assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
                    }
                    seen.iter().map(Vec::len).sum::<usize>()
                })
            });
            assert_eq!(sum, counts.iter().sum::<usize>());
        }
    }

    #[test]
    fn runs_at_once_and_inside_each_other_share_a_pool() {
        let total = AtomicUsize::new(0);
        pool(3).scope(|s| {
            for _ in 0..20 {
                s.spawn(|_| {
                    lead(|team| {
                        for _ in 0..50 {
                            team.for_each(9, |_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                            rayon::join(|| (), || ());
                        }
                    });
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 20 * 50 * 9);
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller_after_the_others_have_ended() {
        for threads in [1, 3] {
            for bad in [0, 5, 63] {
                let ended = AtomicUsize::new(0);
                let run = || {
                    pool(threads).install(|| {
                        lead(|team| {
                            team.for_each(64, |i| {
                                assert!(i != bad, "task {i}");
                                std::thread::sleep(Duration::from_micros(20));
                                ended.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    });
                };
                assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
                assert!(ended.load(Ordering::Relaxed) <= 63);
            }
        }
    }
}
