//! A published state of the index: immutable files, mapped. Readers see one of these, whole.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use memmap2::MmapMut;

use crate::cancel::Cancel;
use crate::codes::huge_pages;
use crate::codes::kernel::padded;
use crate::codes::quantize::{CodeView, row_bytes};
use crate::config::{Codes, Memory, RESIDENT_BYTES};
use crate::error::{IndexError, Result};
use crate::exact::flat_search::Exact;
use crate::filter::Columns;
use crate::hnsw::graph::{Graph, GraphView};
use crate::segment::block_file::BlockFile;
use crate::segment::item_table::ItemTable;
use crate::segment::manifest::{FileRole, Manifest};

/// A published state of the index.
pub(crate) struct Snapshot {
    pub(crate) manifest: Arc<Manifest>,
    vectors: BlockFile,
    codes: Option<BlockFile>,
    graph: Graph,
    items: ItemTable,
    columns: OnceLock<Columns>,
    /// A copy of the codes in memory, if wanted.
    resident: Option<MmapMut>,
}

impl Snapshot {
    /// Opens the state the manifest names. Tables, codes and links are checked now; vectors and records when used.
    pub(crate) fn open(dir: &Path, memory: Memory) -> Result<Self> {
        // A writer may publish, and remove the files just named, between our reading the manifest and opening them.
        let mut manifest = Manifest::read(dir)?;
        for _ in 0..8 {
            match Self::of(dir, &manifest, memory) {
                Err(error) => {
                    let newest = Manifest::read(dir)?;
                    if newest.generation == manifest.generation {
                        return Err(error);
                    }
                    manifest = newest;
                }
                done => return done,
            }
        }
        Self::of(dir, &manifest, memory)
    }

    /// Opens the state that a manifest describes, whether it is published or about to be.
    pub(crate) fn of(dir: &Path, manifest: &Manifest, memory: Memory) -> Result<Self> {
        let entry = |role: FileRole| {
            manifest.file(role).ok_or_else(|| {
                IndexError::damaged(
                    dir.join(crate::segment::manifest::FILE_NAME),
                    format!("it names no file of {role:?}"),
                )
            })
        };
        let (dim, codes) = (manifest.config.dim, manifest.codes());
        let vectors = BlockFile::open(dir, entry(FileRole::Vectors)?)?;
        let codes_file = match codes {
            Codes::F32 => None,
            _ => Some(BlockFile::open(dir, entry(FileRole::Codes)?)?),
        };
        let mut snapshot = Self {
            graph: Graph::open(dir, entry(FileRole::Graph)?)?,
            items: ItemTable::open(dir, entry(FileRole::Items)?)?,
            manifest: Arc::new(manifest.clone()),
            columns: OnceLock::new(),
            resident: None,
            vectors,
            codes: codes_file,
        };
        let nodes = manifest.nodes as usize;
        let fits = snapshot.graph.view().nodes() == nodes
            && snapshot.items.nodes() == nodes
            && snapshot.items.len() as u64 == manifest.items
            && snapshot.vectors.len() == nodes * row_bytes(dim, Codes::F32);
        if !fits {
            return Err(IndexError::damaged(
                dir.join(crate::segment::manifest::FILE_NAME),
                "its files do not belong together",
            ));
        }
        match &snapshot.codes {
            Some(file) => file.check_all()?,
            None => snapshot.vectors.check_all()?,
        }
        if snapshot.try_codes()?.nodes() != nodes {
            return Err(IndexError::damaged(dir, "the codes do not belong to the graph"));
        }
        let bytes = snapshot.codes.as_ref().unwrap_or(&snapshot.vectors).len() + snapshot.graph.bytes();
        let few = bytes as u64 <= RESIDENT_BYTES;
        if memory == Memory::Resident || (memory == Memory::Auto && few && bytes > 0) {
            snapshot.make_resident();
        }
        // Vectors behind codes are read one here, one there.
        if snapshot.codes.is_some() {
            snapshot.vectors.advise_random();
        }
        Ok(snapshot)
    }

    pub(crate) fn dim(&self) -> usize {
        self.manifest.config.dim
    }

    pub(crate) fn nodes(&self) -> usize {
        self.manifest.nodes as usize
    }

    pub(crate) fn graph(&self) -> GraphView<'_> {
        self.graph.view()
    }

    pub(crate) fn items(&self) -> &ItemTable {
        &self.items
    }

    /// Metadata by field, read from the records when a filter first asks.
    pub(crate) fn columns(&self) -> Result<&Columns> {
        self.columns_unless(&Cancel::default())
    }

    /// Like [`Self::columns`], for a caller that may give up.
    pub(crate) fn columns_unless(&self, cancel: &Cancel) -> Result<&Columns> {
        if let Some(columns) = self.columns.get() {
            return Ok(columns);
        }
        let columns = Columns::read(&self.items, cancel)?;
        Ok(self.columns.get_or_init(|| columns))
    }

    pub(crate) fn codes(&self) -> CodeView<'_> {
        self.try_codes().expect("codes were found when the files were opened")
    }

    fn try_codes(&self) -> Result<CodeView<'_>> {
        let (dim, nodes) = (self.dim(), self.nodes());
        let codes = self.manifest.codes();
        let bytes = nodes * row_bytes(dim, codes);
        let file = self.codes.as_ref().unwrap_or(&self.vectors);
        let all = self.resident.as_deref().unwrap_or(file.bytes());
        let rows = all.get(..bytes).ok_or_else(|| IndexError::damaged(file.path(), "it is too short"))?;
        Ok(match codes {
            Codes::F32 => CodeView::f32(dim, bytemuck::cast_slice(rows)),
            Codes::F16 => CodeView::f16(dim, bytemuck::cast_slice(rows)),
            Codes::I8 | Codes::Auto => CodeView::i8(dim, rows, file.slice(bytes, nodes)?),
        })
    }

    /// Copies codes and links into memory of large pages. Where the system refuses, they stay in the files.
    fn make_resident(&mut self) {
        let file = self.codes.as_ref().unwrap_or(&self.vectors);
        self.resident = huge_pages::copy(file.bytes()).ok();
        if self.resident.is_some() {
            file.give_back();
        }
        self.graph.make_resident();
    }

    /// Row of codes and scale of a node, as they stand in the file.
    pub(crate) fn raw_codes(&self, node: u32) -> (&[u8], Option<f32>) {
        let bytes = row_bytes(self.dim(), self.manifest.codes());
        let file = self.codes.as_ref().unwrap_or(&self.vectors);
        let row = &file.bytes()[node as usize * bytes..(node as usize + 1) * bytes];
        let scaled = self.manifest.codes() == Codes::I8;
        let scale = || {
            let at = self.nodes() * bytes + node as usize * 4;
            f32::from_le_bytes(file.bytes()[at..at + 4].try_into().expect("4 bytes"))
        };
        (row, scaled.then(scale))
    }

    /// The stored vector of a node, padded.
    pub(crate) fn vector(&self, node: u32) -> Result<&[f32]> {
        let bytes = row_bytes(self.dim(), Codes::F32);
        let start = node as usize * bytes;
        self.vectors.check(start..start + bytes)?;
        self.vectors.slice(start, bytes / 4)
    }

    /// All vectors, for exact search; checks those not used before.
    pub(crate) fn exact(&self) -> Result<Exact<'_>> {
        self.vectors.check(0..self.vectors.len())?;
        self.unchecked_exact()
    }

    /// All vectors; the caller checks those it uses with [`Self::vector`].
    pub(crate) fn unchecked_exact(&self) -> Result<Exact<'_>> {
        let stride = padded::<f32>(self.dim());
        Ok(Exact { stride, rows: self.vectors.slice(0, self.nodes() * stride)? })
    }
}
