//! Learning an embedder from labelled photographs.

mod config;
mod log;
mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;
use serde::Serialize;

pub use config::TrainConfig;

use self::log::{RunLog, ValidationRecord};
use self::state::State;
use crate::checkpoint::CheckpointWriter;
use crate::dataset::Dataset;
use crate::embedder::Embedder;
use crate::error::{EmbedError, Result};
use crate::loader::{Batch, Loader, LoaderConfig, Transform};
use crate::loss::Loss;
use crate::optimizer::Sgd;
use crate::sampler::{Sampler, SamplerConfig};

/// What a run is asked to do, beside its settings.
#[derive(Debug)]
pub struct TrainJob<'a> {
    /// The photographs to learn from; those without a class are left out.
    pub data: &'a Dataset,
    /// The folder of the run: `best/`, `last/`, `train.jsonl`.
    pub run: &'a Path,
    /// Go on with the run in that folder, as if it had never stopped.
    pub resume: bool,
    /// Set from outside to stop after the step in progress; the state is saved first.
    pub stop: &'a AtomicBool,
}

/// What happens in a run, for whoever draws it.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainEvent {
    /// Before the first step.
    Planned(Plan),
    /// After a step.
    Stepped {
        /// Steps done.
        step: usize,
        /// The loss of its batch.
        loss: f32,
        /// Its learning rate.
        lr: f64,
        /// Photographs a second since the run (or its resumption) began.
        images_per_second: f64,
    },
    /// After a validation.
    Validated {
        /// Steps done.
        step: usize,
        /// Recall@1 on the held-out photographs.
        recall_at_1: f64,
        /// Whether it is the best so far.
        best: bool,
    },
    /// A photograph could not be read and was left out of its batch.
    Skipped {
        /// The file, and what is wrong with it.
        reason: String,
    },
}

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Photographs with a class.
    pub images: usize,
    /// Their classes.
    pub classes: usize,
    /// Photographs a batch.
    pub batch: usize,
    /// Steps in all.
    pub steps: usize,
    /// Steps done before, in a resumed run.
    pub done: usize,
    /// Learned values, the loss's included.
    pub parameters: usize,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainSummary {
    /// Steps done.
    pub steps: usize,
    /// Whether it was stopped before its last step.
    pub stopped: bool,
    /// The loss of the last batch.
    pub loss: Option<f32>,
    /// Recall@1 on the held-out photographs before the first step.
    pub recall_before: Option<f64>,
    /// The best Recall@1 on the held-out photographs, and the step it was reached at.
    pub best: Option<(usize, f64)>,
    /// The folder of the best model, or of the last where nothing was held out.
    pub model: PathBuf,
    /// Photographs that could not be read, each time they came up.
    pub skipped: usize,
}

/// Measures Recall@1 of a model on the held-out photographs.
pub type Validate<'a> = dyn FnMut(&Embedder) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Trains `embedder` in place.
///
/// After the last step `embedder` holds the last weights; the best by `validate` lie in `best/`. Without
/// `validate` the last ones do. A run resumed ends with the same weights as one never stopped, on the same
/// device and with the same number of threads.
///
/// # Errors
/// [`EmbedError::Config`] and [`EmbedError::Sampler`] for settings that contradict each other or the data,
/// [`EmbedError::Diverged`] if the loss is no longer finite, [`EmbedError::Checkpoint`] if there is nothing
/// to resume or something that may not be overwritten.
pub fn train(
    embedder: &mut Embedder,
    config: &TrainConfig,
    job: &TrainJob,
    mut validate: Option<&mut Validate>,
    progress: &mut dyn FnMut(TrainEvent),
) -> Result<TrainSummary> {
    config.check()?;
    let data = job.data.filter(|sample| sample.class.is_some());
    let classes = data.classes().len();
    if classes < 2 {
        let reason =
            format!("training needs at least two classes, {} has {classes}", job.data.root.display());
        return Err(EmbedError::Config { key: "data", reason });
    }
    let sampler_config = config.sampler_config();
    let mut sampler = Sampler::new(&sampler_config, &data, config.seed)?;
    let steps = config.total_steps(sampler.batches_per_epoch() as usize);
    let loss = config.loss.build(embedder.dim(), classes, &embedder.store().root().at("loss"))?;
    let mut run = Run {
        steps,
        loss,
        sgd: Sgd::new(config.optimizer),
        state: State::new(config, embedder.config(), &data),
        folder: job.run,
    };
    if job.resume {
        run.state = run.restore(embedder)?;
    } else if job.run.join("last").exists() || job.run.join("best").exists() {
        let reason = "it holds a run already; choose another folder, or resume that run".to_owned();
        return Err(EmbedError::Checkpoint { path: job.run.to_owned(), reason });
    }
    std::fs::create_dir_all(job.run).map_err(crate::error::io_at(job.run))?;
    let mut log = RunLog::open(job.run, run.state.step)?;
    progress(TrainEvent::Planned(Plan {
        images: data.len(),
        classes,
        batch: sampler_config.batch_size(),
        steps,
        done: run.state.step,
        parameters: embedder.store().parameter_count(""),
    }));

    if run.state.step == 0 && validate.is_some() {
        run.state.recall_before = run.validate(embedder, &mut validate, &mut log, progress)?;
    }
    sampler.skip_batches(run.state.step as u64);
    let labels: Vec<u32> = data.class_indices().into_iter().map(|c| c.unwrap_or(0) as u32).collect();
    let settings = LoaderConfig {
        threads: config.threads,
        seed: config.seed,
        start_step: run.state.step as u64,
        ..LoaderConfig::default()
    };
    let transform = Transform::Train(config.augment.clone());
    let mut loader = Loader::new(Arc::new(data), sampler, transform, &settings)?;
    let began = Instant::now();
    let (mut seen, mut last_loss, mut skipped) = (0, None, 0);
    while run.state.step < steps && !job.stop.load(Ordering::Relaxed) {
        let Some(batch) = loader.next() else { break };
        skipped += batch.failures.len();
        for (_, error) in &batch.failures {
            progress(TrainEvent::Skipped { reason: error.to_string() });
        }
        let lr = config.schedule.at(run.state.step, steps);
        if usable(&batch, &sampler_config) {
            let value = run.step(embedder, &batch, &labels, lr)?;
            seen += batch.indices.len();
            last_loss = Some(value);
            let images_per_second = seen as f64 / began.elapsed().as_secs_f64();
            log.step(run.state.step, value, lr, images_per_second)?;
            progress(TrainEvent::Stepped { step: run.state.step, loss: value, lr, images_per_second });
        } else {
            run.state.step += 1;
        }
        let step = run.state.step;
        if validate.is_some() && (step.is_multiple_of(config.validate_every) || step == steps) {
            run.validate(embedder, &mut validate, &mut log, progress)?;
        }
        if step.is_multiple_of(config.save_every) && step < steps {
            run.save(embedder)?;
        }
    }
    embedder.weights_changed()?;
    run.save(embedder)?;
    let model = job.run.join(if run.state.best.is_some() { "best" } else { "last" });
    Ok(TrainSummary {
        steps: run.state.step,
        stopped: run.state.step < steps,
        loss: last_loss,
        recall_before: run.state.recall_before,
        best: run.state.best,
        model,
        skipped,
    })
}

/// A batch whose rows mean something by their order is useless when one is missing; any other, when nearly all
/// are.
fn usable(batch: &Batch, sampler: &SamplerConfig) -> bool {
    let whole = batch.failures.is_empty();
    if matches!(sampler, SamplerConfig::Triplet { .. }) { whole } else { batch.indices.len() >= 2 }
}

/// A run's moving parts.
struct Run<'a> {
    steps: usize,
    loss: Box<dyn Loss>,
    sgd: Sgd,
    state: State,
    folder: &'a Path,
}

impl Run<'_> {
    fn step(&mut self, embedder: &Embedder, batch: &Batch, labels: &[u32], lr: f64) -> Result<f32> {
        let labels: Vec<u32> = batch.indices.iter().map(|&i| labels[i]).collect();
        let shape = (labels.len(), 3, batch.size, batch.size);
        let images = Tensor::from_slice(&batch.pixels, shape, embedder.store().device())?;
        let loss = self.loss.forward(&embedder.features(&images, true)?, &labels)?;
        let value: f32 = loss.to_scalar()?;
        if !value.is_finite() {
            let saved = self.folder.join("last");
            let checkpoint =
                if saved.exists() { saved.display().to_string() } else { "not there yet".to_owned() };
            return Err(EmbedError::Diverged { step: self.state.step, loss: value, checkpoint });
        }
        self.sgd.step(embedder.store(), &loss.backward()?, lr)?;
        self.state.step += 1;
        Ok(value)
    }

    /// Measures, and keeps the model if it is the best so far.
    fn validate(
        &mut self,
        embedder: &mut Embedder,
        validate: &mut Option<&mut Validate>,
        log: &mut RunLog,
        progress: &mut dyn FnMut(TrainEvent),
    ) -> Result<Option<f64>> {
        let Some(validate) = validate else { return Ok(None) };
        embedder.weights_changed()?;
        let recall = validate(embedder).map_err(|source| EmbedError::Validation { source })?;
        let step = self.state.step;
        let best = self.state.best.is_none_or(|(_, before)| recall > before);
        if best {
            self.state.best = Some((step, recall));
            embedder.save(&self.folder.join("best"))?;
        }
        log.validation(&ValidationRecord { step, recall_at_1: recall, best })?;
        progress(TrainEvent::Validated { step, recall_at_1: recall, best });
        Ok(Some(recall))
    }

    fn save(&self, embedder: &Embedder) -> Result<()> {
        let writer = CheckpointWriter::new(&self.folder.join("last"))?;
        embedder.save_into(&writer)?;
        self.state.save_into(&writer, embedder.store(), &self.sgd)?;
        writer.commit()
    }

    fn restore(&mut self, embedder: &mut Embedder) -> Result<State> {
        let saved = State::load(&self.folder.join("last"), &self.state, embedder, &mut self.sgd)?;
        if saved.step > self.steps {
            let reason =
                format!("the run already took {} steps, more than the {} asked for", saved.step, self.steps);
            return Err(EmbedError::Config { key: "steps", reason });
        }
        Ok(saved)
    }
}
