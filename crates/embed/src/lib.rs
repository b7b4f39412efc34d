//! Pixels to unit vectors, and learning to make them good.

pub mod backbone;
pub mod checkpoint;
pub mod dataset;
pub mod embedder;
mod error;
pub mod extract;
pub mod gradients;
pub mod head;
pub mod hub;
pub mod init;
pub mod layer;
pub mod loader;
pub mod loss;
pub mod miner;
mod names;
pub mod onnx;
pub mod optimizer;
pub mod params;
pub mod sampler;
pub mod schedule;
pub mod timm;
pub mod train;
pub mod transform;
pub mod weights;

pub use semblance_kernels::Isa;
pub use semblance_kernels::frozen::Precision;

pub use embedder::{DeviceKind, Embedder, ModelSource};
pub use error::{EmbedError, Result};
