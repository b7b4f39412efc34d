//! A second, wider descent for searches that end among near-copies.
//!
//! In tight clusters the links of a node lead to its near-copies, and a narrow pool that one cluster fills keeps no way to
//! better nodes elsewhere. The first descent goes from node to node and may end in the wrong cluster. A pool of
//! near-copies far from the query shows it; then a descent several nodes wide finds other places to start from. On
//! other data no pool looks so, and a search costs two scores more.

use crate::codes::coded_query::Query;
use crate::hnsw::graph::GraphView;
use crate::hnsw::search::{EXPANDED, Pace, Scored, Scratch, widen};

/// Width of the second descent.
const SECOND_EF: usize = 8;
/// Two nodes are near-copies as seen from the query if their squared distance is below this share of the query's from
/// the nearer. In clusters a fifth of the way between their centres wide it is 0.07; in ordinary clusters about 1.
const COPY: f32 = 0.1;

/// Whether the better half of the pool is near-copies of one node, as seen from the query: the last of that half is.
pub(super) fn holds_copies(query: &Query<'_>, scratch: &mut Scratch) -> bool {
    let pool = &scratch.pool;
    if pool.len() < 2 {
        return false;
    }
    let (best, middle) = (pool[0], pool[pool.len() / 2]);
    let mut pair = query.blank();
    pair.set_node(best.node);
    pair.scores(&[best.node, middle.node], &mut scratch.contest.scores);
    scratch.scored += 2;
    let (own, between) = (scratch.contest.scores[0], scratch.contest.scores[1]);
    // The squared distance of unit vectors is two minus twice their score, and a query has the score of a unit vector
    // times its length.
    let length = query.norm();
    length * (own - between) < COPY * (length - best.score)
}

/// Adds to the pool what a wider descent finds, and walks on from there.
pub(super) fn search_again(graph: &GraphView<'_>, query: &Query<'_>, ef: usize, scratch: &mut Scratch) {
    let found = std::mem::take(&mut scratch.pool);
    scratch.fresh.clear();
    scratch.fresh.push(graph.entry);
    scratch.score(query, f32::NEG_INFINITY, Pace::Quick);
    scratch.pool.push(Scored { score: scratch.contest.scores[0], node: graph.entry });
    for level in (1..=graph.level(graph.entry)).rev() {
        widen(graph, query, level, SECOND_EF, Pace::Quick, scratch);
    }
    scratch.pool.retain(|other| found.iter().all(|before| before.node != other.node));
    // The links of what was found before were followed.
    scratch.pool.extend(found.iter().map(|s| Scored { node: s.node | EXPANDED, ..*s }));
    scratch.pool.sort_by(|a, b| b.score.total_cmp(&a.score));
    widen(graph, query, 0, ef, Pace::Quick, scratch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeView;
    use crate::hnsw::graph::{GraphData, NONE, ground_stride};
    use crate::hnsw::search::search;

    /// Three clusters of four near-copies, each linked within itself alone on the ground. Above it are one node of each:
    /// the entry, at right angles to the query; one that leads nowhere; and one that is farther from the query than
    /// that, and leads to the last, which is the query's.
    fn islands() -> (GraphData, Vec<f32>) {
        let angles = [90.0f32, 50.0, 60.0, 0.0];
        let mut graph = GraphData::unlinked(4, (0..16).map(|node| u8::from(node % 4 == 0)).collect());
        let mut rows = vec![0.0; 16 * 16];
        for (node, row) in rows.chunks_exact_mut(16).enumerate() {
            let angle = (angles[node / 4] + 0.1 * (node % 4) as f32).to_radians();
            (row[0], row[1]) = (angle.cos(), angle.sin());
            let others = (0..16).filter(|&other| other != node && other / 4 == node / 4);
            for (place, other) in others.enumerate() {
                graph.ground[node * ground_stride(4) + place] = other as u32;
            }
        }
        for (node, links) in [(0, vec![4, 8]), (4, vec![0]), (8, vec![0, 12]), (12, vec![8])] {
            let start = graph.upper_start[node] as usize;
            graph.upper[start..start + links.len()].copy_from_slice(&links);
        }
        assert!(graph.entry == 0 && graph.upper.contains(&NONE));
        (graph, rows)
    }

    #[test]
    fn a_pool_of_near_copies_far_from_the_query_is_left_for_a_better_one() {
        let (graph, rows) = islands();
        let query = CodeView::f32(2, &rows).query(&[1.0, 0.0]);
        let mut scratch = Scratch::default();
        search(&graph.view(), &query, 4, &mut scratch);
        let found: Vec<u32> = scratch.pool.iter().map(|s| s.node).collect();
        assert_eq!(found, [12, 13, 14, 15]);
        assert!(scratch.pool.is_sorted_by(|a, b| a.score >= b.score));
    }

    #[test]
    fn near_copies_that_are_the_query_and_nodes_apart_are_not_searched_for_again() {
        let (_, rows) = islands();
        let codes = CodeView::f32(2, &rows);
        let mut scratch = Scratch::default();
        let mut holds = |query: [f32; 2], nodes: &[u32]| {
            let query = codes.query(&query);
            query.scores(nodes, &mut scratch.contest.scores);
            let scores = scratch.contest.scores.iter();
            scratch.pool = scores.zip(nodes).map(|(&score, &node)| Scored { score, node }).collect();
            holds_copies(&query, &mut scratch)
        };
        assert!(holds([1.0, 0.0], &[4, 5, 6, 7]));
        assert!(holds([0.5, 0.0], &[4, 5, 6, 7]), "the query's length does not count");
        assert!(holds([1.0, 0.0], &[4, 5, 6, 8]), "the better half");
        assert!(!holds([1.0, 0.0], &[12, 13, 14, 15]));
        assert!(!holds([1.0, 0.0], &[4, 0]));
        assert!(!holds([1.0, 0.0], &[4]), "one node shows nothing");
    }
}
