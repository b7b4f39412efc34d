//! Recall@K with sigmoids for steps (Patel, Tolias & Matas 2022, arXiv 2108.11179).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::Loss;
use super::pairs::{Pairs, masked_mean, nothing, rows_with_any};
use super::smooth_ap::before;

/// Settings of [`RecallSurrogate`]; the defaults are the authors'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecallSurrogateConfig {
    /// Width of the sigmoids that count rows before a positive, in cosines.
    pub temperature: f64,
    /// The K, of which the mean is taken; each is also the width of its own step, in ranks.
    pub ks: Vec<usize>,
}

impl Default for RecallSurrogateConfig {
    fn default() -> Self {
        Self { temperature: 0.01, ks: vec![1, 2, 4, 8, 16] }
    }
}

/// One minus the mean over queries `q` and over K of `min(K, Σ_p σ((K − r_p) / K)) / min(K, |P|)`, where
/// `r_p = 1 + Σ_{j ≠ p} σ((s_qj − s_qp) / τ)` is a positive's soft rank. The authors' code counts the query itself
/// among the rows before a positive, and so does this.
///
/// Rows without a positive are no queries; without a query the batch costs nothing. A K above the batch is cut to
/// it. Memory grows with the cube of the batch.
#[derive(Debug)]
pub struct RecallSurrogate {
    config: RecallSurrogateConfig,
}

impl RecallSurrogate {
    /// It has no parameters.
    pub fn new(config: RecallSurrogateConfig) -> Self {
        Self { config }
    }
}

impl Loss for RecallSurrogate {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let RecallSurrogateConfig { temperature, ks } = &self.config;
        let pairs = Pairs::within(embeddings, labels)?;
        let queries = rows_with_any(&pairs.positive)?;
        if queries.sum_all()?.to_scalar::<f32>()? == 0.0 || ks.is_empty() {
            return nothing(embeddings);
        }
        let ranks = (before(&pairs.cosines()?, *temperature)?.sum(2)? + 1.0)?;
        let positives = pairs.positive.sum(1)?;
        let mut total = nothing(embeddings)?;
        for &k in ks {
            let width = k as f64;
            let k = k.min(labels.len()) as f64;
            let within = candle_nn::ops::sigmoid(&((ranks.neg()? + k)? / width)?)?;
            let found = (within * &pairs.positive)?.sum(1)?.minimum(k)?;
            let most = positives.clamp(1f32, k as f32)?;
            total = (total + masked_mean(&(found / most)?, &queries)?)?;
        }
        1.0 - (total / ks.len() as f64)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, cosines, embeddings, mean, sigmoid, split, value,
    };

    fn build(temperature: f64) -> RecallSurrogate {
        RecallSurrogate::new(RecallSurrogateConfig { temperature, ks: vec![1, 2, 4] })
    }

    // import numpy as np
    // x = np.sin(np.arange(32)**2 + .5).reshape(8, 4); u = x / np.linalg.norm(x, axis=1, keepdims=True); s = u @ u.T
    // y = np.arange(8) // 4; sig = lambda v: 1 / (1 + np.exp(-np.clip(v, -50, 50)))
    // for tau in (.01, .1):
    //     total = 0
    //     for q in range(8):
    //         P = [p for p in range(8) if y[p] == y[q] and p != q]
    //         r = np.array([1 + sum(sig((s[q, z] - s[q, p]) / tau) for z in range(8) if z != p) for p in P])
    //         total += 1 - np.mean([min(sig((k - r) / k).sum(), k) / min(k, len(P)) for k in (1, 2, 4)])
    //     print(total / 8)
    #[test]
    fn values_are_the_authors_formula() {
        for (temperature, wanted) in [(0.01, 0.640_424), (0.1, 0.650_508)] {
            let labels = [0, 0, 0, 0, 1, 1, 1, 1];
            assert_close(value(&build(temperature), &embeddings(8, 4), &labels), wanted, 1e-4);
        }
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        let labels = [0, 0, 1, 1, 2, 2, 0, 3];
        assert_literal(&build(0.1), &embeddings(8, 4), &labels, &[], &|inputs| {
            let s = cosines(&inputs[0], &inputs[0]);
            let query = |q: usize| {
                let (positives, _) = split(&labels, q);
                if positives.is_empty() {
                    return None;
                }
                let rank = |p: usize| {
                    let others = (0..8).filter(|&j| j != p);
                    1.0 + others.map(|j| sigmoid((s[q][j] - s[q][p]) / 0.1)).sum::<f64>()
                };
                let recall = |k: f64| {
                    let found: f64 = positives.iter().map(|&p| sigmoid((k - rank(p)) / k)).sum();
                    found.min(k) / k.min(positives.len() as f64)
                };
                Some(1.0 - mean(&[recall(1.0), recall(2.0), recall(4.0)]))
            };
            mean(&(0..8).filter_map(query).collect::<Vec<_>>())
        });
    }

    #[test]
    fn a_batch_without_positives_costs_nothing() {
        assert_nothing(&build(0.01), 3, 4, &[1, 2, 3]);
    }
}
