//! Each query's results, column by column: what a comparison needs, in few bytes.

use serde::{Deserialize, Serialize};

use super::Subject;
use crate::evaluate::Details;
use crate::report::{Report, SearchKind};

/// The queries, and what each way of searching made of them. All lists are of the queries' order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerQuery {
    /// Each query's name.
    pub keys: Vec<String>,
    /// Each query's class.
    pub classes: Vec<Option<String>>,
    /// Whether it was scored.
    pub scored: Vec<bool>,
    /// One entry for each of [`Report::searches`].
    pub searches: Vec<QueryColumns>,
}

/// The results of one way of searching; 0 for queries that were not scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryColumns {
    /// How the neighbours were found.
    pub search: SearchKind,
    /// Place of the first match, from 1; 0 if there is none in the ranking.
    pub first_match: Vec<u32>,
    /// Average precision at R.
    pub map_at_r: Vec<f32>,
    /// R-Precision.
    pub r_precision: Vec<f32>,
}

pub(super) fn per_query(subject: &Subject<'_>, report: &Report, details: &[Details]) -> PerQuery {
    PerQuery {
        keys: subject.items.iter().map(|item| item.key.clone()).collect(),
        classes: subject.queries.classes.to_vec(),
        scored: details[0].outcomes.iter().map(Option::is_some).collect(),
        searches: report
            .searches
            .iter()
            .zip(details)
            .map(|(search, details)| QueryColumns::of(search.search, details))
            .collect(),
    }
}

impl QueryColumns {
    /// The columns of one way of searching.
    pub fn of(search: SearchKind, details: &Details) -> Self {
        let mut columns = Self { search, first_match: vec![], map_at_r: vec![], r_precision: vec![] };
        for outcome in &details.outcomes {
            let place = outcome.and_then(|outcome| outcome.first_match).unwrap_or(0);
            columns.first_match.push(u32::try_from(place).unwrap_or(u32::MAX));
            columns.map_at_r.push(outcome.map_or(0.0, |outcome| outcome.map_at_r as f32));
            columns.r_precision.push(outcome.map_or(0.0, |outcome| outcome.r_precision as f32));
        }
        columns
    }
}
