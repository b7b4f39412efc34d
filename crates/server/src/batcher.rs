//! Photographs of concurrent requests through the model together, on a thread of its own.
//!
//! A photograph waits for others only while some are being decoded, and never longer than the configured time: alone it
//! goes through at once. The queue is bounded; whoever finds it full is told to come back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::BatchConfig;
use crate::problem::{Answer, Problem};

/// Pixels of `n` photographs to `n` vectors, or why not.
pub(crate) type Embed = Box<dyn Fn(&[f32], usize) -> Result<Vec<f32>, String> + Send>;
/// Told the size of every batch.
pub(crate) type OnBatch = Box<dyn Fn(usize) + Send>;

/// How often a thread that waits looks whether there is still anything to wait for.
const GLANCE: Duration = Duration::from_micros(500);

struct Job {
    pixels: Vec<f32>,
    answer: oneshot::Sender<Result<Vec<f32>, String>>,
}

/// The way to the model's thread, which ends when this is dropped.
pub(crate) struct Batcher {
    queue: SyncSender<Job>,
    coming: Arc<AtomicUsize>,
}

impl Batcher {
    /// Starts the thread.
    pub(crate) fn start(config: BatchConfig, embed: Embed, on_batch: OnBatch) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(config.queue.max(1));
        let coming = Arc::new(AtomicUsize::new(0));
        let worker = Worker { config, jobs, coming: coming.clone(), embed, on_batch };
        std::thread::Builder::new().name("embedder".to_owned()).spawn(move || worker.run())?;
        Ok(Self { queue, coming })
    }

    /// Says that a photograph is on its way, till the value is dropped.
    pub(crate) fn announce(&self) -> Announced {
        self.coming.fetch_add(1, Ordering::Relaxed);
        Announced(self.coming.clone())
    }

    /// The vector of a photograph, given by the pixels the model takes.
    pub(crate) async fn embed(&self, pixels: Vec<f32>, announced: Announced) -> Answer<Vec<f32>> {
        let (answer, vector) = oneshot::channel();
        let queued = self.queue.try_send(Job { pixels, answer });
        drop(announced);
        match queued {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(Problem::busy("too many photographs wait for the model: try again in a moment"));
            }
            Err(TrySendError::Disconnected(_)) => {
                return Err(Problem::internal("the model's thread is gone"));
            }
        }
        let vector =
            vector.await.map_err(|_| Problem::internal("the model's thread dropped a photograph"))?;
        vector.map_err(Problem::internal)
    }
}

/// A photograph that is being decoded.
pub(crate) struct Announced(Arc<AtomicUsize>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Worker {
    config: BatchConfig,
    jobs: Receiver<Job>,
    coming: Arc<AtomicUsize>,
    embed: Embed,
    on_batch: OnBatch,
}

impl Worker {
    fn run(self) {
        while let Ok(first) = self.jobs.recv() {
            let mut batch = vec![first];
            self.gather(&mut batch);
            // Whoever gave up waiting needs no vector.
            batch.retain(|job| !job.answer.is_closed());
            if !batch.is_empty() {
                (self.on_batch)(batch.len());
                while !batch.is_empty() {
                    let rest = batch.split_off(power_of_four_below(batch.len()));
                    self.work(std::mem::replace(&mut batch, rest));
                }
            }
        }
    }

    fn gather(&self, batch: &mut Vec<Job>) {
        let deadline = Instant::now() + self.config.wait;
        while batch.len() < self.config.size {
            match self.jobs.try_recv() {
                Ok(job) => batch.push(job),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || self.coming.load(Ordering::Relaxed) == 0 {
                        return;
                    }
                    match self.jobs.recv_timeout(left.min(GLANCE)) {
                        Ok(job) => batch.push(job),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        }
    }

    fn work(&self, batch: Vec<Job>) {
        let pixels: Vec<f32> = batch.iter().flat_map(|job| job.pixels.iter().copied()).collect();
        match self.guarded(&pixels, batch.len()) {
            Ok(vectors) => {
                let dim = vectors.len() / batch.len();
                for (job, vector) in batch.into_iter().zip(vectors.chunks_exact(dim.max(1))) {
                    let _ = job.answer.send(Ok(vector.to_vec()));
                }
            }
            // The one that is to blame must not cost the others their answer.
            Err(_) if batch.len() > 1 => {
                for job in batch {
                    let _ = job.answer.send(self.guarded(&job.pixels, 1));
                }
            }
            Err(why) => {
                for job in batch {
                    let _ = job.answer.send(Err(why.clone()));
                }
            }
        }
    }

    fn guarded(&self, pixels: &[f32], n: usize) -> Result<Vec<f32>, String> {
        catch_unwind(AssertUnwindSafe(|| (self.embed)(pixels, n)))
            .unwrap_or_else(|_| Err("the model panicked".to_owned()))
    }
}

/// The largest power of four that is not above `n`. A network is laid out anew for every size of a batch that it has not
/// had lately, and it remembers four: few sizes are used.
fn power_of_four_below(n: usize) -> usize {
    1 << (n.ilog2() & !1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// One number a photograph; the vector is that number and its double. -1 panics, -2 fails.
    fn model(delay: Duration) -> Embed {
        Box::new(move |pixels, n| {
            assert_eq!(pixels.len(), n);
            std::thread::sleep(delay);
            assert!(!pixels.contains(&-1.0), "a photograph that makes the model panic");
            if pixels.contains(&-2.0) {
                return Err("no direction".to_owned());
            }
            Ok(pixels.iter().flat_map(|p| [*p, 2.0 * p]).collect())
        })
    }

    fn start(config: BatchConfig, delay: u64) -> (Arc<Batcher>, Arc<Mutex<Vec<usize>>>) {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = sizes.clone();
        let on_batch = Box::new(move |n| seen.lock().unwrap().push(n));
        let batcher = Batcher::start(config, model(Duration::from_millis(delay)), on_batch).unwrap();
        (Arc::new(batcher), sizes)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn each_gets_its_own_vector_and_work_is_shared() {
        let (batcher, sizes) = start(BatchConfig { size: 4, ..BatchConfig::default() }, 5);
        runtime().block_on(async {
            let tasks: Vec<_> = (0..40)
                .map(|i| {
                    let batcher = batcher.clone();
                    tokio::spawn(async move { batcher.embed(vec![i as f32], batcher.announce()).await })
                })
                .collect();
            for (i, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.unwrap().unwrap(), [i as f32, 2.0 * i as f32]);
            }
        });
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 40);
        assert!(sizes.len() < 40 && sizes.iter().all(|n| *n <= 4), "{sizes:?}");
    }

    #[test]
    fn one_bad_photograph_costs_nobody_else_and_the_thread_lives_on() {
        let (batcher, _) = start(BatchConfig::default(), 5);
        runtime().block_on(async {
            let numbers = [1.0, -1.0, 2.0, -2.0, 3.0];
            let tasks = numbers.map(|p| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.embed(vec![p], batcher.announce()).await })
            });
            for (p, task) in numbers.into_iter().zip(tasks) {
                let answer = task.await.unwrap();
                if p > 0.0 {
                    assert_eq!(answer.unwrap(), [p, 2.0 * p]);
                } else {
                    assert_eq!(answer.unwrap_err().status(), 500);
                }
            }
            assert_eq!(batcher.embed(vec![7.0], batcher.announce()).await.unwrap(), [7.0, 14.0]);
        });
    }

    #[test]
    fn batches_have_few_sizes() {
        let sizes = [1, 2, 3, 4, 5, 15, 16, 17, 63, 64].map(power_of_four_below);
        assert_eq!(sizes, [1, 1, 1, 4, 4, 4, 16, 16, 16, 64]);
    }

    #[test]
    fn a_full_queue_sends_away() {
        let (batcher, _) = start(BatchConfig { queue: 1, size: 1, ..BatchConfig::default() }, 50);
        runtime().block_on(async {
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let batcher = batcher.clone();
                    tokio::spawn(async move { batcher.embed(vec![1.0], batcher.announce()).await })
                })
                .collect();
            let (mut served, mut away) = (0, 0);
            for task in tasks {
                match task.await.unwrap() {
                    Ok(_) => served += 1,
                    Err(problem) => {
                        assert_eq!(problem.status(), 503);
                        away += 1;
                    }
                }
            }
            assert!(served >= 1 && away >= 1, "{served} served, {away} sent away");
        });
    }
}
