//! Margin sample mining, which the Paddle original calls quadruplet (Xiao et al. 2017, arXiv 1710.00478).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::Loss;
use super::pairs::{Pairs, nothing};
use crate::loss::normalize_rows;

/// Settings of [`Quadruplet`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuadrupletConfig {
    /// How much nearer the positive must be, in squared distance; the default is the Paddle original's.
    pub margin: f64,
}

impl Default for QuadrupletConfig {
    fn default() -> Self {
        Self { margin: 0.1 }
    }
}

/// `max(0, max d(i, p) − min d(j, n) + margin)` over all pairs of one class and all pairs of two, with squared
/// distances between normalised embeddings. The two pairs need not share a row, so that a gradient reaches four
/// rows at most; a value that stays at the margin means that all embeddings have become one.
///
/// A batch without a pair of one class or of two costs nothing (the original never draws one).
#[derive(Debug)]
pub struct Quadruplet {
    config: QuadrupletConfig,
}

impl Quadruplet {
    /// It has no parameters.
    pub fn new(config: QuadrupletConfig) -> Self {
        Self { config }
    }
}

impl Loss for Quadruplet {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let pairs = Pairs::within(&normalize_rows(embeddings)?, labels)?;
        let distances = pairs.squared_distances()?.flatten_all()?;
        let values: Vec<f32> = distances.to_vec1()?;
        let n = labels.len();
        let all = || (0..n * n).filter(|at| at / n != at % n);
        let same = |at: &usize| labels[at / n] == labels[at % n];
        let far = all().filter(same).max_by(|&a, &b| values[a].total_cmp(&values[b]));
        let near = all().filter(|at| !same(at)).min_by(|&a, &b| values[a].total_cmp(&values[b]));
        let (Some(far), Some(near)) = (far, near) else { return nothing(embeddings) };
        let pick = |at: usize| distances.narrow(0, at, 1);
        ((pick(far)? - pick(near)?)? + self.config.margin)?.relu()?.sum_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, embeddings, split, squared, unit, value,
    };

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn build() -> Quadruplet {
        Quadruplet::new(QuadrupletConfig::default())
    }

    // import numpy as np
    // x = np.sin(np.arange(32)**2 + .5).reshape(8, 4); u = x / np.linalg.norm(x, axis=1, keepdims=True)
    // y = np.array([0, 0, 1, 1, 2, 2, 0, 3]); d = ((u[:, None] - u[None])**2).sum(-1)
    // same = (y[:, None] == y[None]) & ~np.eye(8, dtype=bool); other = y[:, None] != y[None]
    // print(max(0, d[same].max() - d[other].min() + .1))
    #[test]
    fn the_value_is_paddles_formula() {
        assert_close(value(&build(), &embeddings(8, 4), &LABELS), 2.665_312_3, 1e-4);
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        assert_literal(&build(), &embeddings(8, 4), &LABELS, &[], &|inputs| {
            let u = unit(&inputs[0]);
            let (mut far, mut near) = (f64::MIN, f64::MAX);
            for i in 0..8 {
                let (positives, negatives) = split(&LABELS, i);
                far = positives.iter().map(|&p| squared(&u[i], &u[p])).fold(far, f64::max);
                near = negatives.iter().map(|&n| squared(&u[i], &u[n])).fold(near, f64::min);
            }
            (far - near + 0.1).max(0.0)
        });
    }

    #[test]
    fn batches_without_positives_or_negatives_cost_nothing() {
        assert_nothing(&build(), 3, 4, &[1, 1, 1]);
        assert_nothing(&build(), 3, 4, &[1, 2, 3]);
    }
}
