//! From the store to files that can be published: a graph built anew, or the last one extended by what changed.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use crate::codes::aligned_matrix::Rows;
use crate::codes::precision::{self, Precision};
use crate::codes::quantize::{CodeBuffer, built_over, row_bytes};
use crate::config::{Builder, Codes, IndexConfig, Memory, Progress, Stage};
use crate::error::{IndexError, Result};
use crate::hnsw::build;
use crate::hnsw::graph::{GraphData, MAX_NODES, NONE};
use crate::hnsw::hnsw_rs;
use crate::hnsw::reorder;
use crate::segment::block_file::{BlockFile, BlockWriter};
use crate::segment::item_table::ItemTableBuilder;
use crate::segment::manifest::{FORMAT, FileEntry, FileRole, Manifest, PRECISION_FORMAT, sync_dir};
use crate::segment::snapshot::Snapshot;
use crate::store::Store;

/// Share of dead or new nodes from which on a graph is built anew instead of extended.
const REBUILD_FROM: f64 = 0.3;

/// Called while something takes long.
pub(crate) type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// A state of the store as files: synced, mapped and checked, but named by no manifest on the disk yet.
pub(crate) struct Prepared {
    pub(crate) snapshot: Snapshot,
}

impl Prepared {
    /// Removes the files of a state that is not published.
    pub(crate) fn discard(self, dir: &Path) {
        let manifest = self.snapshot.manifest.clone();
        drop(self);
        manifest.files.iter().for_each(|file| drop(fs::remove_file(dir.join(&file.name))));
    }
}

/// Writes the state of the store as a new generation. What is published stays as it is; so do the files in the folder
/// if this fails.
pub(crate) fn prepare(
    store: &Store,
    dir: &Path,
    previous: Option<&Snapshot>,
    compact: bool,
    progress: OnProgress<'_>,
) -> Result<Prepared> {
    let names = Names { dir, generation: next_generation(dir, previous) };
    let prepared = write(store, &names, previous, compact, progress).and_then(|manifest| {
        sync_dir(dir)?;
        Ok(Prepared { snapshot: Snapshot::of(dir, &manifest, Memory::Auto)? })
    });
    prepared.inspect_err(|_| names.remove())
}

fn write(
    store: &Store,
    names: &Names<'_>,
    previous: Option<&Snapshot>,
    compact: bool,
    progress: OnProgress<'_>,
) -> Result<Manifest> {
    let state = store.state()?;
    let plan = match previous {
        Some(previous) if !compact => Plan::new(store, previous)?,
        _ => None,
    };
    let parts = match plan {
        Some(plan) => extend(store, names, &plan, progress)?,
        None => build_anew(store, names, progress)?,
    };
    let (items, count, dead_nodes) = write_items(store, names, &parts, progress)?;
    if count != state.items {
        return Err(IndexError::StoreDamaged {
            path: store.path().into(),
            what: format!("it counts {} items and holds {count}", state.items),
        });
    }
    let mut files = parts.files;
    files.push(items);
    let manifest = Manifest {
        format: if parts.precision.is_some() { PRECISION_FORMAT } else { FORMAT },
        program: env!("CARGO_PKG_VERSION").into(),
        finished_at: Manifest::now(),
        config: store.config().clone(),
        items: state.items,
        nodes: parts.nodes as u64,
        dead_nodes,
        generation: names.generation,
        sequence: state.sequence,
        precision: parts.precision,
        files,
        checksum: String::new(),
    };
    Ok(manifest.seal())
}

fn next_generation(dir: &Path, previous: Option<&Snapshot>) -> u64 {
    let published =
        previous.map(|p| p.manifest.generation).or_else(|| Manifest::read(dir).ok().map(|m| m.generation));
    let named = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = named.filter_map(|e| generation_of(&e.file_name().to_string_lossy())).max();
    published.max(named).map_or(1, |g| g + 1)
}

/// Generation of a published file, by its name.
fn generation_of(name: &str) -> Option<u64> {
    let (role, number) = name.strip_suffix(".bin")?.split_once('-')?;
    matches!(role, "vectors" | "codes" | "graph" | "items" | "unordered").then(|| number.parse().ok())?
}

/// Removes files of other generations than the manifest's. Readers that have them mapped keep them; where the system
/// refuses to remove a file in use, a later call does.
pub(crate) fn remove_others(dir: &Path, manifest: Option<&Manifest>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let named = manifest.is_some_and(|m| m.files.iter().any(|f| f.name == name));
        if (generation_of(&name).is_some() && !named) || name == "manifest.json.tmp" {
            let _ = fs::remove_file(entry.path());
        }
    }
}

struct Names<'a> {
    dir: &'a Path,
    generation: u64,
}

impl Names<'_> {
    fn path(&self, role: &str) -> PathBuf {
        self.dir.join(format!("{role}-{:06}.bin", self.generation))
    }

    fn remove(&self) {
        for role in ["vectors", "codes", "graph", "items", "unordered"] {
            let _ = fs::remove_file(self.path(role));
        }
    }
}

/// What was written so far: all but the items.
struct Parts {
    files: Vec<FileEntry>,
    nodes: usize,
    precision: Option<Precision>,
    /// Ids in rising order and the node of each.
    ids: Vec<u64>,
    node_of: Vec<u32>,
}

/// Items with one vector share a node; this finds the node of a vector met before.
struct Distinct<'a> {
    store: &'a Store,
    /// Hash of a vector → node and an item that has it.
    met: HashMap<u64, Vec<(u32, u64)>>,
    other: Vec<f32>,
}

impl Distinct<'_> {
    /// The node whose vector is this one, bit for bit; else notes it as that of `node`.
    fn node(&mut self, vector: &[f32], id: u64, node: u32) -> Result<u32> {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytemuck::cast_slice(vector));
        let met = self.met.entry(hasher.finish()).or_default();
        for &(known, item) in met.iter() {
            self.other.clear();
            let same =
                |other: &[f32]| other.iter().map(|x| x.to_bits()).eq(vector.iter().map(|x| x.to_bits()));
            if self.store.vector(item, &mut self.other)? && same(&self.other) {
                return Ok(known);
            }
        }
        met.push((node, id));
        Ok(node)
    }
}

fn build_anew(store: &Store, names: &Names<'_>, progress: OnProgress<'_>) -> Result<Parts> {
    let config = store.config();
    let dim = config.dim;
    let total = store.state()?.items;
    let mut distinct = Distinct { store, met: HashMap::new(), other: vec![] };
    let mut codes = CodeBuffer::new(dim, built_over(config.codes, dim));
    codes.reserve(total as usize);
    // Vectors go to disk in order of ids first; the graph decides in which order they stay.
    let unordered = names.path("unordered");
    let mut file = BlockWriter::create(&unordered)?;
    let mut row = Rows::with_rows(dim * 4, 1);
    let (mut ids, mut node_of, mut nodes) = (vec![], vec![], 0u32);
    store.scan_vectors(|id, vector| {
        let vector = vector?;
        let node = distinct.node(vector, id, nodes)?;
        if node == nodes {
            row.all_mut()[..dim].copy_from_slice(vector);
            file.write_pod(row.all::<f32>())?;
            codes.push(vector);
            nodes += 1;
            check_count(nodes as usize)?;
        }
        ids.push(id);
        node_of.push(node);
        if ids.len() % 4096 == 0 {
            progress(Progress { stage: Stage::Read, done: ids.len() as u64, total });
        }
        Ok(())
    })?;
    progress(Progress { stage: Stage::Read, done: total, total });
    drop(distinct);
    let entry = file.finish_unsynced(FileRole::Vectors)?;
    let vectors = BlockFile::open(names.dir, &entry)?;
    let stride = row_bytes(dim, Codes::F32) / 4;
    let rows = vectors.slice::<f32>(0, nodes as usize * stride)?;
    let precision = precision::measure(rows, stride, dim);
    let kind = precision::searched_with(config, precision);
    let linked = precision::linked_by(config, precision);
    let code_all = |kind: Codes| {
        let mut codes = CodeBuffer::new(dim, kind);
        codes.reserve(nodes as usize);
        rows.chunks_exact(stride).for_each(|row| codes.push(&row[..dim]));
        codes
    };
    if linked != built_over(config.codes, dim) {
        codes = code_all(linked);
    }
    let graph = match config.hnsw.builder {
        Builder::Native => {
            build::extend(GraphData::unlinked(config.hnsw.m, vec![]), codes.view(), &config.hnsw, progress)
        }
        Builder::HnswRs => hnsw_rs::build(rows, stride, &config.hnsw, progress)?,
    };

    // Nodes that are near in the graph are put near in memory.
    let order = reorder::by_walk(&graph.view());
    let graph = graph.reordered(&order);
    let mut renamed = vec![NONE; order.len()];
    order.iter().enumerate().for_each(|(new, &old)| renamed[old as usize] = new as u32);
    node_of.iter_mut().for_each(|node| *node = renamed[*node as usize]);
    let mut files = vec![graph.write(&names.path("graph"))?];
    let mut file = BlockWriter::create(&names.path("vectors"))?;
    for (done, &old) in order.iter().enumerate() {
        file.write_pod(&rows[old as usize * stride..(old as usize + 1) * stride])?;
        if done % 65_536 == 0 {
            progress(Progress { stage: Stage::Write, done: done as u64, total: order.len() as u64 });
        }
    }
    files.push(file.finish(FileRole::Vectors)?);
    if kind != linked && kind != Codes::F32 {
        codes = code_all(kind);
    }
    drop(vectors);
    let _ = fs::remove_file(&unordered);
    if kind != Codes::F32 {
        let mut file = BlockWriter::create(&names.path("codes"))?;
        order.iter().try_for_each(|&old| file.write(codes.row(old)))?;
        if !codes.scales().is_empty() {
            let scales: Vec<f32> = order.iter().map(|&old| codes.scales()[old as usize]).collect();
            file.write_pod(&scales)?;
        }
        files.push(file.finish(FileRole::Codes)?);
    }
    progress(Progress { stage: Stage::Write, done: order.len() as u64, total: order.len() as u64 });
    Ok(Parts { files, nodes: order.len(), precision, ids, node_of })
}

fn check_count(nodes: usize) -> Result<()> {
    if nodes >= MAX_NODES {
        let expected = "at most 2147483646 distinct vectors an index";
        return Err(IndexError::Parameter { name: "items", value: nodes.to_string(), expected });
    }
    Ok(())
}

/// How the last graph is extended.
struct Plan<'a> {
    previous: &'a Snapshot,
    changed: Vec<u64>,
}

impl<'a> Plan<'a> {
    /// `None` if building anew is the better way.
    fn new(store: &Store, previous: &'a Snapshot) -> Result<Option<Self>> {
        let config = |c: &IndexConfig| (c.dim, c.hnsw.m, c.codes);
        let changed = store.changed_since(previous.manifest.sequence)?;
        let (nodes, dead) = (previous.nodes() as f64, previous.manifest.dead_nodes as f64);
        let fits = config(store.config()) == config(&previous.manifest.config)
            && store.forgotten()? <= previous.manifest.sequence
            && store.config().hnsw.builder == Builder::Native
            && changed.len() as f64 + dead < REBUILD_FROM * nodes;
        Ok(fits.then_some(Self { previous, changed }))
    }
}

fn extend(store: &Store, names: &Names<'_>, plan: &Plan<'_>, progress: OnProgress<'_>) -> Result<Parts> {
    let (previous, config) = (plan.previous, store.config());
    let (dim, kind, old) = (config.dim, previous.manifest.codes(), previous.nodes());
    let linked = precision::linked_by(config, previous.manifest.precision);
    let mut codes = CodeBuffer::new(dim, linked);
    codes.reserve(old + plan.changed.len());
    // Those that are searched with, where the graph is linked by others.
    let mut searched = (kind != linked && kind != Codes::F32).then(|| CodeBuffer::new(dim, kind));
    let mut vectors = BlockWriter::create(&names.path("vectors"))?;
    for node in 0..old as u32 {
        let vector = previous.vector(node)?;
        if kind == linked && kind != Codes::F32 {
            let (row, scale) = previous.raw_codes(node);
            codes.push_raw(row, scale);
        } else {
            codes.push(&vector[..dim]);
        }
        if let Some(searched) = &mut searched {
            let (row, scale) = previous.raw_codes(node);
            searched.push_raw(row, scale);
        }
        vectors.write_pod(vector)?;
    }
    // New nodes for new vectors; a changed item whose vector is that of a new node joins it.
    let mut distinct = Distinct { store, met: HashMap::new(), other: vec![] };
    let (mut node_of_changed, mut nodes) = (HashMap::new(), old as u32);
    let (mut vector, mut row) = (Vec::with_capacity(dim), Rows::with_rows(dim * 4, 1));
    for &id in &plan.changed {
        vector.clear();
        if !store.vector(id, &mut vector)? {
            continue;
        }
        let node = match unchanged_node(previous, id, &vector)? {
            Some(node) => node,
            None => distinct.node(&vector, id, nodes)?,
        };
        if node == nodes {
            row.all_mut()[..dim].copy_from_slice(&vector);
            vectors.write_pod(row.all::<f32>())?;
            codes.push(&vector);
            searched.iter_mut().for_each(|codes| codes.push(&vector));
            nodes += 1;
            check_count(nodes as usize)?;
        }
        node_of_changed.insert(id, node);
    }
    let graph = build::extend(previous.graph().to_data(), codes.view(), &config.hnsw, progress);
    let mut files = vec![graph.write(&names.path("graph"))?, vectors.finish(FileRole::Vectors)?];
    if kind != Codes::F32 {
        let codes = searched.unwrap_or(codes);
        let mut file = BlockWriter::create(&names.path("codes"))?;
        (0..nodes).try_for_each(|node| file.write(codes.row(node)))?;
        file.write_pod(codes.scales())?;
        files.push(file.finish(FileRole::Codes)?);
    }
    // Which item belongs to which node: as before, but for what changed.
    let (mut ids, mut node_of) = (vec![], vec![]);
    let table = previous.items();
    store.scan_items(|id, _| {
        let node = match (node_of_changed.get(&id), table.row(id)) {
            (Some(&node), _) => node,
            (None, Some(row)) => table.node_of()[row as usize],
            (None, None) => {
                let what = format!("item {id} has no vector");
                return Err(IndexError::StoreDamaged { path: store.path().into(), what });
            }
        };
        ids.push(id);
        node_of.push(node);
        Ok(())
    })?;
    Ok(Parts { files, nodes: nodes as usize, precision: previous.manifest.precision, ids, node_of })
}

/// The node an item had and keeps, if only what is known of it changed and not its vector.
fn unchanged_node(previous: &Snapshot, id: u64, vector: &[f32]) -> Result<Option<u32>> {
    let Some(row) = previous.items().row(id) else { return Ok(None) };
    let node = previous.items().node_of()[row as usize];
    let before = &previous.vector(node)?[..vector.len()];
    Ok(before.iter().map(|x| x.to_bits()).eq(vector.iter().map(|x| x.to_bits())).then_some(node))
}

/// Writes the items; returns their number and that of nodes without any.
fn write_items(
    store: &Store,
    names: &Names<'_>,
    parts: &Parts,
    progress: OnProgress<'_>,
) -> Result<(FileEntry, u64, u64)> {
    let mut table = ItemTableBuilder::create(&names.path("items"))?;
    let mut row = 0;
    let total = parts.ids.len() as u64;
    let damaged = |id: u64, what: &str| IndexError::StoreDamaged {
        path: store.path().into(),
        what: format!("item {id}: {what}"),
    };
    store.scan_items(|id, record| {
        if parts.ids.get(row) != Some(&id) {
            return Err(damaged(id, "it has no vector, or its vector has no item"));
        }
        crate::store::codec::decode_item(id, record).map_err(|e| damaged(id, &e.to_string()))?;
        table.push(id, parts.node_of[row], record)?;
        row += 1;
        if row % 65_536 == 0 {
            progress(Progress { stage: Stage::Write, done: row as u64, total });
        }
        Ok(())
    })?;
    if let Some(&id) = parts.ids.get(row) {
        return Err(damaged(id, "its vector has no item"));
    }
    let mut live = vec![false; parts.nodes];
    parts.node_of.iter().for_each(|&node| live[node as usize] = true);
    let dead = live.iter().filter(|l| !**l).count() as u64;
    Ok((table.finish(parts.nodes)?, row as u64, dead))
}
