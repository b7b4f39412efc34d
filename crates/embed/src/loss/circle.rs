//! Circle loss (Sun et al. 2020, arXiv 2002.10857).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::{PairLoss, Pairs, masked_log_sum_exp, mean_above_zero, rows_with_any, softplus};

/// Settings of [`Circle`]; the defaults are pytorch-metric-learning's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircleConfig {
    /// Relaxes the optima: 1 + m for cosines of one class, −m for those of two.
    pub margin: f64,
    /// Scale of the cosines.
    pub gamma: f64,
}

impl Default for CircleConfig {
    fn default() -> Self {
        Self { margin: 0.4, gamma: 80.0 }
    }
}

/// For each row `softplus(LSE_n γ [s_n + m]₊ (s_n − m) + LSE_p −γ [1 + m − s_p]₊ (s_p − 1 + m))` with cosines `s`;
/// the weights in `[ ]₊` carry no gradient. The mean is taken over rows that cost anything, as in
/// pytorch-metric-learning; rows without a positive or without a negative cost nothing.
#[derive(Debug)]
pub struct Circle {
    config: CircleConfig,
}

impl Circle {
    /// It has no parameters.
    pub fn new(config: CircleConfig) -> Self {
        Self { config }
    }
}

impl PairLoss for Circle {
    fn over(&self, pairs: &Pairs) -> Result<Tensor> {
        let CircleConfig { margin, gamma } = self.config;
        let s = pairs.cosines()?;
        let fixed = s.detach();
        let pull = ((fixed.neg()? + (1.0 + margin))?.relu()? * (&s - (1.0 - margin))?)?;
        let push = ((fixed + margin)?.relu()? * (&s - margin)?)?;
        let pull = masked_log_sum_exp(&(pull * -gamma)?, &pairs.positive, false)?;
        let push = masked_log_sum_exp(&(push * gamma)?, &pairs.negative, false)?;
        let whole = (rows_with_any(&pairs.positive)? * rows_with_any(&pairs.negative)?)?;
        mean_above_zero(&(softplus(&(pull + push)?)? * whole)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, cosines, embeddings, mean, split, value,
    };

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn settings() -> [CircleConfig; 2] {
        [CircleConfig { margin: 0.25, gamma: 8.0 }, CircleConfig::default()]
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import CircleLoss
    // x = torch.tensor(np.sin(np.arange(32)**2 + .5).reshape(8, 4), dtype=torch.float32)
    // y = torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])
    // print(CircleLoss(m=.25, gamma=8.)(x, y), CircleLoss()(x, y))
    #[test]
    fn values_are_pytorch_metric_learnings() {
        for (config, wanted) in settings().into_iter().zip([11.066_935, 89.888_99]) {
            assert_close(value(&Circle::new(config), &embeddings(8, 4), &LABELS), wanted, 1e-4);
        }
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        for config in settings() {
            let x = embeddings(8, 4);
            let rows = |x: &Tensor| -> Vec<Vec<f64>> {
                x.to_dtype(candle_core::DType::F64).unwrap().to_vec2().unwrap()
            };
            // The weights stay those of the embeddings before they are moved.
            let fixed = cosines(&rows(&x), &rows(&x));
            assert_literal(&Circle::new(config), &x, &LABELS, &[], &|inputs| {
                let s = cosines(&inputs[0], &inputs[0]);
                let CircleConfig { margin: m, gamma } = config;
                let row = |i: usize| {
                    let (positives, negatives) = split(&LABELS, i);
                    let pull =
                        |&p: &usize| (-gamma * (1.0 + m - fixed[i][p]).max(0.0) * (s[i][p] - 1.0 + m)).exp();
                    let push = |&n: &usize| (gamma * (fixed[i][n] + m).max(0.0) * (s[i][n] - m)).exp();
                    let sums =
                        positives.iter().map(pull).sum::<f64>() * negatives.iter().map(push).sum::<f64>();
                    (!positives.is_empty()).then(|| sums.ln_1p())
                };
                mean(&(0..8).filter_map(row).collect::<Vec<_>>())
            });
        }
    }

    #[test]
    fn batches_without_positives_or_negatives_cost_nothing() {
        let loss = Circle::new(CircleConfig::default());
        assert_nothing(&loss, 3, 4, &[1, 1, 1]);
        assert_nothing(&loss, 3, 4, &[1, 2, 3]);
    }
}
