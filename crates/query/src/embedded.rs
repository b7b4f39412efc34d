//! A data set's vectors in memory.

use semblance_embed::Embedder;
use semblance_embed::dataset::{Dataset, Sample};
use semblance_embed::extract::{ExtractConfig, Failure, extract};

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
    /// Embeds every picture of `dataset`; `progress` is told how many are done.
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

    /// The class of each row.
    pub fn classes(&self) -> Vec<Option<String>> {
        self.samples.iter().map(|sample| sample.class.clone()).collect()
    }
}
