//! One segment of the index: files that never change, mapped.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::MmapMut;

use crate::cancel::Cancel;
use crate::codes::huge_pages;
use crate::codes::kernel::padded;
use crate::codes::precision;
use crate::codes::quantize::{CodeView, row_bytes};
use crate::codes::sign_bits::SignBits;
use crate::config::{Codes, IndexConfig};
use crate::error::{IndexError, Result};
use crate::exact::flat_search::Exact;
use crate::filter::Columns;
use crate::hnsw::graph::{Graph, GraphView};
use crate::segment::block_file::BlockFile;
use crate::segment::item_table::ItemTable;
use crate::segment::manifest::{FILE_NAME, FileEntry, FileRole, SegmentEntry};

/// A segment. Which of its items are deleted is no part of it.
pub(crate) struct SegmentReader {
    dir: PathBuf,
    entry: SegmentEntry,
    dim: usize,
    codes: Codes,
    vectors: BlockFile,
    codes_file: Option<BlockFile>,
    items: ItemTable,
    columns_file: Option<BlockFile>,
    columns: OnceLock<Columns>,
    searchable: OnceLock<Searchable>,
    sign_bits: OnceLock<SignBits>,
}

/// What a search needs beside the vectors, checked before the first one.
struct Searchable {
    graph: Option<Graph>,
    /// A copy of the codes in memory, if wanted.
    resident: Option<MmapMut>,
}

impl SegmentReader {
    /// Maps the files of a segment and checks its table of items. Codes and links are checked by
    /// [`Self::prepare_search`], vectors and records when they are used.
    pub(crate) fn open(dir: &Path, config: &IndexConfig, entry: &SegmentEntry) -> Result<Self> {
        let damaged = |what: String| IndexError::damaged(dir.join(FILE_NAME), what);
        let named = |role: FileRole| {
            let missing = || damaged(format!("it names no file of {role:?} for segment {}", entry.number));
            entry.file(role).ok_or_else(missing)
        };
        let map = |file: &FileEntry| BlockFile::open(dir, file);
        let codes = match entry.is_flat() {
            true => Codes::F32,
            false => precision::searched_with(config, entry.precision),
        };
        let codes_file = match codes {
            Codes::F32 => None,
            _ => Some(map(named(FileRole::Codes)?)?),
        };
        // That the graph is there, and whole by its length: what it holds is checked before a search.
        entry.file(FileRole::Graph).map(map).transpose()?;
        let segment = Self {
            dir: dir.into(),
            dim: config.dim,
            codes,
            vectors: map(named(FileRole::Vectors)?)?,
            codes_file,
            items: ItemTable::open(dir, named(FileRole::Items)?)?,
            columns_file: entry.file(FileRole::Columns).map(map).transpose()?,
            columns: OnceLock::new(),
            searchable: OnceLock::new(),
            sign_bits: OnceLock::new(),
            entry: entry.clone(),
        };
        let nodes = segment.nodes();
        let fits = segment.items.nodes() == nodes
            && segment.items.len() as u64 == entry.items
            && segment.vectors.len() == nodes * row_bytes(config.dim, Codes::F32);
        if !fits {
            return Err(damaged(format!("the files of segment {} do not belong together", entry.number)));
        }
        segment.code_view(None)?;
        // Vectors behind codes are read one here, one there.
        if segment.codes_file.is_some() {
            segment.vectors.advise_random();
        }
        Ok(segment)
    }

    /// Checks codes and links, and copies them into memory if that is asked for. Returns the bytes copied.
    pub(crate) fn prepare_search(&self, resident: bool) -> Result<usize> {
        if self.searchable.get().is_some() {
            return Ok(self.resident_bytes());
        }
        self.codes_file.as_ref().unwrap_or(&self.vectors).check_all()?;
        let graph = self.entry.file(FileRole::Graph).map(|file| Graph::open(&self.dir, file)).transpose()?;
        if graph.as_ref().is_some_and(|graph| graph.view().nodes() != self.nodes()) {
            return Err(self.foreign_graph());
        }
        let mut searchable = Searchable { graph, resident: None };
        if let (Some(graph), true) = (&mut searchable.graph, resident) {
            // Where the system refuses, they stay in the files.
            let file = self.codes_file.as_ref().unwrap_or(&self.vectors);
            searchable.resident = huge_pages::copy(file.bytes()).ok();
            if searchable.resident.is_some() {
                file.give_back();
            }
            graph.make_resident();
        }
        let _ = self.searchable.set(searchable);
        Ok(self.resident_bytes())
    }

    /// Checks codes, links and columns, and keeps nothing of them in memory.
    pub(crate) fn check_search(&self) -> Result<()> {
        self.codes_file.as_ref().unwrap_or(&self.vectors).check_all()?;
        if let Some(file) = self.entry.file(FileRole::Graph) {
            let graph = Graph::open(&self.dir, file)?;
            if graph.view().nodes() != self.nodes() {
                return Err(self.foreign_graph());
            }
        }
        self.columns_file.as_ref().map_or(Ok(()), BlockFile::check_all)
    }

    fn foreign_graph(&self) -> IndexError {
        let what = format!("the graph of segment {} does not belong to it", self.entry.number);
        IndexError::damaged(self.dir.join(FILE_NAME), what)
    }

    /// Bytes of codes and links that searches go through; none of a segment without a graph.
    pub(crate) fn searched_bytes(&self) -> usize {
        let links = self.entry.file(FileRole::Graph).map(|file| file.bytes as usize);
        links.map_or(0, |links| links + self.codes_file.as_ref().unwrap_or(&self.vectors).len())
    }

    fn resident_bytes(&self) -> usize {
        let resident = self.searchable.get().is_some_and(|s| s.resident.is_some());
        if resident { self.searched_bytes() } else { 0 }
    }

    fn searchable(&self) -> Result<&Searchable> {
        if self.searchable.get().is_none() {
            self.prepare_search(false)?;
        }
        Ok(self.searchable.get().expect("it was prepared"))
    }

    /// How the manifest describes the segment as it was opened.
    pub(crate) fn entry(&self) -> &SegmentEntry {
        &self.entry
    }

    /// Whether these are the files that an entry names, deletions aside.
    pub(crate) fn is(&self, entry: &SegmentEntry) -> bool {
        let files = |entry: &SegmentEntry| -> Vec<FileEntry> {
            entry.files.iter().filter(|f| f.role != FileRole::Deleted).cloned().collect()
        };
        self.entry.number == entry.number && files(&self.entry) == files(entry)
    }

    /// Items it was written with.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Number of distinct vectors.
    pub(crate) fn nodes(&self) -> usize {
        self.entry.nodes as usize
    }

    /// The codes that its graph is searched with.
    pub(crate) fn kind(&self) -> Codes {
        self.codes
    }

    /// The graph; `None` if the segment is searched flat.
    pub(crate) fn graph(&self) -> Result<Option<GraphView<'_>>> {
        Ok(self.searchable()?.graph.as_ref().map(Graph::view))
    }

    pub(crate) fn items(&self) -> &ItemTable {
        &self.items
    }

    /// Metadata by field, read when a filter first asks for it.
    pub(crate) fn columns(&self, cancel: &Cancel) -> Result<&Columns> {
        if let Some(columns) = self.columns.get() {
            return Ok(columns);
        }
        let columns = match &self.columns_file {
            Some(file) => Columns::open(file, self.len())?,
            // Segments of earlier formats have no columns.
            None => Columns::read(&self.items, cancel)?,
        };
        Ok(self.columns.get_or_init(|| columns))
    }

    pub(crate) fn codes(&self) -> Result<CodeView<'_>> {
        self.code_view(self.searchable()?.resident.as_deref())
    }

    /// The bits that say which rows are worth scoring, made when they are first asked for; `None` if it has
    /// too many rows, too few, or too few dimensions.
    pub(crate) fn sign_bits(&self) -> Result<Option<&SignBits>> {
        if let Some(bits) = self.sign_bits.get() {
            return Ok(Some(bits));
        }
        if !SignBits::worth(self.dim, self.nodes()) {
            return Ok(None);
        }
        // Made on all threads, so without a lock: at worst twice.
        let bits = SignBits::of(&self.codes()?);
        Ok(Some(self.sign_bits.get_or_init(|| bits)))
    }

    fn code_view<'a>(&'a self, resident: Option<&'a [u8]>) -> Result<CodeView<'a>> {
        let (dim, nodes) = (self.dim, self.nodes());
        let bytes = nodes * row_bytes(dim, self.codes);
        let file = self.codes_file.as_ref().unwrap_or(&self.vectors);
        let too_short = || IndexError::damaged(file.path(), "it is too short");
        let rows = resident.unwrap_or(file.bytes()).get(..bytes).ok_or_else(too_short)?;
        Ok(match self.codes {
            Codes::F32 => CodeView::f32(dim, bytemuck::cast_slice(rows)),
            Codes::F16 => CodeView::f16(dim, bytemuck::cast_slice(rows)),
            Codes::I8 | Codes::Auto => CodeView::i8(dim, rows, file.slice(bytes, nodes)?),
        })
    }

    /// Row of codes and scale of a node, as they stand in the file.
    pub(crate) fn raw_codes(&self, node: u32) -> Result<(&[u8], Option<f32>)> {
        let bytes = row_bytes(self.dim, self.codes);
        let file = self.codes_file.as_ref().unwrap_or(&self.vectors);
        let row = file.slice(node as usize * bytes, bytes)?;
        let scale = || file.slice::<f32>(self.nodes() * bytes + node as usize * 4, 1).map(|scale| scale[0]);
        Ok((row, if self.codes == Codes::I8 { Some(scale()?) } else { None }))
    }

    /// The stored vector of a node, padded.
    pub(crate) fn vector(&self, node: u32) -> Result<&[f32]> {
        let bytes = row_bytes(self.dim, Codes::F32);
        let start = node as usize * bytes;
        self.vectors.check(start..start + bytes)?;
        self.vectors.slice(start, bytes / 4)
    }

    /// The stored vector of a row.
    pub(crate) fn vector_of_row(&self, row: u32) -> Result<&[f32]> {
        Ok(&self.vector(self.items.node_of()[row as usize])?[..self.dim])
    }

    /// All vectors, for exact search; checks those not used before.
    pub(crate) fn exact(&self) -> Result<Exact<'_>> {
        self.vectors.check(0..self.vectors.len())?;
        self.unchecked_exact()
    }

    /// All vectors; the caller checks those it uses with [`Self::vector`].
    pub(crate) fn unchecked_exact(&self) -> Result<Exact<'_>> {
        let stride = padded::<f32>(self.dim);
        Ok(Exact { stride, rows: self.vectors.slice(0, self.nodes() * stride)? })
    }
}
