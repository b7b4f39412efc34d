//! What came of each query, for those who want more than averages.

use semblance_index::Neighbor;

/// What one scored query's ranking was worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Place of the first item of the query's class, from 1; `None` if none is in the ranking. Every Recall@K follows
    /// from it.
    pub first_match: Option<usize>,
    /// See [`crate::metrics::map_at_r`].
    pub map_at_r: f64,
    /// See [`crate::metrics::r_precision`].
    pub r_precision: f64,
    /// The nearest item of the query's class, if one is in the ranking.
    pub best_match: Option<Neighbor>,
    /// The nearest item of another class (or none), if one is in the ranking.
    pub best_other: Option<Neighbor>,
}

impl Outcome {
    /// Whether an item of the query's class is among the first `k`.
    pub fn recall_at_k(&self, k: usize) -> bool {
        self.first_match.is_some_and(|place| place <= k)
    }
}

/// What came of all queries, in their order, by one way of searching.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// `None` for queries that were not scored.
    pub outcomes: Vec<Option<Outcome>>,
    /// The first [`crate::EvalConfig::keep`] neighbours of each query, itself left out.
    pub nearest: Vec<Vec<Neighbor>>,
}

impl Details {
    /// The scored queries' places and outcomes.
    pub fn scored(&self) -> impl Iterator<Item = (usize, &Outcome)> {
        self.outcomes.iter().enumerate().filter_map(|(place, outcome)| Some((place, outcome.as_ref()?)))
    }
}
