//! The settings of a training run.

use serde::{Deserialize, Serialize};

use super::Freeze;
use crate::error::{EmbedError, Result};
use crate::loss::LossConfig;
use crate::miner::Miner;
use crate::optimizer::{Algorithm, OptimizerConfig};
use crate::sampler::SamplerConfig;
use crate::schedule::{Schedule, Shape};
use crate::transform::TrainTransform;

/// Everything that decides what a run computes. Two runs with equal settings, data and initial weights on the
/// same device compute the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// What is minimised.
    pub loss: LossConfig,
    /// Photographs a batch.
    pub batch: usize,
    /// Photographs of each class in a batch, for losses that compare photographs; 0 draws them shuffled.
    pub per_class: usize,
    /// Different super classes a batch, an equal share of its classes from each; 0 does not look at super classes.
    pub super_classes: usize,
    /// Batches whose mean gradient makes one step.
    pub accumulate: usize,
    /// Photographs that go through the network at a time, with the gradient of the whole batch all the same
    /// (GradCache: Gao et al. 2021, arXiv 2101.06983); 0 is the whole batch. Batch norm sees the chunk alone unless its
    /// statistics are frozen.
    pub chunk: usize,
    /// Embeddings of earlier batches that a pair loss compares with too (cross-batch memory); 0 is none.
    pub memory: usize,
    /// Step from which on the memory is used.
    pub memory_start: usize,
    /// Decay of the moving average of the weights, which is then what is validated and kept; 0 is none.
    pub average: f64,
    /// How long the backbone stays as it is.
    pub freeze_backbone: Freeze,
    /// How long batch norms keep their running statistics and normalise by them; layer norms have none.
    pub freeze_norms: Freeze,
    /// Passes over the photographs.
    pub epochs: f64,
    /// Steps in all, instead of `epochs`.
    pub steps: Option<usize>,
    /// The learning rate over the run.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// How photographs are varied.
    pub augment: TrainTransform,
    /// Width and height of the photographs over the run, which is divided into as many equal parts; the last is that of
    /// `augment`. None is that of `augment` throughout.
    pub progressive_size: Vec<u32>,
    /// The loss or the gradient's norm beyond so many times its median over the first 20 steps counts as exploding; 0 never
    /// does.
    pub explode_factor: f64,
    /// Exploding steps one after another that end the run.
    pub explode_steps: usize,
    /// Steps between validations.
    pub validate_every: usize,
    /// Steps between saved states.
    pub save_every: usize,
    /// Saved models kept beside the best and the last, in `step-NNNNNN/`.
    pub keep: usize,
    /// Validations without a better one after which the run ends; 0 never ends it early.
    pub patience: usize,
    /// Decides the batches, the augmentation and the initial weights.
    pub seed: u64,
    /// Threads that decode beside the network; 0 takes one for every processor. Does not change the result.
    pub threads: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            loss: LossConfig::default(),
            batch: 32,
            per_class: 0,
            super_classes: 0,
            accumulate: 1,
            chunk: 0,
            memory: 0,
            memory_start: 0,
            average: 0.0,
            freeze_backbone: Freeze::None,
            freeze_norms: Freeze::None,
            epochs: 8.0,
            steps: None,
            schedule: Schedule::default(),
            optimizer: OptimizerConfig::default(),
            augment: TrainTransform::default(),
            progressive_size: Vec::new(),
            explode_factor: 50.0,
            explode_steps: 10,
            validate_every: 100,
            save_every: 100,
            keep: 0,
            patience: 0,
            seed: 0,
            threads: 0,
        }
    }
}

impl TrainConfig {
    /// How batches are drawn for the loss: in threes for a triplet loss that reads its batch's layout, P × K for one
    /// that compares photographs ([`LossConfig::images_per_class`] a class unless said), shuffled for classification.
    pub fn sampler_config(&self) -> SamplerConfig {
        let (batch, super_classes) = (self.batch, self.super_classes);
        if matches!(&self.loss, LossConfig::Triplet(triplet) if triplet.miner == Miner::Layout) {
            return SamplerConfig::Triplet { batch };
        }
        let per_class = if self.per_class > 0 { self.per_class } else { self.loss.images_per_class() };
        match (per_class, super_classes) {
            (0, _) => SamplerConfig::Shuffled { batch },
            (per_class, 0) => SamplerConfig::ClassBalanced { classes: batch / per_class, per_class },
            _ => SamplerConfig::Hierarchical { super_classes, classes: batch / per_class, per_class },
        }
    }

    /// Steps in all, where an epoch takes `batches`.
    pub fn total_steps(&self, batches: usize) -> usize {
        let batches = self.epochs * batches as f64 / self.accumulate.max(1) as f64;
        self.steps.unwrap_or_else(|| batches.round().max(1.0) as usize)
    }

    /// From which batch on photographs have which width and height, in a run of `steps`; empty where they are of one
    /// size throughout.
    pub fn sizes(&self, steps: usize) -> Vec<(u64, u32)> {
        let parts = self.progressive_size.len().max(1);
        let from = |part: usize| ((part * steps).div_ceil(parts) * self.accumulate) as u64;
        self.progressive_size.iter().enumerate().map(|(part, &size)| (from(part), size)).collect()
    }

    /// Whether the loss and the gradient may change at this step for no fault of the run's: another size, a backbone or
    /// norms that begin to learn, a memory that begins to be used.
    pub fn turns_at(&self, step: usize, steps: usize) -> bool {
        let begins = |freeze: Freeze| matches!(freeze, Freeze::First(frozen) if frozen == step);
        let resized = self.sizes(steps).iter().any(|&(batch, _)| batch == (step * self.accumulate) as u64);
        let remembers = self.memory > 0 && self.memory_start == step;
        resized || remembers || begins(self.freeze_backbone) || begins(self.freeze_norms)
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`EmbedError::Config`] with the setting's name.
    pub fn check(&self) -> Result<()> {
        let fail = |key: &'static str, reason: String| Err(EmbedError::Config { key, reason });
        let OptimizerConfig { momentum, weight_decay, nesterov, loss_lr, head_lr, clip_norm, .. } =
            self.optimizer;
        let OptimizerConfig { algorithm, beta1, beta2, epsilon, .. } = self.optimizer;
        if let Err(error) = self.augment.validate() {
            return fail("augment", error.to_string());
        }
        if self.batch < 2 {
            return fail("batch", format!("{} is too small: batch statistics need at least 2", self.batch));
        }
        if self.per_class > 0 && !self.batch.is_multiple_of(self.per_class) {
            let reason = format!("{} a class do not divide a batch of {}", self.per_class, self.batch);
            return fail("per_class", reason);
        }
        let per_class = if self.per_class > 0 { self.per_class } else { self.loss.images_per_class() };
        if per_class > 1 && self.batch / per_class < 2 {
            let reason =
                format!("{per_class} a class fill a batch of {}: 2 classes are the least", self.batch);
            return fail("per_class", reason);
        }
        let drawn = self.sampler_config().batch_size();
        if drawn != self.batch {
            let reason = format!("{per_class} a class do not divide a batch of {}", self.batch);
            return fail("per_class", reason);
        }
        if matches!(self.loss, LossConfig::Npairs(_)) && ![0, 2].contains(&self.per_class) {
            return fail(
                "per_class",
                format!("npairs takes 2 photographs per class, not {}", self.per_class),
            );
        }
        if self.super_classes > 0 && !matches!(self.sampler_config(), SamplerConfig::Hierarchical { .. }) {
            let reason = format!("{} draws no classes to share among super classes", self.loss.name());
            return fail("super_classes", reason + "; give per_class, or another loss");
        }
        if let Some(&last) = self.progressive_size.last() {
            if !self.progressive_size.is_sorted() || self.progressive_size[0] == 0 {
                return fail("progressive_size", format!("{:?} do not grow", self.progressive_size));
            }
            if last != self.augment.size {
                let reason = format!("it ends with {last}, but photographs are {} wide", self.augment.size);
                return fail("progressive_size", reason);
            }
        }
        if !(self.explode_factor == 0.0 || self.explode_factor > 1.0) || !self.explode_factor.is_finite() {
            let reason = format!("{} is neither 0 nor above 1", self.explode_factor);
            return fail("explode_factor", reason);
        }
        if self.explode_steps == 0 {
            return fail("explode_steps", "must be at least 1 step".to_owned());
        }
        if self.accumulate == 0 {
            return fail("accumulate", "must be at least 1 batch".to_owned());
        }
        if self.chunk == 1 && self.freeze_norms == Freeze::None {
            let reason = "batch statistics need at least 2 photographs, or freeze_norms".to_owned();
            return fail("chunk", reason);
        }
        if self.memory > 0 && self.memory < self.batch {
            let reason = format!("{} embeddings are fewer than a batch of {}", self.memory, self.batch);
            return fail("memory", reason);
        }
        if !(0.0..1.0).contains(&self.average) {
            return fail("average", format!("{} is not in [0, 1)", self.average));
        }
        if let Shape::OneCycle { rise } = self.schedule.shape {
            if self.schedule.warmup > 0 {
                let reason = "the one-cycle schedule rises by itself; leave the warm-up out".to_owned();
                return fail("warmup", reason);
            }
            if !(0.0..1.0).contains(&rise) {
                return fail("rise", format!("{rise} is not in [0, 1)"));
            }
        }
        if algorithm != Algorithm::Sgd {
            for (key, value) in [("beta1", beta1), ("beta2", beta2)] {
                if !(0.0..1.0).contains(&value) {
                    return fail(key, format!("{value} is not in [0, 1)"));
                }
            }
            if !(epsilon > 0.0 && epsilon.is_finite()) {
                return fail("epsilon", format!("{epsilon} is not a positive number"));
            }
            if nesterov {
                return fail("nesterov", "is of SGD's momentum; Adam has none".to_owned());
            }
        }
        if self.steps == Some(0) || (self.steps.is_none() && !(self.epochs > 0.0 && self.epochs.is_finite()))
        {
            return fail("steps", "a run needs at least one step".to_owned());
        }
        if !(self.schedule.lr > 0.0 && self.schedule.lr.is_finite()) {
            return fail("lr", format!("{} is not a positive number", self.schedule.lr));
        }
        if !(0.0..1.0).contains(&momentum) {
            return fail("momentum", format!("{momentum} is not in [0, 1)"));
        }
        if nesterov && momentum == 0.0 {
            return fail("nesterov", "needs a momentum above 0".to_owned());
        }
        for (key, value) in [
            ("weight_decay", weight_decay),
            ("loss_lr", loss_lr),
            ("head_lr", head_lr),
            ("clip_norm", clip_norm),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return fail(key, format!("{value} is not a number of at least 0"));
            }
        }
        for (key, value) in [("validate_every", self.validate_every), ("save_every", self.save_every)] {
            if value == 0 {
                return fail(key, "must be at least 1 step".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{NpairsConfig, SoftmaxConfig, TripletConfig};

    #[test]
    fn the_sampler_follows_the_loss() {
        let softmax =
            TrainConfig { loss: LossConfig::Softmax(SoftmaxConfig::default()), ..TrainConfig::default() };
        assert_eq!(softmax.sampler_config(), SamplerConfig::Shuffled { batch: 32 });
        let triplet = |miner| TrainConfig {
            loss: LossConfig::Triplet(TripletConfig { miner, ..TripletConfig::default() }),
            batch: 24,
            ..TrainConfig::default()
        };
        assert_eq!(triplet(Miner::Layout).sampler_config(), SamplerConfig::Triplet { batch: 24 });
        let balanced = SamplerConfig::ClassBalanced { classes: 6, per_class: 4 };
        assert_eq!(triplet(Miner::BatchHard).sampler_config(), balanced);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let default = TrainConfig::default();
        assert!(default.check().is_ok());
        let nonsense = [
            ("batch", TrainConfig { batch: 1, ..default.clone() }),
            ("per_class", TrainConfig { per_class: 5, ..default.clone() }),
            ("steps", TrainConfig { steps: Some(0), ..default.clone() }),
            ("steps", TrainConfig { epochs: f64::NAN, ..default.clone() }),
            ("lr", TrainConfig { schedule: Schedule { lr: -1.0, ..Schedule::default() }, ..default.clone() }),
            (
                "momentum",
                TrainConfig {
                    optimizer: OptimizerConfig { momentum: 1.5, ..OptimizerConfig::default() },
                    ..default.clone()
                },
            ),
            ("validate_every", TrainConfig { validate_every: 0, ..default.clone() }),
            ("accumulate", TrainConfig { accumulate: 0, ..default.clone() }),
            ("chunk", TrainConfig { chunk: 1, ..default.clone() }),
            ("memory", TrainConfig { memory: 31, ..default.clone() }),
            ("average", TrainConfig { average: 1.0, ..default.clone() }),
            ("progressive_size", TrainConfig { progressive_size: vec![224, 96], ..default.clone() }),
            ("progressive_size", TrainConfig { progressive_size: vec![96, 128], ..default.clone() }),
            ("explode_factor", TrainConfig { explode_factor: 0.5, ..default.clone() }),
            ("explode_steps", TrainConfig { explode_steps: 0, ..default.clone() }),
            ("super_classes", TrainConfig { super_classes: 2, ..default.clone() }),
            (
                "per_class",
                TrainConfig {
                    loss: LossConfig::Npairs(NpairsConfig::default()),
                    per_class: 4,
                    ..default.clone()
                },
            ),
            (
                "per_class",
                TrainConfig { loss: LossConfig::Supcon(Default::default()), batch: 30, ..default.clone() },
            ),
            (
                "warmup",
                TrainConfig {
                    schedule: Schedule {
                        warmup: 3,
                        shape: Shape::OneCycle { rise: 0.3 },
                        ..Schedule::default()
                    },
                    ..default.clone()
                },
            ),
            (
                "nesterov",
                TrainConfig {
                    optimizer: OptimizerConfig {
                        algorithm: Algorithm::AdamW,
                        nesterov: true,
                        ..OptimizerConfig::default()
                    },
                    ..default.clone()
                },
            ),
        ];
        for (key, config) in nonsense {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
    }

    #[test]
    fn sizes_share_the_run_equally() {
        let config =
            TrainConfig { progressive_size: vec![96, 128, 224], accumulate: 2, ..Default::default() };
        assert_eq!(config.sizes(10), [(0, 96), (8, 128), (14, 224)]);
        assert!(config.turns_at(4, 10) && config.turns_at(7, 10) && !config.turns_at(5, 10));
        assert_eq!(TrainConfig::default().sizes(10), []);
    }

    #[test]
    fn settings_survive_json_and_unknown_ones_are_refused() {
        let config = TrainConfig::default();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
        let error = serde_json::from_str::<TrainConfig>(r#"{"batchsize": 3}"#).unwrap_err().to_string();
        assert!(error.contains("batchsize"), "{error}");
    }
}
