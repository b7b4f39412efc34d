//! The Paddle original's eml loss: exponential distances averaged over positives and negatives.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::{Pairs, masked_log_sum_exp, masked_mean, nothing, rows_with_any, softplus};
use super::{Loss, normalize_rows};

/// Settings of [`Eml`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmlConfig {
    /// Multiplies the ratio inside the logarithm; the default is the Paddle original's.
    pub beta: f64,
    /// Normalise embeddings and multiply their squared distances by `scale`, which the original does not.
    pub normalize: bool,
    /// Of the normalised form: at 20 a negative costs little from `ln β / 20` = 0.58 beyond the positives on.
    pub scale: f64,
}

impl Default for EmlConfig {
    fn default() -> Self {
        Self { beta: 1e5, normalize: false, scale: 20.0 }
    }
}

/// Mean over rows of `ln(1 + β · mean_p exp(d_ip) · mean_n exp(−d_in)) / ln(1 + β)`, with squared distances `d`
/// between the embeddings as they are, **not** normalised unless `normalize` says so, and computed through logarithms, so that no distance
/// overflows (PaddlePaddle/models, `PaddleCV/metric_learning/losses/emlloss.py`).
///
/// Features of other data are often long, their distances in the hundreds, and the gradients as large: from there it
/// collapses at any rate worth taking, and wants `normalize`, or features that were trained for these classes.
///
/// Where all embeddings have become one it is exactly 1. Rows without a positive or without a negative are left
/// out (the original never draws any); without any other row the batch costs nothing.
#[derive(Debug)]
pub struct Eml {
    config: EmlConfig,
}

impl Eml {
    /// It has no parameters.
    pub fn new(config: EmlConfig) -> Self {
        Self { config }
    }
}

impl Loss for Eml {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let scaled = match self.config.normalize {
            true => (normalize_rows(embeddings)? * self.config.scale.sqrt())?,
            false => embeddings.clone(),
        };
        let pairs = Pairs::within(&scaled, labels)?;
        let whole = (rows_with_any(&pairs.positive)? * rows_with_any(&pairs.negative)?)?;
        if whole.sum_all()?.to_scalar::<f32>()? == 0.0 {
            return nothing(embeddings);
        }
        let distances = pairs.squared_distances()?;
        let log_mean = |x: &Tensor, mask: &Tensor| -> Result<Tensor> {
            masked_log_sum_exp(x, mask, false)? - mask.sum(1)?.clamp(1f32, f32::MAX)?.log()?
        };
        let exponent =
            (log_mean(&distances, &pairs.positive)? + log_mean(&distances.neg()?, &pairs.negative)?)?;
        let rows = softplus(&(exponent + self.config.beta.ln())?)?;
        masked_mean(&rows, &whole)? / self.config.beta.ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, embeddings, mean, split, squared, unit, value,
    };

    const LABELS: [u32; 8] = [0, 0, 0, 0, 1, 1, 1, 1];

    fn build() -> Eml {
        Eml::new(EmlConfig::default())
    }

    // import numpy as np
    // x = np.sin(np.arange(32)**2 + .5).reshape(8, 4); d = ((x[:, None] - x[None])**2).sum(-1)
    // y = np.arange(8) // 4; same = (y[:, None] == y[None]) & ~np.eye(8, dtype=bool); other = y[:, None] != y[None]
    // row = lambda i: np.exp(d[i][same[i]]).mean() * np.exp(-d[i][other[i]]).mean()
    // print(np.mean([np.log(1 + 1e5 * row(i)) for i in range(8)]) / np.log(1 + 1e5))
    #[test]
    fn the_value_is_paddles_formula() {
        assert_close(value(&build(), &embeddings(8, 4), &LABELS), 1.096_826, 1e-4);
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        // With a row that has no positive.
        for labels in [LABELS, [0, 0, 1, 1, 2, 2, 0, 3]] {
            assert_literal(&build(), &embeddings(8, 4), &labels, &[], &|inputs| {
                let x = &inputs[0];
                let rows = (0..8).filter_map(|i| {
                    let (positives, negatives) = split(&labels, i);
                    let over = |rows: &[usize], sign: f64| {
                        mean(&rows.iter().map(|&j| (sign * squared(&x[i], &x[j])).exp()).collect::<Vec<_>>())
                    };
                    let ratio = over(&positives, 1.0) * over(&negatives, -1.0);
                    (!positives.is_empty()).then(|| (1e5 * ratio).ln_1p() / 1e5f64.ln_1p())
                });
                mean(&rows.collect::<Vec<_>>())
            });
        }
    }

    fn normalized() -> Eml {
        Eml::new(EmlConfig { normalize: true, ..EmlConfig::default() })
    }

    // As above after x /= np.linalg.norm(x, axis=1, keepdims=True), with 20 * d.
    #[test]
    fn the_normalised_value_is_the_formulas() {
        assert_close(value(&normalized(), &embeddings(8, 4), &LABELS), 3.538_364_5, 1e-4);
    }

    #[test]
    fn the_normalised_value_and_gradient_are_those_of_the_literal_loop() {
        assert_literal(&normalized(), &embeddings(8, 4), &LABELS, &[], &|inputs| {
            let x = unit(&inputs[0]);
            let rows = (0..8).map(|i| {
                let (positives, negatives) = split(&LABELS, i);
                let over = |rows: &[usize], sign: f64| {
                    mean(
                        &rows
                            .iter()
                            .map(|&j| (sign * 20.0 * squared(&x[i], &x[j])).exp())
                            .collect::<Vec<_>>(),
                    )
                };
                (1e5 * over(&positives, 1.0) * over(&negatives, -1.0)).ln_1p() / 1e5f64.ln_1p()
            });
            mean(&rows.collect::<Vec<_>>())
        });
    }

    #[test]
    fn a_collapsed_batch_costs_one() {
        let x = Tensor::ones((8, 4), DType::F32, &Device::Cpu).unwrap();
        assert_close(value(&build(), &x, &LABELS), 1.0, 1e-5);
    }

    #[test]
    fn distances_that_overflow_an_exponential_are_no_trouble() {
        let x = (embeddings(8, 4) * 30.0).unwrap();
        assert!(value(&build(), &x, &LABELS).is_finite());
    }

    #[test]
    fn batches_without_positives_or_negatives_cost_nothing() {
        assert_nothing(&build(), 3, 4, &[1, 1, 1]);
        assert_nothing(&build(), 3, 4, &[1, 2, 3]);
    }
}
