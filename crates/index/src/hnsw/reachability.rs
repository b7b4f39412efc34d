//! Links for nodes that no walk over the ground layer reaches.
//!
//! A full row drops a link when it gets a better one, and the node that the dropped link led to may have had no other
//! incoming link. Threads that insert two near nodes at the same time do not see each other, which makes this more
//! likely. No search finds such a node, whatever its width. After the nodes are linked, one breadth-first walk finds
//! those it cannot reach, and each gets an incoming link from a near node that is reached.

use crate::hnsw::graph::{GraphData, GraphView, NONE, ground_stride};

/// Nodes that a breadth-first walk over the ground layer has reached, and the link by which it reached each first.
pub(crate) struct Reached {
    /// The node whose link reached each node: the node itself where the walk began, [`NONE`] for one not reached.
    parents: Vec<u32>,
    /// The nodes reached, in that order.
    order: Vec<u32>,
    /// Nodes of `order` whose links were followed.
    followed: usize,
}

impl Reached {
    /// Walks from the entry of a graph as far as links lead.
    pub(crate) fn from_entry(graph: &GraphView<'_>) -> Self {
        let nodes = graph.nodes();
        let mut reached = Self { parents: vec![NONE; nodes], order: Vec::with_capacity(nodes), followed: 0 };
        if graph.entry != NONE {
            reached.add(graph.entry, graph.entry);
            reached.walk(|node| graph.ground_row(node));
        }
        reached
    }

    /// The nodes not reached.
    pub(crate) fn missing(&self) -> Vec<u32> {
        (0..self.parents.len() as u32).filter(|&node| !self.contains(node)).collect()
    }

    fn contains(&self, node: u32) -> bool {
        self.parents[node as usize] != NONE
    }

    fn add(&mut self, node: u32, parent: u32) {
        self.parents[node as usize] = parent;
        self.order.push(node);
    }

    fn walk<'a>(&mut self, row: impl Fn(u32) -> &'a [u32]) {
        while let Some(&node) = self.order.get(self.followed) {
            self.followed += 1;
            for &link in row(node).iter().take_while(|&&link| link != NONE) {
                if !self.contains(link) {
                    self.add(link, node);
                }
            }
        }
    }

    /// The place of a row that a further link may take: an empty one, or that of the last link by which the walk did
    /// not reach a node first. Every node reached stays reached without that link.
    fn place(&self, node: u32, row: &[u32]) -> Option<usize> {
        let used = row.iter().position(|&link| link == NONE).unwrap_or(row.len());
        if used < row.len() {
            return Some(used);
        }
        (0..used).rev().find(|&at| self.parents[row[at] as usize] != node)
    }
}

/// Gives an incoming link on the ground layer to every node that no walk from the entry reaches. `near` gives nodes near
/// to a node, nearest first, by a search of the graph. Returns how many links were added.
pub(crate) fn repair(graph: &mut GraphData, mut near: impl FnMut(&GraphView<'_>, u32) -> Vec<u32>) -> usize {
    let mut reached = Reached::from_entry(&graph.view());
    let missing: Vec<(u32, Vec<u32>)> =
        reached.missing().into_iter().map(|node| (node, near(&graph.view(), node))).collect();
    let (stride, room) = (ground_stride(graph.m), 2 * graph.m);
    let mut added = 0;
    for (node, near) in missing {
        // A node repaired before may lead to this one.
        if reached.contains(node) {
            continue;
        }
        // The node reached last led to no other, so its row has a place.
        let from =
            near.into_iter().chain(reached.order.last().copied()).filter(|&from| reached.contains(from));
        let place = |from: u32| {
            let start = from as usize * stride;
            reached.place(from, &graph.ground[start..start + room]).map(|at| (from, start + at))
        };
        let Some((from, at)) = from.into_iter().find_map(place) else { continue };
        graph.ground[at] = node;
        added += 1;
        reached.add(node, from);
        reached.walk(|node| &graph.ground[node as usize * stride..][..room]);
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes with these links on the ground layer, two places each, the entry being node 0.
    fn graph(links: &[&[u32]]) -> GraphData {
        let mut graph = GraphData::unlinked(1, vec![0; links.len()]);
        for (row, links) in graph.ground.chunks_exact_mut(ground_stride(1)).zip(links) {
            row[..links.len()].copy_from_slice(links);
        }
        graph
    }

    #[test]
    fn a_walk_reaches_what_links_lead_to() {
        let graph = graph(&[&[1], &[2, 0], &[], &[0, 2], &[3]]);
        let reached = Reached::from_entry(&graph.view());
        assert_eq!(reached.order, [0, 1, 2]);
        assert_eq!(reached.missing(), [3, 4]);
        assert_eq!(Reached::from_entry(&GraphData::unlinked(1, vec![]).view()).missing(), [0; 0]);
    }

    #[test]
    fn a_repair_takes_no_link_by_which_another_node_is_reached() {
        // Nodes 4 and 5 have no incoming link; node 5 leads to 6. The rows of 0 and 1 are full.
        let mut graph = graph(&[&[1, 2], &[3, 0], &[0, 1], &[1], &[0], &[6], &[5]]);
        // Node 0 has no link to spare, so node 1 gives up the one to 0, and node 3 has an empty place.
        let added = repair(&mut graph, |_, node| if node == 4 { vec![0, 1] } else { vec![0, 1, 3] });
        assert_eq!(added, 2);
        assert_eq!(graph.ground[ground_stride(1)..][..2], [3, 4]);
        assert_eq!(graph.ground[3 * ground_stride(1)..][..2], [1, 5]);
        assert_eq!(Reached::from_entry(&graph.view()).missing(), [0; 0]);
    }

    #[test]
    fn without_near_nodes_that_are_reached_the_node_reached_last_gets_the_link() {
        let mut graph = graph(&[&[1], &[0], &[3], &[2]]);
        assert_eq!(repair(&mut graph, |_, node| vec![node ^ 1]), 1);
        assert_eq!(Reached::from_entry(&graph.view()).missing(), [0; 0]);
    }
}
