//! What made an index and which files it consists of: `manifest.json`, written last.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::codes::precision::{self, Precision};
use crate::config::{Codes, IndexConfig};
use crate::error::{IndexError, Result};
use crate::segment::block_file::open_regular;
use crate::segment::earlier_manifest;

/// Name of the manifest within the folder of the index.
pub const FILE_NAME: &str = "manifest.json";
/// Format version this program writes.
pub const FORMAT: u32 = 3;
/// Oldest format version this program reads.
pub const OLDEST_FORMAT: u32 = 1;

/// What made an index and which segments it consists of. Its presence says that the index is finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version of the index.
    pub format: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// Seconds since 1970 at which the index was finished.
    pub finished_at: u64,
    /// Dimension, model fingerprint and parameters.
    pub config: IndexConfig,
    /// Number of items.
    pub items: u64,
    /// Counts up with every published state.
    pub generation: u64,
    /// Number of the last write this state holds.
    pub sequence: u64,
    /// The segments of this state, in the order in which they were written.
    pub segments: Vec<SegmentEntry>,
    /// CRC-32 of the manifest itself without this field, in hexadecimal.
    pub checksum: String,
}

/// A segment of an index: files that are written once, and a bitmap of the items deleted since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentEntry {
    /// Number of the segment; its files are named by it.
    pub number: u64,
    /// Items it was written with.
    pub items: u64,
    /// How many of them were replaced or deleted since.
    pub deleted: u64,
    /// Number of distinct vectors.
    pub nodes: u64,
    /// Vectors that no item had when the segment was written; compacting drops them.
    pub dead_nodes: u64,
    /// Present where 8-bit codes cannot tell neighbours apart: which codes can, as measured when the graph was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// The files.
    pub files: Vec<FileEntry>,
}

/// A file of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// What it holds.
    pub role: FileRole,
    /// Name within the folder of the index.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// CRC-32 of the file's table of block checksums.
    pub crc32: u32,
}

/// What a file of an index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// The f32 vectors.
    Vectors,
    /// The codes the graph is walked with.
    Codes,
    /// Layers and links.
    Graph,
    /// Ids, keys and records.
    Items,
    /// Metadata by field.
    Columns,
    /// Rows of items that were replaced or deleted after the segment was written.
    Deleted,
}

impl SegmentEntry {
    /// The file of a role.
    pub(crate) fn file(&self, role: FileRole) -> Option<&FileEntry> {
        self.files.iter().find(|f| f.role == role)
    }

    /// True if the segment has no graph: it is small, and searched by comparing with every vector.
    pub fn is_flat(&self) -> bool {
        self.file(FileRole::Graph).is_none()
    }

    /// Items that are still there.
    pub fn live(&self) -> u64 {
        self.items - self.deleted.min(self.items)
    }
}

impl Manifest {
    /// The codes that graphs of this index are searched with: the finest of its segments'.
    pub fn codes(&self) -> Codes {
        let searched = |segment: &SegmentEntry| precision::searched_with(&self.config, segment.precision);
        let least = precision::searched_with(&self.config, None);
        self.segments.iter().filter(|s| !s.is_flat()).map(searched).fold(least, Codes::finer)
    }

    /// What was measured of the largest segment where 8-bit codes cannot tell neighbours apart.
    pub fn precision(&self) -> Option<Precision> {
        self.segments.iter().max_by_key(|s| s.items)?.precision
    }

    /// Number of distinct vectors of all segments, those of deleted items included.
    pub fn nodes(&self) -> u64 {
        self.segments.iter().map(|s| s.nodes).sum()
    }

    /// Items of all segments that were replaced or deleted and still take room; compacting drops them.
    pub fn deleted(&self) -> u64 {
        self.segments.iter().map(|s| s.deleted).sum()
    }

    /// The files of all segments.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.segments.iter().flat_map(|s| &s.files)
    }

    /// Bytes of the files of all segments.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    fn digest(&self) -> String {
        let bare = Self { checksum: String::new(), ..self.clone() };
        let bytes = serde_json::to_vec(&bare).expect("a manifest is plain data");
        format!("{:08x}", crc32fast::hash(&bytes))
    }

    /// Seconds since 1970, for [`Manifest::finished_at`].
    pub(crate) fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }

    /// Reads the manifest of the index in `dir` and checks it.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let text = match open_regular(&path).and_then(std::io::read_to_string) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(if crate::store::exists(dir) {
                    IndexError::Unfinished { dir: dir.into() }
                } else {
                    IndexError::Missing { dir: dir.into() }
                });
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(IndexError::damaged(&path, "not a text"));
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
                return Err(IndexError::damaged(&path, e.to_string()));
            }
            Err(e) => return Err(IndexError::reading(&path, e)),
        };
        // The version is read apart from the rest, which differs between versions.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let damaged = |what: String| IndexError::damaged(&path, what);
        let version = serde_json::from_str::<Version>(&text);
        let manifest = match version.map_err(|e| damaged(e.to_string()))?.format {
            FORMAT => serde_json::from_str::<Self>(&text)
                .map_err(|e| damaged(e.to_string()))
                .and_then(|m| if m.digest() == m.checksum { Ok(m) } else { Err(damaged(UNFIT.into())) }),
            format if (OLDEST_FORMAT..FORMAT).contains(&format) => {
                earlier_manifest::read(&text).map_err(damaged)
            }
            found => {
                let (oldest, newest) = (OLDEST_FORMAT, FORMAT);
                Err(IndexError::FormatVersion { dir: dir.into(), found, oldest, newest })
            }
        }?;
        manifest.config.validate().map_err(|e| damaged(e.to_string()))?;
        Ok(manifest)
    }

    /// Gives the manifest the present format and its checksum: it is changed no more.
    pub(crate) fn seal(mut self) -> Self {
        self.format = FORMAT;
        self.checksum = self.digest();
        self
    }

    /// Puts the sealed manifest in place: a temporary file, synced, renamed over the old one. From then on it is what
    /// readers open; it survives a power cut once the folder is synced, too ([`sync_dir`]).
    pub(crate) fn put(&self, dir: &Path) -> Result<()> {
        let (path, temporary) = (dir.join(FILE_NAME), dir.join("manifest.json.tmp"));
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        bytes.push(b'\n');
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            if path.is_dir() {
                // No program of ours makes a folder of this name; what lies in it is kept.
                fs::rename(&path, free_name(dir))?;
            }
            fs::rename(&temporary, &path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&temporary);
            IndexError::io(&path, e)
        })
    }
}

/// A name for a folder that lies in the place of the manifest.
fn free_name(dir: &Path) -> PathBuf {
    let names = (1u64..).map(|number| dir.join(format!("{FILE_NAME}.folder-{number}")));
    names.into_iter().find(|name| !name.exists()).expect("numbers do not end")
}

/// Why a manifest is not believed whose checksum is another.
pub(crate) const UNFIT: &str = "its checksum does not fit";

/// Makes the names within a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| IndexError::io(dir, e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            program: "test".into(),
            finished_at: 1,
            config: IndexConfig::new(4, "model"),
            items: 2,
            generation: 1,
            sequence: 3,
            segments: vec![SegmentEntry {
                number: 1,
                items: 3,
                deleted: 1,
                nodes: 2,
                dead_nodes: 0,
                precision: None,
                files: vec![FileEntry { role: FileRole::Graph, name: "graph-1".into(), bytes: 9, crc32: 5 }],
            }],
            checksum: String::new(),
        }
    }

    #[test]
    fn it_comes_back_as_written_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let written = manifest().seal();
        written.put(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), written);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_changed_byte_is_noticed_or_without_meaning() {
        let dir = tempfile::tempdir().unwrap();
        let written = manifest().seal();
        written.put(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            for flip in [1u8, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[position] ^= flip;
                fs::write(&path, &bad).unwrap();
                match Manifest::read(dir.path()) {
                    Ok(read) => assert_eq!(read, written, "byte {position} ^ {flip}"),
                    Err(IndexError::Damaged { .. } | IndexError::FormatVersion { .. }) => {}
                    Err(other) => panic!("byte {position} ^ {flip}: {other}"),
                }
            }
            fs::write(&path, &good[..position]).unwrap();
            let cut = Manifest::read(dir.path());
            // Only the final line break may be missing.
            assert!(cut.is_err() || position + 1 == good.len(), "cut at {position}");
        }
    }

    #[test]
    fn another_format_version_is_told_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), r#"{"format": 99, "whatever": true}"#).unwrap();
        let error = Manifest::read(dir.path()).unwrap_err();
        assert!(matches!(error, IndexError::FormatVersion { found: 99, .. }), "{error}");
        assert!(matches!(Manifest::read(&dir.path().join("none")), Err(IndexError::Missing { .. })));
    }
}
