//! Contrastive loss (Hadsell, Chopra & LeCun 2006, CVPR).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::{PairLoss, Pairs, mean_above_zero};

/// What a [`Contrastive`] loss measures pairs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The distance between normalised embeddings, from 0 to 2, not squared.
    #[default]
    Euclidean,
    /// The cosine, from −1 to 1; cross-batch memory's authors use it with margins 1 and 0.5.
    Cosine,
}

/// Settings of [`Contrastive`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// What pairs are measured by.
    pub measure: Measure,
    /// A pair of one class costs nothing up to this distance, or from this cosine on.
    pub pos_margin: f64,
    /// A pair of two classes costs nothing from this distance on, or up to this cosine.
    pub neg_margin: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { measure: Measure::default(), pos_margin: 0.0, neg_margin: 1.0 }
    }
}

/// Over pairs of one class the mean of `max(0, d − pos_margin)`, over pairs of two the mean of
/// `max(0, neg_margin − d)`, each over the pairs that cost anything, added; with cosines the other way round.
/// As pytorch-metric-learning's `ContrastiveLoss`.
///
/// A batch without pairs of one kind has no cost of that kind.
#[derive(Debug)]
pub struct Contrastive {
    config: ContrastiveConfig,
}

impl Contrastive {
    /// It has no parameters.
    pub fn new(config: ContrastiveConfig) -> Self {
        Self { config }
    }
}

impl PairLoss for Contrastive {
    fn over(&self, pairs: &Pairs) -> Result<Tensor> {
        let cosines = pairs.cosines()?;
        let ContrastiveConfig { measure, pos_margin, neg_margin } = self.config;
        let (pull, push) = match measure {
            Measure::Cosine => ((cosines.neg()? + pos_margin)?, (cosines - neg_margin)?),
            Measure::Euclidean => {
                // The bound keeps the root's gradient finite where two embeddings are one.
                let distances = ((cosines * -2.0)? + 2.0)?.clamp(1e-12f32, 4f32)?.sqrt()?;
                ((&distances - pos_margin)?, (distances.neg()? + neg_margin)?)
            }
        };
        mean_above_zero(&(pull * &pairs.positive)?)? + mean_above_zero(&(push * &pairs.negative)?)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, embeddings, mean, split, squared, unit, value,
    };

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn settings() -> [ContrastiveConfig; 2] {
        let cosine = ContrastiveConfig { measure: Measure::Cosine, pos_margin: 0.9, neg_margin: 0.2 };
        [ContrastiveConfig::default(), cosine]
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import ContrastiveLoss
    // from pytorch_metric_learning.distances import CosineSimilarity
    // x = torch.tensor(np.sin(np.arange(32)**2 + .5).reshape(8, 4), dtype=torch.float32)
    // y = torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])
    // print(ContrastiveLoss()(x, y), ContrastiveLoss(.9, .2, distance=CosineSimilarity())(x, y))
    #[test]
    fn values_are_pytorch_metric_learnings() {
        for (config, wanted) in settings().into_iter().zip([1.557_047_5, 1.083_579_2]) {
            assert_close(value(&Contrastive::new(config), &embeddings(8, 4), &LABELS), wanted, 1e-4);
        }
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        for config in settings() {
            assert_literal(&Contrastive::new(config), &embeddings(8, 4), &LABELS, &[], &|inputs| {
                let u = unit(&inputs[0]);
                let (mut pull, mut push) = (Vec::new(), Vec::new());
                for i in 0..8 {
                    let (positives, negatives) = split(&LABELS, i);
                    // Of cosines the negative is a distance as well.
                    let distance = |j: usize| match config.measure {
                        Measure::Euclidean => squared(&u[i], &u[j]).sqrt(),
                        Measure::Cosine => squared(&u[i], &u[j]) / 2.0 - 1.0,
                    };
                    let sign = if config.measure == Measure::Cosine { -1.0 } else { 1.0 };
                    pull.extend(positives.into_iter().map(|p| distance(p) - sign * config.pos_margin));
                    push.extend(negatives.into_iter().map(|n| sign * config.neg_margin - distance(n)));
                }
                let above = |all: Vec<f64>| mean(&all.into_iter().filter(|&v| v > 0.0).collect::<Vec<_>>());
                above(pull) + above(push)
            });
        }
    }

    #[test]
    fn pairs_of_one_kind_alone_cost_what_they_do_and_no_pairs_nothing() {
        let loss = Contrastive::new(ContrastiveConfig::default());
        assert!(value(&loss, &embeddings(3, 4), &[1, 1, 1]) > 0.5);
        assert_nothing(&loss, 1, 4, &[1]);
    }
}
