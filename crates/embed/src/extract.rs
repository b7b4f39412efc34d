//! A whole catalogue through the embedder.

use std::sync::Arc;

use serde::Serialize;

use crate::dataset::Dataset;
use crate::embedder::Embedder;
use crate::error::Result;
use crate::loader::{Loader, LoaderConfig, Transform};
use crate::transform::Limits;

/// How a catalogue is embedded.
#[derive(Debug, Clone)]
pub struct ExtractConfig {
    /// Photographs a batch.
    pub batch: usize,
    /// Threads that decode beside the network; 0 takes one for every processor.
    pub threads: usize,
    /// What one file may cost.
    pub limits: Limits,
    /// Make the first unreadable photograph an error instead of passing over it.
    pub strict: bool,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self { batch: 16, threads: 0, limits: Limits::default(), strict: false }
    }
}

/// A photograph that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What became of a catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Extracted {
    /// Photographs embedded.
    pub embedded: usize,
    /// Photographs passed over.
    pub failures: Vec<Failure>,
}

/// Takes the positions in the data set of a batch's photographs and their unit vectors, row by row.
pub type OnBatch<'a, E> = dyn FnMut(&[usize], &[f32]) -> std::result::Result<(), E> + 'a;

/// Embeds every sample of `dataset` in its order. `on_batch` gets the positions in the data set of a batch's
/// photographs and their unit vectors, row by row; `progress` the number of samples dealt with so far.
///
/// # Errors
/// Whatever `on_batch` returns, and with [`ExtractConfig::strict`] the first photograph that cannot be read.
pub fn extract<E: From<crate::EmbedError>>(
    embedder: &Embedder,
    dataset: &Dataset,
    config: &ExtractConfig,
    on_batch: &mut OnBatch<'_, E>,
    progress: &mut dyn FnMut(usize),
) -> std::result::Result<Extracted, E> {
    let mut outcome = Extracted::default();
    let mut done = 0;
    for batch in loader(embedder, dataset, config)? {
        done += batch.indices.len() + batch.failures.len();
        for (index, error) in batch.failures {
            if config.strict {
                return Err(crate::EmbedError::Image(error).into());
            }
            let path = dataset.full_path(&dataset.samples[index]).display().to_string();
            outcome.failures.push(Failure { path, reason: error.kind.to_string() });
        }
        if !batch.indices.is_empty() {
            let vectors = embedder.embed(&batch.pixels, batch.indices.len())?;
            outcome.embedded += batch.indices.len();
            on_batch(&batch.indices, &vectors)?;
        }
        progress(done);
    }
    Ok(outcome)
}

fn loader(
    embedder: &Embedder,
    dataset: &Dataset,
    config: &ExtractConfig,
) -> Result<Loader<impl Iterator<Item = Vec<usize>> + use<>>> {
    let (count, size) = (dataset.len(), config.batch.max(1));
    let batches = (0..count).step_by(size).map(move |start| (start..(start + size).min(count)).collect());
    let settings = LoaderConfig { threads: config.threads, limits: config.limits, ..LoaderConfig::default() };
    let transform = Transform::Eval(embedder.transform().clone());
    Ok(Loader::new(Arc::new(dataset.clone()), batches, transform, &settings)?)
}
