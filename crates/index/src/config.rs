//! How an index is built: chosen once, kept in its store and manifest.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{IndexError, Result};

/// Largest dimension of a vector.
pub const MAX_DIM: usize = 65_536;

/// What an index is made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexConfig {
    /// Dimension of the vectors, 1 to [`MAX_DIM`].
    pub dim: usize,
    /// Fingerprint of the model that makes the vectors; [`crate::Index::check_model`] compares it.
    pub model: String,
    /// Parameters of the graph.
    #[serde(default)]
    pub hnsw: HnswConfig,
    /// Numbers the graph is walked with.
    #[serde(default)]
    pub codes: Codes,
    /// What a successful write promises.
    #[serde(default)]
    pub durability: Durability,
    /// Anything else worth keeping with the index, such as the catalogue's folder.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl IndexConfig {
    /// The defaults for vectors of dimension `dim` made by the model of this fingerprint.
    pub fn new(dim: usize, model: impl Into<String>) -> Self {
        Self {
            dim,
            model: model.into(),
            hnsw: HnswConfig::default(),
            codes: Codes::default(),
            durability: Durability::default(),
            attributes: BTreeMap::new(),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let bad = |name, value: String, expected| Err(IndexError::Parameter { name, value, expected });
        if self.dim == 0 || self.dim > MAX_DIM {
            return bad("dim", self.dim.to_string(), "1 to 65536");
        }
        if !(2..=128).contains(&self.hnsw.m) {
            return bad("hnsw.m", self.hnsw.m.to_string(), "2 to 128 links per node");
        }
        if !(1..=10_000).contains(&self.hnsw.ef_construction) {
            return bad(
                "hnsw.ef_construction",
                self.hnsw.ef_construction.to_string(),
                "1 to 10000 candidates",
            );
        }
        Ok(())
    }
}

/// Parameters of the graph (Malkov and Yashunin, *Efficient and robust approximate nearest neighbor search using
/// Hierarchical Navigable Small World graphs*, 2016).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HnswConfig {
    /// Links a node on the upper layers; the ground layer has up to twice as many.
    pub m: usize,
    /// Candidates considered for the links of a new node.
    pub ef_construction: usize,
    /// Seed of the layers the nodes reach up to.
    pub seed: u64,
    /// Which code builds the graph.
    #[serde(default)]
    pub builder: Builder,
}

impl Default for HnswConfig {
    fn default() -> Self {
        Self { m: 16, ef_construction: 200, seed: 0, builder: Builder::default() }
    }
}

/// Which code builds the graph. Both give the same file, searched by the same code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Builder {
    /// This crate's own, parallel, over the codes the search walks on; extends a graph instead of building it again.
    #[default]
    Native,
    /// The crate `hnsw_rs`, over the f32 vectors.
    HnswRs,
}

/// Numbers the graph is walked with. The best candidates are always scored again with the stored f32 vectors, so
/// scores are exact whatever is chosen here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codes {
    /// `F32` below dimension 64; from 64 on `I8`, or the first of `F16` and `F32` that tells neighbours apart where a
    /// sample of the vectors shows that `I8` does not, as with near-copies. [`crate::Manifest::codes`] says which.
    #[default]
    Auto,
    /// The vectors themselves.
    F32,
    /// Half precision: half the memory.
    F16,
    /// One byte a number with one scale a vector: a quarter of the memory.
    I8,
}

impl Codes {
    /// What `Auto` means for a dimension, unless the vectors need finer codes.
    pub fn resolve(self, dim: usize) -> Self {
        match self {
            Self::Auto if dim >= 64 => Self::I8,
            Self::Auto => Self::F32,
            chosen => chosen,
        }
    }

    /// The one of two kinds with more digits; none is `Auto`.
    pub(crate) fn finer(self, other: Self) -> Self {
        let bits = |codes| match codes {
            Self::F32 => 32,
            Self::F16 => 16,
            Self::I8 | Self::Auto => 8,
        };
        if bits(other) > bits(self) { other } else { self }
    }
}

/// Where what searches walk on lies: codes and links.
///
/// Whatever is chosen, each segment but the largest, if it has 64 to 16,384 vectors of dimension 64 or more, also keeps one
/// bit per number of its vectors in memory: 64 bytes per vector of dimension 512, at most 1 MiB per segment of that
/// dimension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Memory {
    /// `Resident` up to [`RESIDENT_BYTES`], `Mapped` beyond.
    #[default]
    Auto,
    /// In the mapped files: nothing is copied, processes share it, the system may take it back.
    Mapped,
    /// Copied into memory of large pages, which searches are quicker in.
    Resident,
}

/// Bytes of codes and links that [`Memory::Auto`] copies into memory.
pub const RESIDENT_BYTES: u64 = 256 << 20;

/// What a write promises when it returns without error. Atomicity is the same for all: a batch is in the index
/// whole or not at all, whatever happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It survives a power cut: the store's log is flushed and fsynced before the write returns. Writers on several
    /// threads share one fsync (group commit).
    #[default]
    Power,
    /// It survives the death of the process (kill -9): handed to the operating system, which writes it when it sees fit.
    Process,
    /// Nothing before [`crate::IndexWriter::sync`] or [`crate::IndexWriter::finish`] returns: for bulk loads that
    /// can be repeated.
    Finish,
}

macro_rules! from_str {
    ($type:ty, $name:literal, $expected:literal) => {
        impl FromStr for $type {
            type Err = IndexError;
            fn from_str(text: &str) -> Result<Self> {
                serde_json::from_value(serde_json::Value::String(text.to_ascii_lowercase())).map_err(|_| {
                    IndexError::Parameter { name: $name, value: text.to_string(), expected: $expected }
                })
            }
        }
    };
}
from_str!(Codes, "codes", "auto, f32, f16 or i8");
from_str!(Durability, "durability", "power, process or finish");
from_str!(Builder, "builder", "native or hnsw_rs");

/// How far something that takes long has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// The things that take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the vectors out of the store.
    Read,
    /// Linking nodes of the graph.
    Link,
    /// Writing and syncing files.
    Write,
    /// Checking files and records.
    Verify,
    /// Writing an export.
    Export,
    /// Reading an import.
    Import,
}

impl Stage {
    /// A word for a progress bar.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "reading vectors",
            Self::Link => "linking the graph",
            Self::Write => "writing",
            Self::Verify => "verifying",
            Self::Export => "exporting",
            Self::Import => "importing",
        }
    }
}

/// True if the folder holds a finished index.
pub fn is_finished(dir: &Path) -> bool {
    dir.join(crate::segment::manifest::FILE_NAME).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_named() {
        let mut config = IndexConfig::new(0, "m");
        assert_eq!(config.validate().unwrap_err().to_string(), "dim = 0 is out of range: 1 to 65536");
        config.dim = 8;
        config.hnsw.m = 300;
        assert!(config.validate().unwrap_err().to_string().contains("hnsw.m = 300"));
    }

    #[test]
    fn names_of_choices_are_those_of_the_command_line() {
        assert_eq!("i8".parse::<Codes>().unwrap(), Codes::I8);
        assert_eq!("hnsw_rs".parse::<Builder>().unwrap(), Builder::HnswRs);
        assert_eq!("power".parse::<Durability>().unwrap(), Durability::Power);
        assert!("i9".parse::<Codes>().unwrap_err().to_string().contains("i9"));
    }
}
