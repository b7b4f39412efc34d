//! Published state: immutable checksummed segments, the manifest that names them, and what was written since.

pub(crate) mod block_file;
mod deleted_rows;
pub(crate) mod delta;
mod earlier_manifest;
pub(crate) mod item_table;
pub(crate) mod manifest;
pub(crate) mod merge_policy;
pub(crate) mod publish;
pub(crate) mod row_source;
pub(crate) mod segment_reader;
pub(crate) mod segment_writer;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod store_segment;
