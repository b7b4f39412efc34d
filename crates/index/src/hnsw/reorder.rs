//! In which order nodes lie in memory.

use std::collections::VecDeque;

use crate::hnsw::graph::{GraphView, NONE};

/// Nodes in the order of a breadth-first walk over the ground layer from the entry: what is near in the graph comes to
/// lie near in memory, so that a search meets fewer pages and cache lines. Nodes no walk reaches come last.
pub(crate) fn by_walk(graph: &GraphView<'_>) -> Vec<u32> {
    let nodes = graph.nodes();
    let mut order = Vec::with_capacity(nodes);
    let mut seen = vec![false; nodes];
    let mut queue = VecDeque::new();
    let starts = (graph.entry != NONE).then_some(graph.entry).into_iter().chain(0..nodes as u32);
    for start in starts {
        if std::mem::replace(&mut seen[start as usize], true) {
            continue;
        }
        queue.push_back(start);
        while let Some(node) = queue.pop_front() {
            order.push(node);
            for &link in graph.ground_row(node) {
                if link != NONE && !std::mem::replace(&mut seen[link as usize], true) {
                    queue.push_back(link);
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hnsw::graph::{GraphData, ground_stride};

    #[test]
    fn every_node_comes_once_neighbours_together() {
        let mut graph = GraphData::unlinked(2, vec![0, 1, 0, 0]);
        graph.ground[ground_stride(2)] = 3;
        graph.ground[3 * ground_stride(2)] = 0;
        assert_eq!(by_walk(&graph.view()), [1, 3, 0, 2]);
        assert_eq!(by_walk(&GraphData::unlinked(2, vec![]).view()), [0; 0]);
    }
}
