//! Searching one segment: through its graph, or by comparing with every vector that counts.

use super::Strategy;
use super::accepted_rows::AcceptedRows;
use crate::backend::vector_index::{Neighbor, SearchParams};
use crate::codes::kernel::score_f32;
use crate::codes::rescore;
use crate::config::Codes;
use crate::error::Result;
use crate::hnsw::graph::GraphView;
use crate::hnsw::search::{self, Scored, with_scratch};

/// A graph search scores about this many nodes for each place in its pool; scoring a listed node is also cheaper than
/// one met on the way.
pub(super) const SEARCH_COST: usize = 12;

/// Nodes compared between two looks at whether the search was cancelled.
const BLOCK: usize = 1 << 16;

/// By how much a score by codes may be off, at most, in a range search.
const CODE_ERROR: f32 = 0.02;

/// What is asked of a segment.
#[derive(Clone, Copy)]
pub(super) struct SegmentQuery {
    /// Neighbours of the whole search.
    pub(super) k: usize,
    /// Lowest score.
    pub(super) min: f32,
    /// Places in the pool of a graph search where everything counts.
    pub(super) ef: usize,
}

/// What a segment answers.
pub(super) struct SegmentAnswer {
    /// Best first.
    pub(super) found: Vec<Neighbor>,
    pub(super) strategy: Strategy,
    pub(super) scored: usize,
    /// Score of the last node that the graph search kept: what is better was seen, as far as it was met.
    pub(super) reached: f32,
}

impl SegmentQuery {
    pub(super) fn of(params: &SearchParams, ef: usize) -> Self {
        Self { k: params.k, min: params.min_score.unwrap_or(f32::NEG_INFINITY), ef }
    }
}

/// Whether to search the graph, and how wide, or to compare.
pub(super) fn choose(rows: &AcceptedRows<'_>, params: &SearchParams, ef: usize) -> Strategy {
    let nodes = rows.segment.nodes();
    let exact = if params.filter.is_some() { Strategy::ExactMatches } else { Strategy::ExactAll };
    if params.exact {
        return if params.filter.is_some() && rows.count < nodes / 4 { exact } else { Strategy::ExactAll };
    }
    // A pool this wide holds as many nodes that count as one of the wanted width would, were they all to count.
    let wide = (ef as u128 * nodes as u128 / rows.count.max(1) as u128).min(nodes as u128) as usize;
    if rows.segment.entry().is_flat() || wide.saturating_mul(SEARCH_COST) >= rows.count {
        return exact;
    }
    Strategy::Graph { ef: wide.max(ef.min(nodes)) }
}

/// Searches a segment. `padded` is the query as the kernels want it.
pub(super) fn search(
    rows: &AcceptedRows<'_>,
    query: &[f32],
    padded: &[f32],
    wanted: SegmentQuery,
    params: &SearchParams,
) -> Result<SegmentAnswer> {
    let mut strategy = choose(rows, params, wanted.ef);
    let mut scored = 0;
    if let (Strategy::Graph { ef }, Some(graph)) = (strategy, rows.segment.graph()?) {
        let searched = through_graph(rows, &graph, query, padded, ef, wanted, &mut scored)?;
        if let Some((nodes, ef, reached)) = searched {
            let found = rows.items(&nodes, wanted.k, wanted.min);
            return Ok(SegmentAnswer { found, strategy: Strategy::Graph { ef }, scored, reached });
        }
        // Where what counts lies far from the query, a graph search meets too little of it.
        strategy = Strategy::ExactMatches;
    }
    let nodes = rows.nodes();
    scored += nodes.len();
    if nodes.len() > rows.segment.nodes() / 8 {
        rows.segment.exact()?;
    } else {
        nodes.iter().try_for_each(|&node| rows.segment.vector(node).map(drop))?;
    }
    let exact = rows.segment.unchecked_exact()?;
    let k = wanted.k.min(rows.count.max(1));
    let mut best = Vec::new();
    for block in nodes.chunks(BLOCK) {
        params.cancel.check()?;
        best.extend(exact.listed(padded, block, k, wanted.min, |node| rows.tie(node)));
    }
    let found = rows.items(&best, k, wanted.min);
    Ok(SegmentAnswer { found, strategy, scored, reached: f32::NEG_INFINITY })
}

/// Searches the graph and scores the best that count by their vectors. Returns them, the width of the pool in the end,
/// and the last score in it; nothing if too few that count were met.
fn through_graph(
    rows: &AcceptedRows<'_>,
    graph: &GraphView<'_>,
    query: &[f32],
    padded: &[f32],
    mut ef: usize,
    wanted: SegmentQuery,
    scored: &mut usize,
) -> Result<Option<(Vec<Scored>, usize, f32)>> {
    let SegmentQuery { k, min, .. } = wanted;
    let segment = rows.segment;
    let codes = segment.codes()?.query(query);
    let all = rows.is_whole();
    with_scratch(|scratch| {
        let whole = loop {
            search::search(graph, &codes, ef, scratch);
            *scored += scratch.scored;
            // In a range search the pool must reach down to the bound.
            let last = scratch.pool.last().map_or(f32::NEG_INFINITY, |s| s.score);
            let whole = scratch.pool.len() >= graph.nodes() || scratch.pool.len() < ef;
            if min == f32::NEG_INFINITY
                || last < min - CODE_ERROR
                || whole
                || scratch.pool.len() >= k.saturating_mul(2)
            {
                break whole;
            }
            ef = ef.saturating_mul(2).min(graph.nodes());
        };
        let reached = match scratch.pool.last() {
            Some(last) if !whole => last.score,
            _ => f32::NEG_INFINITY,
        };
        let ranged = min != f32::NEG_INFINITY;
        let counted = |pool: &[Scored]| -> Vec<Scored> {
            pool.iter().filter(|s| all || rows.accepts(s.node)).copied().collect()
        };
        let mut nodes = counted(&scratch.pool);
        if nodes.len() < k.min(wanted.ef).min(rows.count) && !ranged {
            return Ok(None);
        }
        if ranged {
            *scored += rescore::all(segment, padded, &mut nodes)?;
        } else if segment.kind() == Codes::F32 && codes.cut().is_none() {
            // The scores of the graph search are those of exact search, to the last bit.
        } else {
            let rescored = rescore::best(segment, padded, &codes, &mut nodes, k)?;
            *scored += rescored.scored;
            if rescored.undecided && segment.kind() != Codes::F32 && !whole {
                let vectors = segment.unchecked_exact()?.rows;
                *scored += search::refine(graph, ef, scratch, |nodes, scores| {
                    nodes.iter().try_for_each(|&node| segment.vector(node).map(drop))?;
                    scores.resize(nodes.len(), 0.0);
                    score_f32(padded, vectors, nodes, scores);
                    Ok(())
                })?;
                nodes = counted(&scratch.pool);
            }
        }
        Ok(Some((nodes, ef, reached)))
    })
}
