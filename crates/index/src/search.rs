//! How a question is answered: which way to search, the search, and from nodes to items.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::backend::vector_index::{Neighbor, SearchParams};
use crate::codes::kernel::score_f32;
use crate::codes::rescore;
use crate::config::Codes;
use crate::error::Result;
use crate::hnsw::search::{self, Scored, with_scratch};
use crate::segment::delta::State;
use crate::segment::item_table::NodeRows;

/// Walking the graph scores about this many nodes for each place in its pool; scoring a listed node is also cheaper
/// than one met on a walk.
const WALK_COST: usize = 12;

/// Nodes compared between two looks at whether the search was cancelled.
const BLOCK: usize = 1 << 16;

/// How an answer was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// The way the published items were searched.
    pub strategy: Strategy,
    /// Published items in all.
    pub items: usize,
    /// Published items that meet the filter, if there is one.
    pub matching: Option<usize>,
    /// Vectors that were scored, by their codes (or the first part of them) or in full.
    pub scored: usize,
    /// Items written since the last publication and therefore searched exactly.
    pub recent: usize,
}

/// The ways to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A walk through the graph.
    Graph {
        /// Candidates it kept.
        ef: usize,
    },
    /// Every vector compared.
    ExactAll,
    /// Every vector whose item meets the filter compared.
    ExactMatches,
}

/// Which published items count.
struct Accept<'a> {
    state: &'a State,
    rows: NodeRows<'a>,
    /// One bit a row: meets the filter and was not replaced or deleted since. `None`: all count.
    bits: Option<Vec<u64>>,
    count: usize,
}

impl<'a> Accept<'a> {
    fn new(state: &'a State, params: &SearchParams) -> Result<Self> {
        params.cancel.check()?;
        let filter = params.filter.as_ref();
        let items = state.snapshot.items();
        let (len, rows) = (items.len(), items.node_rows());
        if filter.is_none() && state.delta.is_empty() {
            return Ok(Self { state, rows, bits: None, count: len });
        }
        let mut bits = match filter {
            Some(filter) => {
                filter.validate()?;
                let columns = state.snapshot.columns_unless(&params.cancel)?;
                columns.matching(&filter.matcher().0, items, &params.cancel)?
            }
            None => {
                let mut bits = vec![u64::MAX; len.div_ceil(64)];
                if let (Some(last), 1..) = (bits.last_mut(), len % 64) {
                    *last = (1 << (len % 64)) - 1;
                }
                bits
            }
        };
        for row in state.delta.touched().filter_map(|id| items.row(id)) {
            bits[row as usize / 64] &= !(1 << (row % 64));
        }
        let count = bits.iter().map(|w| w.count_ones() as usize).sum();
        Ok(Self { state, rows, bits: Some(bits), count })
    }

    /// Rows of a node that count, in order of ids.
    fn rows(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let all = self.rows.of(node).iter().copied();
        all.filter(|&row| {
            self.bits.as_ref().is_none_or(|bits| bits[row as usize / 64] >> (row % 64) & 1 == 1)
        })
    }

    fn node(&self, node: u32) -> bool {
        self.rows(node).next().is_some()
    }

    /// Lowest id of a node's items that count: the order among equal scores.
    fn tie(&self, node: u32) -> u64 {
        self.rows(node).next().map_or(u64::MAX, |row| self.state.snapshot.items().ids()[row as usize])
    }

    /// Nodes with an item that counts, each once.
    fn nodes(&self) -> Vec<u32> {
        match &self.bits {
            // Few: from the rows. Else each node is asked.
            Some(bits) if self.count < self.state.snapshot.nodes() / 8 => {
                let node_of = self.state.snapshot.items().node_of();
                let mut nodes = Vec::with_capacity(self.count);
                for (word, &bits) in bits.iter().enumerate() {
                    let mut rest = bits;
                    while rest != 0 {
                        nodes.push(node_of[word * 64 + rest.trailing_zeros() as usize]);
                        rest &= rest - 1;
                    }
                }
                nodes.sort_unstable();
                nodes.dedup();
                nodes
            }
            _ => (0..self.state.snapshot.nodes() as u32).filter(|&node| self.node(node)).collect(),
        }
    }

    /// The `k` best items of scored nodes.
    fn items(&self, nodes: &[Scored], k: usize, min: f32) -> Vec<Neighbor> {
        let ids = self.state.snapshot.items().ids();
        let mut found = Vec::with_capacity(nodes.len().min(k));
        // Each node has an item that counts: one below k others needs no look at its items.
        let mut min = min;
        if (1..nodes.len()).contains(&k) {
            let mut scores: Vec<f32> = nodes.iter().map(|s| s.score).collect();
            min = min.max(*scores.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1);
        }
        for scored in nodes.iter().filter(|s| s.score >= min) {
            for row in self.rows(scored.node).take(k) {
                found.push(Neighbor { id: ids[row as usize], score: scored.score });
            }
        }
        found.sort_unstable_by(Neighbor::cmp_best_first);
        found.truncate(k);
        found
    }
}

/// Answers one question.
pub(crate) fn search(
    state: &State,
    query: &[f32],
    params: &SearchParams,
) -> Result<(Vec<Neighbor>, Explain)> {
    let accept = Accept::new(state, params)?;
    one(&accept, query, params)
}

/// Answers many questions, on all threads.
pub(crate) fn search_batch(
    state: &State,
    queries: &[f32],
    params: &SearchParams,
) -> Result<Vec<Vec<Neighbor>>> {
    let (dim, accept) = (state.snapshot.dim(), Accept::new(state, params)?);
    let count = queries.len() / dim;
    let many_match = accept.count >= accept.state.snapshot.items().len() / 4;
    if matches!(choose(&accept, params), Strategy::ExactAll) && count > 1 && many_match {
        let (k, min) = limits(&accept, params);
        let rows = state.padded(queries);
        let exact = state.snapshot.exact()?;
        let found = if accept.bits.is_none() && state.snapshot.manifest.dead_nodes == 0 {
            exact.many(rows.all(), k, min, |_| true, |node| accept.tie(node))
        } else {
            exact.many(rows.all(), k, min, |node| accept.node(node), |node| accept.tie(node))
        };
        let stride = rows.all::<f32>().len() / count;
        return found
            .par_iter()
            .zip(rows.all::<f32>().par_chunks_exact(stride))
            .map(|(nodes, query)| with_recent(state, query, accept.items(nodes, k, min), params))
            .collect();
    }
    let answer = |query| {
        params.cancel.check()?;
        one(&accept, query, params).map(|(found, _)| found)
    };
    queries.par_chunks_exact(dim).map(answer).collect()
}

/// Neighbours and lowest score wanted of the published items.
fn limits(accept: &Accept<'_>, params: &SearchParams) -> (usize, f32) {
    (params.k.min(accept.count.max(1)), params.min_score.unwrap_or(f32::NEG_INFINITY))
}

/// Whether to walk, and how wide, or to compare.
fn choose(accept: &Accept<'_>, params: &SearchParams) -> Strategy {
    let nodes = accept.state.snapshot.nodes();
    let exact = if params.filter.is_some() { Strategy::ExactMatches } else { Strategy::ExactAll };
    if params.exact {
        return if params.filter.is_some() && accept.count < nodes / 4 { exact } else { Strategy::ExactAll };
    }
    let wanted = if params.min_score.is_some() { params.ef_search.unwrap_or(64) } else { params.ef() };
    // A pool this wide holds as many nodes that count as one of the wanted width would, were they all to count.
    let ef = (wanted as u128 * nodes as u128 / accept.count.max(1) as u128).min(nodes as u128) as usize;
    if ef.saturating_mul(WALK_COST) >= accept.count {
        return exact;
    }
    Strategy::Graph { ef: ef.max(wanted.min(nodes)) }
}

fn one(accept: &Accept<'_>, query: &[f32], params: &SearchParams) -> Result<(Vec<Neighbor>, Explain)> {
    let (state, snapshot) = (accept.state, &*accept.state.snapshot);
    let (k, min) = limits(accept, params);
    let row = state.padded(query);
    let padded: &[f32] = row.all();
    let mut explain = Explain {
        strategy: choose(accept, params),
        items: snapshot.items().len(),
        matching: params.filter.is_some().then_some(accept.count),
        scored: 0,
        recent: state.delta.count(),
    };
    let mut found = None;
    if let Strategy::Graph { ef } = explain.strategy {
        match walk(accept, query, padded, ef, k, min, &mut explain.scored)? {
            Walked::Enough(nodes, ef) => {
                explain.strategy = Strategy::Graph { ef };
                found = Some(nodes);
            }
            // Where what counts lies far from the query, a walk meets too little of it.
            Walked::TooFew => explain.strategy = Strategy::ExactMatches,
        }
    }
    let nodes = match found {
        Some(nodes) => nodes,
        None => {
            let nodes = accept.nodes();
            explain.scored += nodes.len();
            if nodes.len() > snapshot.nodes() / 8 {
                snapshot.exact()?;
            } else {
                nodes.iter().try_for_each(|&node| snapshot.vector(node).map(drop))?;
            }
            let exact = snapshot.unchecked_exact()?;
            let mut best = Vec::new();
            for block in nodes.chunks(BLOCK) {
                params.cancel.check()?;
                best.extend(exact.listed(padded, block, k, min, |node| accept.tie(node)));
            }
            best
        }
    };
    let found = with_recent(state, padded, accept.items(&nodes, k, min), params)?;
    Ok((found, explain))
}

enum Walked {
    Enough(Vec<Scored>, usize),
    TooFew,
}

/// Walks the graph and scores the best that count with their vectors.
fn walk(
    accept: &Accept<'_>,
    query: &[f32],
    padded: &[f32],
    mut ef: usize,
    k: usize,
    min: f32,
    scored: &mut usize,
) -> Result<Walked> {
    let snapshot = &*accept.state.snapshot;
    let (graph, codes) = (snapshot.graph(), snapshot.codes().query(query));
    let all = accept.bits.is_none() && snapshot.manifest.dead_nodes == 0;
    with_scratch(|scratch| {
        let whole = loop {
            search::search(&graph, &codes, ef, scratch);
            *scored += scratch.scored;
            // In a range search the pool must reach down to the bound (codes are off by less than the slack).
            let last = scratch.pool.last().map_or(f32::NEG_INFINITY, |s| s.score);
            let whole = scratch.pool.len() >= graph.nodes() || scratch.pool.len() < ef;
            if min == f32::NEG_INFINITY
                || last < min - 0.02
                || whole
                || scratch.pool.len() >= k.saturating_mul(2)
            {
                break whole;
            }
            ef = ef.saturating_mul(2).min(graph.nodes());
        };
        let ranged = min != f32::NEG_INFINITY;
        let counted = |pool: &[Scored]| -> Vec<Scored> {
            pool.iter().filter(|s| all || accept.node(s.node)).copied().collect()
        };
        let mut nodes = counted(&scratch.pool);
        if nodes.len() < k.min(accept.count) && !ranged {
            return Ok(Walked::TooFew);
        }
        if ranged {
            *scored += rescore::all(snapshot, padded, &mut nodes)?;
        } else if snapshot.manifest.codes() == Codes::F32 && codes.cut().is_none() {
            // The walk's scores are those of exact search, to the last bit.
        } else {
            let rescored = rescore::best(snapshot, padded, &codes, &mut nodes, k)?;
            *scored += rescored.scored;
            if rescored.undecided && snapshot.manifest.codes() != Codes::F32 && !whole {
                let rows = snapshot.unchecked_exact()?.rows;
                *scored += search::refine(&graph, ef, scratch, |nodes, scores| {
                    nodes.iter().try_for_each(|&node| snapshot.vector(node).map(drop))?;
                    scores.resize(nodes.len(), 0.0);
                    score_f32(padded, rows, nodes, scores);
                    Ok(())
                })?;
                nodes = counted(&scratch.pool);
            }
        }
        Ok(Walked::Enough(nodes, ef))
    })
}

/// Adds what was written since the publication.
fn with_recent(
    state: &State,
    padded: &[f32],
    mut found: Vec<Neighbor>,
    params: &SearchParams,
) -> Result<Vec<Neighbor>> {
    if state.delta.count() > 0 {
        let min = params.min_score.unwrap_or(f32::NEG_INFINITY);
        found.extend(state.delta.search(padded, params.filter.as_ref(), min)?);
        found.sort_unstable_by(Neighbor::cmp_best_first);
    }
    found.truncate(params.k);
    Ok(found)
}
