//! Published state: immutable checksummed files, the manifest that names them, and what was written since.

pub(crate) mod block_file;
pub(crate) mod delta;
pub(crate) mod item_table;
pub(crate) mod manifest;
pub(crate) mod publish;
pub(crate) mod snapshot;
