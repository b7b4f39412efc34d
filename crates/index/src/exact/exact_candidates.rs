//! Of many queries, the rows that can be among the `k` best, judged by scores that are off by no more than a bound.
//!
//! A row whose score is below the k-th best by more than both can be off is worse than k others and is dropped, the
//! rest is kept in the order it came. Memory is the same whatever comes: a query with too many rows so near to each
//! other that the scores do not tell them apart is given up, for an exact look at all rows.

use crate::codes::aligned_matrix::Rows;
use crate::exact::top_k::descending;
use crate::hnsw::search::Scored;

/// Places a query beside twice the `k` wanted.
const SPARE: usize = 512;
/// Scores added at a time, at most.
const RUN: usize = u32::BITS as usize;

/// The rows kept of a block of queries.
pub(crate) struct Candidates {
    k: usize,
    /// Places a query.
    capacity: usize,
    places: Rows,
    queries: Vec<Kept>,
    /// Scores being compared.
    scores: Vec<u32>,
}

/// What is known of one query's rows.
#[derive(Debug, Clone, Copy)]
struct Kept {
    count: usize,
    /// What the k-th best row reaches, or is supposed to.
    floor: f32,
    /// What it was supposed to reach at first.
    supposed: f32,
    /// How far scores can be off.
    error: f32,
    /// Scores below are not kept.
    bar: f32,
}

impl Kept {
    fn raise(&mut self, floor: f32) {
        self.floor = self.floor.max(floor);
        self.bar = self.floor - self.error;
    }
}

impl Candidates {
    /// None yet. `supposed`: for each query, what the k-th best of `rows` rows will probably reach.
    pub(crate) fn new(k: usize, rows: usize, supposed: &[f32]) -> Self {
        let few = 2 * k.min(rows) + SPARE;
        let capacity = few.min(rows + RUN);
        let kept = |&floor: &f32| Kept { count: 0, floor, supposed: floor, error: 0.0, bar: floor };
        Self {
            k,
            capacity,
            places: Rows::with_rows((capacity * size_of::<Scored>()).next_multiple_of(64), supposed.len()),
            queries: supposed.iter().map(kept).collect(),
            scores: Vec::with_capacity(capacity),
        }
    }

    /// Sets how far the scores that come can be off; never less than before.
    pub(crate) fn set_error(&mut self, query: usize, error: f32) {
        let kept = &mut self.queries[query];
        if kept.bar < f32::INFINITY {
            kept.error = error;
            kept.raise(kept.floor);
        }
    }

    /// Scores of a query below this one need not be pushed.
    pub(crate) fn bar(&self, query: usize) -> f32 {
        self.queries[query].bar
    }

    /// Adds the scores of the rows that have a bit in `reach`. `name` gives a row's node, and whether it counts.
    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        query: usize,
        mut reach: u32,
        scores: &[f32],
        name: impl Fn(usize) -> (u32, bool),
    ) {
        let start = query * self.stride();
        let kept = &mut self.queries[query];
        let places = &mut self.places.all_mut::<Scored>()[start..start + self.capacity];
        while reach != 0 {
            let row = reach.trailing_zeros() as usize;
            reach &= reach - 1;
            let (node, counts) = name(row);
            places[kept.count] = Scored { score: scores[row], node };
            kept.count += usize::from(counts & (scores[row] >= kept.bar));
        }
        if kept.count > self.capacity - RUN {
            self.cut(query);
            let kept = &mut self.queries[query];
            if kept.count > self.capacity / 4 * 3 {
                *kept = Kept { count: 0, floor: f32::INFINITY, bar: f32::INFINITY, ..*kept };
            }
        }
    }

    /// Places from one query's first to the next one's.
    fn stride(&self) -> usize {
        self.capacity.next_multiple_of(64 / size_of::<Scored>())
    }

    /// Drops what is certainly not among the `k` best.
    #[cold]
    fn cut(&mut self, query: usize) {
        let start = query * self.stride();
        let kept = &mut self.queries[query];
        if kept.count < self.k {
            return;
        }
        let places = &mut self.places.all_mut::<Scored>()[start..start + kept.count];
        self.scores.clear();
        self.scores.extend(places.iter().map(|s| descending(s.score)));
        let (_, &mut last, _) = self.scores.select_nth_unstable(self.k - 1);
        let last = places.iter().find(|s| descending(s.score) == last).map_or(f32::NEG_INFINITY, |s| s.score);
        kept.raise(last - kept.error);
        kept.count = 0;
        for at in 0..places.len() {
            // Without a branch: which of them stay is hard to foretell.
            let scored = places[at];
            places[kept.count] = scored;
            kept.count += usize::from(scored.score >= kept.bar);
        }
    }

    /// What each query's k-th best row reaches by its score, if there are `k`.
    pub(crate) fn into_floors(mut self) -> Vec<f32> {
        (0..self.queries.len()).for_each(|query| self.cut(query));
        self.queries.iter().map(|kept| kept.floor).collect()
    }

    /// The rows of a query that can be among its `k` best, in the order they came; `None` if others can be as well.
    pub(crate) fn in_question(&mut self, query: usize) -> Option<Vec<u32>> {
        let kept = self.queries[query];
        let enough = kept.count >= self.k;
        if kept.bar == f32::INFINITY || (!enough && kept.supposed > f32::NEG_INFINITY) {
            return None;
        }
        self.queries[query].floor = f32::NEG_INFINITY;
        self.cut(query);
        let kept = self.queries[query];
        if kept.floor < kept.supposed {
            return None; // what was dropped at first may be better
        }
        let start = query * self.stride();
        let places = &self.places.all::<Scored>()[start..start + kept.count];
        Some(places.iter().map(|s| s.node).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(candidates: &mut Candidates, scores: &[f32]) {
        for (at, scores) in scores.chunks(16).enumerate() {
            candidates.push(0, (1 << scores.len()) - 1, scores, |row| ((at * 16 + row) as u32, true));
        }
    }

    proptest! {
        #[test]
        fn what_can_be_among_the_best_is_kept_in_order(
            scores in proptest::collection::vec(-300i32..300, 0..3000),
            k in 1usize..400,
            error in 0u8..4,
            supposed in -400i32..250,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(|s| s as f32).collect();
            let supposed = if supposed < -320 { f32::NEG_INFINITY } else { supposed as f32 };
            let mut candidates = Candidates::new(k, scores.len(), &[supposed]);
            candidates.set_error(0, f32::from(error));
            push(&mut candidates, &scores);
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let last = sorted.get(k - 1).copied().unwrap_or(f32::NEG_INFINITY);
            let bar = last - 2.0 * f32::from(error);
            let want: Vec<u32> = (0u32..).zip(&scores).filter(|s| *s.1 >= bar).map(|s| s.0).collect();
            match candidates.in_question(0) {
                Some(nodes) => prop_assert_eq!(nodes, want),
                None => prop_assert!(last - f32::from(error) < supposed || want.len() > (2 * k + SPARE) / 4 * 3),
            }
        }
    }

    #[test]
    fn too_many_alike_are_given_up() {
        let mut candidates = Candidates::new(10, 5000, &[f32::NEG_INFINITY; 2]);
        push(&mut candidates, &[0.5; 5000]);
        assert_eq!(candidates.bar(0), f32::INFINITY);
        candidates.set_error(0, 1.0);
        assert_eq!(candidates.in_question(0), None);
        // Fewer of them than there are places are no trouble, and no trouble of the next query's.
        candidates.push(1, 2, &[0.0, 0.5], |row| (row as u32 + 2, true));
        assert_eq!(candidates.in_question(1), Some(vec![3]));
        let mut candidates = Candidates::new(10, 500, &[f32::NEG_INFINITY]);
        push(&mut candidates, &[0.5; 500]);
        assert_eq!(candidates.in_question(0), Some((0..500).collect()));
    }

    #[test]
    fn floors_are_the_kth_scores() {
        let mut candidates = Candidates::new(2, 1000, &[f32::NEG_INFINITY; 2]);
        push(&mut candidates, &[0.1, 0.7, 0.3, 0.9]);
        candidates.push(1, 1, &[0.5], |_| (0, true));
        assert_eq!(candidates.into_floors(), [0.7, f32::NEG_INFINITY]);
    }
}
