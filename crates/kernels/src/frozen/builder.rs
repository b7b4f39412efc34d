//! Describing a network layer by layer.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Tensor};

use super::FrozenNet;
use super::layer::{Conv, Linear};
use super::precision::Precision;
use crate::simd::Isa;
use crate::{Activation, Conv2dConfig, KernelError, MaxPool2dConfig};

type Result<T> = std::result::Result<T, candle_core::Error>;

/// Batch norm as it is at inference: (v − mean) / √(variance + eps) · gamma + beta, one number per channel.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Scale.
    pub gamma: &'a Tensor,
    /// Shift.
    pub beta: &'a Tensor,
    /// Running mean.
    pub mean: &'a Tensor,
    /// Running variance.
    pub variance: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// A convolution with all that is fused into it: `activation(norm(conv(x) + bias) + residual)`.
#[derive(Debug, Clone, Copy)]
pub struct ConvLayer<'a> {
    /// (out, in / groups, kh, kw)
    pub weight: &'a Tensor,
    /// (out)
    pub bias: Option<&'a Tensor>,
    /// Folded into weight and bias.
    pub norm: Option<Norm<'a>>,
    /// Stride, padding, dilation, groups.
    pub cfg: Conv2dConfig,
    /// A value of the result's shape, added before the activation.
    pub residual: Option<Value>,
    /// Applied last.
    pub activation: Activation,
}

impl<'a> ConvLayer<'a> {
    /// The bare convolution; set the other fields as needed.
    pub fn new(weight: &'a Tensor, cfg: Conv2dConfig) -> Self {
        Self { weight, bias: None, norm: None, cfg, residual: None, activation: Activation::None }
    }
}

/// The result of a layer, to be named as the input of later ones; good only with the [`Builder`] that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    builder: usize,
    pub(super) index: usize,
}

/// One layer of the graph; `usize` fields are indices of values.
#[derive(Debug)]
pub(super) enum Node {
    Input,
    Conv { input: usize, residual: Option<usize>, layer: Box<Conv> },
    MaxPool { input: usize, cfg: MaxPool2dConfig },
    GlobalAvgPool { input: usize },
    Linear { input: usize, layer: Linear },
}

impl Node {
    /// The values that the layer reads.
    pub(super) fn inputs(&self) -> impl Iterator<Item = usize> {
        let (first, second) = match *self {
            Node::Input => (None, None),
            Node::Conv { input, residual, .. } => (Some(input), residual),
            Node::MaxPool { input, .. } | Node::GlobalAvgPool { input } | Node::Linear { input, .. } => {
                (Some(input), None)
            }
        };
        first.into_iter().chain(second)
    }
}

/// Channels of a map, or length of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Map(usize),
    Vector(usize),
}

/// Describes a network, each layer from the values of earlier ones.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use semblance_kernels::Conv2dConfig;
/// use semblance_kernels::frozen::{Activation, Builder, ConvLayer, Norm};
///
/// # fn main() -> candle_core::Result<()> {
/// let cpu = &Device::Cpu;
/// let weight = |out, inp, side| Tensor::randn(0f32, 0.1, (out, inp, side, side), cpu);
/// let (stem, one, two, head) = (weight(16, 3, 3)?, weight(16, 16, 3)?, weight(16, 16, 3)?, weight(8, 16, 1)?);
/// let (ones, zeros) = (Tensor::ones(16, candle_core::DType::F32, cpu)?, Tensor::zeros(16, candle_core::DType::F32, cpu)?);
/// let norm = Some(Norm { gamma: &ones, beta: &zeros, mean: &zeros, variance: &ones, eps: 1e-5 });
/// let relu = Activation::Relu;
/// let same = Conv2dConfig { padding: 1, ..Default::default() };
///
/// let mut net = Builder::new(3)?;
/// let x = net.input();
/// let x = net.conv(x, &ConvLayer { norm, activation: relu, ..ConvLayer::new(&stem, Conv2dConfig { stride: 2, ..same }) })?;
/// // A residual block: its input is added to the second convolution before the last ReLU.
/// let y = net.conv(x, &ConvLayer { norm, activation: relu, ..ConvLayer::new(&one, same) })?;
/// let y = net.conv(y, &ConvLayer { norm, activation: relu, residual: Some(x), ..ConvLayer::new(&two, same) })?;
/// let y = net.global_avg_pool(y)?;
/// let y = net.linear(y, &head.reshape((8, 16))?, None)?;
/// let net = net.finish(y)?;
///
/// let vectors = net.forward(&vec![0.5; 2 * 3 * 32 * 32], 2, 32, 32)?;
/// assert_eq!(vectors.len(), 2 * net.dim());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Builder {
    id: usize,
    isa: Isa,
    precision: Precision,
    nodes: Vec<Node>,
    kinds: Vec<Kind>,
}

impl Builder {
    /// A network of images with this many channels, to run on the best instructions the processor has.
    ///
    /// # Errors
    /// [`KernelError::Zero`] for no channels.
    pub fn new(channels: usize) -> Result<Self> {
        Self::with_isa(channels, Isa::detect())
    }

    /// The same, to run on instructions of the caller's choice.
    ///
    /// # Errors
    /// [`KernelError::Zero`] for no channels, [`KernelError::IsaUnavailable`] where the processor lacks them.
    pub fn with_isa(channels: usize, isa: Isa) -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        if channels == 0 {
            return Err(
                KernelError::Zero { op: "frozen network", what: "the number of input channels" }.into()
            );
        }
        if !isa.available() {
            return Err(KernelError::IsaUnavailable(isa).into());
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let precision = Precision::F32;
        Ok(Self { id, isa, precision, nodes: vec![Node::Input], kinds: vec![Kind::Map(channels)] })
    }

    /// Chooses what the convolutions multiply; f32 unless this is called.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The images.
    pub fn input(&self) -> Value {
        Value { builder: self.id, index: 0 }
    }

    /// A convolution with everything fused into it.
    ///
    /// # Errors
    /// A wrapped [`KernelError`] if parameters do not fit one another or the value's channels.
    pub fn conv(&mut self, x: Value, layer: &ConvLayer<'_>) -> Result<Value> {
        let channels = self.map(x)?;
        let layer_residual = layer.residual.map(|r| self.map(r).map(|c| (r.index, c))).transpose()?;
        let conv = Conv::new(channels, layer)?;
        if let Some((_, residual_channels)) = layer_residual.filter(|(_, c)| *c != conv.out_c) {
            return Err(KernelError::PerChannel {
                op: "frozen conv",
                what: "the residual",
                got: residual_channels,
                expected: conv.out_c,
            }
            .into());
        }
        let kind = Kind::Map(conv.out_c);
        let residual = layer_residual.map(|(index, _)| index);
        Ok(self.push(Node::Conv { input: x.index, residual, layer: Box::new(conv) }, kind))
    }

    /// The greatest value of each window.
    ///
    /// # Errors
    /// A wrapped [`KernelError`] for an impossible window.
    pub fn max_pool(&mut self, x: Value, cfg: MaxPool2dConfig) -> Result<Value> {
        let channels = self.map(x)?;
        // Any side will do to check what does not depend on it.
        crate::max_pool::PoolShape::new(cfg.kernel, cfg.kernel, cfg)?;
        Ok(self.push(Node::MaxPool { input: x.index, cfg }, Kind::Map(channels)))
    }

    /// The mean over all pixels: a map of c channels becomes a vector of c numbers.
    ///
    /// # Errors
    /// A wrapped [`KernelError`] if the value is a vector already.
    pub fn global_avg_pool(&mut self, x: Value) -> Result<Value> {
        let channels = self.map(x)?;
        Ok(self.push(Node::GlobalAvgPool { input: x.index }, Kind::Vector(channels)))
    }

    /// `weight` (out, in) times the vector, plus `bias` (out).
    ///
    /// # Errors
    /// A wrapped [`KernelError`] if the value is not a vector or the shapes do not fit.
    pub fn linear(&mut self, x: Value, weight: &Tensor, bias: Option<&Tensor>) -> Result<Value> {
        self.check(x)?;
        let Kind::Vector(inputs) = self.kinds[x.index] else {
            return Err(KernelError::WrongKind { needed: "a vector (pool the map first)" }.into());
        };
        let layer = Linear::new(inputs, weight, bias)?;
        let kind = Kind::Vector(layer.outputs);
        Ok(self.push(Node::Linear { input: x.index, layer }, kind))
    }

    /// The network whose result is the vector `output`.
    ///
    /// # Errors
    /// A wrapped [`KernelError`] if the value is not a vector.
    pub fn finish(self, output: Value) -> Result<FrozenNet> {
        self.check(output)?;
        match self.kinds[output.index] {
            Kind::Vector(dim) => {
                Ok(FrozenNet::new((self.isa, self.precision), self.nodes, self.kinds, output.index, dim))
            }
            Kind::Map(_) => Err(KernelError::WrongKind { needed: "a vector (pool the map first)" }.into()),
        }
    }

    #[cfg(test)]
    pub(super) fn into_parts(self) -> (Isa, Precision, Vec<Node>, Vec<Kind>) {
        (self.isa, self.precision, self.nodes, self.kinds)
    }

    fn push(&mut self, node: Node, kind: Kind) -> Value {
        self.nodes.push(node);
        self.kinds.push(kind);
        Value { builder: self.id, index: self.nodes.len() - 1 }
    }

    fn check(&self, value: Value) -> Result<()> {
        if value.builder == self.id { Ok(()) } else { Err(KernelError::ForeignValue.into()) }
    }

    /// The channels of a value that must be a map.
    fn map(&self, value: Value) -> Result<usize> {
        self.check(value)?;
        match self.kinds[value.index] {
            Kind::Map(channels) => Ok(channels),
            Kind::Vector(_) => Err(KernelError::WrongKind { needed: "a map, not a vector" }.into()),
        }
    }
}

/// A tensor's numbers as f32 on the host, whatever it is made of.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.detach().to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
