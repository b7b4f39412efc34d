//! Smooth-AP: average precision with sigmoids for steps (Brown et al. 2020, arXiv 2007.12163).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::Loss;
use super::pairs::{Pairs, masked_mean, nothing, rows_with_any};

/// Settings of [`SmoothAp`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothApConfig {
    /// Width of the sigmoids, in cosines.
    pub temperature: f64,
}

impl Default for SmoothApConfig {
    fn default() -> Self {
        Self { temperature: 0.01 }
    }
}

/// One minus the mean over queries `q` of `1/|P| Σ_{i ∈ P} R(i, P) / R(i, all)`, where
/// `R(i, S) = 1 + Σ_{j ∈ S, j ≠ i} σ((s_qj − s_qi) / τ)` with cosines `s`, and `P` is the query's class, the query
/// itself among it, as in the authors' code.
///
/// Classes may have different numbers of rows, which pytorch-metric-learning refuses. Rows without a positive are
/// no queries; without a query the batch costs nothing, and so does one of a single class. Memory grows with the
/// cube of the batch.
#[derive(Debug)]
pub struct SmoothAp {
    config: SmoothApConfig,
}

impl SmoothAp {
    /// It has no parameters.
    pub fn new(config: SmoothApConfig) -> Self {
        Self { config }
    }
}

/// `(n, n, n)` at `q, i, j`: `σ((s_qj − s_qi) / τ)`, how much row `j` comes before row `i` for query `q`; zero
/// where `i = j`.
pub(super) fn before(cosines: &Tensor, temperature: f64) -> Result<Tensor> {
    let n = cosines.dim(0)?;
    let gap = cosines.unsqueeze(1)?.broadcast_sub(&cosines.unsqueeze(2)?)?;
    let others = (0..n * n).map(|at| f32::from(u8::from(at / n != at % n))).collect();
    let others = Tensor::from_vec(others, (1, n, n), cosines.device())?;
    candle_nn::ops::sigmoid(&(gap / temperature)?)?.broadcast_mul(&others)
}

impl Loss for SmoothAp {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let pairs = Pairs::within(embeddings, labels)?;
        let queries = rows_with_any(&pairs.positive)?;
        if queries.sum_all()?.to_scalar::<f32>()? == 0.0 {
            return nothing(embeddings);
        }
        let class = (1.0 - &pairs.negative)?;
        let before = before(&pairs.cosines()?, self.config.temperature)?;
        let among_class = (before.broadcast_mul(&class.unsqueeze(1)?)?.sum(2)? + 1.0)?;
        let among_all = (before.sum(2)? + 1.0)?;
        let precision = ((among_class / among_all)? * &class)?.sum(1)?;
        1.0 - masked_mean(&(precision / class.sum(1)?)?, &queries)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, cosines, embeddings, mean, sigmoid, split, value,
    };

    fn build(temperature: f64) -> SmoothAp {
        SmoothAp::new(SmoothApConfig { temperature })
    }

    // Three classes of three, as the library's grouping is right only where both numbers are equal.
    // import torch, numpy as np
    // from pytorch_metric_learning.losses import SmoothAPLoss
    // x = torch.tensor(np.sin(np.arange(36)**2 + .5).reshape(9, 4), dtype=torch.float32); y = torch.arange(9) // 3
    // print(SmoothAPLoss()(x, y), SmoothAPLoss(temperature=.1)(x, y))
    #[test]
    fn values_are_pytorch_metric_learnings() {
        for (temperature, wanted) in [(0.01, 0.346_345_5), (0.1, 0.378_615_26)] {
            let labels = [0, 0, 0, 1, 1, 1, 2, 2, 2];
            assert_close(value(&build(temperature), &embeddings(9, 4), &labels), wanted, 1e-4);
        }
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        let labels = [0, 0, 1, 1, 2, 2, 0, 3];
        for temperature in [0.05, 0.3] {
            assert_literal(&build(temperature), &embeddings(8, 4), &labels, &[], &|inputs| {
                let s = cosines(&inputs[0], &inputs[0]);
                let query = |q: usize| {
                    let (mut class, _) = split(&labels, q);
                    if class.is_empty() {
                        return None;
                    }
                    class.push(q);
                    let rank = |i: usize, of: &[usize]| {
                        let others = of.iter().filter(|&&j| j != i);
                        1.0 + others.map(|&j| sigmoid((s[q][j] - s[q][i]) / temperature)).sum::<f64>()
                    };
                    let all: Vec<usize> = (0..8).collect();
                    Some(
                        1.0 - mean(
                            &class.iter().map(|&i| rank(i, &class) / rank(i, &all)).collect::<Vec<_>>(),
                        ),
                    )
                };
                mean(&(0..8).filter_map(query).collect::<Vec<_>>())
            });
        }
    }

    #[test]
    fn batches_without_positives_or_negatives_cost_nothing() {
        assert_nothing(&build(0.01), 3, 4, &[1, 1, 1]);
        assert_nothing(&build(0.01), 3, 4, &[1, 2, 3]);
    }
}
