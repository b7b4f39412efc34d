//! Fast CPU operations for candle: convolution, pooling and normalisation, forward and backward.
//!
//! The functions of this crate take and return ordinary candle tensors in NCHW order and take part in candle's
//! back-propagation, so that a model written with them reads like any other candle model:
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use semblance_kernels::{Conv2dConfig, conv2d, global_avg_pool};
//!
//! # fn main() -> candle_core::Result<()> {
//! let x = Tensor::randn(0f32, 1f32, (2, 3, 9, 9), &Device::Cpu)?;
//! let w = Var::randn(0f32, 1f32, (8, 3, 3, 3), &Device::Cpu)?;
//! let cfg = Conv2dConfig { stride: 2, padding: 1, ..Default::default() };
//! let y = global_avg_pool(&conv2d(&x, &w, None, cfg)?.relu()?)?;
//! assert_eq!(y.dims(), &[2, 8]);
//! let grads = y.sqr()?.sum_all()?.backward()?;
//! assert_eq!(grads.get(&w).unwrap().dims(), &[8, 3, 3, 3]);
//! # Ok(())
//! # }
//! ```
//!
//! On the CPU in `f32` the operations run on this crate's own kernels; on other devices, and in other number
//! formats, the same calls are made of candle's operations.
//!
//! # Inference: how a frozen network computes
//!
//! A network described to [`frozen::Builder`] has batch norm folded into its weights and keeps one layout from the
//! first layer to the last.
//!
//! **Layout.** A feature map lies as \[image\]\[channel block\]\[row\]\[pixel\]\[16 channels\]: sixteen channels are one
//! AVX-512 register or two AVX2 registers, and a cache line. Maps that a windowed layer reads carry a border of zeros
//! as wide as its padding, so that no kernel asks where an image ends. Images of up to eight channels come in as
//! bordered planes instead, where blocks of sixteen would be mostly padding. Buffers are reused once their last reader
//! has run, and a residual that nobody needs any more is overwritten in place: memory does not grow with depth.
//!
//! **Algorithm per shape**, chosen when a batch and image size are first seen:
//!
//! | layer | algorithm |
//! |---|---|
//! | 1×1, stride 1 | register tiles over the whole plane as one row of pixels |
//! | 3×3, stride 1, enough pixels for the weights' traffic | Winograd F(4×4, 3×3): 36 products instead of 144; of codes, with integers asked for |
//! | dense, with integers asked for and Winograd not faster | input packed into codes, integer register tiles |
//! | any other dense or grouped window | register tiles along the rows, a list of offsets for the window's taps |
//! | depthwise | vector products, tap by tap, no sum over channels |
//!
//! A register tile is 14 pixels × 32 output channels with AVX-512 (28 of 32 registers hold sums), 6 × 16 with AVX2 and
//! 2 × 16 (4 × 16 on 64-bit Arm) otherwise; of integers 14 × 32 with VNNI and 6 × 16 without. Bias, residual and activation
//! are applied while the sums are in registers. Where rows are short, tiles of at most six pixels go on in the next row. On a
//! core whose other hardware thread is busy what counts is not multiply-adds alone but every instruction beside them, so the
//! inner loops are unrolled. On AVX2 the tiles of integers and those on planes are written as instructions, because compilers
//! kept some of their sums in memory.
//! The estimate that decides for Winograd weighs products, transforms and the stream of weights, which are four times
//! as many after the transform: 3×3 layers of 512 channels take it for batches, but not for a single image.
//!
//! **Threads.** A layer is divided into rectangles of pixels × output channels: pieces of input that fit a core's
//! second-level cache while the weights stream by or, where pixels are few, pieces of the weights. Any rayon pool will
//! do; results do not depend on the number of threads except by the choice of algorithm. Its threads stay with a run from
//! the first layer to the last instead of going back to the pool between layers, and the thread that leads the run never
//! waits for one that has not begun a piece.
//!
//! **Share of the peak.** Measured on two cores of a Zen 4 server, each good for 115 GFLOP/s by independent
//! multiply-adds, one image at a time through ResNet-50: most 1×1 layers 135–187 GFLOP/s on both cores (59–81 %), the
//! 7×7 stem 184 (80 %), 3×3 layers with stride 2 141–165 (61–72 %), Winograd layers 220–430 counted as plain products
//! (up to 1.9 times the peak), the whole network 174 (76 %). On a Zen 3 server (AVX2, 102 GFLOP/s a core) in a still
//! hour: 1×1 layers 151–188 (74–92 %), the stem 166 (81 %), stride 2 138–183, Winograd 330–517, the whole 204 (100 %); in
//! 16-bit codes 1×1 layers 225–297, stride 2 257–292, Winograd 478–726, the whole 309. Where others use the host it is up to
//! a quarter less. On two cores of a Sapphire Rapids server (AVX-512 with VNNI; its host leaves a core 120 to 180 GFLOP/s by the
//! hour) ResNet-50 did 199 alone and 247 in batches of 8, in 16-bit codes 347 and 386: 1×1 layers 231–356, stride 2 296–353,
//! Winograd 603–765 (medians of three interleaved runs). The example `layers` prints this table for the machine at hand.
//!
//! **Integers.** With [`frozen::Builder::precision`] set to [`frozen::Precision::Int16`], dense blocked layers of more
//! than sixteen output channels multiply 16-bit codes and sum them in 32 bits, 3×3 layers also after Winograd's transform;
//! everything else stays f32, and so do the maps between layers. Activations are coded in \[−4095, 4095\] with a scale for
//! each pixel (after the transform for each piece and frequency), found while they are packed, so nothing is calibrated and
//! an image has the same result in every batch that takes the same algorithms; weights have a scale for each output channel,
//! as fine as the sum's 32 bits allow. AVX-512 with VNNI (without it AVX2's tile is taken), AVX2 and the portable path compute
//! the same bits but for Winograd's transforms, which the first two fuse. Where the weights are cut among tasks, all threads
//! make the codes beforehand; with VNNI the next weights are fetched during the products, which otherwise wait for them. Of
//! networks with random weights the vectors are within 7·10⁻⁷ of f32's in cosine distance (ResNet-50). The bare tile on one core of
//! a Zen 3 server does 80 billion multiply-adds a second against 50 in f32, that with VNNI on Sapphire Rapids 180, where
//! independent multiply-adds in f32 come to 90. ResNet-50 on two cores of the Zen 3 server takes 31.0 ms an image instead of 46.5
//! in batches of 8 and 30.6 instead of 49.1 alone, ResNet-18 10.1 instead of 12.9 and 12.0 instead of 17.8. Recall@1, @10 and @100 of 296 photographs among 2,640
//! (Grocery; MobileNetV2 at 224 pixels, a ResNet-18 trained there at 128) are those of f32 to the last query.
//!
//! # Training: what a step costs
//!
//! [`conv_norm_train`] is convolution, batch norm, residual and activation as one node of candle's graph: every node
//! costs three single-threaded passes over its input when gradients are summed, so fewer nodes are faster than faster
//! nodes.
//!
//! | layer | forward and gradient to the input | gradient to the weight |
//! |---|---|---|
//! | 3×3, stride 1, planes large beside the channels | Winograd, as above; the gradient is the same convolution with the weight turned round | product of crate `gemm` around windows laid out as columns |
//! | depthwise | vectors along bordered planes, in which every tap sees one long row | dot products along them |
//! | any other | products around columns, those of several images side by side where planes are small | the same |
//!
//! Gradients of weights are summed in an order that depends on the number of threads only, not on their timing. The
//! activation's part of a gradient is seen again from the convolution's result and never written down, unless a residual
//! needs it.
//!
//! # Instruction paths
//!
//! [`Isa::detect`] finds AVX-512, AVX2 with FMA or the portable path at run time; no `target-cpu` is needed. The tests
//! run every path that the processor has; those of the frozen networks also pass under valgrind's memcheck, which knows
//! AVX2 but not AVX-512.

mod activation;
mod batch_norm;
mod conv2d;
mod conv_norm;
mod conv_shape;
mod depthwise;
mod error;
pub mod frozen;
mod global_avg_pool;
mod host;
mod im2col;
mod int_tile;
mod max_pool;
#[cfg(target_arch = "x86_64")]
mod planar_tile;
mod product;
#[cfg(test)]
mod reference;
mod simd;
mod tile;
mod windows;

pub use activation::{Activation, activate, add_activate};
pub use batch_norm::batch_norm_train;
pub use conv_norm::{ConvNormConfig, Statistics, conv_norm_train};
pub use conv_shape::Conv2dConfig;
pub use conv2d::conv2d;
pub use error::KernelError;
pub use global_avg_pool::global_avg_pool;
pub use max_pool::{MaxPool2dConfig, max_pool2d};
pub use simd::Isa;
