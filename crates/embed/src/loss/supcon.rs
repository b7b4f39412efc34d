//! Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::{PairLoss, Pairs, masked_log_sum_exp, mean_above_zero};

/// Settings of [`SupCon`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupConConfig {
    /// Divides the cosines.
    pub temperature: f64,
}

impl Default for SupConConfig {
    fn default() -> Self {
        Self { temperature: 0.1 }
    }
}

/// For each row the mean over its positives of `−ln(exp(s_p / τ) / Σ_{j ≠ i} exp(s_j / τ))` with cosines `s` (the
/// form with the sum outside the logarithm). The mean is taken over rows that cost anything, as in
/// pytorch-metric-learning; rows without a positive cost nothing.
#[derive(Debug)]
pub struct SupCon {
    config: SupConConfig,
}

impl SupCon {
    /// It has no parameters.
    pub fn new(config: SupConConfig) -> Self {
        Self { config }
    }
}

impl PairLoss for SupCon {
    fn over(&self, pairs: &Pairs) -> Result<Tensor> {
        let logits = (pairs.cosines()? / self.config.temperature)?;
        let everyone = masked_log_sum_exp(&logits, &(&pairs.positive + &pairs.negative)?, false)?;
        let count = pairs.positive.sum(1)?;
        let at_positives = ((logits * &pairs.positive)?.sum(1)? / count.clamp(1f32, f32::MAX)?)?;
        let any = count.clamp(0f32, 1f32)?;
        mean_above_zero(&((everyone - at_positives)? * any)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, cosines, embeddings, mean, split, value,
    };

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn build() -> SupCon {
        SupCon::new(SupConConfig::default())
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import SupConLoss
    // x = torch.tensor(np.sin(np.arange(32)**2 + .5).reshape(8, 4), dtype=torch.float32)
    // print(SupConLoss()(x, torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])))
    #[test]
    fn the_value_is_pytorch_metric_learnings() {
        assert_close(value(&build(), &embeddings(8, 4), &LABELS), 5.027_392, 1e-4);
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        assert_literal(&build(), &embeddings(8, 4), &LABELS, &[], &|inputs| {
            let s = cosines(&inputs[0], &inputs[0]);
            let row = |i: usize| {
                let (positives, _) = split(&LABELS, i);
                let sum: f64 = (0..8).filter(|&j| j != i).map(|j| (s[i][j] / 0.1).exp()).sum();
                let each = positives.iter().map(|&p| sum.ln() - s[i][p] / 0.1);
                (!positives.is_empty()).then(|| mean(&each.collect::<Vec<_>>()))
            };
            mean(&(0..8).filter_map(row).collect::<Vec<_>>())
        });
    }

    #[test]
    fn a_batch_without_positives_costs_nothing() {
        assert_nothing(&build(), 3, 4, &[1, 2, 3]);
    }
}
