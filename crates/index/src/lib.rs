//! Unit vectors to neighbours, on disk: an embedded vector index.
//!
//! Vectors and what is known of them live in a store ([sled](https://docs.rs/sled)), the truth. From it come the files
//! readers use: vectors, codes, a graph (HNSW) and a table of items, immutable, checksummed and mapped into memory.
//! They can be thrown away at any time and are made again from the store.
//!
//! ```
//! use semblance_index::{Filter, Index, IndexConfig, IndexWriter, NewItem, SearchParams};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let writer = IndexWriter::create(dir.path(), &IndexConfig::new(2, "model fingerprint"))?;
//! let mut shoe = NewItem::new("shoe.jpg");
//! shoe.class = Some("shoes".into());
//! shoe.metadata.insert("price".into(), 20.into());
//! writer.upsert(&[shoe, NewItem::new("hat.jpg")], &[1.0, 0.0, 0.0, 1.0])?; // durable when it returns
//! writer.finish(&|_progress| {})?; // the graph is built, other processes can search
//!
//! let index = Index::open(dir.path())?;
//! index.check_model("model fingerprint")?;
//! let found = index.search(&[0.6, 0.8], &SearchParams::new(2))?;
//! assert_eq!(index.item(found[0].id)?.key, "hat.jpg");
//! assert_eq!(found[0].score, 0.8);
//!
//! let cheap = SearchParams { filter: Some(Filter::range("price", 0, 50)), ..SearchParams::new(10) };
//! assert_eq!(index.search(&[0.6, 0.8], &cheap)?.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Concurrency
//! One [`IndexWriter`] at a time; the second gets [`IndexError::Locked`]. Any number of [`Index`]es in any number of
//! processes, also beside the writer. A reader sees the state published last by [`IndexWriter::finish`]; a reader that
//! comes from [`IndexWriter::reader`] also sees every batch as soon as it is written. Never half a batch.
//!
//! # Durability
//! See [`Durability`]: by default what [`IndexWriter::upsert`] and [`IndexWriter::delete`] acknowledged survives a
//! power cut. Published files appear whole or not at all: synced, then named by a manifest that is renamed into place.
//! After an error of the disk the writer opens its store again and goes on with what is on the disk; a call that failed
//! was undone, or says that it may have been kept ([`IndexError::Uncertain`]).

mod backend;
mod cancel;
mod codes;
mod config;
mod error;
mod exact;
mod filter;
mod hnsw;
mod import_export;
mod item;
mod reader;
mod search;
mod segment;
mod store;
mod verify;
mod writer;

pub use backend::vector_index::{NORM_TOLERANCE, Neighbor, SearchParams, VectorIndex, check_vectors};
pub use cancel::Cancel;
pub use codes::kernel::instruction_set;
pub use codes::precision::Precision;
pub use config::{
    Builder, Codes, Durability, HnswConfig, IndexConfig, MAX_DIM, Memory, Progress, RESIDENT_BYTES, Stage,
    is_finished,
};
pub use error::{IndexError, Result};
pub use exact::flat_index::FlatIndex;
pub use filter::{Filter, FilterWarning, Matcher};
pub use import_export::{
    Embeddings, ExportFormat, ITEMS_NAME, Imported, export, import, write_embeddings, write_json_line,
};
pub use item::{Item, MAX_KEY_BYTES, MAX_METADATA_DEPTH, NewItem};
pub use reader::Index;
pub use search::{Explain, Strategy};
pub use segment::manifest::{
    FILE_NAME as MANIFEST_NAME, FORMAT, FileEntry, FileRole, Manifest, OLDEST_FORMAT, SegmentEntry,
};
pub use verify::{Fault, Unchecked, VerifyReport, verify};
pub use writer::{IndexWriter, MergeOptions, Recovered, has_interrupted_replacement, recover_replacement};
