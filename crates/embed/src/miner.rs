//! Which triplets of a batch a loss looks at.

use rand_distr::Distribution;
use rand_distr::weighted::WeightedIndex;
use serde::{Deserialize, Serialize};

use crate::sampler::seeded;

/// Row numbers of an anchor, a positive (of its class) and a negative (of another).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triple {
    /// The row both distances start from.
    pub anchor: u32,
    /// A row of the anchor's class.
    pub positive: u32,
    /// A row of another class.
    pub negative: u32,
}

/// How triplets are chosen from a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miner {
    /// The batch's rows are anchor, positive, negative in turn, as the triplet sampler lays them out.
    Layout,
    /// Every valid triplet.
    BatchAll,
    /// For each anchor its farthest positive and its nearest negative (Hermans et al. 2017, arXiv 1703.07737).
    #[default]
    BatchHard,
    /// For each anchor and positive, the nearest negative that is farther than the positive, or where there is
    /// none the farthest of all negatives (Schroff et al. 2015, arXiv 1503.03832).
    SemiHard,
    /// For each anchor and positive one negative, drawn so that its distance is as likely as any other: with the
    /// weight `1 / q(d)` of the density `q` of distances between random points of the sphere, distances below 0.5
    /// taken as 0.5, those above 1.4 never (Wu et al. 2017, arXiv 1706.07567). The draw is a function of the batch's
    /// distances alone, so that it repeats when a run does.
    DistanceWeighted,
}

/// Squared distances between the normalised embeddings of `n` anchors and `m` others, and which of the pairs are of one
/// class and which of two, all row by row: `n × m` values each. A row is not its own pair.
#[derive(Debug, Clone, Copy)]
pub struct Mined<'a> {
    /// Number of others, `m`.
    pub others: usize,
    /// The distances.
    pub distances: &'a [f32],
    /// Above zero where the pair is of one class.
    pub positive: &'a [f32],
    /// Above zero where the pair is of two.
    pub negative: &'a [f32],
}

impl<'a> Mined<'a> {
    fn anchors(self) -> usize {
        self.distances.len() / self.others.max(1)
    }

    fn row(self, anchor: usize) -> &'a [f32] {
        &self.distances[anchor * self.others..][..self.others]
    }

    fn among(self, mask: &'a [f32], anchor: usize) -> impl Iterator<Item = usize> + use<'a> {
        let row = &mask[anchor * self.others..][..self.others];
        row.iter().enumerate().filter(|(_, on)| **on > 0.0).map(|(j, _)| j)
    }

    fn positives(self, anchor: usize) -> impl Iterator<Item = usize> + use<'a> {
        self.among(self.positive, anchor)
    }

    fn negatives(self, anchor: usize) -> impl Iterator<Item = usize> + use<'a> {
        self.among(self.negative, anchor)
    }

    fn pairs(self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        (0..self.anchors()).flat_map(move |a| self.positives(a).map(move |p| (a, p)))
    }
}

impl Miner {
    /// The triplets of these pairs, where embeddings have `dim` values. Rows without a positive or without a negative are
    /// no anchors.
    pub fn triples(self, mined: Mined<'_>, dim: usize) -> Vec<Triple> {
        match self {
            Self::Layout => layout(mined),
            Self::BatchAll => {
                mined.pairs().flat_map(|(a, p)| mined.negatives(a).map(move |k| triple(a, p, k))).collect()
            }
            Self::BatchHard => (0..mined.anchors()).filter_map(|a| hardest(mined, a)).collect(),
            Self::SemiHard => mined.pairs().filter_map(|(a, p)| semi_hard(mined, a, p)).collect(),
            Self::DistanceWeighted => {
                let digest = mined.distances.iter().fold(0u64, |h, d| {
                    (h.rotate_left(5) ^ u64::from(d.to_bits())).wrapping_mul(0x9E37_79B9_7F4A_7C15)
                });
                let mut rng = seeded([digest, 3, 0, 0]);
                let draw = |(a, p)| {
                    let weights = distance_weights(mined, a, dim);
                    // No negative near enough to matter: no triplet.
                    let drawn = WeightedIndex::new(weights).ok()?.sample(&mut rng);
                    Some(triple(a, p, drawn))
                };
                mined.pairs().filter_map(draw).collect()
            }
        }
    }
}

/// The pairs worth looking at, row by row of an `n × m` matrix of cosines: a positive stays in its mask where it is
/// less similar than the row's most similar negative plus `epsilon`, a negative where it is more similar than the
/// least similar positive less `epsilon` (multi-similarity: Wang et al. 2019, arXiv 1904.06627). A row without
/// pairs of both kinds keeps none.
pub fn hard_pairs(cosines: &[f32], m: usize, positive: &mut [f32], negative: &mut [f32], epsilon: f32) {
    let rows = cosines.chunks(m).zip(positive.chunks_mut(m)).zip(negative.chunks_mut(m));
    for ((row, positive), negative) in rows {
        let over =
            |mask: &[f32]| row.iter().zip(mask).filter(|(_, on)| **on > 0.0).map(|(s, _)| *s).collect();
        let (positives, negatives): (Vec<f32>, Vec<f32>) = (over(positive), over(negative));
        let least = positives.into_iter().fold(f32::INFINITY, f32::min);
        let most = negatives.into_iter().fold(f32::NEG_INFINITY, f32::max);
        for (j, s) in row.iter().enumerate() {
            positive[j] *= f32::from(u8::from(s - epsilon < most));
            negative[j] *= f32::from(u8::from(s + epsilon > least));
        }
    }
}

fn triple(anchor: usize, positive: usize, negative: usize) -> Triple {
    Triple { anchor: anchor as u32, positive: positive as u32, negative: negative as u32 }
}

fn layout(mined: Mined<'_>) -> Vec<Triple> {
    let whole = (0..mined.anchors() / 3).map(|i| (3 * i, 3 * i + 1, 3 * i + 2));
    let on = |mask: &[f32], a: usize, j: usize| mask[a * mined.others + j] > 0.0;
    let valid = whole.filter(|&(a, p, k)| on(mined.positive, a, p) && on(mined.negative, a, k));
    valid.map(|(a, p, k)| triple(a, p, k)).collect()
}

fn hardest(mined: Mined<'_>, anchor: usize) -> Option<Triple> {
    let row = mined.row(anchor);
    let far = mined.positives(anchor).max_by(|&a, &b| row[a].total_cmp(&row[b]))?;
    let near = mined.negatives(anchor).min_by(|&a, &b| row[a].total_cmp(&row[b]))?;
    Some(triple(anchor, far, near))
}

/// How likely each row is to be drawn as the anchor's negative, up to a common factor.
fn distance_weights(mined: Mined<'_>, anchor: usize, dim: usize) -> Vec<f64> {
    let dim = dim as f64;
    let mut log = vec![None; mined.others];
    for k in mined.negatives(anchor) {
        let d = f64::from(mined.row(anchor)[k].max(0.0)).sqrt().max(0.5);
        let weight = (2.0 - dim) * d.ln() - (dim - 3.0) / 2.0 * (1.0 - 0.25 * d * d).ln();
        log[k] = (d < 1.4).then_some(weight);
    }
    let most = log.iter().flatten().fold(f64::NEG_INFINITY, |m: f64, &w| m.max(w));
    log.into_iter().map(|w| w.map_or(0.0, |w| (w - most).exp())).collect()
}

fn semi_hard(mined: Mined<'_>, anchor: usize, positive: usize) -> Option<Triple> {
    let row = mined.row(anchor);
    let beyond = mined.negatives(anchor).filter(|&k| row[k] > row[positive]);
    let nearest_beyond = beyond.min_by(|&a, &b| row[a].total_cmp(&row[b]));
    let farthest = || mined.negatives(anchor).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    nearest_beyond.or_else(farthest).map(|negative| triple(anchor, positive, negative))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(labels: &[u32], of: impl Fn(usize, usize) -> bool) -> Vec<f32> {
        let n = labels.len();
        (0..n * n).map(|at| f32::from(u8::from(of(at / n, at % n)))).collect()
    }

    /// The triplets of a batch among itself.
    fn triples(miner: Miner, distances: &[f32], labels: &[u32], dim: usize) -> Vec<Triple> {
        let positive = mask(labels, |a, b| a != b && labels[a] == labels[b]);
        let negative = mask(labels, |a, b| labels[a] != labels[b]);
        let others = labels.len();
        miner.triples(Mined { others, distances, positive: &positive, negative: &negative }, dim)
    }

    /// Four points on a line at 0, 1, 3 and 7; the classes alternate in pairs.
    fn line() -> (Vec<f32>, [u32; 4]) {
        let at = [0.0f32, 1.0, 3.0, 7.0];
        let distances = at.iter().flat_map(|a| at.iter().map(move |b| (a - b).abs())).collect();
        (distances, [0, 1, 0, 1])
    }

    #[test]
    fn batch_all_is_the_literal_triple_loop() {
        let (distances, labels) = line();
        let mut wanted = Vec::new();
        for a in 0..4 {
            for p in 0..4 {
                for n in 0..4 {
                    if a != p && labels[a] == labels[p] && labels[a] != labels[n] {
                        wanted.push(triple(a, p, n));
                    }
                }
            }
        }
        assert_eq!(triples(Miner::BatchAll, &distances, &labels, 2), wanted);
    }

    #[test]
    fn batch_hard_takes_the_farthest_positive_and_the_nearest_negative() {
        let (distances, labels) = line();
        let wanted = [triple(0, 2, 1), triple(1, 3, 0), triple(2, 0, 1), triple(3, 1, 2)];
        assert_eq!(triples(Miner::BatchHard, &distances, &labels, 2), wanted);
    }

    #[test]
    fn semi_hard_takes_the_nearest_negative_beyond_the_positive() {
        let (distances, labels) = line();
        // From 0, the positive at 3 is 3 away and the negative at 7 is the only one farther; from 1 (positive at
        // 7, 6 away) none is farther, so the farthest negative, at 3, is taken.
        let wanted = [triple(0, 2, 3), triple(1, 3, 2), triple(2, 0, 3), triple(3, 1, 0)];
        assert_eq!(triples(Miner::SemiHard, &distances, &labels, 2), wanted);
    }

    #[test]
    fn layout_reads_threes_and_passes_over_what_is_none() {
        let distances = vec![0.0; 49];
        let labels = [4, 4, 5, 4, 5, 5, 4];
        assert_eq!(triples(Miner::Layout, &distances, &labels, 2), [triple(0, 1, 2)]);
    }

    #[test]
    fn a_batch_of_one_class_has_no_triplets() {
        for miner in [Miner::Layout, Miner::BatchAll, Miner::BatchHard, Miner::SemiHard] {
            assert_eq!(triples(miner, &[0.0; 9], &[1, 1, 1], 2), [], "{miner:?}");
        }
    }

    // import numpy as np
    // d = np.maximum(np.array([.6, .9, 1.3, .2]), .5); n = 8
    // w = (2. - n) * np.log(d) - (n - 3) / 2 * np.log(1 - .25 * d**2); w = np.exp(w - w.max()); print(w / w.sum())
    const SHARES: [f64; 4] =
        [0.2548395667975831, 0.03111688073477157, 0.007677816990563979, 0.7063657354770814];

    #[test]
    fn distance_weighted_draws_by_the_papers_weights_and_never_far() {
        // One anchor of class 0, its positive, four negatives near and one too far.
        let labels = [0, 0, 1, 2, 3, 4, 5];
        let row = [0.0, 0.3, 0.36, 0.81, 1.69, 0.04, 2.25];
        let negative = labels.map(|label| f32::from(u8::from(label != 0)));
        let mined = Mined { others: 7, distances: &row, positive: &[0.0; 7], negative: &negative };
        let weights = distance_weights(mined, 0, 8);
        let sum: f64 = weights.iter().sum();
        for (found, wanted) in weights[2..6].iter().zip(SHARES) {
            assert!((found / sum - wanted).abs() < 1e-5, "{weights:?}");
        }
        assert_eq!((weights[0], weights[1], weights[6]), (0.0, 0.0, 0.0));
        let mut counts = [0.0; 7];
        for i in 0..4000 {
            let mut distances = vec![0.0; 49];
            distances[..7].copy_from_slice(&row);
            // Another batch, another draw.
            distances[48] = i as f32;
            let drawn = triples(Miner::DistanceWeighted, &distances, &labels, 8);
            assert_eq!(drawn, triples(Miner::DistanceWeighted, &distances, &labels, 8));
            counts[drawn[0].negative as usize] += 1.0 / 4000.0;
        }
        for (found, wanted) in counts[2..6].iter().zip(SHARES) {
            assert!((found - wanted).abs() < 0.03, "{counts:?}");
        }
    }

    #[test]
    fn anchors_may_have_others_than_themselves() {
        // Two anchors of class 0 and 1 against a memory of three: 0, 1, 0.
        let distances = [0.1, 0.2, 0.7, 0.9, 0.4, 0.3];
        let (positive, negative) = ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        let mined = Mined { others: 3, distances: &distances, positive: &positive, negative: &negative };
        assert_eq!(Miner::BatchHard.triples(mined, 2), [triple(0, 2, 1), triple(1, 1, 2)]);
        let all = [triple(0, 0, 1), triple(0, 2, 1), triple(1, 1, 0), triple(1, 1, 2)];
        assert_eq!(Miner::BatchAll.triples(mined, 2), all);
    }

    #[test]
    fn hard_pairs_are_those_within_epsilon_of_the_other_kind() {
        let cosines = [1.0, 0.9, 0.3, 0.35, 0.1];
        let (mut positive, mut negative) = ([0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]);
        hard_pairs(&cosines, 5, &mut positive, &mut negative, 0.1);
        assert_eq!((positive, negative), ([0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]));
        // Without a positive the row has no pairs.
        let (mut positive, mut negative) = ([0.0; 5], [0.0, 1.0, 1.0, 1.0, 1.0]);
        hard_pairs(&cosines, 5, &mut positive, &mut negative, 0.1);
        assert_eq!(negative, [0.0; 5]);
    }
}
