//! The settings of a training run.

use serde::{Deserialize, Serialize};

use crate::error::{EmbedError, Result};
use crate::loss::LossConfig;
use crate::miner::Miner;
use crate::optimizer::SgdConfig;
use crate::sampler::SamplerConfig;
use crate::schedule::Schedule;
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
    /// Passes over the photographs.
    pub epochs: f64,
    /// Steps in all, instead of `epochs`.
    pub steps: Option<usize>,
    /// The learning rate over the run.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: SgdConfig,
    /// How photographs are varied.
    pub augment: TrainTransform,
    /// Steps between validations.
    pub validate_every: usize,
    /// Steps between saved states.
    pub save_every: usize,
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
            epochs: 8.0,
            steps: None,
            schedule: Schedule::default(),
            optimizer: SgdConfig::default(),
            augment: TrainTransform::default(),
            validate_every: 100,
            save_every: 100,
            seed: 0,
            threads: 0,
        }
    }
}

impl TrainConfig {
    /// How batches are drawn for the loss: in threes for a triplet loss that reads its batch's layout, P × K for
    /// one that mines (4 a class unless said), shuffled for classification.
    pub fn sampler_config(&self) -> SamplerConfig {
        let batch = self.batch;
        let per_class = match (&self.loss, self.per_class) {
            (LossConfig::Triplet(triplet), _) if triplet.miner == Miner::Layout => {
                return SamplerConfig::Triplet { batch };
            }
            (LossConfig::Triplet(_), 0) => 4,
            (_, 0) => return SamplerConfig::Shuffled { batch },
            (_, said) => said,
        };
        SamplerConfig::ClassBalanced { classes: batch / per_class, per_class }
    }

    /// Steps in all, where an epoch takes `batches`.
    pub fn total_steps(&self, batches: usize) -> usize {
        self.steps.unwrap_or_else(|| (self.epochs * batches as f64).round().max(1.0) as usize)
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`EmbedError::Config`] with the setting's name.
    pub fn check(&self) -> Result<()> {
        let fail = |key: &'static str, reason: String| Err(EmbedError::Config { key, reason });
        let SgdConfig { momentum, weight_decay, nesterov, loss_lr, clip_norm, .. } = self.optimizer;
        if self.batch < 2 {
            return fail("batch", format!("{} is too small: batch statistics need at least 2", self.batch));
        }
        if self.per_class > 0 && !self.batch.is_multiple_of(self.per_class) {
            let reason = format!("{} a class do not divide a batch of {}", self.per_class, self.batch);
            return fail("per_class", reason);
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
        for (key, value) in [("weight_decay", weight_decay), ("loss_lr", loss_lr), ("clip_norm", clip_norm)] {
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
    use crate::loss::{SoftmaxConfig, TripletConfig};

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
                    optimizer: SgdConfig { momentum: 1.5, ..SgdConfig::default() },
                    ..default.clone()
                },
            ),
            ("validate_every", TrainConfig { validate_every: 0, ..default.clone() }),
        ];
        for (key, config) in nonsense {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
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
