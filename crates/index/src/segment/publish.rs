//! From segments to a published state: bitmaps of deleted rows, the manifest, and the removal of files it does not name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::config::IndexConfig;
use crate::error::Result;
use crate::segment::deleted_rows;
use crate::segment::manifest::{FORMAT, FileRole, Manifest, SegmentEntry, sync_dir};
use crate::segment::segment_reader::SegmentReader;
use crate::segment::snapshot::{Segment, Snapshot};

/// A state to be published: which segments, and which rows of them are deleted.
pub(crate) struct Edition<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) config: &'a IndexConfig,
    /// Number of the last write the state holds.
    pub(crate) sequence: u64,
    /// Number of the state, in the names of its bitmaps.
    pub(crate) generation: u64,
    pub(crate) segments: Vec<(SegmentEntry, Arc<RoaringBitmap>)>,
}

/// A state as files: synced, mapped and checked, but named by no manifest on the disk yet.
pub(crate) struct Prepared {
    pub(crate) snapshot: Snapshot,
    /// Files that only this state names.
    written: Vec<PathBuf>,
}

impl Prepared {
    /// Removes the files of a state that is not published.
    pub(crate) fn discard(self) {
        drop(self.snapshot);
        self.written.iter().for_each(|file| drop(fs::remove_file(file)));
    }
}

impl Edition<'_> {
    /// Adds segments of a published state, with the rows that are deleted now.
    pub(crate) fn keep(
        &mut self,
        manifest: &Manifest,
        segments: impl IntoIterator<Item = (Arc<SegmentReader>, Arc<RoaringBitmap>)>,
    ) {
        for (reader, deleted) in segments {
            let number = reader.entry().number;
            let entry = manifest.segments.iter().find(|entry| entry.number == number);
            let entry = entry.expect("the manifest names the segments of its state").clone();
            self.segments.push((entry, deleted));
        }
    }

    /// Writes what is new of the state, maps and checks it. What is published stays as it is; if this fails, the files of
    /// `new` segments are removed, too.
    pub(crate) fn prepare(self, earlier: Option<&Snapshot>) -> Result<Prepared> {
        let known: BTreeSet<&str> =
            earlier.iter().flat_map(|s| s.manifest.files()).map(|f| f.name.as_str()).collect();
        let files = self.segments.iter().flat_map(|(entry, _)| &entry.files);
        let is_new = |name: &str| !known.contains(name);
        let mut written: Vec<PathBuf> =
            files.filter(|f| is_new(&f.name)).map(|f| self.dir.join(&f.name)).collect();
        let prepared = self.try_prepare(earlier, &mut written);
        match prepared {
            Ok(snapshot) => Ok(Prepared { snapshot, written }),
            Err(error) => {
                written.iter().for_each(|file| drop(fs::remove_file(file)));
                Err(error)
            }
        }
    }

    fn try_prepare(self, earlier: Option<&Snapshot>, written: &mut Vec<PathBuf>) -> Result<Snapshot> {
        let (dir, generation) = (self.dir, self.generation);
        let mut segments = vec![];
        for (mut entry, deleted) in self.segments {
            if deleted.len() >= entry.items {
                continue;
            }
            if deleted.len() != entry.deleted {
                let path = dir.join(format!("deleted-{:06}-{generation:06}.bin", entry.number));
                entry.files.retain(|file| file.role != FileRole::Deleted);
                written.push(path.clone());
                entry.files.push(deleted_rows::write(&path, &deleted)?);
                entry.deleted = deleted.len();
            }
            segments.push(entry);
        }
        segments.sort_by_key(|entry| entry.number);
        let manifest = Manifest {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").into(),
            finished_at: Manifest::now(),
            config: self.config.clone(),
            items: segments.iter().map(SegmentEntry::live).sum(),
            generation,
            sequence: self.sequence,
            segments,
            checksum: String::new(),
        };
        sync_dir(dir)?;
        Snapshot::of(dir, &manifest.seal(), earlier)
    }
}

/// Opens a segment that was just written, as part of a state.
pub(crate) fn opened(dir: &Path, config: &IndexConfig, entry: &SegmentEntry) -> Result<Segment> {
    let reader = Arc::new(SegmentReader::open(dir, config, entry)?);
    Ok(Segment { reader, deleted: Arc::new(RoaringBitmap::new()) })
}

/// The highest number that the files of a folder and its manifest use, of segments and of states.
pub(crate) fn last_number(dir: &Path) -> u64 {
    let published = Manifest::read(dir).map_or(0, |m| m.generation);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.flat_map(|e| numbers_of(&e.file_name().to_string_lossy()));
    named.max().unwrap_or(0).max(published)
}

/// Whether a file has a name such as those that segments are published in.
pub(crate) fn is_published_file(name: &str) -> bool {
    !numbers_of(name).is_empty()
}

/// Numbers in the name of a file of a segment: that of the segment, and of the state where there is one. Empty for
/// other files.
fn numbers_of(name: &str) -> Vec<u64> {
    const ROLES: [&str; 7] = ["vectors", "codes", "graph", "items", "columns", "deleted", "unordered"];
    let Some((role, numbers)) = name.strip_suffix(".bin").and_then(|name| name.split_once('-')) else {
        return vec![];
    };
    if !ROLES.contains(&role) {
        return vec![];
    }
    numbers.split('-').map(str::parse).collect::<Result<_, _>>().unwrap_or_default()
}

/// Removes files that the manifest does not name, but for those of segments that are being written. Readers that have
/// them mapped keep them; where the system refuses to remove a file in use, a later call does.
pub(crate) fn remove_others(dir: &Path, manifest: Option<&Manifest>, being_written: &BTreeSet<u64>) {
    let named: BTreeSet<&str> =
        manifest.into_iter().flat_map(Manifest::files).map(|f| f.name.as_str()).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = numbers_of(&name).first().copied();
        let is_stale = number.is_some_and(|n| !being_written.contains(&n)) && !named.contains(name.as_str());
        if is_stale || name == "manifest.json.tmp" {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_segments_have_numbers() {
        assert_eq!(numbers_of("vectors-000012.bin"), [12]);
        assert_eq!(numbers_of("deleted-000012-1000034.bin"), [12, 1_000_034]);
        for name in ["vectors-12", "photo-12.bin", "vectors-a.bin", "vectors-1-b.bin", "manifest.json"] {
            assert_eq!(numbers_of(name), [0u64; 0], "{name}");
        }
    }

    #[test]
    fn files_that_nothing_names_are_removed_unless_they_are_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["vectors-000001.bin", "deleted-000001-000002.bin", "items-000003.bin", "notes-1.bin"];
        names.iter().for_each(|name| fs::write(dir.path().join(name), "").unwrap());
        assert_eq!(last_number(dir.path()), 3);
        remove_others(dir.path(), None, &BTreeSet::from([3]));
        let left = names.map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false, false, true, true]);
    }
}
