//! Manifests of format versions 1 and 2: one set of files instead of segments.
//!
//! Version 2 differs from 1 by the field `precision`.

use serde::{Deserialize, Serialize};

use super::manifest::{FileEntry, Manifest, SegmentEntry, UNFIT};
use crate::codes::precision::Precision;
use crate::config::IndexConfig;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EarlierManifest {
    format: u32,
    program: String,
    finished_at: u64,
    config: IndexConfig,
    items: u64,
    nodes: u64,
    dead_nodes: u64,
    generation: u64,
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    precision: Option<Precision>,
    files: Vec<FileEntry>,
    checksum: String,
}

/// Reads a manifest of an earlier version as one of a single segment. The error says what is wrong with it.
pub(crate) fn read(text: &str) -> Result<Manifest, String> {
    let earlier: EarlierManifest = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let bare = EarlierManifest { checksum: String::new(), ..earlier.clone() };
    let bytes = serde_json::to_vec(&bare).expect("a manifest is plain data");
    if format!("{:08x}", crc32fast::hash(&bytes)) != earlier.checksum {
        return Err(UNFIT.into());
    }
    let segment = SegmentEntry {
        number: earlier.generation,
        items: earlier.items,
        deleted: 0,
        nodes: earlier.nodes,
        dead_nodes: earlier.dead_nodes,
        precision: earlier.precision,
        files: earlier.files,
    };
    Ok(Manifest {
        format: earlier.format,
        program: earlier.program,
        finished_at: earlier.finished_at,
        config: earlier.config,
        items: earlier.items,
        generation: earlier.generation,
        sequence: earlier.sequence,
        segments: vec![segment],
        checksum: earlier.checksum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../tests/data/format-2/manifest.json");

    #[test]
    fn a_manifest_of_version_2_is_one_segment() {
        let manifest = read(TEXT).unwrap();
        assert_eq!((manifest.format, manifest.items, manifest.segments.len()), (2, 205, 1));
        let segment = &manifest.segments[0];
        assert_eq!((segment.number, segment.items, segment.live()), (manifest.generation, 205, 205));
        assert!(segment.precision.is_some() && !segment.is_flat());
    }

    #[test]
    fn a_changed_number_is_noticed() {
        let changed = TEXT.replacen("\"items\": 205", "\"items\": 204", 1);
        assert_ne!(changed, TEXT);
        assert_eq!(read(&changed).unwrap_err(), UNFIT);
    }
}
