//! Exact search: one query or many against every vector, and the bounds that keep it quick.

pub(crate) mod batch_scores;
pub(crate) mod exact_candidates;
pub(crate) mod fixed_point;
pub(crate) mod flat_index;
pub(crate) mod flat_search;
pub(crate) mod top_k;
