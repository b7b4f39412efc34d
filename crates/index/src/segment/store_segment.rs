//! A segment of everything in the store, whose vectors are read from the store once more when their order is known.
//!
//! Near nodes lie near each other in the files, and which are near is known only when the graph is linked. Linking takes
//! codes alone, which are kept in memory. The vectors are then read again and written where they belong, so that no
//! copy in order of ids is written before. Writes go on from the first reading on. One to an item that was read makes
//! all of this void: the caller begins again with a copy.

use crate::codes::aligned_matrix::Rows;
use crate::codes::precision::{self, Measurement, Precision};
use crate::codes::quantize::{CodeBuffer, row_bytes};
use crate::config::{Builder, Codes, Progress, Stage};
use crate::error::Result;
use crate::hnsw::graph::GraphData;
use crate::segment::block_file::BlockRows;
use crate::segment::manifest::{FileEntry, FileRole, SegmentEntry};
use crate::segment::row_source::{RowSource, StoreRows};
use crate::segment::segment_writer::{Distinct, GRAPH_FROM, Linked, SegmentWriter, Tables, check_count};
use crate::store::{State, Store};

/// Vectors that precision is measured with at a time.
const MEASURED: usize = 8192;

/// What was read of the store at first.
pub(crate) struct Uncoded {
    nodes: Nodes,
    node_of: Vec<u32>,
    tables: Tables,
}

/// The same with codes.
pub(crate) struct Coded {
    nodes: Nodes,
    /// Codes of the nodes in order of first ids, to link them by; none if they are too few for a graph.
    codes: Option<CodeBuffer>,
    precision: Option<Precision>,
    node_of: Vec<u32>,
    tables: Tables,
}

/// Which vectors the nodes have.
struct Nodes {
    /// The first item of each node, ascending.
    first: Vec<u64>,
    /// Counters of the store when they were read.
    state: State,
}

/// Files written so far, and where the vectors belong.
pub(crate) struct Ordered {
    nodes: Nodes,
    /// Place of each node.
    places: Vec<u32>,
    /// Nodes by place.
    order: Vec<u32>,
    files: Vec<FileEntry>,
    /// Codes that are still to be made.
    missing: Option<Codes>,
    precision: Option<Precision>,
    node_of: Vec<u32>,
    tables: Tables,
}

impl Nodes {
    /// Calls `visit` with the vectors of all nodes that the store has, and returns how many these are.
    fn scan(&self, store: &Store, mut visit: impl FnMut(u32, &[f32]) -> Result<()>) -> Result<usize> {
        let (mut node, mut visited) = (0, 0);
        store.scan_vectors(|id, vector| {
            while self.first.get(node).is_some_and(|first| *first < id) {
                node += 1;
            }
            if self.first.get(node) == Some(&id) {
                visit(node as u32, vector?)?;
                visited += 1;
            }
            Ok(())
        })?;
        Ok(visited)
    }
}

impl SegmentWriter<'_> {
    /// Whether so many items are read in this way.
    pub(crate) fn reads_twice(&self, items: u64) -> bool {
        self.config.hnsw.builder == Builder::Native && items > 0
    }

    /// Reads the store, which nobody writes meanwhile.
    pub(crate) fn collect_nodes(&self, store: &Store) -> Result<Uncoded> {
        let source = RowSource::Store(StoreRows::new(store)?);
        let (total, state) = (source.len(), store.state()?);
        let mut distinct = Distinct::new(&source);
        let (mut first, mut node_of) = (vec![], vec![]);
        let mut tables = Tables::create(self)?;
        source.scan(&mut |row| {
            let node = distinct.node(row.vector, row.id, first.len() as u32)?;
            if node as usize == first.len() {
                first.push(row.id);
                check_count(first.len())?;
            }
            tables.push(&source, &row)?;
            node_of.push(node);
            self.report(Stage::Read, node_of.len(), total)
        })?;
        drop(distinct);
        (self.progress)(Progress { stage: Stage::Read, done: total, total })?;
        Ok(Uncoded { nodes: Nodes { first, state }, node_of, tables })
    }

    /// Reads the vectors of the nodes to make codes of them. `None` if one is not there any more.
    pub(crate) fn code(&self, uncoded: Uncoded, store: &Store) -> Result<Option<Coded>> {
        let Uncoded { nodes, node_of, tables } = uncoded;
        let (codes, precision) = match nodes.first.len() < GRAPH_FROM {
            true => (None, None),
            false => match self.codes_of(&nodes, store)? {
                Some((codes, precision)) => (Some(codes), precision),
                None => return Ok(None),
            },
        };
        Ok(Some(Coded { nodes, codes, precision, node_of, tables }))
    }

    /// The codes that the nodes are linked by.
    fn codes_of(&self, nodes: &Nodes, store: &Store) -> Result<Option<(CodeBuffer, Option<Precision>)>> {
        let (dim, count) = (self.config.dim, nodes.first.len());
        let mut queries = Rows::new(dim * 4);
        let mut vector = Vec::with_capacity(dim);
        for node in precision::sampled(count) {
            vector.clear();
            if !store.vector(nodes.first[node], &mut vector)? {
                return Ok(None);
            }
            queries.push(&vector);
        }
        let mut measurement = Measurement::new(queries.all(), row_bytes(dim, Codes::F32) / 4, dim);
        // Those of most indexes, until it is known that they tell neighbours apart.
        let usual = precision::linked_by(self.config, None);
        let mut codes = CodeBuffer::new(dim, usual);
        codes.reserve(count);
        let mut block = Rows::new(dim * 4);
        block.reserve(MEASURED.min(count));
        let mut held = 0;
        let mut visited = nodes.scan(store, |_, vector| {
            codes.push(vector);
            block.push(vector);
            held += 1;
            if held == MEASURED {
                measurement.compare(block.all());
                block.clear();
                held = 0;
            }
            Ok(())
        })?;
        measurement.compare(block.all());
        let precision = measurement.result();
        let linked = precision::linked_by(self.config, precision);
        if linked != usual {
            codes = CodeBuffer::new(dim, linked);
            codes.reserve(count);
            visited = visited.min(nodes.scan(store, |_, vector| {
                codes.push(vector);
                Ok(())
            })?);
        }
        Ok((visited == count).then_some((codes, precision)))
    }

    /// Links the graph and writes all that needs no vectors.
    pub(crate) fn link_codes(&self, coded: Coded) -> Result<Ordered> {
        let Coded { nodes, codes, precision, mut node_of, tables } = coded;
        let Some(codes) = codes else {
            let order: Vec<u32> = (0..nodes.first.len() as u32).collect();
            let (places, files) = (order.clone(), vec![]);
            return Ok(Ordered { nodes, places, order, files, missing: None, precision, node_of, tables });
        };
        let graph = self.extended(GraphData::unlinked(self.config.hnsw.m, vec![]), &codes)?;
        let (order, places, graph) = self.write_ordered(graph, &mut node_of)?;
        let mut files = vec![graph];
        let kind = precision::searched_with(self.config, precision);
        let linked = precision::linked_by(self.config, precision);
        let missing = (kind != Codes::F32 && kind != linked).then_some(kind);
        if kind != Codes::F32 && missing.is_none() {
            files.push(self.write_codes(&codes, &order)?);
        }
        Ok(Ordered { nodes, places, order, files, missing, precision, node_of, tables })
    }

    /// Writes the vectors, and with them the segment is complete. `None` if one of its items was written since the
    /// store was read.
    pub(crate) fn place_vectors(&self, ordered: Ordered, store: &Store) -> Result<Option<SegmentEntry>> {
        let Ordered { nodes, places, order, mut files, missing, precision, node_of, tables } = ordered;
        let (dim, count) = (self.config.dim, nodes.first.len());
        let mut file = BlockRows::create(&self.path("vectors"), row_bytes(dim, Codes::F32))?;
        let mut padded = Rows::with_rows(dim * 4, 1);
        let mut codes = missing.map(|kind| CodeBuffer::new(dim, kind));
        let mut done = 0;
        let visited = nodes.scan(store, |node, vector| {
            padded.all_mut()[..dim].copy_from_slice(vector);
            file.write(places[node as usize] as usize, padded.all::<u8>())?;
            codes.iter_mut().for_each(|codes| codes.push(vector));
            done += 1;
            self.report(Stage::Write, done, count as u64)
        })?;
        // A vector that was read has its note: both come in one transaction.
        let written = store.changed_since(nodes.state.sequence)?;
        if visited < count || written.first().is_some_and(|id| *id < nodes.state.next_id) {
            return Ok(None);
        }
        files.push(file.finish(FileRole::Vectors)?);
        if let Some(codes) = codes {
            files.push(self.write_codes(&codes, &order)?);
        }
        (self.progress)(Progress { stage: Stage::Write, done: count as u64, total: count as u64 })?;
        let linked = Linked { files, nodes: count, precision, node_of };
        self.complete(linked, tables.items, tables.columns).map(Some)
    }
}
