//! The layers that backbones and heads are made of, in candle's idiom, trainable.

mod attention;
mod batch_norm;
mod conv;
mod conv_norm;
mod gelu;
mod layer_norm;
mod linear;
mod patch;

pub use attention::Attention;
pub use batch_norm::BatchNorm2d;
pub use conv::{Conv2d, ConvConfig};
pub use conv_norm::ConvNorm;
pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub(crate) use linear::project;
pub use patch::PatchConv;
