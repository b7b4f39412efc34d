//! The layers that backbones and heads are made of, in candle's idiom, trainable.

mod batch_norm;
mod conv;
mod conv_norm;
mod linear;

pub use batch_norm::BatchNorm2d;
pub use conv::{Conv2d, ConvConfig};
pub use conv_norm::ConvNorm;
pub use linear::Linear;
