//! The graph, built by this crate's own code on all threads, over the codes it will be searched with.
//!
//! Malkov and Yashunin 2016, algorithms 1 and 4. Links are atomics that searches read while others write: a list may
//! be seen half renewed, but every entry is a node, which is all a walk needs. A lock per node keeps two threads from
//! renewing the same list. A finished graph can be extended by further nodes.
//!
//! A node is linked from the ground layer upward, and on each layer its own row is written before any link leads to it.
//! Links and the entry are stored with release and read with acquire ordering, so a walk that meets a node on a layer
//! finds its rows on that layer and on those below. Last, [`repair`] links the nodes that no walk reaches.

use std::cmp::Ordering;
use std::sync::Mutex;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, Release},
};

use rayon::prelude::*;

use crate::codes::aligned_matrix::Rows;
use crate::codes::coded_query::Query;
use crate::codes::quantize::CodeView;
use crate::config::{HnswConfig, Progress, Stage};
use crate::hnsw::graph::{GraphData, GraphView, MAX_LEVEL, NONE, ground_stride};
use crate::hnsw::growing_graph::{Growing, UNKNOWN, atomics};
use crate::hnsw::layers::level_of;
use crate::hnsw::neighbor_selection::Selection;
use crate::hnsw::reachability::repair;
use crate::hnsw::search::{Links, Pace, Scored, Scratch, descend, search_layer, with_scratch};

/// Nodes linked between two reports of progress.
const REPORT: usize = 4096;

/// Links all nodes of `codes` that `base` does not hold yet; nodes of `base` are the first of `codes`.
pub(crate) fn extend(
    base: GraphData,
    codes: CodeView<'_>,
    config: &HnswConfig,
    progress: &(dyn Fn(Progress) + Sync),
) -> GraphData {
    let (old, all) = (base.levels.len(), codes.nodes());
    let GraphData { m, entry, mut levels, mut ground, mut upper_start, mut upper } = base;
    levels.extend((old..all).map(|node| level_of(node as u32, config)));
    // Links are read here and there: they lie in large pages, like the codes.
    let mut rows = Rows::new(ground_stride(m) * 4);
    rows.reserve(all);
    ground.chunks_exact(ground_stride(m)).for_each(|row| rows.push(row));
    let none = vec![NONE; ground_stride(m)];
    (old..all).for_each(|_| rows.push(&none));
    ground = Vec::new();
    for &level in &levels[old..] {
        upper_start.push(if level > 0 { upper.len() as u32 } else { NONE });
        upper.resize(upper.len() + usize::from(level) * m, NONE);
    }
    let graph = Growing {
        m,
        stride: ground_stride(m),
        ground: atomics(rows.all_mut()),
        upper: atomics(&mut upper),
        upper_start,
        scores: (0..all * 2 * m).map(|_| AtomicU32::new(0)).collect(),
        taken: (0..all).map(|node| Mutex::new(if node < old { UNKNOWN } else { 0 })).collect(),
        entry: AtomicU64::new(u64::MAX),
        entry_lock: Mutex::new(()),
        levels,
    };
    if entry != NONE {
        graph.set_entry(entry);
    }
    let report =
        |done: usize| progress(Progress { stage: Stage::Link, done: done as u64, total: (all - old) as u64 });
    // The first nodes one by one: threads that all start from an empty graph would find nothing to link to.
    let serial = all.min(old.max(256));
    let mut inserter = Inserter::new(&codes);
    for node in old..serial {
        with_scratch(|scratch| inserter.insert(&graph, node as u32, config, scratch));
    }
    for begin in (serial.max(old)..all).step_by(REPORT) {
        report(begin - old);
        (begin..all.min(begin + REPORT)).into_par_iter().for_each_init(
            || Inserter::new(&codes),
            |inserter, node| with_scratch(|scratch| inserter.insert(&graph, node as u32, config, scratch)),
        );
    }
    report(all - old);
    let entry = graph.entry().map_or(NONE, |(node, _)| node);
    let (levels, upper_start) = (graph.levels, graph.upper_start);
    ground.extend_from_slice(rows.all());
    let mut graph = GraphData { m, entry, levels, ground, upper_start, upper };
    repair(&mut graph, |graph, node| nearest(graph, &mut inserter.query, node, config.ef_construction));
    graph
}

/// The nodes nearest to a node that a search finds, nearest first.
fn nearest(graph: &GraphView<'_>, query: &mut Query<'_>, node: u32, ef: usize) -> Vec<u32> {
    query.set_node(node);
    with_scratch(|scratch| {
        let top = graph.level(graph.entry);
        let start = descend(graph, query, graph.entry, top, 0, Pace::Thorough, scratch);
        search_layer(graph, query, start, 0, ef, Pace::Thorough, scratch);
        scratch.pool.iter().map(|near| near.node).collect()
    })
}

/// Memory of an insertion, reused from one to the next.
struct Inserter<'a> {
    /// The node being linked.
    query: Query<'a>,
    /// A node whose score with others is wanted.
    pair: Query<'a>,
    /// The links chosen on each layer.
    selections: Vec<Selection>,
    row: Selection,
    names: Vec<u32>,
    scores: Vec<f32>,
}

impl<'a> Inserter<'a> {
    fn new(codes: &CodeView<'a>) -> Self {
        Self {
            query: codes.blank_query(),
            pair: codes.blank_query(),
            selections: (0..=MAX_LEVEL).map(|_| Selection::default()).collect(),
            row: Selection::default(),
            names: Vec::new(),
            scores: Vec::new(),
        }
    }

    fn insert(&mut self, graph: &Growing<'_>, node: u32, config: &HnswConfig, scratch: &mut Scratch) {
        let level = graph.levels[node as usize];
        // A node above all others changes where searches begin; those are rare, so one at a time.
        let Some((mut entry, mut top)) = graph.entry() else {
            graph.set_entry(node);
            return;
        };
        let raising = (level > top).then(|| graph.entry_lock.lock().expect("no thread panics here"));
        if raising.is_some() {
            (entry, top) = graph.entry().expect("an entry is never taken away");
        }
        self.query.set_node(node);
        let mut start = descend(graph, &self.query, entry, top, level.min(top), Pace::Thorough, scratch);
        for layer in (0..=level.min(top)).rev() {
            search_layer(graph, &self.query, start, layer, config.ef_construction, Pace::Thorough, scratch);
            start = scratch.pool[0];
            scratch.pool.retain(|c| c.node != node);
            self.selections[usize::from(layer)].choose(&scratch.pool, graph.m, &mut self.pair);
        }
        // The ground first: a node met on a layer has its links on those below. hnswlib links from the top downward,
        // but holds the node's lock until all its layers are linked.
        for layer in 0..=level.min(top) {
            let selection = std::mem::take(&mut self.selections[usize::from(layer)]);
            self.link(graph, node, layer, &selection);
            for &link in &selection.links {
                self.link_back(graph, link, node, layer);
            }
            self.selections[usize::from(layer)] = selection;
        }
        if raising.is_some() && level > top {
            graph.set_entry(node);
        }
    }

    /// Gives a node the links chosen.
    fn link(&mut self, graph: &Growing<'_>, node: u32, layer: u8, selection: &Selection) {
        let mut taken = graph.taken[node as usize].lock().expect("no thread panics here");
        let room = graph.row(node, layer).len();
        // Another thread may have linked to this node already: what it wrote is chosen among as well.
        self.names.clear();
        graph.each(node, layer, |link| self.names.push(link));
        self.names.retain(|name| selection.links.iter().all(|l| l.node != *name));
        if self.names.is_empty() {
            graph.put(node, layer, selection, &mut taken);
            return;
        }
        self.query.scores(&self.names, &mut self.scores);
        let others = self.names.iter().zip(&self.scores).map(|(&node, &score)| Scored { score, node });
        let mut all: Vec<Scored> = selection.links.iter().copied().chain(others).collect();
        all.sort_by(best_first);
        self.row.choose(&all, room, &mut self.pair);
        graph.put(node, layer, &self.row, &mut taken);
    }

    /// Adds the link `neighbour → node`.
    fn link_back(&mut self, graph: &Growing<'_>, neighbour: Scored, node: u32, layer: u8) {
        let mut taken = graph.taken[neighbour.node as usize].lock().expect("no thread panics here");
        let row = graph.row(neighbour.node, layer);
        let link = Scored { score: neighbour.score, node };
        self.names.clear();
        graph.each(neighbour.node, layer, |link| self.names.push(link));
        if self.names.contains(&node) {
            return;
        }
        if layer == 0 && *taken != UNKNOWN {
            let scores = &graph.scores[neighbour.node as usize * row.len()..];
            let scored = |(&node, score): (&u32, &AtomicU32)| Scored {
                score: f32::from_bits(score.load(Relaxed)),
                node,
            };
            self.row.links.clear();
            self.row.links.extend(self.names.iter().zip(scores).map(scored));
            self.row.taken = usize::from(*taken);
            if self.names.len() < row.len() || !self.row.holds_copies(link) {
                if self.row.admit(link, row.len(), &self.query) {
                    graph.put(neighbour.node, layer, &self.row, &mut taken);
                }
                return;
            }
        }
        if let Some(place) = row.get(self.names.len()) {
            place.store(node, Release);
            return;
        }
        self.pair.set_node(neighbour.node);
        self.pair.scores(&self.names, &mut self.scores);
        let others = self.names.iter().zip(&self.scores).map(|(&node, &score)| Scored { score, node });
        let mut all: Vec<Scored> = others.chain([link]).collect();
        all.sort_by(best_first);
        self.row.choose(&all, row.len(), &mut self.pair);
        graph.put(neighbour.node, layer, &self.row, &mut taken);
    }
}

fn best_first(a: &Scored, b: &Scored) -> Ordering {
    b.score.total_cmp(&a.score).then(a.node.cmp(&b.node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeBuffer;
    use crate::config::Codes;
    use crate::hnsw::reachability::Reached;
    use crate::hnsw::search;
    use rand::{Rng, SeedableRng};

    fn codes(n: usize, dim: usize, kind: Codes) -> CodeBuffer {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut buffer = CodeBuffer::new(dim, kind);
        for _ in 0..n {
            let v: Vec<f32> = (0..dim).map(|_| rng.random_range(-1.0f32..1.0)).collect();
            let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
            buffer.push(&v.iter().map(|x| x / norm).collect::<Vec<_>>());
        }
        buffer
    }

    fn recall(graph: &GraphData, codes: CodeView<'_>, k: usize) -> f64 {
        let all: Vec<u32> = (0..codes.nodes() as u32).collect();
        let (mut hits, mut scratch, mut scores) = (0, Scratch::default(), vec![]);
        let mut query = codes.blank_query();
        for node in (0..codes.nodes() as u32).step_by(17) {
            query.set_node(node);
            query.scores(&all, &mut scores);
            let mut exact = all.clone();
            exact.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
            search::search(&graph.view(), &query, 64, &mut scratch);
            hits += scratch.pool[..k].iter().filter(|c| exact[..k].contains(&c.node)).count();
        }
        hits as f64 / (k * codes.nodes().div_ceil(17)) as f64
    }

    #[test]
    fn walks_find_the_true_neighbours_of_all_kinds_of_codes() {
        for kind in [Codes::F32, Codes::F16, Codes::I8] {
            let buffer = codes(2000, 24, kind);
            let config = HnswConfig { m: 12, ef_construction: 100, ..HnswConfig::default() };
            let graph = extend(GraphData::unlinked(12, vec![]), buffer.view(), &config, &|_| {});
            let recall = recall(&graph, buffer.view(), 10);
            assert!(recall > 0.97, "{kind:?}: {recall}");
        }
    }

    #[test]
    fn a_graph_can_be_extended() {
        let buffer = codes(3000, 16, Codes::F32);
        let config = HnswConfig { m: 8, ef_construction: 80, ..HnswConfig::default() };
        let rows: Vec<f32> =
            (0..1000).flat_map(|n| bytemuck::cast_slice::<u8, f32>(buffer.row(n)).to_vec()).collect();
        let first = extend(GraphData::unlinked(8, vec![]), CodeView::f32(16, &rows), &config, &|_| {});
        assert_eq!(first.levels.len(), 1000);
        let whole = extend(first, buffer.view(), &config, &|_| {});
        let recall = recall(&whole, buffer.view(), 10);
        assert!(recall > 0.95, "{recall}");
    }

    /// Unit vectors in clusters of `size`, so much away from their centres.
    fn clusters(n: usize, size: usize, spread: f32, seed: u64) -> CodeBuffer {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut random =
            |scale: f32| -> Vec<f32> { (0..16).map(|_| scale * rng.random_range(-1.0f32..1.0)).collect() };
        let centres: Vec<Vec<f32>> = (0..n / size).map(|_| random(1.0)).collect();
        let mut buffer = CodeBuffer::new(16, Codes::F32);
        for i in 0..n {
            let v: Vec<f32> =
                centres[i % centres.len()].iter().zip(random(spread)).map(|(c, x)| c + x).collect();
            let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
            buffer.push(&v.iter().map(|x| x / norm).collect::<Vec<_>>());
        }
        buffer
    }

    #[test]
    fn every_node_is_reached_after_building_and_extending_on_eight_threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        for seed in 0..5 {
            for (size, spread) in [(3000, 1.0), (100, 0.3), (60, 0.002)] {
                let buffer = clusters(6000, size, spread, seed);
                let config = HnswConfig { m: 4, ef_construction: 20, seed, ..HnswConfig::default() };
                let first = clusters(3000, size / 2, spread, seed);
                let graph = GraphData::unlinked(4, vec![]);
                let built = pool.install(|| extend(graph, first.view(), &config, &|_| {}));
                assert_eq!(Reached::from_entry(&built.view()).missing(), [0; 0], "{size} {spread} {seed}");
                let extended = pool.install(|| extend(built, buffer.view(), &config, &|_| {}));
                assert_eq!(Reached::from_entry(&extended.view()).missing(), [0; 0], "{size} {spread} {seed}");
            }
        }
    }

    #[test]
    fn one_thread_builds_the_same_graph_twice() {
        let buffer = codes(600, 8, Codes::I8);
        let config = HnswConfig { m: 6, ef_construction: 40, ..HnswConfig::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let build =
            || pool.install(|| extend(GraphData::unlinked(6, vec![]), buffer.view(), &config, &|_| {}));
        assert_eq!(build(), build());
    }
}
