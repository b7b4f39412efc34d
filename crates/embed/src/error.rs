//! What can go wrong between pixels and vectors.

use std::path::PathBuf;

use crate::weights::{Mismatch, NotFinite};

/// Every failure of the embedder, its weights, its losses and its training.
///
/// Failures of catalogues and of single images have types of their own,
/// [`DatasetError`](crate::dataset::DatasetError) and [`ImageError`](crate::transform::ImageError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// A tensor computation failed: a shape that does not fit, memory that ran out.
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),

    /// A catalogue could not be read.
    #[error(transparent)]
    Dataset(#[from] crate::dataset::DatasetError),

    /// A photograph could not be read, where that may not be passed over.
    #[error(transparent)]
    Image(#[from] crate::transform::ImageError),

    /// The sampler cannot draw the batches asked for.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::SamplerError),

    /// The loader could not start.
    #[error(transparent)]
    Loader(#[from] crate::loader::LoaderError),

    /// The validation during training failed.
    #[error("the validation failed: {source}")]
    Validation {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// No architecture of this name.
    #[error("unknown architecture {name:?}; known are: {known}")]
    UnknownArch {
        /// What was asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },

    /// The model is neither a file, nor a checkpoint folder, nor a hub name.
    #[error(
        "no model at {model:?}: give a checkpoint folder, a .safetensors or .pth file, a hub name such as \
         timm/resnet50.a1_in1k, or random:ARCH for untrained weights (architectures: {known})"
    )]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// The architectures there are.
        known: String,
    },

    /// A weight file alone does not say which network it belongs to.
    #[error("{path} does not say which architecture its weights belong to: name one of {known}")]
    ArchNeeded {
        /// The weight file.
        path: PathBuf,
        /// The architectures there are.
        known: String,
    },

    /// A checkpoint's architecture is not the one asked for.
    #[error("{path} holds a {found}, not a {wanted}: ask for no architecture, or choose another model")]
    ArchMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// Its architecture.
        found: String,
        /// The one asked for.
        wanted: String,
    },

    /// A checkpoint prepares photographs for another size than the one asked for.
    #[error(
        "{path} prepares photographs with {what} {found}, not {wanted}: ask for no other {what}; only a training that starts from \
         its weights can have another"
    )]
    SizeMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// `resize` or `crop`.
        what: &'static str,
        /// Its own, in pixels.
        found: u32,
        /// The one asked for.
        wanted: u32,
    },

    /// Weights that do not fit the network.
    #[error("the weights of {path} do not fit {arch}: {mismatch}")]
    Weights {
        /// Where the weights came from.
        path: PathBuf,
        /// The network they were meant for.
        arch: String,
        /// Every tensor that is missing or has another shape.
        mismatch: Box<Mismatch>,
    },

    /// Weights with NaN or infinity among them, which make every vector useless.
    #[error(
        "the weights of {path} hold NaN or infinity: {tensors}; the file is damaged, or its training ran away: take \
         another copy, or an earlier checkpoint"
    )]
    NotFinite {
        /// Where the weights came from.
        path: PathBuf,
        /// The tensors.
        tensors: NotFinite,
    },

    /// A weight file that cannot be read.
    #[error("cannot read weights from {path}: {reason}")]
    WeightFile {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },

    /// A model that could not be fetched from the hub.
    #[error(
        "cannot fetch {model:?} from the Hugging Face hub: {reason}. A weight file that is downloaded otherwise can be given \
         by its path"
    )]
    Hub {
        /// The hub name.
        model: String,
        /// What the hub said, and what to do about it.
        reason: String,
    },

    /// A checkpoint folder that cannot be used.
    #[error("{path} is not a usable checkpoint: {reason}")]
    Checkpoint {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A setting that makes no sense, alone or together with others.
    #[error("{key}: {reason}")]
    Config {
        /// The setting's name.
        key: &'static str,
        /// Why it cannot be.
        reason: String,
    },

    /// A model that another program's form has no place for.
    #[error("{arch} cannot be exported as {format}: {reason}; ONNX has a place for every network")]
    Export {
        /// Its architecture.
        arch: String,
        /// The form asked for.
        format: &'static str,
        /// Why not.
        reason: String,
        /// True if the network can be exported without its head.
        fits_without_head: bool,
    },

    /// Training ran away.
    #[error(
        "the {what} became {value} at step {step}; the last saved state is {checkpoint}. A lower learning \
         rate, a longer warm-up or gradient clipping usually helps"
    )]
    Diverged {
        /// The step it was seen at.
        step: usize,
        /// The loss, or the gradient's norm.
        what: &'static str,
        /// Its value.
        value: f32,
        /// Where the last saved state lies; `best` beside it was finite when it was measured.
        checkpoint: String,
    },

    /// Training ran away without overflowing yet.
    #[error(
        "the {what} is exploding: {value} at step {step}, after a median of {median} in the beginning; the last saved \
         state is {checkpoint}. A lower learning rate, a longer warm-up or gradient clipping usually helps; a larger \
         explode_factor, or 0, lets it go on"
    )]
    Exploded {
        /// The step it was given up at.
        step: usize,
        /// The loss, or the gradient's norm.
        what: &'static str,
        /// Its value.
        value: f32,
        /// Its median over the first steps.
        median: f32,
        /// Where the last saved state lies.
        checkpoint: String,
    },

    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Shorthand for results with [`EmbedError`].
pub type Result<T, E = EmbedError> = std::result::Result<T, E>;

/// Attaches the path to an input/output error.
pub(crate) fn io_at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> EmbedError {
    let path = path.into();
    move |source| EmbedError::Io { path, source }
}
