//! Batches of pixels, decoded in parallel ahead of their consumer.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::dataset::Dataset;
use crate::sampler::seeded;
use crate::transform::{
    EvalTransform, ImageError, ImageErrorKind, Limits, TrainTransform, TransformError, decode_file,
    decode_small_file,
};

/// What is done with a decoded picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// Always the same view.
    Eval(EvalTransform),
    /// A random view, determined by the seed, the number of the step and the place in the batch.
    Train(TrainTransform),
}

impl Transform {
    /// Width and height of the result.
    pub fn size(&self) -> usize {
        match self {
            Self::Eval(transform) => transform.crop as usize,
            Self::Train(transform) => transform.size as usize,
        }
    }

    fn validate(&self) -> Result<(), TransformError> {
        match self {
            Self::Eval(transform) => transform.validate(),
            Self::Train(transform) => transform.validate(),
        }
    }
}

/// How a [`Loader`] works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Threads that decode; 0 takes one for every processor.
    pub threads: usize,
    /// Batches that are prepared while the consumer works on another; at least 1.
    pub ahead: usize,
    /// What a file may cost.
    pub limits: Limits,
    /// Seed of random views.
    pub seed: u64,
    /// Number of the first batch, so that a resumed training sees the same random views.
    pub start_step: u64,
    /// Width and height of random views from the batch of this number on, in ascending order; before the first, and
    /// with none, as the transform says.
    pub sizes: Vec<(u64, u32)>,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { threads: 0, ahead: 2, limits: Limits::default(), seed: 0, start_step: 0, sizes: vec![] }
    }
}

/// Why a loader cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// The transform is impossible.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// The system gives no threads.
    #[error("cannot start {threads} decoding threads: {reason}")]
    Threads {
        /// Threads asked for; 0 is one for every processor.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

/// Pictures ready for a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `f32[indices.len()][3][size][size]`.
    pub pixels: Vec<f32>,
    /// Width and height of each picture.
    pub size: usize,
    /// Positions in the data set of the pictures in `pixels`, in the order asked for.
    pub indices: Vec<usize>,
    /// Positions of those left out because they cannot be read, and why.
    pub failures: Vec<(usize, ImageError)>,
}

type Outcome = Result<Vec<f32>, ImageError>;

struct Pending {
    indices: Vec<usize>,
    size: usize,
    results: Receiver<(usize, Outcome)>,
}

struct Work {
    dataset: Arc<Dataset>,
    transform: Transform,
    limits: Limits,
    seed: u64,
    sizes: Vec<(u64, u32)>,
    stopped: AtomicBool,
}

/// An iterator of [`Batch`]es in the order of the index batches given. At most [`LoaderConfig::ahead`] batches wait beside
/// the one being consumed. Dropping it makes the threads stop after the picture they are at.
pub struct Loader<I> {
    batches: I,
    pending: VecDeque<Pending>,
    pool: rayon::ThreadPool,
    work: Arc<Work>,
    ahead: usize,
    step: u64,
}

impl<I: Iterator<Item = Vec<usize>>> Loader<I> {
    /// Starts the threads and the first batches.
    ///
    /// # Errors
    /// [`LoaderError`] if the transform is impossible or the system gives no threads.
    pub fn new(
        dataset: Arc<Dataset>,
        batches: impl IntoIterator<IntoIter = I, Item = Vec<usize>>,
        transform: Transform,
        config: &LoaderConfig,
    ) -> Result<Self, LoaderError> {
        transform.validate()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .thread_name(|i| format!("decode-{i}"))
            .build()
            .map_err(|e| LoaderError::Threads { threads: config.threads, reason: e.to_string() })?;
        let &LoaderConfig { limits, seed, ref sizes, .. } = config;
        let (sizes, stopped) = (sizes.clone(), AtomicBool::new(false));
        let work = Arc::new(Work { dataset, transform, limits, seed, sizes, stopped });
        for &(batch, _) in &work.sizes {
            work.at(batch).validate()?;
        }
        let mut loader = Self {
            batches: batches.into_iter(),
            pending: VecDeque::new(),
            pool,
            work,
            ahead: config.ahead.max(1),
            step: config.start_step,
        };
        loader.fill(loader.ahead);
        Ok(loader)
    }

    fn fill(&mut self, wanted: usize) {
        while self.pending.len() < wanted {
            let Some(indices) = self.batches.next() else { return };
            let (sender, results) = channel();
            for (place, &index) in indices.iter().enumerate() {
                let (work, sender, step) = (Arc::clone(&self.work), sender.clone(), self.step);
                self.pool.spawn_fifo(move || work.run(index, step, place, &sender));
            }
            let size = self.work.at(self.step).size();
            self.pending.push_back(Pending { indices, size, results });
            self.step = self.step.wrapping_add(1);
        }
    }
}

impl<I: Iterator<Item = Vec<usize>>> Iterator for Loader<I> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.fill(1);
        let Pending { indices, size, results } = self.pending.pop_front()?;
        self.fill(self.ahead);
        let mut outcomes: Vec<Option<Outcome>> = indices.iter().map(|_| None).collect();
        // Ends when the last task has dropped its sender, which it does even if it panics.
        for (place, outcome) in results {
            outcomes[place] = Some(outcome);
        }
        let mut batch = Batch {
            pixels: Vec::with_capacity(indices.len() * 3 * size * size),
            size,
            indices: Vec::with_capacity(indices.len()),
            failures: Vec::new(),
        };
        for (index, outcome) in indices.into_iter().zip(outcomes) {
            match outcome {
                Some(Ok(pixels)) => {
                    batch.pixels.extend(pixels);
                    batch.indices.push(index);
                }
                Some(Err(error)) => batch.failures.push((index, error)),
                None => batch.failures.push((index, self.work.error(index, "its task vanished".to_owned()))),
            }
        }
        Some(batch)
    }
}

impl<I> Drop for Loader<I> {
    fn drop(&mut self) {
        self.work.stopped.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// The transform of the batch of this number.
    fn at(&self, step: u64) -> Cow<'_, Transform> {
        let size = self.sizes.iter().take_while(|(from, _)| *from <= step).last();
        match (&self.transform, size) {
            (Transform::Train(transform), Some(&(_, size))) => {
                Cow::Owned(Transform::Train(TrainTransform { size, ..transform.clone() }))
            }
            _ => Cow::Borrowed(&self.transform),
        }
    }

    fn run(&self, index: usize, step: u64, place: usize, sender: &Sender<(usize, Outcome)>) {
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        let outcome =
            catch_unwind(AssertUnwindSafe(|| self.load(index, step, place))).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown fault");
                Err(self.error(index, text.to_owned()))
            });
        // The consumer may be gone already; then nobody wants the result.
        let _ = sender.send((place, outcome));
    }

    fn load(&self, index: usize, step: u64, place: usize) -> Outcome {
        let len = self.dataset.len();
        let Some(sample) = self.dataset.samples.get(index) else {
            return Err(ImageError { path: None, kind: ImageErrorKind::NoSuchSample { index, len } });
        };
        let path = self.dataset.full_path(sample);
        Ok(match self.at(step).as_ref() {
            Transform::Eval(transform) => {
                transform.apply(&decode_small_file(&path, &self.limits, transform.resize)?.picture)
            }
            Transform::Train(transform) => {
                let image = decode_file(&path, &self.limits)?;
                transform.apply(&image, &mut seeded([self.seed, 2, step, place as u64]))
            }
        })
    }

    fn error(&self, index: usize, reason: String) -> ImageError {
        let path = self.dataset.samples.get(index).map(|s| self.dataset.full_path(s));
        ImageError { path, kind: ImageErrorKind::Panicked(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Sample;
    use image::{Rgb, RgbImage};
    use std::time::{Duration, Instant};

    /// Pictures `0.png`, `1.png`, … of which each has its number as its colour, and a text file as the last.
    fn photos(count: usize) -> (tempfile::TempDir, Arc<Dataset>) {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..count {
            let picture = RgbImage::from_fn(20, 24, |x, y| Rgb([i as u8, (x * 12) as u8, (y * 10) as u8]));
            picture.save(dir.path().join(format!("{i}.png"))).unwrap();
        }
        std::fs::write(dir.path().join(format!("{count}.png")), "no picture").unwrap();
        let sample = |i: usize| Sample {
            path: format!("{i}.png").into(),
            class: None,
            super_class: None,
            split: None,
        };
        let set = Dataset::new(dir.path(), "photos", (0..=count).map(sample).collect());
        (dir, Arc::new(set))
    }

    fn eval() -> Transform {
        let plain =
            EvalTransform { resize: 8, crop: 8, mean: [0.0; 3], std: [1.0; 3], ..EvalTransform::default() };
        Transform::Eval(plain)
    }

    fn train() -> Transform {
        Transform::Train(TrainTransform { size: 8, ..TrainTransform::default() })
    }

    fn config(threads: usize, ahead: usize) -> LoaderConfig {
        LoaderConfig { threads, ahead, seed: 5, ..LoaderConfig::default() }
    }

    #[test]
    fn order_is_kept_and_failures_are_reported() {
        let (_dir, set) = photos(10);
        let batches = vec![vec![3, 1, 10, 2], vec![], vec![10], vec![9, 99, 9]];
        for (threads, ahead) in [(1, 0), (1, 1), (1, 9), (3, 1), (4, 3)] {
            let loader =
                Loader::new(Arc::clone(&set), batches.clone(), eval(), &config(threads, ahead)).unwrap();
            let out: Vec<Batch> = loader.collect();
            let indices: Vec<_> = out.iter().map(|b| b.indices.clone()).collect();
            assert_eq!(indices, [vec![3, 1, 2], vec![], vec![], vec![9, 9]]);
            for batch in &out {
                let red = batch.pixels.chunks(3 * 64).map(|p| (p[0] * 255.0).round() as usize);
                assert_eq!(red.collect::<Vec<_>>(), batch.indices);
                assert_eq!(batch.size, 8);
            }
            assert_eq!(out[0].failures[0].0, 10);
            assert!(out[0].failures[0].1.to_string().contains("10.png"));
            assert_eq!(out[2].failures.len(), 1);
            assert_eq!(out[3].failures[0].1.kind, ImageErrorKind::NoSuchSample { index: 99, len: 11 });
        }
    }

    #[test]
    fn random_views_depend_on_seed_step_and_place_only() {
        let (_dir, set) = photos(4);
        let batches = |n: usize| vec![vec![0, 1, 2, 3, 0]; n];
        let all = |threads, start_step, n| -> Vec<Batch> {
            let config = LoaderConfig { start_step, ..config(threads, 2) };
            Loader::new(Arc::clone(&set), batches(n), train(), &config).unwrap().collect()
        };
        let whole = all(1, 0, 6);
        assert_eq!(whole, all(4, 0, 6));
        assert_eq!(whole[4..], all(2, 4, 2));
        let picture = |batch: &Batch, place: usize| batch.pixels[place * 192..(place + 1) * 192].to_vec();
        assert_ne!(picture(&whole[0], 0), picture(&whole[1], 0));
        assert_ne!(picture(&whole[0], 0), picture(&whole[0], 4));
        let other = LoaderConfig { seed: 6, ..config(1, 2) };
        let other: Vec<Batch> = Loader::new(set, batches(1), train(), &other).unwrap().collect();
        assert_ne!(other[0].pixels, whole[0].pixels);
    }

    #[test]
    fn dropping_stops_the_work() {
        let (_dir, set) = photos(4);
        let endless = std::iter::repeat_with(|| [0, 1, 2, 3].repeat(2000));
        let mut loader = Loader::new(set, endless, eval(), &config(2, 50)).unwrap();
        let work = Arc::clone(&loader.work);
        assert_eq!(loader.next().unwrap().indices.len(), 8000);
        drop(loader);
        // 400,000 pictures would take minutes; what remains is one per thread.
        let start = Instant::now();
        while Arc::strong_count(&work) > 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "the threads work on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_panic_is_an_error_of_that_picture() {
        let (_dir, set) = photos(3);
        let loader = Loader::new(set, vec![vec![0]], eval(), &config(1, 1)).unwrap();
        let mut broken = Transform::Eval(EvalTransform::default());
        if let Transform::Eval(t) = &mut broken {
            t.crop = u32::MAX;
        }
        let work = Work {
            dataset: Arc::clone(&loader.work.dataset),
            transform: broken,
            limits: Limits::default(),
            seed: 0,
            sizes: vec![],
            stopped: AtomicBool::new(false),
        };
        let (sender, receiver) = channel();
        work.run(1, 0, 7, &sender);
        let (place, outcome) = receiver.recv().unwrap();
        let error = outcome.unwrap_err();
        assert_eq!(place, 7);
        assert!(matches!(error.kind, ImageErrorKind::Panicked(_)), "{error}");
        assert!(error.to_string().contains("1.png"));
    }

    #[test]
    fn an_impossible_transform_is_refused() {
        let (_dir, set) = photos(1);
        let broken = Transform::Train(TrainTransform { size: 0, ..TrainTransform::default() });
        assert!(matches!(
            Loader::new(set, vec![vec![0]], broken, &config(1, 1)),
            Err(LoaderError::Transform(_))
        ));
    }
}
