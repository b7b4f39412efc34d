//! What `semblance embed` and `semblance export` write, and where.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::{ExtractArgs, ModelArgs};
use crate::data::DatasetArgs;

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) extract: ExtractArgs,
    /// Folder for vectors.safetensors, vectors.npy, items.jsonl and index.json, which must be new or empty; or a new file that ends in
    /// .jsonl for JSON lines, one per picture: key, class, super_class, metadata, vector; or - for JSON lines on standard output while
    /// they are made, with the summary on standard error
    #[arg(long, value_name = "DIR|FILE.jsonl|-")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExportModelArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Folder for the files; must be new or empty
    #[arg(long, visible_alias = "output", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The form
    #[arg(long, value_enum, default_value = "safetensors")]
    pub(crate) format: ExportFormat,
    /// Write the backbone alone, pooled as its authors do: for poolings and heads that timm does not have
    #[arg(long)]
    pub(crate) without_head: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// model.safetensors in timm's names and a config.json that timm's local-dir: opens
    Safetensors,
    /// model.onnx: normalised pixels in, unit vectors out, any number at a time
    Onnx,
}
