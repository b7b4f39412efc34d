//! Photographs of concurrent requests through the model together, on a thread of its own.
//!
//! The jobs that arrive while the model is busy form the next batch: a single photograph is embedded at once, and none waits
//! longer than one batch. A batch is decoded on the threads that run the model afterwards, so that the two
//! never compete for processors. The queue is bounded; a request that finds it full is answered with `busy`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rayon::prelude::*;
use tokio::sync::oneshot;

use crate::config::BatchConfig;
use crate::problem::{Answer, Problem};

/// Pixels of `n` images to `n` vectors, or why not.
pub(crate) type Embed = Box<dyn Fn(&[f32], usize) -> Result<Vec<f32>, String> + Send>;
/// Told how many photographs go through together.
pub(crate) type OnBatch = Box<dyn Fn(usize) + Send>;
/// Makes a photograph ready for the model.
pub(crate) type Prepare = Box<dyn FnOnce() -> Answer<Ready> + Send>;

/// A photograph as the model takes it.
pub(crate) struct Ready {
    /// `f32[views][3][side][side]`.
    pub(crate) pixels: Vec<f32>,
    /// How many images these are.
    pub(crate) views: usize,
}

struct Job {
    prepare: Prepare,
    answer: oneshot::Sender<Answer<Vec<f32>>>,
}

type Prepared = (oneshot::Sender<Answer<Vec<f32>>>, Ready);

/// The way to the model's thread, which ends when this is dropped.
pub(crate) struct Batcher {
    queue: SyncSender<Job>,
}

impl Batcher {
    /// Starts the thread.
    pub(crate) fn start(config: BatchConfig, embed: Embed, on_batch: OnBatch) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(config.queue.max(1));
        let worker = Worker { config, jobs, embed, on_batch };
        std::thread::Builder::new().name("embedder".to_owned()).spawn(move || worker.run())?;
        Ok(Self { queue })
    }

    /// The vectors of a photograph's views, one after another.
    pub(crate) async fn embed(&self, prepare: Prepare) -> Answer<Vec<f32>> {
        let (answer, vectors) = oneshot::channel();
        match self.queue.try_send(Job { prepare, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(Problem::busy("too many photographs wait for the model: try again in a moment"));
            }
            Err(TrySendError::Disconnected(_)) => {
                return Err(Problem::internal("the model's thread is gone"));
            }
        }
        vectors.await.map_err(|_| Problem::internal("the model's thread dropped a photograph"))?
    }
}

struct Worker {
    config: BatchConfig,
    jobs: Receiver<Job>,
    embed: Embed,
    on_batch: OnBatch,
}

impl Worker {
    fn run(self) {
        while let Ok(first) = self.jobs.recv() {
            let more = self.jobs.try_iter().take(self.config.size.saturating_sub(1));
            // Skip jobs whose client has disconnected.
            let batch: Vec<Job> =
                std::iter::once(first).chain(more).filter(|job| !job.answer.is_closed()).collect();
            let mut ready: Vec<Prepared> = batch.into_par_iter().filter_map(prepared).collect();
            if !ready.is_empty() {
                (self.on_batch)(ready.len());
            }
            while !ready.is_empty() {
                let rest = ready.split_off(self.first_few(&ready));
                self.work(std::mem::replace(&mut ready, rest));
            }
        }
    }

    /// How many photographs from the front go through together. A network plans its memory per
    /// number of images and keeps the last four plans, so only a few numbers are used.
    fn first_few(&self, ready: &[Prepared]) -> usize {
        let views = ready[0].1.views;
        let alike = ready.iter().take_while(|(_, photo)| photo.views == views).count();
        power_of_four_below(alike.min((self.config.size / views).max(1)))
    }

    fn work(&self, batch: Vec<Prepared>) {
        let pixels: Vec<f32> = batch.iter().flat_map(|(_, photo)| photo.pixels.iter().copied()).collect();
        let images = batch.iter().map(|(_, photo)| photo.views).sum();
        match self.guarded(&pixels, images) {
            Ok(vectors) => {
                let each = vectors.len() / batch.len();
                for ((answer, _), vectors) in batch.into_iter().zip(vectors.chunks_exact(each.max(1))) {
                    let _ = answer.send(Ok(vectors.to_vec()));
                }
            }
            // The one that is to blame must not cost the others their answer.
            Err(_) if batch.len() > 1 => {
                for (answer, photo) in batch {
                    let vectors = self.guarded(&photo.pixels, photo.views);
                    let _ = answer.send(vectors.map_err(Problem::internal));
                }
            }
            Err(why) => {
                for (answer, _) in batch {
                    let _ = answer.send(Err(Problem::internal(&why)));
                }
            }
        }
    }

    fn guarded(&self, pixels: &[f32], n: usize) -> Result<Vec<f32>, String> {
        catch_unwind(AssertUnwindSafe(|| (self.embed)(pixels, n)))
            .unwrap_or_else(|_| Err("the model panicked".to_owned()))
    }
}

/// A photograph that can be used; the others are answered.
fn prepared(job: Job) -> Option<Prepared> {
    let Job { prepare, answer } = job;
    let ready = catch_unwind(AssertUnwindSafe(prepare))
        .unwrap_or_else(|_| Err(Problem::internal("decoding a photograph panicked")));
    match ready {
        Ok(ready) => Some((answer, ready)),
        Err(problem) => {
            let _ = answer.send(Err(problem));
            None
        }
    }
}

/// The largest power of four that is not above `n`.
fn power_of_four_below(n: usize) -> usize {
    1 << (n.ilog2() & !1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// One number per image; the vector is that number and its double. -1 panics, -2 fails.
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

    fn photo(views: &[f32]) -> Prepare {
        let ready = Ready { pixels: views.to_vec(), views: views.len() };
        Box::new(move || Ok(ready))
    }

    #[test]
    fn each_gets_its_own_vectors_and_work_is_shared() {
        let (batcher, sizes) = start(BatchConfig { size: 4, ..BatchConfig::default() }, 5);
        runtime().block_on(async {
            let tasks: Vec<_> = (0..40)
                .map(|i| {
                    let batcher = batcher.clone();
                    // Every fifth has two views.
                    let views = vec![i as f32; if i % 5 == 0 { 2 } else { 1 }];
                    tokio::spawn(async move { (batcher.embed(photo(&views)).await, views) })
                })
                .collect();
            for task in tasks {
                let (vectors, views) = task.await.unwrap();
                let wanted: Vec<f32> = views.iter().flat_map(|p| [*p, 2.0 * p]).collect();
                assert_eq!(vectors.unwrap(), wanted);
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
            let broken = || Box::new(|| Err(Problem::bad_request("no photograph"))) as Prepare;
            let panics = || Box::new(|| -> Answer<Ready> { panic!("a decoder's fault") }) as Prepare;
            let given = [
                (photo(&[1.0]), Ok(1.0)),
                (photo(&[-1.0]), Err(500)),
                (broken(), Err(400)),
                (photo(&[2.0]), Ok(2.0)),
                (photo(&[-2.0]), Err(500)),
                (panics(), Err(500)),
                (photo(&[3.0]), Ok(3.0)),
            ];
            let tasks = given.map(|(photo, wanted)| {
                let batcher = batcher.clone();
                (tokio::spawn(async move { batcher.embed(photo).await }), wanted)
            });
            for (task, wanted) in tasks {
                let answer = task.await.unwrap().map_err(|problem| problem.status().as_u16());
                assert_eq!(answer, wanted.map(|p| vec![p, 2.0 * p]));
            }
            assert_eq!(batcher.embed(photo(&[7.0])).await.unwrap(), [7.0, 14.0]);
        });
    }

    #[test]
    fn batches_have_few_sizes() {
        let sizes = [1, 2, 3, 4, 5, 15, 16, 17, 63, 64].map(power_of_four_below);
        assert_eq!(sizes, [1, 1, 1, 4, 4, 4, 16, 16, 16, 64]);
    }

    #[test]
    fn a_full_queue_sends_away() {
        let (batcher, _) = start(BatchConfig { queue: 1, size: 1 }, 50);
        runtime().block_on(async {
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let batcher = batcher.clone();
                    tokio::spawn(async move { batcher.embed(photo(&[1.0])).await })
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
