//! Scoring the nodes that a walk meets, each no further than it takes to see that it will not get into the pool.
//!
//! Most nodes that a walk meets lose, and most of its time goes into reading their rows from memory. So the first part
//! of every row is scored, the whole score foretold from it ([`Forecast`]), and the rest read only where the score may
//! reach the worst in the pool. The forecast is learned in the same walk: nothing is stored for it, and it fits the query.
//!
//! Most rows that a walk learns from are far from the query, and the line through them does not go on to near-copies
//! of it. So no row is given up whose first part has what a row at the bar owes to the query alone ([`FirstShare`]).

use crate::codes::coded_query::Query;
use crate::hnsw::first_share::FirstShare;
use crate::hnsw::prefix_regression::Forecast;

/// Rows whose rest is asked for before the first of them is scored.
const AHEAD: usize = 4;

/// Memory of a contest, reused from one walk to the next.
#[derive(Default)]
pub(crate) struct Contest {
    forecast: Forecast,
    /// Of the query; `None` if rows are not cut.
    share: Option<FirstShare>,
    first: Vec<f32>,
    /// Scores of the nodes that were left.
    pub(crate) scores: Vec<f32>,
}

impl Contest {
    /// Forgets what was learned about another query.
    pub(crate) fn begin(&mut self, query: &Query<'_>) {
        self.forecast = Forecast::default();
        self.share = query.first_share();
    }

    /// Scores nodes, and takes those out of the list that will not reach `bar`. Their rows should be asked for.
    #[inline]
    pub(crate) fn enter(&mut self, query: &Query<'_>, nodes: &mut Vec<u32>, bar: f32) {
        let Self { forecast, share, first, scores } = self;
        let Some(cut) = query.cut() else {
            query.scores(nodes, scores);
            return;
        };
        query.first_scores(cut, nodes, first);
        let mut least = if bar == f32::NEG_INFINITY { bar } else { forecast.least(bar) };
        if let Some(share) = share {
            least = least.min(share.least(bar));
        }
        let mut left = 0;
        for at in 0..nodes.len() {
            // Without a branch: which of them are left is hard to foretell.
            let (node, score) = (nodes[at], first[at]);
            (nodes[left], first[left]) = (node, score);
            left += usize::from(score >= least);
        }
        nodes.truncate(left);
        first.truncate(left);
        nodes.iter().take(AHEAD).for_each(|&node| query.prefetch_rest(node));
        query.add_rest(cut, nodes, first, scores);
        forecast.learn(first, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeBuffer;
    use crate::config::Codes;
    use rand::{Rng, SeedableRng};

    fn random(rng: &mut impl Rng, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| rng.random_range(-1.0f32..1.0)).collect()
    }

    fn unit(v: &[f32]) -> Vec<f32> {
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter().map(|x| x / norm).collect()
    }

    /// A direction, and unit vectors at all angles to it.
    fn codes(n: usize, dim: usize, kind: Codes) -> (Vec<f32>, CodeBuffer) {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        let (centre, mut buffer) = (random(&mut rng, dim), CodeBuffer::new(dim, kind));
        for _ in 0..n {
            let near = rng.random_range(0.0f32..1.0);
            let off = random(&mut rng, dim);
            let v: Vec<f32> = centre.iter().zip(off).map(|(c, o)| near * c + (1.0 - near) * o).collect();
            buffer.push(&unit(&v));
        }
        (unit(&centre), buffer)
    }

    #[test]
    fn the_winners_are_left_with_their_scores_and_most_others_are_not() {
        for kind in [Codes::F32, Codes::F16, Codes::I8] {
            let (direction, buffer) = codes(2000, 512, kind);
            let query = buffer.view().query(&direction);
            let (mut contest, mut whole) = (Contest::default(), vec![]);
            contest.begin(&query);
            let (mut winners, mut lost, mut left) = (0, 0, 0);
            let bar = 0.95;
            for part in (0..2000u32).collect::<Vec<_>>().chunks(16) {
                query.scores(part, &mut whole);
                let mut nodes = part.to_vec();
                contest.enter(&query, &mut nodes, bar);
                assert_eq!(nodes.len(), contest.scores.len());
                for (node, score) in nodes.iter().zip(&contest.scores) {
                    assert!((score - whole[(node - part[0]) as usize]).abs() < 1e-5, "{kind:?}");
                }
                for (node, _) in part.iter().zip(&whole).filter(|(_, score)| **score >= bar) {
                    winners += 1;
                    lost += usize::from(!nodes.contains(node));
                }
                left += nodes.len();
            }
            assert!(winners > 400 && lost <= winners / 40, "{kind:?}: {lost} of {winners} lost");
            assert!(left < 2 * winners, "{kind:?}: {left} left for {winners}");
        }
    }

    #[test]
    fn without_a_bar_and_for_short_rows_all_are_left() {
        for (dim, bar) in [(512, f32::NEG_INFINITY), (24, 2.0)] {
            let (direction, buffer) = codes(300, dim, Codes::I8);
            let query = buffer.view().query(&direction);
            let mut contest = Contest::default();
            contest.begin(&query);
            for first in (0..300u32).step_by(10) {
                let mut nodes: Vec<u32> = (first..first + 10).collect();
                contest.enter(&query, &mut nodes, bar);
                assert_eq!(nodes.len(), 10);
            }
        }
    }
}
