//! Networks frozen for inference: batch norm folded into the weights, bias, residual and activation fused into the
//! convolutions, one internal layout from the first layer to the last.

#[cfg(test)]
mod agreement;
mod builder;
mod depthwise;
mod direct;
mod input;
mod integer;
mod kept;
mod layer;
mod map;
mod memory;
mod plan;
mod pool;
mod precision;
mod shared;
pub(crate) mod single;
mod team;
mod together;
mod winograd;

use std::time::{Duration, Instant};

use candle_core::Result;

pub use builder::{Builder, ConvLayer, Norm, Value};
pub use precision::Precision;

pub use crate::Activation;
use builder::{Kind, Node};
use kept::Kept;
use plan::Plan;

use crate::KernelError;
use crate::simd::Isa;

/// A network whose parameters no longer change. Made by a [`Builder`]; may be used from several threads at once.
pub struct FrozenNet {
    isa: Isa,
    precision: Precision,
    nodes: Vec<Node>,
    kinds: Vec<Kind>,
    output: usize,
    dim: usize,
    kept: Kept,
}

/// What one layer took in [`FrozenNet::measure`].
#[derive(Debug, Clone)]
pub struct LayerTime {
    /// The layer in words.
    pub layer: String,
    /// The algorithm chosen for it.
    pub algorithm: &'static str,
    /// Time on the clock.
    pub time: Duration,
    /// Multiplications and additions of the plain algorithm; zero for layers that are not convolutions.
    pub flops: f64,
}

impl FrozenNet {
    fn new(
        (isa, precision): (Isa, Precision),
        nodes: Vec<Node>,
        kinds: Vec<Kind>,
        output: usize,
        dim: usize,
    ) -> Self {
        Self { isa, precision, nodes, kinds, output, dim, kept: Kept::default() }
    }

    /// Length of the vector that each image becomes.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The instructions that the network runs on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What the convolutions multiply.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Vectors (n × [`FrozenNet::dim`]) of `n` images of `h` × `w` pixels, given as (n, c, h, w) in row-major order.
    ///
    /// Runs on the threads of the current rayon pool. Where a network has few weights beside its maps, large batches go
    /// through it in parts. The first call with another batch or image size lays the network out for it, later ones
    /// reuse layout and memory, which are kept for the last four sizes used.
    ///
    /// # Errors
    /// A wrapped [`KernelError`] if the number of pixels is wrong or the images are too small for the network.
    pub fn forward(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<f32>> {
        self.check(pixels, (n, h, w))?;
        if n == 0 {
            return Ok(Vec::new());
        }
        let parts = n.div_ceil(together::together(&self.nodes, &self.kinds, h, w)?);
        let (image, mut vectors) = (pixels.len() / n, Vec::with_capacity(n * self.dim));
        for part in 0..parts {
            let (from, to) = (n * part / parts, n * (part + 1) / parts);
            let pixels = &pixels[from * image..to * image];
            vectors.extend(self.run(pixels, (to - from, h, w), |_, _, _| ())?);
        }
        Ok(vectors)
    }

    /// As [`FrozenNet::forward`] with all images in one part, and the time that each layer took instead of the vectors.
    ///
    /// # Errors
    /// As for [`FrozenNet::forward`].
    pub fn measure(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<LayerTime>> {
        self.check(pixels, (n, h, w))?;
        let mut times = Vec::new();
        if n == 0 {
            return Ok(times);
        }
        self.run(pixels, (n, h, w), |index, plan, time| {
            let (layer, flops) = match &self.nodes[index] {
                Node::Conv { layer, .. } => {
                    (plan::conv_name(layer), plan::conv_flops(layer, n, plan.size(index)))
                }
                Node::Input => ("input".to_owned(), 0.0),
                Node::MaxPool { cfg, .. } => (format!("max-pool {}/{}", cfg.kernel, cfg.stride), 0.0),
                Node::GlobalAvgPool { .. } => ("global average pool".to_owned(), 0.0),
                Node::Linear { layer, .. } => (format!("linear {}→{}", layer.inputs, layer.outputs), 0.0),
            };
            times.push(LayerTime { layer, algorithm: plan.describe(index), time, flops });
        })?;
        Ok(times)
    }

    /// Whether these are the pixels of so many images.
    fn check(&self, pixels: &[f32], (n, h, w): (usize, usize, usize)) -> Result<()> {
        let (Kind::Map(channels) | Kind::Vector(channels)) = self.kinds[0];
        let expected = n.checked_mul(channels).and_then(|v| v.checked_mul(h)).and_then(|v| v.checked_mul(w));
        if expected != Some(pixels.len()) {
            return Err(KernelError::PixelCount { got: pixels.len(), n, channels, h, w }.into());
        }
        Ok(())
    }

    /// Runs images, one or more, whose pixels were checked.
    fn run(
        &self,
        pixels: &[f32],
        (n, h, w): (usize, usize, usize),
        mut after: impl FnMut(usize, &Plan, Duration) + Send,
    ) -> Result<Vec<f32>> {
        let key = (n, h, w, rayon::current_num_threads());
        let make = || Plan::new(self.isa, self.precision, &self.nodes, &self.kinds, (n, h, w));
        let (plan, mut arena) = self.kept.take(key, make)?;
        let vectors = team::lead(|team| {
            for (index, node) in self.nodes.iter().enumerate() {
                let start = Instant::now();
                plan.step(team, index, node, pixels, &mut arena);
                after(index, &plan, start.elapsed());
            }
            plan.vector(self.output, &arena).to_vec()
        });
        self.kept.give(key, arena);
        Ok(vectors)
    }
}

impl std::fmt::Debug for FrozenNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (layers, isa, dim) = (self.nodes.len(), self.isa, self.dim);
        f.debug_struct("FrozenNet").field("layers", &layers).field("isa", &isa).field("dim", &dim).finish()
    }
}
