//! A published state of the index: its segments and which of their items are deleted. Readers see one of these, whole.

use std::path::Path;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::config::{Memory, RESIDENT_BYTES};
use crate::error::{IndexError, Result};
use crate::segment::deleted_rows;
use crate::segment::manifest::{FileRole, Manifest, SegmentEntry};
use crate::segment::segment_reader::SegmentReader;

/// A published state of the index.
pub(crate) struct Snapshot {
    pub(crate) manifest: Arc<Manifest>,
    /// The segment with the most items first.
    pub(crate) segments: Vec<Segment>,
}

/// A segment within a published state.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) reader: Arc<SegmentReader>,
    /// Rows whose items were replaced or deleted.
    pub(crate) deleted: Arc<RoaringBitmap>,
}

impl Snapshot {
    /// Opens the state the manifest names, ready to be searched. Tables, codes and links are checked now; vectors and
    /// records when used.
    pub(crate) fn open(dir: &Path, memory: Memory) -> Result<Self> {
        Self::open_after(dir, memory, None)
    }

    /// Like [`Self::open`]; segments that an earlier state has open are taken from it.
    pub(crate) fn open_after(dir: &Path, memory: Memory, earlier: Option<&Snapshot>) -> Result<Self> {
        let ready = |manifest: &Manifest| {
            let snapshot = Self::of(dir, manifest, earlier)?;
            snapshot.prepare_search(memory)?;
            Ok(snapshot)
        };
        // A writer may publish, and remove the files just named, between our reading the manifest and opening them.
        let mut manifest = Manifest::read(dir)?;
        for _ in 0..8 {
            match ready(&manifest) {
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
        ready(&manifest)
    }

    /// Maps the state that a manifest describes, whether it is published or about to be.
    pub(crate) fn of(dir: &Path, manifest: &Manifest, earlier: Option<&Snapshot>) -> Result<Self> {
        let (snapshot, damaged) = Self::sound_part(dir, manifest, earlier);
        damaged.into_iter().next().map_or(Ok(snapshot), Err)
    }

    /// The segments that can be opened, and why others cannot. The manifest of the result names all.
    pub(crate) fn sound_part(
        dir: &Path,
        manifest: &Manifest,
        earlier: Option<&Snapshot>,
    ) -> (Self, Vec<IndexError>) {
        let (mut segments, mut damaged) = (vec![], vec![]);
        for entry in &manifest.segments {
            match Segment::open(dir, manifest, entry, earlier) {
                Ok(segment) => segments.push(segment),
                Err(error) => damaged.push(error),
            }
        }
        if damaged.is_empty() && segments.iter().map(Segment::live).sum::<u64>() != manifest.items {
            let what = format!("its segments do not hold {} items", manifest.items);
            damaged.push(IndexError::damaged(dir.join(super::manifest::FILE_NAME), what));
        }
        (Self::new(manifest.clone(), segments), damaged)
    }

    /// Like [`Self::sound_part`], with everything checked that a search needs of a segment before it can be used, in
    /// segments of up to `most` bytes of it. Searches and verification check larger ones.
    pub(crate) fn checked_part(dir: &Path, manifest: &Manifest, most: usize) -> (Self, Vec<IndexError>) {
        let (mut snapshot, mut damaged) = Self::sound_part(dir, manifest, None);
        snapshot.segments.retain(|segment| {
            let checked = match segment.reader.searched_bytes() <= most {
                true => segment.reader.check_search(),
                false => Ok(()),
            };
            checked.map_err(|error| damaged.push(error)).is_ok()
        });
        (snapshot, damaged)
    }

    /// A state of these segments.
    pub(crate) fn new(manifest: Manifest, mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|s| (std::cmp::Reverse(s.reader.len()), s.number()));
        Self { manifest: Arc::new(manifest), segments }
    }

    /// Makes every segment ready to be searched: checks codes and links, and copies them into memory as far as `memory`
    /// asks for it.
    pub(crate) fn prepare_search(&self, memory: Memory) -> Result<()> {
        let mut copied = 0;
        for Segment { reader, .. } in &self.segments {
            let fits = (copied + reader.searched_bytes()) as u64 <= RESIDENT_BYTES;
            let resident = memory == Memory::Resident || (memory == Memory::Auto && fits);
            copied += reader.prepare_search(resident && reader.searched_bytes() > 0)?;
        }
        // The largest is searched through its graph.
        self.segments.iter().skip(1).try_for_each(|segment| segment.reader.sign_bits().map(drop))?;
        Ok(())
    }

    pub(crate) fn dim(&self) -> usize {
        self.manifest.config.dim
    }
}

impl Segment {
    fn open(
        dir: &Path,
        manifest: &Manifest,
        entry: &SegmentEntry,
        earlier: Option<&Snapshot>,
    ) -> Result<Self> {
        let known = earlier.and_then(|s| s.segments.iter().find(|segment| segment.reader.is(entry)));
        let reader = match known {
            Some(segment) => segment.reader.clone(),
            None => Arc::new(SegmentReader::open(dir, &manifest.config, entry)?),
        };
        let deleted = match entry.file(FileRole::Deleted) {
            Some(file) => deleted_rows::read(dir, file, entry)?,
            None if entry.deleted == 0 => RoaringBitmap::new(),
            None => {
                let what = format!("it names no deleted rows for segment {}", entry.number);
                return Err(IndexError::damaged(dir.join(super::manifest::FILE_NAME), what));
            }
        };
        Ok(Self { reader, deleted: Arc::new(deleted) })
    }

    pub(crate) fn number(&self) -> u64 {
        self.reader.entry().number
    }

    /// Items that are still there.
    pub(crate) fn live(&self) -> u64 {
        self.reader.len() as u64 - self.deleted.len()
    }
}
