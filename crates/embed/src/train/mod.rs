//! Learning an embedder from labelled photographs.

mod average;
#[cfg(test)]
mod choice_tests;
mod config;
mod events;
mod freeze;
mod holdout;
mod learner;
mod log;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;

pub use config::TrainConfig;
pub use freeze::Freeze;
pub use holdout::{Holdout, Protocol};

use self::learner::Learner;
use self::log::{RunLog, ValidationRecord};
use self::state::State;
use crate::checkpoint::CheckpointWriter;
use crate::dataset::Dataset;
use crate::embedder::Embedder;
use crate::error::{EmbedError, Result};
use crate::loader::{Batch, Loader, LoaderConfig, Transform};
use crate::sampler::{Sampler, SamplerConfig};

/// What a run is asked to do, beside its settings.
#[derive(Debug)]
pub struct TrainJob<'a> {
    /// The photographs to learn from; those without a class are left out.
    pub data: &'a Dataset,
    /// The folder of the run: `best/`, `last/`, `train.jsonl`, and event files for TensorBoard.
    pub run: &'a Path,
    /// Go on with the run in that folder, as if it had never stopped.
    pub resume: bool,
    /// Set from outside to stop after the step in progress; the state is saved first.
    pub stop: &'a AtomicBool,
}

/// What happens in a run, for displaying its progress.
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
        /// What was measured on the held-out photographs.
        score: Score,
        /// Whether it is kept as the best so far.
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
    /// Memory for them, their gradients, what the optimiser remembers of them and their average, in bytes. What the
    /// layers keep of a batch for its gradient comes on top, and is most of it for all but small batches.
    pub bytes: usize,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainSummary {
    /// Steps done.
    pub steps: usize,
    /// Whether it was stopped before its last step.
    pub stopped: bool,
    /// Whether it ended before its last step because validations no longer got better.
    pub early: bool,
    /// The loss of the last batch.
    pub loss: Option<f32>,
    /// Recall@1 on the held-out photographs before the first step.
    pub recall_before: Option<f64>,
    /// The best Recall@1 on the held-out photographs, and the step it was reached at. Where several had it, that of the
    /// best MAP@R, and of those the last.
    pub best: Option<(usize, f64)>,
    /// MAP@R of the best.
    pub best_map_at_r: Option<f64>,
    /// The folder of the best model, or of the last where nothing was held out.
    pub model: PathBuf,
    /// Photographs that could not be read, each time they came up.
    pub skipped: usize,
}

/// What a validation measures.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
pub struct Score {
    /// Recall@1 on the held-out photographs, by which models are chosen.
    pub recall_at_1: f64,
    /// MAP@R on them, by which models of the same Recall@1 are chosen: it goes on telling them apart where every query finds
    /// a photograph of its class.
    pub map_at_r: f64,
}

/// Measures a model on the held-out photographs.
pub type Validate<'a> = dyn FnMut(&Embedder) -> Result<Score, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Trains `embedder` in place.
///
/// After the last step `embedder` holds the last weights; the best by `validate` lie in `best/`. Without
/// `validate` the last ones do. A run resumed ends with the same weights as one never stopped, on the same
/// device and with the same number of threads.
///
/// # Errors
/// [`EmbedError::Config`] and [`EmbedError::Sampler`] for settings that contradict each other or the data,
/// [`EmbedError::Diverged`] if the loss is no longer finite, [`EmbedError::Exploded`] if it runs away, [`EmbedError::Checkpoint`] if there is nothing
/// to resume or something that may not be overwritten.
pub fn train(
    embedder: &mut Embedder,
    config: &TrainConfig,
    job: &TrainJob,
    mut validate: Option<&mut Validate>,
    progress: &mut dyn FnMut(TrainEvent),
) -> Result<TrainSummary> {
    config.check()?;
    embedder.config().check_side("train_size", config.augment.size)?;
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
    let learner = Learner::new(config, embedder, classes)?;
    let state = State::new(config, embedder.config(), &data);
    let mut run = Run { steps, learner, state, folder: job.run };
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
        bytes: {
            let copies = 2 + config.optimizer.copies() + usize::from(config.average > 0.0);
            4 * copies * embedder.store().parameter_count("")
        },
    }));

    if run.state.step == 0 && validate.is_some() {
        run.state.recall_before = run.validate(embedder, &mut validate, &mut log, progress)?;
    }
    let done_batches = (run.state.step * config.accumulate) as u64;
    sampler.skip_batches(done_batches);
    let labels: Vec<u32> = data.class_indices().into_iter().map(|c| c.unwrap_or(0) as u32).collect();
    let settings = LoaderConfig {
        threads: config.threads,
        seed: config.seed,
        start_step: done_batches,
        sizes: config.sizes(steps),
        ..LoaderConfig::default()
    };
    let transform = Transform::Train(config.augment.clone());
    let mut loader = Loader::new(Arc::new(data), sampler, transform, &settings)?;
    let began = Instant::now();
    let (mut seen, mut last_loss, mut skipped) = (0, None, 0);
    let worn_out = |state: &State| config.patience > 0 && state.stale >= config.patience;
    while run.state.step < steps && !job.stop.load(Ordering::Relaxed) && !worn_out(&run.state) {
        let batches: Vec<Batch> = loader.by_ref().take(config.accumulate).collect();
        for (_, error) in batches.iter().flat_map(|batch| &batch.failures) {
            skipped += 1;
            progress(TrainEvent::Skipped { reason: error.to_string() });
        }
        let lr = config.schedule.at(run.state.step, steps);
        if config.turns_at(run.state.step, steps) {
            run.learner.watch.restart();
        }
        let batches: Vec<&Batch> = batches.iter().filter(|batch| usable(batch, &sampler_config)).collect();
        if batches.is_empty() {
            run.state.step += 1;
        } else {
            let value = run.step(embedder, &batches, &labels, lr)?;
            seen += batches.iter().map(|batch| batch.indices.len()).sum::<usize>();
            last_loss = Some(value);
            let images_per_second = seen as f64 / began.elapsed().as_secs_f64();
            log.step(run.state.step, value, lr, images_per_second)?;
            progress(TrainEvent::Stepped { step: run.state.step, loss: value, lr, images_per_second });
        }
        let step = run.state.step;
        if validate.is_some() && (step.is_multiple_of(config.validate_every) || step == steps) {
            run.validate(embedder, &mut validate, &mut log, progress)?;
        }
        // What an explosion has touched does not take the place of what was good.
        if step.is_multiple_of(config.save_every) && step < steps && !run.learner.watch.is_over() {
            run.save(embedder)?;
            if config.keep > 0 {
                run.keep(embedder, config.keep)?;
            }
        }
    }
    run.save(embedder)?;
    embedder.store().freeze_norms(false);
    run.swap(embedder)?;
    embedder.weights_changed()?;
    let model = job.run.join(if run.state.best.is_some() { "best" } else { "last" });
    Ok(TrainSummary {
        steps: run.state.step,
        stopped: run.state.step < steps && !worn_out(&run.state),
        early: run.state.step < steps && worn_out(&run.state),
        loss: last_loss,
        recall_before: run.state.recall_before,
        best: run.state.best,
        best_map_at_r: run.state.best_map_at_r,
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
    learner: Learner,
    state: State,
    folder: &'a Path,
}

impl Run<'_> {
    fn step(&mut self, embedder: &Embedder, batches: &[&Batch], labels: &[u32], lr: f64) -> Result<f32> {
        let (loss, norm) = self.learner.step(embedder, batches, labels, self.state.step, lr)?;
        let saved = self.folder.join("last");
        let checkpoint =
            if saved.exists() { saved.display().to_string() } else { "not there yet".to_owned() };
        if !loss.is_finite() || !norm.is_finite() {
            let what = if loss.is_finite() { "gradient" } else { "loss" };
            let value = if loss.is_finite() { norm as f32 } else { loss };
            return Err(EmbedError::Diverged { step: self.state.step, what, value, checkpoint });
        }
        self.state.step += 1;
        if let Some(watch::Explosion { what, value, median }) = self.learner.watch.see(loss, norm as f32) {
            return Err(EmbedError::Exploded { step: self.state.step, what, value, median, checkpoint });
        }
        Ok(loss)
    }

    /// Puts the averaged weights, if there are any, in the place of those that learn, or back.
    fn swap(&mut self, embedder: &Embedder) -> Result<()> {
        if let Some(average) = &mut self.learner.average {
            average.swap(embedder.store())?;
        }
        Ok(())
    }

    /// Saves the model under its step's number and removes the oldest beyond `count`.
    fn keep(&mut self, embedder: &Embedder, count: usize) -> Result<()> {
        self.swap(embedder)?;
        let saved = embedder.save(&self.folder.join(format!("step-{:06}", self.state.step)));
        self.swap(embedder)?;
        saved?;
        let entries = std::fs::read_dir(self.folder).map_err(crate::error::io_at(self.folder))?;
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let mut kept: Vec<String> =
            entries.filter_map(name).filter(|name| name.starts_with("step-")).collect();
        kept.sort();
        for old in &kept[..kept.len().saturating_sub(count)] {
            let path = self.folder.join(old);
            std::fs::remove_dir_all(&path).map_err(crate::error::io_at(&path))?;
        }
        Ok(())
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
        self.swap(embedder)?;
        embedder.weights_changed()?;
        let score = validate(embedder).map_err(|source| EmbedError::Validation { source })?;
        let step = self.state.step;
        let kept = self.state.best.map(|(_, recall_at_1)| {
            // Runs that began before MAP@R was measured have none.
            let map_at_r = self.state.best_map_at_r.unwrap_or(f64::NEG_INFINITY);
            Score { recall_at_1, map_at_r }
        });
        let better = kept.is_none_or(|kept| score > kept);
        // Of equals the one trained longer is kept: a measure that is full from the start chooses no untrained model.
        let best = better || kept == Some(score);
        self.state.stale = if better { 0 } else { self.state.stale + 1 };
        if best {
            self.state.best = Some((step, score.recall_at_1));
            self.state.best_map_at_r = Some(score.map_at_r);
            embedder.save(&self.folder.join("best"))?;
        }
        self.swap(embedder)?;
        log.validation(&ValidationRecord { step, score, best })?;
        progress(TrainEvent::Validated { step, score, best });
        Ok(Some(score.recall_at_1))
    }

    fn save(&mut self, embedder: &Embedder) -> Result<()> {
        self.swap(embedder)?;
        let saved = self.write(embedder);
        self.swap(embedder)?;
        saved
    }

    fn write(&self, embedder: &Embedder) -> Result<()> {
        let writer = CheckpointWriter::new(&self.folder.join("last"))?;
        embedder.save_into(&writer)?;
        self.state.save_into(&writer, embedder.store(), &self.learner)?;
        writer.commit()
    }

    fn restore(&mut self, embedder: &mut Embedder) -> Result<State> {
        let saved = State::load(&self.folder.join("last"), &self.state, embedder, &mut self.learner)?;
        if saved.step > self.steps {
            let reason =
                format!("the run already took {} steps, more than the {} asked for", saved.step, self.steps);
            return Err(EmbedError::Config { key: "steps", reason });
        }
        Ok(saved)
    }
}

#[cfg(test)]
mod transformer_tests;
