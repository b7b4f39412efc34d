//! The command line: clap structs and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use semblance_embed::Precision;
use semblance_embed::backbone::Arch;
use semblance_embed::embedder::DeviceKind;
use semblance_index::{Builder, Codes, Durability};

use crate::condition_args::{ConditionArgs, MetadataArgs};
use crate::data::{CatalogueArgs, DataCommand, DatasetArgs, LayoutArgs};
use crate::exit;
use crate::export_args::{EmbedArgs, ExportModelArgs};
use crate::maintain_args::{AddArgs, ExportArgs, ImportArgs, RemoveArgs};

/// Visual product search: index a catalogue of pictures, search it with a photograph, measure its recall, retrain its
/// embedder.
#[derive(Debug, Parser)]
#[command(name = "semblance", version, after_help = exit::HELP, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress bars and no remarks on stderr
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Threads for decoding, computing and searching [default: all processors]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole engine on a catalogue it draws itself: train, index, search, evaluate in a few minutes
    Demo(DemoArgs),
    /// Look at a data set, or draw the sample catalogue
    #[command(subcommand)]
    Data(DataCommand),
    /// Turn pictures into vectors: safetensors and .npy, or JSON lines
    Embed(EmbedArgs),
    /// Write a model for other programs: weights in timm's names, or an ONNX file
    Export(ExportModelArgs),
    /// Train an embedder by metric learning
    Train(Box<crate::train_args::TrainArgs>),
    /// Build an index over a catalogue, or look at one
    #[command(subcommand)]
    Index(IndexCommand),
    /// Find the catalogue's pictures most like a photograph
    Search(Box<SearchArgs>),
    /// Measure retrieval: Recall@K, MAP@R, R-Precision, and what the graph costs
    Eval(Box<EvalArgs>),
    /// Serve indexes over HTTP, with a web page for searching by photograph
    Serve(Box<crate::serve_args::ServeArgs>),
    /// Say what this program and this machine can do, and check the indexes
    Doctor(DoctorArgs),
}

/// Which embedder.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A checkpoint folder, a weight file (.safetensors, .pth), a Hugging Face name, or random:ARCH
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Architecture of a weight file that does not say it, such as resnet50, mobilenet_v2, convnext_tiny,
    /// vit_small_patch16_224, vit_small_patch14_dinov2, vit_base_patch32_clip_quickgelu_224; any other name lists all
    #[arg(long)]
    pub(crate) arch: Option<Arch>,
    /// Length of the short side before cropping, for a bare backbone (a checkpoint has its own, and is refused with another)
    /// [default: the architecture's, such as 256, in proportion to --crop]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) resize: Option<u32>,
    /// Width and height the network sees, for a bare backbone [default: the architecture's, 224]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) crop: Option<u32>,
    /// Where to compute: cpu, cuda or cuda:NUMBER
    #[arg(long, default_value = "cpu")]
    pub(crate) device: DeviceKind,
    /// What a convolutional network multiplies on the processor: f32, or int16 (codes of 16 bits, where that is faster)
    #[arg(long, value_name = "NUMBERS", default_value = "f32")]
    pub(crate) precision: Precision,
}

/// How pictures are read and embedded.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExtractArgs {
    /// Pictures embedded at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    pub(crate) batch: usize,
    /// Stop at the first picture that cannot be read, instead of skipping it, and before the first if the folder holds
    /// pictures that cannot be taken or metadata belongs to no picture
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Folder of the indexes, unless another one is named.
pub(crate) const INDEX_DIR: &str = "index-data";

/// Where indexes lie.
#[derive(Clone, Debug, Args)]
pub(crate) struct IndexDirArgs {
    /// Folder of the indexes that are given by name
    #[arg(long, value_name = "DIR", default_value = INDEX_DIR)]
    pub(crate) index_dir: PathBuf,
}

/// Which index.
#[derive(Clone, Debug, Args)]
pub(crate) struct IndexArgs {
    /// The index: a name below --index-dir, or a path (with a / in it)
    #[arg(long, value_name = "NAME")]
    pub(crate) index: String,
    #[command(flatten)]
    pub(crate) dir: IndexDirArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Embed a catalogue and make it searchable
    Build(Box<BuildArgs>),
    /// What an index holds and what made it
    Info(IndexArgs),
    /// Embed pictures the index does not have yet and add them
    Add(Box<AddArgs>),
    /// Remove items by their keys
    Remove(RemoveArgs),
    /// Check every checksum and record, and that store and files agree
    Verify(IndexArgs),
    /// Make the files that searches use again from the store, as one segment without what was deleted
    #[command(alias = "rebuild")]
    Compact(IndexArgs),
    /// Write vectors and items to files other programs read
    Export(ExportArgs),
    /// Add vectors and items from files
    Import(ImportArgs),
    /// Record another folder for the pictures of an index, as after moving them; nothing is embedded again
    MoveRoot(crate::catalogue::MoveRootArgs),
    /// Make an index with better vectors from another one: whitened, augmented
    Derive(crate::answer_args::DeriveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Name of the new index below --index-dir, or a path (with a / in it)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) dir: IndexDirArgs,
    /// Go on with an index whose building was cut short; pictures it has already are not embedded again
    #[arg(long, conflicts_with = "replace")]
    pub(crate) resume: bool,
    /// Replace an index of this name, once the new one is finished; until then the disk needs room for both
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) data: DatasetArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) extract: ExtractArgs,
    #[command(flatten)]
    pub(crate) metadata: MetadataArgs,
    /// Links a node of the graph has on each layer
    #[arg(long, value_name = "N", help_heading = "Graph")]
    pub(crate) m: Option<usize>,
    /// Candidates considered for the links of a new node
    #[arg(long, value_name = "N", help_heading = "Graph")]
    pub(crate) ef_construction: Option<usize>,
    /// Seed of the graph's layers
    #[arg(long, value_name = "N", help_heading = "Graph")]
    pub(crate) graph_seed: Option<u64>,
    /// Which code builds the graph: native or hnsw_rs
    #[arg(long, value_name = "NAME", default_value = "native", help_heading = "Graph")]
    pub(crate) builder: Builder,
    /// Numbers the graph is walked with: auto, f32, f16 or i8; scores always come from the f32 vectors
    #[arg(long, value_name = "KIND", default_value = "auto", help_heading = "Graph")]
    pub(crate) codes: Codes,
    /// What every stored batch survives: power (a power cut), process (the death of the program) or finish (nothing)
    #[arg(long, value_name = "POLICY", default_value = "power")]
    pub(crate) durability: Durability,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Photographs to search with
    #[arg(required_unless_present = "items", value_name = "PHOTO")]
    pub(crate) photos: Vec<PathBuf>,
    /// Items to find for each photograph
    #[arg(short, value_name = "K", default_value_t = 10, value_parser = positive)]
    pub(crate) k: usize,
    #[command(flatten)]
    pub(crate) index: IndexArgs,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    #[command(flatten)]
    pub(crate) condition: ConditionArgs,
    #[command(flatten)]
    pub(crate) answer: crate::answer_args::AnswerArgs,
    #[command(flatten)]
    pub(crate) show: crate::answer_args::ShowArgs,
    #[command(flatten)]
    pub(crate) catalogue: crate::catalogue::RootArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// How to search.
#[derive(Clone, Debug, Args)]
pub(crate) struct HowArgs {
    /// Compare with every vector instead of walking the graph
    #[arg(long)]
    pub(crate) exact: bool,
    /// Candidates the walk through the graph keeps: more finds more, and takes longer
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "exact")]
    pub(crate) ef_search: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// The index: a name below --index-dir, or a path (with a / in it)
    #[arg(long, value_name = "NAME", required_unless_present_any = ["compare", "data"])]
    pub(crate) index: Option<String>,
    /// Measure --model on this data set instead, by exact search, without making an index
    #[arg(long, value_name = "PATH", requires = "model", conflicts_with_all = ["index", "ef_search"])]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) dir: IndexDirArgs,
    /// The K of Recall@K
    #[arg(short, value_name = "K", value_delimiter = ',', default_value = "1,10,100,1000", value_parser = positive)]
    pub(crate) k: Vec<usize>,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    /// Search with these pictures instead of the index's (or the data set's) own items (leave-one-out)
    #[arg(long, value_name = "PATH")]
    pub(crate) queries: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    /// Folder of the catalogue's pictures for the report, in place of the one that the index records; without --queries,
    /// --root does the same
    #[arg(long, value_name = "DIR")]
    pub(crate) catalogue_root: Option<PathBuf>,
    /// Count queries without any match in the gallery as misses, instead of leaving them out
    #[arg(long)]
    pub(crate) lone_as_miss: bool,
    #[command(flatten)]
    pub(crate) answer: crate::answer_args::AnswerArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) extract: ExtractArgs,
    #[command(flatten)]
    pub(crate) report: crate::report_args::ReportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder for the drawn catalogue and the trained model
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) dir: IndexDirArgs,
    #[command(flatten)]
    pub(crate) catalogue: CatalogueArgs,
    /// Training steps
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) steps: Option<usize>,
    /// Do it all again where an earlier demo has left its model and index
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) dir: IndexDirArgs,
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("is not a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
