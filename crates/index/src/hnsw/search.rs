//! The walk through the graph: greedy descent through the upper layers, best-first search on one layer.
//!
//! Malkov and Yashunin 2016, algorithms 2 and 5. Candidates and results share one pool of the `ef` best nodes seen,
//! sorted, each marked once its links were followed: the walk ends when all are, which is the paper's condition. A search
//! that ends among near-copies far from the query descends a second time, wider ([`second_descent`]).

use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

use crate::codes::coded_query::Query;
use crate::error::Result;
use crate::hnsw::early_abandon::Contest;
use crate::hnsw::graph::{GraphView, NONE};
use crate::hnsw::second_descent;
use crate::hnsw::visited::Visited;

/// Rows asked for before the first is scored.
const AHEAD: usize = 6;
/// Mark of a node in a pool whose links were followed.
pub(super) const EXPANDED: u32 = 1 << 31;
/// Nodes whose links are followed together on a quick walk: while the processor waits for one row, it asks for others.
const TOGETHER: usize = 2;

/// How a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Node by node, every score in full: for links, which last.
    Thorough,
    /// A few nodes together, rows read no further than they promise ([`Contest`]): for answers.
    Quick,
}

/// A graph to walk on: one being built or a finished one.
pub(crate) trait Links {
    fn nodes(&self) -> usize;
    /// Calls `visit` with every link of a node on a layer it reaches.
    fn each(&self, node: u32, level: u8, visit: impl FnMut(u32));
    /// Asks for a node's links on the ground layer ahead of their use.
    fn prefetch(&self, node: u32);
}

impl Links for GraphView<'_> {
    fn nodes(&self) -> usize {
        GraphView::nodes(self)
    }

    #[inline(always)]
    fn each(&self, node: u32, level: u8, mut visit: impl FnMut(u32)) {
        let row = if level == 0 { self.ground_row(node) } else { self.upper_row(node, level) };
        for &link in row {
            if link == NONE {
                break;
            }
            visit(link);
        }
    }

    #[inline(always)]
    fn prefetch(&self, node: u32) {
        crate::codes::kernel::prefetch(self.ground_row(node).as_ptr(), 128);
    }
}

/// A node and its score.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Scored {
    pub(crate) score: f32,
    pub(crate) node: u32,
}

/// Memory of a walk, reused from one to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    visited: Visited,
    /// Nodes just met.
    pub(super) fresh: Vec<u32>,
    pub(super) contest: Contest,
    /// The best nodes of the last walk, best first.
    pub(crate) pool: Vec<Scored>,
    /// Scores that the last search computed to the end: rows given up after their first part do not count.
    pub(crate) scored: usize,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends this thread's scratch memory.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => work(&mut scratch),
        // A walk started from within a walk, such as by a stolen rayon job.
        Err(_) => work(&mut Scratch::default()),
    })
}

impl Scratch {
    /// Collects the links of the best nodes from place `next` on whose links were not followed yet, so many together.
    /// Returns the place of the first and the place after the last, or `None` if there are no such nodes.
    #[inline(always)]
    fn follow(
        &mut self,
        links: &impl Links,
        level: u8,
        next: usize,
        together: usize,
    ) -> Option<(usize, usize)> {
        self.fresh.clear();
        let (mut places, mut left) = (None, together);
        for place in next..self.pool.len() {
            let node = self.pool[place].node;
            if node & EXPANDED != 0 {
                continue;
            }
            self.pool[place].node |= EXPANDED;
            links.each(node, level, |link| self.fresh.push(link));
            places = Some((places.map_or(place, |(first, _)| first), place + 1));
            left -= 1;
            if left == 0 {
                break;
            }
        }
        places
    }

    /// Scores the nodes just met; on a quick walk those that will not reach `bar` are taken out.
    #[inline(always)]
    pub(super) fn score(&mut self, query: &Query<'_>, bar: f32, pace: Pace) {
        match pace {
            Pace::Thorough => query.scores(&self.fresh, &mut self.contest.scores),
            Pace::Quick => self.contest.enter(query, &mut self.fresh, bar),
        }
        self.scored += self.fresh.len();
    }

    /// Puts a node in its place among the `ef` best; returns the place.
    #[inline]
    fn offer(&mut self, ef: usize, candidate: Scored) -> Option<usize> {
        if self.pool.len() >= ef {
            if self.pool[ef - 1].score >= candidate.score {
                return None;
            }
            self.pool.pop();
        }
        let place = self.pool.partition_point(|c| c.score >= candidate.score);
        self.pool.insert(place, candidate);
        Some(place)
    }
}

/// Descends from `entry` on layer `top` to the node nearest to the query on layer `bottom + 1`, one step at a time.
pub(crate) fn descend(
    links: &impl Links,
    query: &Query<'_>,
    entry: u32,
    top: u8,
    bottom: u8,
    pace: Pace,
    scratch: &mut Scratch,
) -> Scored {
    scratch.fresh.clear();
    scratch.fresh.push(entry);
    scratch.score(query, f32::NEG_INFINITY, pace);
    let mut best = Scored { score: scratch.contest.scores[0], node: entry };
    for level in (bottom + 1..=top).rev() {
        loop {
            scratch.fresh.clear();
            links.each(best.node, level, |link| scratch.fresh.push(link));
            scratch.fresh.iter().take(AHEAD).for_each(|&node| query.prefetch(node));
            scratch.score(query, best.score, pace);
            let before = best.node;
            for (&node, &score) in scratch.fresh.iter().zip(&scratch.contest.scores) {
                if score > best.score {
                    best = Scored { score, node };
                }
            }
            if best.node == before {
                break;
            }
        }
    }
    best
}

/// Fills the pool with the `ef` nodes of a layer nearest to the query, as far as the walk from `start` finds them.
pub(crate) fn search_layer(
    links: &impl Links,
    query: &Query<'_>,
    start: Scored,
    level: u8,
    ef: usize,
    pace: Pace,
    scratch: &mut Scratch,
) {
    scratch.pool.clear();
    scratch.pool.push(start);
    widen(links, query, level, ef, pace, scratch);
}

/// Fills the pool with the `ef` nodes of a layer nearest to the query, as far as the walk from those in it finds them.
/// Nodes marked in the pool are not followed.
pub(super) fn widen(
    links: &impl Links,
    query: &Query<'_>,
    level: u8,
    ef: usize,
    pace: Pace,
    scratch: &mut Scratch,
) {
    let together = if pace == Pace::Quick { TOGETHER } else { 1 };
    scratch.visited.begin(links.nodes());
    scratch.fresh.clear();
    scratch.fresh.extend(scratch.pool.iter().map(|start| start.node & !EXPANDED));
    scratch.visited.visit(&mut scratch.fresh);
    scratch.pool.truncate(ef);
    let mut next = 0;
    loop {
        let seen = scratch.follow(links, level, next, together);
        let Scratch { fresh, pool, visited, .. } = &mut *scratch;
        let Some((first, end)) = seen else { break };
        next = first + 1;
        visited.visit(fresh);
        fresh.iter().take(AHEAD).for_each(|&node| query.prefetch(node));
        fresh.iter().for_each(|&node| query.prefetch_scale(node));
        // Followed next, should none of these be better.
        pool[end..]
            .iter()
            .filter(|c| c.node & EXPANDED == 0)
            .take(together)
            .for_each(|c| links.prefetch(c.node));
        let bar = if pool.len() < ef { f32::NEG_INFINITY } else { pool[ef - 1].score };
        scratch.score(query, bar, pace);
        for at in 0..scratch.fresh.len() {
            let (node, score) = (scratch.fresh[at], scratch.contest.scores[at]);
            if let Some(place) = scratch.offer(ef, Scored { score, node }) {
                next = next.min(place);
                if place < next + together {
                    links.prefetch(node);
                }
            }
        }
    }
    for candidate in &mut scratch.pool {
        candidate.node &= !EXPANDED;
    }
}

/// Fills the pool with the `ef` nodes nearest to the query, best first.
pub(crate) fn search(graph: &GraphView<'_>, query: &Query<'_>, ef: usize, scratch: &mut Scratch) {
    scratch.scored = 0;
    scratch.contest.begin(query);
    scratch.pool.clear();
    if graph.entry == NONE {
        return;
    }
    let (top, ef) = (graph.level(graph.entry), ef.min(graph.nodes()));
    let start = descend(graph, query, graph.entry, top, 0, Pace::Quick, scratch);
    search_layer(graph, query, start, 0, ef, Pace::Quick, scratch);
    if top > 0 && ef < graph.nodes() && second_descent::holds_copies(query, scratch) {
        second_descent::search_again(graph, query, ef, scratch);
    }
}

/// Walks on from the pool of [`search`] by other scores: scores the pool by them, and then follows links as far as they
/// lead to better nodes. `score` gives the scores of nodes. Returns how many were scored.
pub(crate) fn refine(
    graph: &GraphView<'_>,
    ef: usize,
    scratch: &mut Scratch,
    mut score: impl FnMut(&[u32], &mut Vec<f32>) -> Result<()>,
) -> Result<usize> {
    let mut scores = Vec::new();
    scratch.fresh.clear();
    scratch.fresh.extend(scratch.pool.iter().map(|s| s.node));
    scratch.visited.begin(graph.nodes());
    scratch.visited.visit(&mut scratch.fresh);
    scratch.pool.clear();
    let (mut next, mut scored) = (0, 0);
    loop {
        scored += scratch.fresh.len();
        score(&scratch.fresh, &mut scores)?;
        for (at, &score) in scores.iter().enumerate() {
            if let Some(place) = scratch.offer(ef, Scored { score, node: scratch.fresh[at] }) {
                next = next.min(place);
            }
        }
        let Some((first, _)) = scratch.follow(graph, 0, next, TOGETHER) else { break };
        next = first + 1;
        scratch.visited.visit(&mut scratch.fresh);
    }
    scratch.pool.iter_mut().for_each(|candidate| candidate.node &= !EXPANDED);
    Ok(scored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeView;
    use crate::hnsw::graph::{GraphData, ground_stride};

    /// Points on a circle, each linked to its two neighbours.
    fn circle(n: usize) -> (GraphData, Vec<f32>) {
        let mut graph = GraphData::unlinked(2, vec![0; n]);
        let mut rows = vec![0.0; n * 16];
        for i in 0..n {
            let angle = i as f32 * std::f32::consts::TAU / n as f32;
            rows[i * 16] = angle.cos();
            rows[i * 16 + 1] = angle.sin();
            graph.ground[i * ground_stride(2)] = ((i + 1) % n) as u32;
            graph.ground[i * ground_stride(2) + 1] = ((i + n - 1) % n) as u32;
        }
        (graph, rows)
    }

    #[test]
    fn the_walk_follows_links_to_the_nearest() {
        let (graph, rows) = circle(100);
        let codes = CodeView::f32(2, &rows);
        with_scratch(|scratch| {
            for node in 0..100usize {
                search(&graph.view(), &codes.query(&rows[node * 16..][..2]), 5, scratch);
                assert_eq!(scratch.pool.len(), 5);
                assert_eq!(scratch.pool[0].node, node as u32);
                assert!(scratch.pool.is_sorted_by(|a, b| a.score >= b.score));
                let mut found: Vec<_> =
                    scratch.pool.iter().map(|c| (c.node as usize + 102 - node) % 100).collect();
                found.sort();
                assert_eq!(found, [0, 1, 2, 3, 4]);
            }
        });
    }

    #[test]
    fn a_refined_walk_goes_on_by_the_other_scores() {
        let (graph, rows) = circle(100);
        let mut scratch = Scratch::default();
        search(&graph.view(), &CodeView::f32(2, &rows).query(&rows[..2]), 5, &mut scratch);
        // By the other scores node 30 is the nearest.
        let other = |nodes: &[u32], scores: &mut Vec<f32>| {
            scores.clear();
            scores.extend(nodes.iter().map(|&node| -(node as f32 - 30.0).abs()));
            Ok(())
        };
        let scored = refine(&graph.view(), 5, &mut scratch, other).unwrap();
        let mut found: Vec<_> = scratch.pool.iter().map(|s| s.node).collect();
        assert_eq!(found[0], 30);
        found.sort();
        assert_eq!(found, [28, 29, 30, 31, 32]);
        assert!((30..45).contains(&scored), "{scored}");
    }

    #[test]
    fn an_empty_graph_and_a_wide_pool_are_no_trouble() {
        let (graph, rows) = circle(10);
        let mut scratch = Scratch::default();
        search(&graph.view(), &CodeView::f32(2, &rows).query(&[1.0, 0.0]), 1000, &mut scratch);
        assert_eq!(scratch.pool.len(), 10);
        let empty = GraphData::unlinked(2, vec![]);
        search(&empty.view(), &CodeView::f32(2, &[]).query(&[1.0, 0.0]), 3, &mut scratch);
        assert!(scratch.pool.is_empty());
    }
}
