//! Triplet loss (Schroff et al. 2015, FaceNet, arXiv 1503.03832).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::{PairLoss, Pairs};
use crate::miner::{Mined, Miner, Triple};

/// Settings of [`Triplet`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TripletConfig {
    /// How much nearer the positive must be, in squared distance; the default is the Paddle original's.
    pub margin: f64,
    /// Which triplets of the batch.
    pub miner: Miner,
}

impl Default for TripletConfig {
    fn default() -> Self {
        Self { margin: 0.1, miner: Miner::default() }
    }
}

/// Mean over the mined triplets, zeros included, of `max(0, |a − p|² − |a − n|² + margin)` between normalised
/// embeddings; the Paddle original's with the miner [`Miner::Layout`].
#[derive(Debug)]
pub struct Triplet {
    config: TripletConfig,
}

impl Triplet {
    /// A triplet loss; it has no parameters.
    pub fn new(config: TripletConfig) -> Self {
        Self { config }
    }
}

impl PairLoss for Triplet {
    fn over(&self, pairs: &Pairs) -> Result<Tensor> {
        // Between unit vectors |a - b|² = 2 - 2 a·b.
        let distances = ((pairs.cosines()? * -2.0)? + 2.0)?;
        let others = distances.dim(1)?;
        let distances = distances.flatten_all()?;
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (at, positive, negative) =
            (values(&distances)?, values(&pairs.positive)?, values(&pairs.negative)?);
        let mined = Mined { others, distances: &at, positive: &positive, negative: &negative };
        let triples = self.config.miner.triples(mined, pairs.dim()?);
        if triples.is_empty() {
            return pairs.nothing();
        }
        let pick = |column: fn(&Triple) -> u32| -> Result<Tensor> {
            let index: Vec<u32> = triples.iter().map(|t| t.anchor * others as u32 + column(t)).collect();
            distances.index_select(&Tensor::new(index, distances.device())?, 0)
        };
        let violation = ((pick(|t| t.positive)? - pick(|t| t.negative)?)? + self.config.margin)?;
        violation.relu()?.mean_all()
    }

    fn remembers(&self) -> bool {
        self.config.miner != Miner::Layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{assert_close, assert_gradient, embeddings, numbers, value};

    const LABELS: [u32; 6] = [0, 0, 1, 1, 1, 0];

    fn build(miner: Miner) -> Triplet {
        Triplet::new(TripletConfig { margin: 0.3, miner })
    }

    // import numpy as np
    // x = np.sin(np.arange(24)**2 + .5).reshape(6, 4); u = x / np.linalg.norm(x, axis=1, keepdims=True)
    // a, p, n = u[0::3], u[1::3], u[2::3]
    // print(np.maximum(0, ((a - p)**2).sum(1) - ((a - n)**2).sum(1) + .3).mean())
    #[test]
    fn layout_gives_paddles_value() {
        assert_close(value(&build(Miner::Layout), &embeddings(6, 4), &LABELS), 0.544_189_9, 1e-5);
    }

    #[test]
    fn batch_all_is_the_literal_triple_loop() {
        let x = numbers(24, 0.5);
        let unit: Vec<Vec<f32>> = x
            .chunks(4)
            .map(|row| {
                let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                row.iter().map(|v| v / norm).collect()
            })
            .collect();
        let distance = |a: usize, b: usize| -> f32 {
            unit[a].iter().zip(&unit[b]).map(|(x, y)| (x - y) * (x - y)).sum()
        };
        let (mut total, mut count) = (0.0, 0);
        for (a, &label) in LABELS.iter().enumerate() {
            for p in (0..6).filter(|&p| p != a && LABELS[p] == label) {
                for n in (0..6).filter(|&n| LABELS[n] != label) {
                    total += (distance(a, p) - distance(a, n) + 0.3).max(0.0);
                    count += 1;
                }
            }
        }
        let found = value(&build(Miner::BatchAll), &embeddings(6, 4), &LABELS);
        assert_close(found, total / count as f32, 1e-5);
    }

    #[test]
    fn gradients_are_finite_differences() {
        for miner in [Miner::Layout, Miner::BatchAll, Miner::BatchHard, Miner::SemiHard] {
            assert_gradient(&build(miner), &embeddings(6, 4), &LABELS);
        }
    }

    #[test]
    fn a_batch_without_triplets_costs_nothing() {
        assert_eq!(value(&build(Miner::BatchAll), &embeddings(3, 4), &[0, 0, 0]), 0.0);
    }
}
