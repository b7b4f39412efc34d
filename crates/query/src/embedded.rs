//! A data set's vectors in memory.

use rayon::prelude::*;
use semblance_embed::Embedder;
use semblance_embed::dataset::{Dataset, Sample};
use semblance_embed::extract::{ExtractConfig, Failure, extract};
use semblance_embed::transform::decode_small_file;

use crate::answer::PhotoConfig;
use crate::answer::photo::mean_of_views;
use crate::error::{QueryError, Result};

/// The vectors of the pictures that could be read, in the data set's order.
#[derive(Debug)]
pub struct Embedded<'a> {
    /// The picture of each row.
    pub samples: Vec<&'a Sample>,
    /// Row after row, each of norm 1.
    pub vectors: Vec<f32>,
    /// Length of a row.
    pub dim: usize,
    /// The pictures that could not be read.
    pub failures: Vec<Failure>,
}

impl<'a> Embedded<'a> {
    /// Embeds every picture of `dataset`; `progress` gets how many are done, those that cannot be read included.
    ///
    /// # Errors
    /// [`QueryError::NothingReadable`] if there is no row at all, with `config.strict` the first unreadable picture, and
    /// failures of the model.
    pub fn new(
        embedder: &Embedder,
        dataset: &'a Dataset,
        config: &ExtractConfig,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut samples = Vec::with_capacity(dataset.len());
        let mut vectors = Vec::with_capacity(dataset.len() * embedder.dim());
        let mut keep = |rows: &[usize], batch: &[f32]| -> Result<()> {
            samples.extend(rows.iter().map(|row| &dataset.samples[*row]));
            vectors.extend_from_slice(batch);
            Ok(())
        };
        let extracted = extract(embedder, dataset, config, &mut keep, progress)?;
        if samples.is_empty() {
            return Err(QueryError::nothing_readable(dataset, &extracted.failures));
        }
        Ok(Self { samples, vectors, dim: embedder.dim(), failures: extracted.failures })
    }

    /// As [`Self::new`], with something done to each photograph first. A box that is not within a photograph makes it one
    /// that could not be read.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_photos(
        embedder: &Embedder,
        dataset: &'a Dataset,
        config: &ExtractConfig,
        photo: &PhotoConfig,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        if photo.is_plain() {
            return Self::new(embedder, dataset, config, progress);
        }
        let dim = embedder.dim();
        let mut embedded = Self { samples: Vec::new(), vectors: Vec::new(), dim, failures: Vec::new() };
        let (views, transform) = (photo.views.count(), embedder.transform());
        for (batch, samples) in dataset.samples.chunks(config.batch.max(1)).enumerate() {
            let read = |sample: &&'a Sample| -> Result<Vec<f32>> {
                let path = dataset.full_path(sample);
                let small = decode_small_file(&path, &config.limits, photo.short_side(transform))?;
                photo.pixels(transform, &small.picture)
            };
            let samples: Vec<&'a Sample> = samples.iter().collect();
            let views_of: Vec<Result<Vec<f32>>> = samples.par_iter().map(read).collect();
            let mut pixels = Vec::new();
            for (sample, outcome) in samples.into_iter().zip(views_of) {
                match outcome {
                    Ok(views) => {
                        pixels.extend(views);
                        embedded.samples.push(sample);
                    }
                    Err(error) if config.strict => return Err(error),
                    Err(error) => embedded.failures.push(failure(dataset, sample, &error)),
                }
            }
            let rows = pixels.len() / transform.output_len();
            if rows > 0 {
                let vectors = embedder.embed(&pixels, rows)?;
                embedded.vectors.extend(mean_of_views(&vectors, dim, views).concat());
            }
            progress(((batch + 1) * config.batch.max(1)).min(dataset.len()));
        }
        if embedded.samples.is_empty() {
            return Err(QueryError::nothing_readable(dataset, &embedded.failures));
        }
        Ok(embedded)
    }

    /// The class of each row.
    pub fn classes(&self) -> Vec<Option<String>> {
        self.samples.iter().map(|sample| sample.class.clone()).collect()
    }
}

fn failure(dataset: &Dataset, sample: &Sample, error: &QueryError) -> Failure {
    let reason = match error {
        QueryError::Image(error) => error.kind.to_string(),
        other => other.to_string(),
    };
    Failure { path: dataset.full_path(sample).display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use semblance_embed::ModelSource;
    use semblance_embed::dataset::{Dataset, DatasetConfig};

    use super::*;
    use crate::answer::Views;

    #[test]
    fn progress_counts_each_batch_when_it_is_done_and_reaches_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        for at in 0..5u8 {
            let picture =
                image::RgbImage::from_fn(24, 24, |x, y| image::Rgb([at * 40, x as u8 * 9, y as u8 * 9]));
            picture.save(dir.path().join(format!("{at}.png"))).unwrap();
        }
        std::fs::write(dir.path().join("0.png"), "no picture").unwrap();
        std::fs::write(dir.path().join("4.png"), "no picture").unwrap();
        let dataset = Dataset::open(&DatasetConfig::new(dir.path())).unwrap();
        let source = ModelSource { crop: Some(32), ..ModelSource::new("random:resnet10_tiny") };
        let embedder = Embedder::open(&source).unwrap();
        let config = ExtractConfig { batch: 2, threads: 1, ..ExtractConfig::default() };
        for views in [Views::default(), Views::Flip] {
            let mut seen = Vec::new();
            let photo = PhotoConfig { views, ..PhotoConfig::default() };
            let progress = &mut |done| seen.push(done);
            let embedded = Embedded::with_photos(&embedder, &dataset, &config, &photo, progress).unwrap();
            assert_eq!((embedded.samples.len(), embedded.failures.len()), (3, 2));
            assert_eq!(seen, [2, 4, 5], "{views:?}");
        }
    }
}
