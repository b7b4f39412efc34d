//! Writes a new segment: the rows in order of ids, then the graph, or the graph of an earlier segment extended.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use crate::codes::aligned_matrix::Rows;
use crate::codes::precision::{self, Precision};
use crate::codes::quantize::{CodeBuffer, row_bytes};
use crate::config::{Builder, Codes, IndexConfig, Progress, Stage};
use crate::error::{IndexError, Result};
use crate::filter::ColumnsBuilder;
use crate::hnsw::graph::{GraphData, MAX_NODES, NONE};
use crate::hnsw::{build, hnsw_rs, reorder};
use crate::segment::block_file::{BlockFile, BlockWriter};
use crate::segment::item_table::ItemTableBuilder;
use crate::segment::manifest::{FileEntry, FileRole, SegmentEntry};
use crate::segment::row_source::{Row, RowSource};
use crate::segment::segment_reader::SegmentReader;
use crate::store::codec;

/// Distinct vectors from which on a segment gets a graph. Fewer are compared one by one.
pub(crate) const GRAPH_FROM: usize = 1_000;

/// Rows between two reports of progress.
const REPORT: usize = 4096;

/// Called while something takes long. An error stops the work.
pub(crate) type OnProgress<'a> = &'a (dyn Fn(Progress) -> Result<()> + Sync);

/// Writes one segment. Its files are synced; nothing names them yet.
pub(crate) struct SegmentWriter<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) config: &'a IndexConfig,
    /// Number of the segment, in the names of its files.
    pub(crate) number: u64,
    pub(crate) progress: OnProgress<'a>,
}

/// Rows that were read, before their graph is built.
pub(crate) struct Collected {
    /// The distinct vectors, in order of first ids.
    vectors: FileEntry,
    nodes: usize,
    node_of: Vec<u32>,
    items: ItemTableBuilder,
    columns: ColumnsBuilder,
}

/// What a graph brings: all files but those of items and columns.
pub(super) struct Linked {
    pub(super) files: Vec<FileEntry>,
    pub(super) nodes: usize,
    pub(super) precision: Option<Precision>,
    pub(super) node_of: Vec<u32>,
}

impl SegmentWriter<'_> {
    /// Writes a segment of all rows; `None` if there are none.
    pub(crate) fn write(&self, rows: &RowSource<'_>) -> Result<Option<SegmentEntry>> {
        self.collect(rows).and_then(|collected| self.finish(collected)).inspect_err(|_| self.discard())
    }

    /// Reads the rows. [`Self::finish`] needs their source no more.
    pub(crate) fn collect(&self, rows: &RowSource<'_>) -> Result<Collected> {
        let (dim, total) = (self.config.dim, rows.len());
        let mut distinct = Distinct::new(rows);
        let mut file = BlockWriter::create(&self.path("unordered"))?;
        let mut padded = Rows::with_rows(dim * 4, 1);
        let (mut nodes, mut node_of) = (0u32, vec![]);
        let mut tables = Tables::create(self)?;
        rows.scan(&mut |row| {
            let node = distinct.node(row.vector, row.id, nodes)?;
            if node == nodes {
                padded.all_mut()[..dim].copy_from_slice(row.vector);
                file.write_pod(padded.all::<f32>())?;
                nodes += 1;
                check_count(nodes as usize)?;
            }
            tables.push(rows, &row)?;
            node_of.push(node);
            self.report(Stage::Read, node_of.len(), total)
        })?;
        (self.progress)(Progress { stage: Stage::Read, done: total, total })?;
        let vectors = file.finish_unsynced(FileRole::Vectors)?;
        Ok(Collected {
            vectors,
            nodes: nodes as usize,
            node_of,
            items: tables.items,
            columns: tables.columns,
        })
    }

    /// Builds the graph, if the rows are many enough for one, and writes all files.
    pub(crate) fn finish(&self, collected: Collected) -> Result<Option<SegmentEntry>> {
        let Collected { vectors, nodes, node_of, items, columns } = collected;
        let unordered = self.path("unordered");
        let linked = if node_of.is_empty() {
            Ok(None)
        } else if nodes < GRAPH_FROM {
            self.flat(&unordered, nodes, node_of).map(Some)
        } else {
            self.link(&vectors, nodes, node_of).map(Some)
        };
        let _ = fs::remove_file(&unordered);
        match linked.inspect_err(|_| self.discard())? {
            Some(linked) => self.complete(linked, items, columns).map(Some).inspect_err(|_| self.discard()),
            None => {
                drop(items);
                self.discard();
                Ok(None)
            }
        }
    }

    /// A few vectors, in the order in which they were read.
    fn flat(&self, unordered: &Path, nodes: usize, node_of: Vec<u32>) -> Result<Linked> {
        let bytes = fs::read(unordered).map_err(|e| IndexError::io(unordered, e))?;
        let mut file = BlockWriter::create(&self.path("vectors"))?;
        file.write(&bytes[..nodes * row_bytes(self.config.dim, Codes::F32)])?;
        let files = vec![file.finish(FileRole::Vectors)?];
        Ok(Linked { files, nodes, precision: None, node_of })
    }

    fn link(&self, vectors: &FileEntry, nodes: usize, mut node_of: Vec<u32>) -> Result<Linked> {
        let config = self.config;
        let dim = config.dim;
        let vectors = BlockFile::open(self.dir, vectors)?;
        let stride = row_bytes(dim, Codes::F32) / 4;
        let rows = vectors.slice::<f32>(0, nodes * stride)?;
        let precision = precision::measure(rows, stride, dim);
        let kind = precision::searched_with(config, precision);
        let linked = precision::linked_by(config, precision);
        let code_all = |kind: Codes| {
            let mut codes = CodeBuffer::new(dim, kind);
            codes.reserve(nodes);
            rows.chunks_exact(stride).for_each(|row| codes.push(&row[..dim]));
            codes
        };
        let mut codes = code_all(linked);
        let graph = match config.hnsw.builder {
            Builder::Native => {
                let empty = GraphData::unlinked(config.hnsw.m, vec![]);
                self.extended(empty, &codes)?
            }
            Builder::HnswRs => {
                let progress = |progress| drop((self.progress)(progress));
                hnsw_rs::build(rows, stride, &config.hnsw, &progress)?
            }
        };

        let (order, _, graph) = self.write_ordered(graph, &mut node_of)?;
        let mut files = vec![graph];
        let mut file = BlockWriter::create(&self.path("vectors"))?;
        for (done, &old) in order.iter().enumerate() {
            file.write_pod(&rows[old as usize * stride..(old as usize + 1) * stride])?;
            self.report(Stage::Write, done, order.len() as u64)?;
        }
        files.push(file.finish(FileRole::Vectors)?);
        if kind != Codes::F32 {
            if kind != linked {
                codes = code_all(kind);
            }
            files.push(self.write_codes(&codes, &order)?);
        }
        let total = order.len() as u64;
        (self.progress)(Progress { stage: Stage::Write, done: total, total })?;
        Ok(Linked { files, nodes, precision, node_of })
    }

    /// Writes a graph whose nodes are put near each other in memory if they are near in it, and gives the nodes their
    /// new numbers. Returns the nodes in the new order and their new numbers.
    pub(super) fn write_ordered(
        &self,
        graph: GraphData,
        node_of: &mut [u32],
    ) -> Result<(Vec<u32>, Vec<u32>, FileEntry)> {
        let order = reorder::by_walk(&graph.view());
        let graph = graph.reordered(&order);
        let mut renamed = vec![NONE; order.len()];
        order.iter().enumerate().for_each(|(new, &old)| renamed[old as usize] = new as u32);
        node_of.iter_mut().for_each(|node| *node = renamed[*node as usize]);
        let file = graph.write(&self.path("graph"))?;
        Ok((order, renamed, file))
    }

    pub(super) fn write_codes(&self, codes: &CodeBuffer, order: &[u32]) -> Result<FileEntry> {
        let mut file = BlockWriter::create(&self.path("codes"))?;
        order.iter().try_for_each(|&old| file.write(codes.row(old)))?;
        if !codes.scales().is_empty() {
            let scales: Vec<f32> = order.iter().map(|&old| codes.scales()[old as usize]).collect();
            file.write_pod(&scales)?;
        }
        file.finish(FileRole::Codes)
    }

    pub(super) fn extended(&self, base: GraphData, codes: &CodeBuffer) -> Result<GraphData> {
        let progress = |progress| drop((self.progress)(progress));
        Ok(build::extend(base, codes.view(), &self.config.hnsw, &progress))
    }

    /// Writes a segment whose graph is that of `base`, extended by the vectors of the other rows. `rows` are those of
    /// segments of which `base` is the first.
    pub(crate) fn extend(&self, base: &SegmentReader, rows: &RowSource<'_>) -> Result<SegmentEntry> {
        self.try_extend(base, rows).inspect_err(|_| self.discard())
    }

    fn try_extend(&self, base: &SegmentReader, rows: &RowSource<'_>) -> Result<SegmentEntry> {
        let config = self.config;
        let (dim, kind, old, total) = (config.dim, base.kind(), base.nodes(), rows.len());
        let precision = base.entry().precision;
        let linked = precision::linked_by(config, precision);
        let mut codes = CodeBuffer::new(dim, linked);
        codes.reserve(old);
        // Those that are searched with, where the graph is linked by others.
        let mut searched = (kind != linked && kind != Codes::F32).then(|| CodeBuffer::new(dim, kind));
        let mut vectors = BlockWriter::create(&self.path("vectors"))?;
        base.prepare_search(false)?;
        for node in 0..old as u32 {
            let vector = base.vector(node)?;
            if kind == linked && kind != Codes::F32 {
                let (row, scale) = base.raw_codes(node)?;
                codes.push_raw(row, scale);
            } else {
                codes.push(&vector[..dim]);
            }
            if let Some(searched) = &mut searched {
                let (row, scale) = base.raw_codes(node)?;
                searched.push_raw(row, scale);
            }
            vectors.write_pod(vector)?;
            self.report(Stage::Read, node as usize, old as u64)?;
        }
        let mut distinct = Distinct::new(rows);
        let (mut nodes, mut node_of) = (old as u32, vec![]);
        let mut padded = Rows::with_rows(dim * 4, 1);
        let mut tables = Tables::create(self)?;
        rows.scan(&mut |row| {
            let node = match row.node {
                Some(node) => node,
                None => distinct.node(row.vector, row.id, nodes)?,
            };
            if node == nodes {
                padded.all_mut()[..dim].copy_from_slice(row.vector);
                vectors.write_pod(padded.all::<f32>())?;
                codes.push(row.vector);
                searched.iter_mut().for_each(|codes| codes.push(row.vector));
                nodes += 1;
                check_count(nodes as usize)?;
            }
            tables.push(rows, &row)?;
            node_of.push(node);
            self.report(Stage::Read, node_of.len(), total)
        })?;
        let graph = base.graph()?.expect("a segment that is extended has a graph");
        let graph = self.extended(graph.to_data(), &codes)?;
        let mut files = vec![graph.write(&self.path("graph"))?, vectors.finish(FileRole::Vectors)?];
        if kind != Codes::F32 {
            let codes = searched.unwrap_or(codes);
            let mut file = BlockWriter::create(&self.path("codes"))?;
            (0..nodes).try_for_each(|node| file.write(codes.row(node)))?;
            file.write_pod(codes.scales())?;
            files.push(file.finish(FileRole::Codes)?);
        }
        let linked = Linked { files, nodes: nodes as usize, precision, node_of };
        self.complete(linked, tables.items, tables.columns)
    }

    pub(super) fn complete(
        &self,
        linked: Linked,
        items: ItemTableBuilder,
        columns: ColumnsBuilder,
    ) -> Result<SegmentEntry> {
        let Linked { mut files, nodes, precision, node_of } = linked;
        files.push(items.finish(&node_of, nodes)?);
        files.push(columns.finish().write(&self.path("columns"))?);
        let mut is_live = vec![false; nodes];
        node_of.iter().for_each(|&node| is_live[node as usize] = true);
        Ok(SegmentEntry {
            number: self.number,
            items: node_of.len() as u64,
            deleted: 0,
            nodes: nodes as u64,
            dead_nodes: is_live.iter().filter(|live| !**live).count() as u64,
            precision,
            files,
        })
    }

    pub(super) fn path(&self, role: &str) -> PathBuf {
        self.dir.join(format!("{role}-{:06}.bin", self.number))
    }

    /// Removes whatever was written of the segment.
    pub(crate) fn discard(&self) {
        for role in ["vectors", "codes", "graph", "items", "columns", "unordered"] {
            let _ = fs::remove_file(self.path(role));
        }
    }

    pub(super) fn report(&self, stage: Stage, done: usize, total: u64) -> Result<()> {
        if done.is_multiple_of(REPORT) {
            (self.progress)(Progress { stage, done: done as u64, total })?;
        }
        Ok(())
    }
}

/// The tables of a segment's items while they are collected.
pub(super) struct Tables {
    pub(super) items: ItemTableBuilder,
    pub(super) columns: ColumnsBuilder,
}

impl Tables {
    pub(super) fn create(writer: &SegmentWriter<'_>) -> Result<Self> {
        let items = ItemTableBuilder::create(&writer.path("items"))?;
        Ok(Self { items, columns: ColumnsBuilder::default() })
    }

    pub(super) fn push(&mut self, rows: &RowSource<'_>, row: &Row<'_>) -> Result<()> {
        let item = codec::decode_item(row.id, row.record).map_err(|e| rows.damaged(row.id, e))?;
        self.items.push(row.id, row.record)?;
        self.columns.push(item);
        Ok(())
    }
}

/// Items with one vector share a node; this finds the node of a vector met before.
pub(super) struct Distinct<'a> {
    rows: &'a RowSource<'a>,
    /// Hash of a vector → node and an item that has it.
    met: HashMap<u64, Vec<(u32, u64)>>,
    other: Vec<f32>,
}

impl<'a> Distinct<'a> {
    pub(super) fn new(rows: &'a RowSource<'a>) -> Self {
        Self { rows, met: HashMap::new(), other: vec![] }
    }

    /// The node whose vector is this one, bit for bit; else notes it as that of `node`.
    pub(super) fn node(&mut self, vector: &[f32], id: u64, node: u32) -> Result<u32> {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytemuck::cast_slice(vector));
        let met = self.met.entry(hasher.finish()).or_default();
        for &(known, item) in met.iter() {
            self.other.clear();
            let same =
                |other: &[f32]| other.iter().map(|x| x.to_bits()).eq(vector.iter().map(|x| x.to_bits()));
            if self.rows.vector(item, &mut self.other)? && same(&self.other) {
                return Ok(known);
            }
        }
        met.push((node, id));
        Ok(node)
    }
}

pub(super) fn check_count(nodes: usize) -> Result<()> {
    if nodes >= MAX_NODES {
        let expected = "at most 2147483646 distinct vectors per segment";
        return Err(IndexError::Parameter { name: "items", value: nodes.to_string(), expected });
    }
    Ok(())
}
