//! How a search is answered: each segment is searched, the largest first, and the answers are merged.
//!
//! A segment that holds a small share of the items is searched with a small pool. Its pool is widened, up to the width
//! asked for, as long as its last node is as good as the last of the answer so far: then more of the answer may lie there.
//!
//! Of a segment of at most 16,384 rows that is not the largest the sign bits are compared instead
//! ([`sign_scan`]), and the rows that may reach the last of the answer so far are scored: a graph search spends most of its
//! scores on the way to the region of the query. Where the bits leave too many rows open, with a filter and in a range search
//! the graph is searched.

mod accepted_rows;
mod segment_search;
mod sign_scan;

use std::ops::RangeInclusive;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::accepted_rows::AcceptedRows;
use self::segment_search::{SegmentAnswer, SegmentQuery, choose};
use crate::backend::vector_index::{Neighbor, SearchParams};
use crate::error::Result;
use crate::segment::state::State;

/// Smallest pool with which a segment is searched.
const LEAST_EF: usize = 6;

/// How an answer was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// The way the largest segment was searched.
    pub strategy: Strategy,
    /// Segments that were searched.
    #[serde(default)]
    pub segments: usize,
    /// Published items in all.
    pub items: usize,
    /// Published items that meet the filter, if there is one.
    pub matching: Option<usize>,
    /// Vectors that were scored, by their codes or in full; those given up after the first part of their codes are not
    /// counted.
    pub scored: usize,
    /// Items written since the last publication and therefore searched exactly.
    pub recent: usize,
}

/// The ways to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A search of the graph.
    Graph {
        /// Candidates it kept.
        ef: usize,
    },
    /// Every vector compared.
    ExactAll,
    /// Every vector whose item meets the filter compared.
    ExactMatches,
}

/// The rows of each segment that count.
struct Accepted<'a> {
    state: &'a State,
    segments: Vec<AcceptedRows<'a>>,
    /// Rows that count in all segments.
    count: usize,
}

impl<'a> Accepted<'a> {
    fn new(state: &'a State, params: &SearchParams) -> Result<Self> {
        params.cancel.check()?;
        params.filter.as_ref().map_or(Ok(()), |filter| filter.validate())?;
        let segments = state.snapshot.segments.iter().zip(&state.hidden);
        let accept = |(segment, hidden): (&'a crate::segment::snapshot::Segment, &'a std::sync::Arc<_>)| {
            AcceptedRows::new(&segment.reader, hidden, params)
        };
        let segments: Vec<AcceptedRows<'a>> = segments.map(accept).collect::<Result<_>>()?;
        let count = segments.iter().map(|rows| rows.count).sum();
        Ok(Self { state, segments, count })
    }

    /// The width of the pool with which a segment is searched first, where `ef` is that of the whole search.
    fn first_ef(&self, rows: &AcceptedRows<'_>, ef: usize) -> usize {
        if rows.count == self.count {
            return ef;
        }
        // Twice its share of the neighbours, were they spread evenly.
        let share = (2 * ef as u128 * rows.count as u128 / self.count.max(1) as u128) as usize;
        share.saturating_add(LEAST_EF).min(ef)
    }

    fn search(&self, query: &[f32], params: &SearchParams) -> Result<(Vec<Neighbor>, Explain)> {
        let padded = self.state.padded(query);
        let padded: &[f32] = padded.all();
        let asked = Asked { query, padded, params };
        // A range has a width of its own to begin with: `k` is only its bound.
        let ef = if params.min_score.is_some() { params.ef_search.unwrap_or(64) } else { params.ef() };
        let mut answers: Vec<(usize, SegmentAnswer)> = Vec::with_capacity(self.segments.len());
        let (mut scored, mut best) = (0, Vec::new());
        for rows in self.segments.iter().filter(|rows| rows.count > 0) {
            let first = self.first_ef(rows, ef);
            let answer = match asked.scan(rows, first, &best)? {
                Some(answer) => {
                    scored += answer.scored;
                    (first, answer)
                }
                None => asked.search(rows, first..=ef, &best, &mut scored)?,
            };
            merge(&mut best, &answer.1.found, params.k);
            answers.push(answer);
        }
        // What was searched first did not know the last of the answer.
        if answers.len() > 1 {
            let segments = self.segments.iter().filter(|rows| rows.count > 0);
            for (rows, (width, answer)) in segments.zip(&mut answers) {
                if *width < ef && may_hold_more(answer, &best, params.k) {
                    let again = (width.saturating_mul(2)).min(ef);
                    *answer = asked.search(rows, again..=ef, &best, &mut scored)?.1;
                }
            }
            best.clear();
            answers.iter().for_each(|(_, answer)| merge(&mut best, &answer.found, params.k));
        }
        let explain = Explain {
            strategy: answers.first().map_or(Strategy::ExactAll, |(_, answer)| answer.strategy),
            segments: answers.len(),
            items: self.state.published_len(),
            matching: params.filter.is_some().then_some(self.count),
            scored,
            recent: self.state.delta.count(),
        };
        Ok((self.with_recent(padded, best, params)?, explain))
    }

    /// Adds what was written since the publication.
    fn with_recent(
        &self,
        padded: &[f32],
        mut found: Vec<Neighbor>,
        params: &SearchParams,
    ) -> Result<Vec<Neighbor>> {
        let delta = &self.state.delta;
        if delta.count() > 0 {
            let min = params.min_score.unwrap_or(f32::NEG_INFINITY);
            merge(&mut found, &delta.search(padded, params.filter.as_ref(), min)?, params.k);
        }
        found.truncate(params.k);
        Ok(found)
    }
}

/// One query of all segments.
struct Asked<'a> {
    query: &'a [f32],
    /// The query as the kernels want it.
    padded: &'a [f32],
    params: &'a SearchParams,
}

impl Asked<'_> {
    /// Searches a segment by its sign bits, if it has any and the last of the answer so far is a bar to reach.
    fn scan(
        &self,
        rows: &AcceptedRows<'_>,
        width: usize,
        best: &[Neighbor],
    ) -> Result<Option<SegmentAnswer>> {
        let SearchParams { k, exact, ref filter, min_score, .. } = *self.params;
        if exact || filter.is_some() || min_score.is_some() || best.len() < k {
            return Ok(None);
        }
        self.params.cancel.check()?;
        let wanted = SegmentQuery::of(self.params, width);
        sign_scan::search(rows, self.query, self.padded, wanted, best[k - 1].score)
    }

    /// Searches a segment with a pool of the first of these widths, and with wider ones as long as the segment may hold more
    /// of the answer. Returns the width used last, too.
    fn search(
        &self,
        rows: &AcceptedRows<'_>,
        widths: RangeInclusive<usize>,
        best: &[Neighbor],
        scored: &mut usize,
    ) -> Result<(usize, SegmentAnswer)> {
        let (mut width, widest) = widths.into_inner();
        loop {
            self.params.cancel.check()?;
            let wanted = SegmentQuery::of(self.params, width);
            let answer = segment_search::search(rows, self.query, self.padded, wanted, self.params)?;
            *scored += answer.scored;
            if width >= widest || !may_hold_more(&answer, best, self.params.k) {
                return Ok((width, answer));
            }
            width = width.saturating_mul(2).min(widest);
        }
    }
}

/// Whether nodes that a graph search left out may be among the best: the last it kept is.
fn may_hold_more(answer: &SegmentAnswer, best: &[Neighbor], k: usize) -> bool {
    let last = if best.len() >= k { best[k - 1].score } else { f32::NEG_INFINITY };
    answer.reached > last
}

/// Adds neighbours to the `k` best, which stay sorted.
fn merge(best: &mut Vec<Neighbor>, found: &[Neighbor], k: usize) {
    best.extend_from_slice(found);
    best.sort_unstable_by(Neighbor::cmp_best_first);
    best.truncate(k);
}

/// Answers one query.
pub(crate) fn search(
    state: &State,
    query: &[f32],
    params: &SearchParams,
) -> Result<(Vec<Neighbor>, Explain)> {
    Accepted::new(state, params)?.search(query, params)
}

/// Answers many queries, on all threads.
pub(crate) fn search_batch(
    state: &State,
    queries: &[f32],
    params: &SearchParams,
) -> Result<Vec<Vec<Neighbor>>> {
    let (dim, accepted) = (state.snapshot.dim(), Accepted::new(state, params)?);
    let count = queries.len() / dim;
    let compares_all = |rows: &AcceptedRows<'_>| {
        choose(rows, params, params.ef()) == Strategy::ExactAll && rows.count >= rows.segment.len() / 4
    };
    if count > 1 && accepted.segments.iter().all(compares_all) {
        return exact_batch(&accepted, queries, count, params);
    }
    let answer = |query| {
        params.cancel.check()?;
        accepted.search(query, params).map(|(found, _)| found)
    };
    queries.par_chunks_exact(dim).map(answer).collect()
}

/// Compares many queries with every vector, by products of matrices.
fn exact_batch(
    accepted: &Accepted<'_>,
    queries: &[f32],
    count: usize,
    params: &SearchParams,
) -> Result<Vec<Vec<Neighbor>>> {
    let min = params.min_score.unwrap_or(f32::NEG_INFINITY);
    let padded = accepted.state.padded(queries);
    let padded: &[f32] = padded.all();
    let mut best: Vec<Vec<Neighbor>> = vec![Vec::new(); count];
    for rows in &accepted.segments {
        params.cancel.check()?;
        let (exact, k) = (rows.segment.exact()?, params.k.min(rows.count.max(1)));
        let found = if rows.is_whole() {
            exact.many(padded, k, min, |_| true, |node| rows.tie(node))
        } else {
            exact.many(padded, k, min, |node| rows.accepts(node), |node| rows.tie(node))
        };
        best.par_iter_mut()
            .zip(found)
            .for_each(|(best, nodes)| merge(best, &rows.items(&nodes, k, min), params.k));
    }
    let stride = padded.len() / count;
    let queries = padded.par_chunks_exact(stride);
    best.into_par_iter().zip(queries).map(|(best, query)| accepted.with_recent(query, best, params)).collect()
}
