//! Arguments of the commands that keep an index up.

use std::path::PathBuf;

use clap::Args;
use semblance_index::{Durability, ExportFormat};

use crate::args::{ExtractArgs, IndexArgs, IndexDirArgs, ModelArgs};
use crate::condition_args::MetadataArgs;
use crate::data::DatasetArgs;

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) index: IndexArgs,
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) extract: ExtractArgs,
    #[command(flatten)]
    pub(crate) metadata: MetadataArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Keys of the items to remove: paths as they stand in the catalogue; `-` reads them from standard input
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    #[command(flatten)]
    pub(crate) index: IndexArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The folder to write to; must hold no export yet
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How to write the vectors: npy or safetensors, with the items as JSON lines, or parquet or jsonl, with the items in one file
    #[arg(long, value_name = "FORMAT", default_value = "npy")]
    pub(crate) format: ExportFormat,
    #[command(flatten)]
    pub(crate) index: IndexArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The vectors: a .npy or .safetensors file; or a .parquet or .jsonl file, which has the items in it
    #[arg(value_name = "VECTORS")]
    pub(crate) vectors: PathBuf,
    /// The items, one JSON object per line [default: items.jsonl beside the vectors]
    #[arg(long, value_name = "FILE")]
    pub(crate) items: Option<PathBuf>,
    /// Name of the index to import into, which is made if it is not there, or a path (with a / in it)
    #[arg(long, value_name = "NAME")]
    pub(crate) index: String,
    #[command(flatten)]
    pub(crate) dir: IndexDirArgs,
    /// Fingerprint of the model that made the vectors, for a new index whose export does not say it
    #[arg(long, value_name = "FINGERPRINT", default_value = "unknown")]
    pub(crate) fingerprint: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// What a write promises.
#[derive(Clone, Debug, Args)]
pub(crate) struct WriteArgs {
    /// What is kept should this be cut short: power (every batch survives a power cut), process (every batch survives
    /// the death of the program) or finish (nothing before the end) [default: what the index was built with]
    #[arg(long, value_name = "POLICY")]
    pub(crate) durability: Option<Durability>,
}
