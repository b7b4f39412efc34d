//! Which triplets of a batch a loss looks at.

use serde::{Deserialize, Serialize};

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
}

impl Miner {
    /// The triplets of a batch whose `n × n` distances lie in `distances`, row by row. Rows without a positive
    /// or without a negative are no anchors.
    pub fn triples(self, distances: &[f32], labels: &[u32]) -> Vec<Triple> {
        let n = labels.len();
        assert_eq!(distances.len(), n * n, "one distance a pair of rows");
        match self {
            Self::Layout => layout(labels),
            Self::BatchAll => {
                pairs(labels).flat_map(|(a, p)| negatives(labels, a).map(move |k| triple(a, p, k))).collect()
            }
            Self::BatchHard => (0..n).filter_map(|a| hardest(&distances[a * n..][..n], labels, a)).collect(),
            Self::SemiHard => {
                pairs(labels).filter_map(|(a, p)| semi_hard(&distances[a * n..][..n], labels, a, p)).collect()
            }
        }
    }
}

fn triple(anchor: usize, positive: usize, negative: usize) -> Triple {
    Triple { anchor: anchor as u32, positive: positive as u32, negative: negative as u32 }
}

fn negatives(labels: &[u32], anchor: usize) -> impl Iterator<Item = usize> + '_ {
    (0..labels.len()).filter(move |&k| labels[k] != labels[anchor])
}

fn positives(labels: &[u32], anchor: usize) -> impl Iterator<Item = usize> + '_ {
    (0..labels.len()).filter(move |&p| p != anchor && labels[p] == labels[anchor])
}

fn pairs(labels: &[u32]) -> impl Iterator<Item = (usize, usize)> + '_ {
    (0..labels.len()).flat_map(|a| positives(labels, a).map(move |p| (a, p)))
}

fn layout(labels: &[u32]) -> Vec<Triple> {
    let whole = (0..labels.len() / 3).map(|i| (3 * i, 3 * i + 1, 3 * i + 2));
    let valid = whole.filter(|&(a, p, k)| labels[a] == labels[p] && labels[a] != labels[k]);
    valid.map(|(a, p, k)| triple(a, p, k)).collect()
}

fn hardest(row: &[f32], labels: &[u32], anchor: usize) -> Option<Triple> {
    let far = positives(labels, anchor).max_by(|&a, &b| row[a].total_cmp(&row[b]))?;
    let near = negatives(labels, anchor).min_by(|&a, &b| row[a].total_cmp(&row[b]))?;
    Some(triple(anchor, far, near))
}

fn semi_hard(row: &[f32], labels: &[u32], anchor: usize, positive: usize) -> Option<Triple> {
    let beyond = negatives(labels, anchor).filter(|&k| row[k] > row[positive]);
    let nearest_beyond = beyond.min_by(|&a, &b| row[a].total_cmp(&row[b]));
    let farthest = || negatives(labels, anchor).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    nearest_beyond.or_else(farthest).map(|negative| triple(anchor, positive, negative))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(Miner::BatchAll.triples(&distances, &labels), wanted);
    }

    #[test]
    fn batch_hard_takes_the_farthest_positive_and_the_nearest_negative() {
        let (distances, labels) = line();
        let wanted = [triple(0, 2, 1), triple(1, 3, 0), triple(2, 0, 1), triple(3, 1, 2)];
        assert_eq!(Miner::BatchHard.triples(&distances, &labels), wanted);
    }

    #[test]
    fn semi_hard_takes_the_nearest_negative_beyond_the_positive() {
        let (distances, labels) = line();
        // From 0, the positive at 3 is 3 away and the negative at 7 is the only one farther; from 1 (positive at
        // 7, 6 away) none is farther, so the farthest negative, at 3, is taken.
        let wanted = [triple(0, 2, 3), triple(1, 3, 2), triple(2, 0, 3), triple(3, 1, 0)];
        assert_eq!(Miner::SemiHard.triples(&distances, &labels), wanted);
    }

    #[test]
    fn layout_reads_threes_and_passes_over_what_is_none() {
        let distances = vec![0.0; 49];
        let labels = [4, 4, 5, 4, 5, 5, 4];
        assert_eq!(Miner::Layout.triples(&distances, &labels), [triple(0, 1, 2)]);
    }

    #[test]
    fn a_batch_of_one_class_has_no_triplets() {
        for miner in [Miner::Layout, Miner::BatchAll, Miner::BatchHard, Miner::SemiHard] {
            assert_eq!(miner.triples(&[0.0; 9], &[1, 1, 1]), [], "{miner:?}");
        }
    }
}
