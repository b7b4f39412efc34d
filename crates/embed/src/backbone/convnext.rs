//! ConvNeXt (Liu et al. 2022, arXiv 2201.03545), with timm's names.

use candle_core::{ModuleT, Result, Tensor, Var};
use semblance_kernels::{Conv2dConfig, conv2d};

use crate::layer::{Gelu, LayerNorm, Linear, PatchConv};
use crate::onnx::{Edge, Graph};
use crate::params::{Init, Scope, value};

/// Added to the variance by the norms.
const EPS: f64 = 1e-6;
/// Start of the learned factor of each branch.
const LAYER_SCALE: f32 = 1e-6;

/// What distinguishes one ConvNeXt from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvNextConfig {
    /// Blocks of each of the four stages.
    pub depths: [usize; 4],
    /// Channels of the first stage; each further stage doubles them.
    pub width: usize,
}

/// Depthwise 7×7, norm, a two-layer perceptron at each pixel; scaled and added to the input.
#[derive(Debug, Clone)]
struct Block {
    depthwise: (Var, Var),
    norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    scale: Var,
}

impl Block {
    fn new(channels: usize, scope: &Scope) -> Result<Self> {
        let (depthwise, mlp) = (scope.at("conv_dw"), scope.at("mlp"));
        let window = depthwise.parameter("weight", (channels, 1, 7, 7), Init::Normal { std: 0.02 })?;
        Ok(Self {
            depthwise: (window, depthwise.parameter("bias", channels, Init::Const(0.0))?),
            norm: LayerNorm::new(channels, EPS, &scope.at("norm"))?,
            widen: Linear::narrow(channels, 4 * channels, &mlp.at("fc1"))?,
            narrow: Linear::narrow(4 * channels, channels, &mlp.at("fc2"))?,
            scale: scope.parameter("gamma", channels, Init::Const(LAYER_SCALE))?,
        })
    }

    fn depthwise_config(&self) -> Result<Conv2dConfig> {
        Ok(Conv2dConfig { padding: 3, groups: self.depthwise.0.dim(0)?, ..Conv2dConfig::default() })
    }

    fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let (window, bias) = &self.depthwise;
        let y = graph.conv(x, window, Some(bias), &self.depthwise_config()?)?;
        let y = graph.transpose(&y, &[0, 2, 3, 1]);
        let y = self.norm.emit(graph, &y)?;
        let y = self.widen.emit(graph, &y)?;
        let y = Gelu::Exact.emit(graph, &y);
        let y = self.narrow.emit(graph, &y)?;
        let scale = graph.constant(&self.scale)?;
        let y = graph.mul(&y, &scale);
        let y = graph.transpose(&y, &[0, 3, 1, 2]);
        Ok(graph.add(x, &y))
    }
}

impl ModuleT for Block {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (window, bias) = (value(&self.depthwise.0, train), value(&self.depthwise.1, train));
        let y =
            conv2d(x, &window, Some(&bias), self.depthwise_config()?)?.permute((0, 2, 3, 1))?.contiguous()?;
        let y = self.widen.forward_t(&self.norm.forward(&y, train)?, train)?;
        let y = self.narrow.forward_t(&Gelu::Exact.forward(&y)?, train)?;
        let y = y.broadcast_mul(&value(&self.scale, train))?;
        x + y.permute((0, 3, 1, 2))?.contiguous()?
    }
}

/// A norm and a 2×2 convolution that halves the sides, then blocks.
#[derive(Debug, Clone)]
struct Stage {
    downsample: Option<(LayerNorm, PatchConv)>,
    blocks: Vec<Block>,
}

/// A ConvNeXt up to its last feature map, and the norm of what is pooled from it.
#[derive(Debug, Clone)]
pub struct ConvNext {
    stem: (PatchConv, LayerNorm),
    stages: Vec<Stage>,
    norm: LayerNorm,
    feature_dim: usize,
}

impl ConvNext {
    /// Builds the network with its tensors registered in `scope`.
    pub fn new(config: &ConvNextConfig, scope: &Scope) -> Result<Self> {
        let place = scope.at("stem");
        let stem = PatchConv::new(3, config.width, 4, true, &place.at(0))?;
        let stem = (stem, LayerNorm::new(config.width, EPS, &place.at(1))?);
        let mut channels = config.width;
        let mut stages = Vec::new();
        for (i, &depth) in config.depths.iter().enumerate() {
            let scope = scope.at("stages").at(i);
            let downsample = (i > 0).then(|| -> Result<_> {
                let (place, before) = (scope.at("downsample"), channels);
                channels *= 2;
                let conv = PatchConv::new(before, channels, 2, true, &place.at(1))?;
                Ok((LayerNorm::new(before, EPS, &place.at(0))?, conv))
            });
            let downsample = downsample.transpose()?;
            let blocks = (0..depth).map(|j| Block::new(channels, &scope.at("blocks").at(j)));
            stages.push(Stage { downsample, blocks: blocks.collect::<Result<_>>()? });
        }
        let norm = LayerNorm::new(channels, EPS, &scope.at("head").at("norm"))?;
        Ok(Self { stem, stages, norm, feature_dim: channels })
    }

    /// Channels of the feature map.
    pub fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    /// The norm behind the pooling: `(n, channels)` → the same shape.
    pub fn finish(&self, pooled: &Tensor, train: bool) -> Result<Tensor> {
        self.norm.forward(pooled, train)
    }

    /// Writes the network up to its last feature map into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let x = self.stem.0.emit(graph, x)?;
        let mut x = self.stem.1.emit_channels(graph, &x)?;
        for stage in &self.stages {
            if let Some((norm, conv)) = &stage.downsample {
                x = norm.emit_channels(graph, &x)?;
                x = conv.emit(graph, &x)?;
            }
            for block in &stage.blocks {
                x = block.emit(graph, &x)?;
            }
        }
        Ok(x)
    }

    /// As [`finish`](Self::finish) in an ONNX graph.
    pub(crate) fn emit_finish(&self, graph: &mut Graph, pooled: &Edge) -> Result<Edge> {
        self.norm.emit(graph, pooled)
    }
}

impl ModuleT for ConvNext {
    /// `(n, 3, h, w)` → `(n, channels, h / 32, w / 32)`.
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = self.stem.1.forward_channels(&self.stem.0.forward(x, train)?, train)?;
        for stage in &self.stages {
            if let Some((norm, conv)) = &stage.downsample {
                x = conv.forward(&norm.forward_channels(&x, train)?, train)?;
            }
            for block in &stage.blocks {
                x = block.forward_t(&x, train)?;
            }
        }
        Ok(x)
    }
}

#[cfg(test)]
#[path = "convnext_tests.rs"]
mod tests;
