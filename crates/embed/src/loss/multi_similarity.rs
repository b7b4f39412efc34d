//! Multi-similarity loss (Wang et al. 2019, arXiv 1904.06627).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::{PairLoss, Pairs, masked_log_sum_exp};
use crate::miner::hard_pairs;

/// Settings of [`MultiSimilarity`]; the defaults are pytorch-metric-learning's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiSimilarityConfig {
    /// Sharpness over positives.
    pub alpha: f64,
    /// Sharpness over negatives.
    pub beta: f64,
    /// The cosine around which pairs weigh.
    pub base: f64,
    /// How far a pair may be from the hardest of the other kind and still be looked at.
    pub epsilon: f64,
    /// Look at all pairs instead.
    pub all_pairs: bool,
}

impl Default for MultiSimilarityConfig {
    fn default() -> Self {
        Self { alpha: 2.0, beta: 50.0, base: 0.5, epsilon: 0.1, all_pairs: false }
    }
}

/// Mean over rows of `ln(1 + Σ_p exp(−α(s − base))) / α + ln(1 + Σ_n exp(β(s − base))) / β` with cosines `s`, over
/// the pairs of [`hard_pairs`]. Rows without such pairs of a kind have no cost of that kind and count in the mean.
#[derive(Debug)]
pub struct MultiSimilarity {
    config: MultiSimilarityConfig,
}

impl MultiSimilarity {
    /// It has no parameters.
    pub fn new(config: MultiSimilarityConfig) -> Self {
        Self { config }
    }
}

impl PairLoss for MultiSimilarity {
    fn over(&self, pairs: &Pairs) -> Result<Tensor> {
        let MultiSimilarityConfig { alpha, beta, base, epsilon, all_pairs } = self.config;
        let cosines = pairs.cosines()?;
        let (mut positive, mut negative) = (pairs.positive.clone(), pairs.negative.clone());
        if !all_pairs {
            let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
            let (mut p, mut n) = (values(&positive)?, values(&negative)?);
            hard_pairs(&values(&cosines)?, cosines.dim(1)?, &mut p, &mut n, epsilon as f32);
            positive = Tensor::from_vec(p, cosines.shape(), cosines.device())?;
            negative = Tensor::from_vec(n, cosines.shape(), cosines.device())?;
        }
        let from_base = (cosines - base)?;
        let pull = masked_log_sum_exp(&(&from_base * -alpha)?, &positive, true)?;
        let push = masked_log_sum_exp(&(&from_base * beta)?, &negative, true)?;
        ((pull / alpha)? + (push / beta)?)?.mean_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, cosines, embeddings, mean, split, value,
    };

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn settings() -> [MultiSimilarityConfig; 2] {
        let mined = MultiSimilarityConfig::default();
        [MultiSimilarityConfig { all_pairs: true, ..mined }, mined]
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import MultiSimilarityLoss
    // from pytorch_metric_learning.miners import MultiSimilarityMiner
    // x = torch.tensor(np.sin(np.arange(32)**2 + .5).reshape(8, 4), dtype=torch.float32)
    // y = torch.tensor([0, 0, 1, 1, 2, 2, 0, 3]); loss = MultiSimilarityLoss()
    // print(loss(x, y), loss(x, y, MultiSimilarityMiner(.1)(x, y)))
    #[test]
    fn values_are_pytorch_metric_learnings() {
        for (config, wanted) in settings().into_iter().zip([0.765_928_03, 0.757_793_25]) {
            assert_close(value(&MultiSimilarity::new(config), &embeddings(8, 4), &LABELS), wanted, 1e-4);
        }
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        for config in settings() {
            assert_literal(&MultiSimilarity::new(config), &embeddings(8, 4), &LABELS, &[], &|inputs| {
                let s = cosines(&inputs[0], &inputs[0]);
                let row = |i: usize| {
                    let (positives, negatives) = split(&LABELS, i);
                    let worst = positives.iter().map(|&p| s[i][p]).fold(f64::INFINITY, f64::min);
                    let best = negatives.iter().map(|&n| s[i][n]).fold(f64::NEG_INFINITY, f64::max);
                    let (mut pull, mut push) = (0.0, 0.0);
                    for p in positives {
                        if config.all_pairs || s[i][p] - 0.1 < best {
                            pull += (-2.0 * (s[i][p] - 0.5)).exp();
                        }
                    }
                    for n in negatives {
                        if config.all_pairs || s[i][n] + 0.1 > worst {
                            push += (50.0 * (s[i][n] - 0.5)).exp();
                        }
                    }
                    f64::ln_1p(pull) / 2.0 + f64::ln_1p(push) / 50.0
                };
                mean(&(0..8).map(row).collect::<Vec<_>>())
            });
        }
    }

    #[test]
    fn a_batch_without_pairs_of_both_kinds_has_no_hard_ones() {
        let loss = MultiSimilarity::new(MultiSimilarityConfig::default());
        assert_nothing(&loss, 3, 4, &[1, 1, 1]);
        assert_nothing(&loss, 3, 4, &[1, 2, 3]);
    }
}
