//! Residual networks (He et al. 2015, arXiv 1512.03385), with torchvision's names and its placement of the
//! stride on the 3×3 convolution of a bottleneck.

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::frozen::{Builder, Value};
use semblance_kernels::{Activation, MaxPool2dConfig, max_pool2d};

use crate::layer::{ConvConfig, ConvNorm};
use crate::onnx::{Edge, Graph};
use crate::params::Scope;

/// The large stem's pooling.
const POOL: MaxPool2dConfig = MaxPool2dConfig { kernel: 3, stride: 2, padding: 1 };

/// The first layers, before the residual stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// 7×7 stride 2, then max-pool 3×3 stride 2: a quarter of the image's side.
    Large,
    /// 3×3 stride 2: half of the image's side, for small images.
    Small,
}

/// What distinguishes one residual network from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResNetConfig {
    /// Blocks in each of the four stages.
    pub blocks: [usize; 4],
    /// Channels of the stem and of the first stage; each further stage doubles them.
    pub width: usize,
    /// Whether blocks are bottlenecks (1×1, 3×3, 1×1 to four times the channels) or two 3×3 convolutions.
    pub bottleneck: bool,
    /// The first layers.
    pub stem: Stem,
}

impl ResNetConfig {
    /// Two 3×3 convolutions a block: ResNet-18 and -34.
    pub fn basic(blocks: [usize; 4]) -> Self {
        Self { blocks, width: 64, bottleneck: false, stem: Stem::Large }
    }

    /// Bottlenecks: ResNet-50 and -101.
    pub fn bottleneck(blocks: [usize; 4]) -> Self {
        Self { bottleneck: true, ..Self::basic(blocks) }
    }

    /// One block a stage on 32 channels, for images of 64 to 128 pixels.
    pub fn tiny() -> Self {
        Self { blocks: [1; 4], width: 32, bottleneck: false, stem: Stem::Small }
    }
}

/// A residual block: its convolutions with ReLU between them, the shortcut added before the last ReLU.
#[derive(Debug, Clone)]
struct Block {
    body: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

impl Block {
    fn new(input: usize, width: usize, stride: usize, bottleneck: bool, scope: &Scope) -> Result<Self> {
        let output = if bottleneck { 4 * width } else { width };
        let strided = |config: ConvConfig| ConvConfig { stride, ..config };
        let shapes = if bottleneck {
            vec![
                ConvConfig::new(input, width, 1),
                strided(ConvConfig::new(width, width, 3)),
                ConvConfig::new(width, output, 1),
            ]
        } else {
            vec![strided(ConvConfig::new(input, width, 3)), ConvConfig::new(width, width, 3)]
        };
        let count = shapes.len();
        let mut body = Vec::new();
        for (i, shape) in (1..).zip(shapes) {
            // The last one's ReLU comes after the shortcut is added.
            let activation = if i == count { Activation::None } else { Activation::Relu };
            let (conv, norm) = (scope.at(format!("conv{i}")), scope.at(format!("bn{i}")));
            body.push(ConvNorm::new(shape, activation, conv, norm)?);
        }
        let shortcut = (stride != 1 || input != output).then(|| {
            let scope = scope.at("downsample");
            let shape = strided(ConvConfig::new(input, output, 1));
            ConvNorm::new(shape, Activation::None, scope.at(0), scope.at(1))
        });
        Ok(Self { body, shortcut: shortcut.transpose()? })
    }

    fn emit(&self, graph: &mut Graph, x: Edge) -> Result<Edge> {
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.emit(graph, &x)?,
            None => x.clone(),
        };
        let mut y = x;
        for (i, layer) in self.body.iter().enumerate() {
            y = if i + 1 == self.body.len() {
                layer.emit_onto(graph, &y, Some(&shortcut), Activation::Relu)?
            } else {
                layer.emit(graph, &y)?
            };
        }
        Ok(y)
    }

    fn freeze(&self, net: &mut Builder, x: Value) -> Result<Value> {
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.freeze(net, x)?,
            None => x,
        };
        let mut y = x;
        for (i, layer) in self.body.iter().enumerate() {
            y = if i + 1 == self.body.len() {
                layer.freeze_onto(net, y, Some(shortcut), Activation::Relu)?
            } else {
                layer.freeze(net, y)?
            };
        }
        Ok(y)
    }
}

impl ModuleT for Block {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward_t(x, train)?,
            None => x.clone(),
        };
        let mut y = x.clone();
        for (i, layer) in self.body.iter().enumerate() {
            y = if i + 1 == self.body.len() {
                layer.forward_onto(&y, Some(&shortcut), Activation::Relu, train)?
            } else {
                layer.forward_t(&y, train)?
            };
        }
        Ok(y)
    }
}

/// A residual network up to its last feature map.
#[derive(Debug, Clone)]
pub struct ResNet {
    stem: ConvNorm,
    pool: bool,
    stages: Vec<Vec<Block>>,
    feature_dim: usize,
}

impl ResNet {
    /// Builds the network with its tensors registered in `scope`.
    pub fn new(config: &ResNetConfig, scope: &Scope) -> Result<Self> {
        let first = match config.stem {
            Stem::Large => ConvConfig::new(3, config.width, 7),
            Stem::Small => ConvConfig::new(3, config.width, 3),
        };
        let first = ConvConfig { stride: 2, ..first };
        let stem = ConvNorm::new(first, Activation::Relu, scope.at("conv1"), scope.at("bn1"))?;
        let expansion = if config.bottleneck { 4 } else { 1 };
        let mut channels = config.width;
        let mut stages = Vec::new();
        for (i, &count) in config.blocks.iter().enumerate() {
            let scope = scope.at(format!("layer{}", i + 1));
            let width = config.width << i;
            let mut blocks = Vec::new();
            for block in 0..count {
                let stride = if i > 0 && block == 0 { 2 } else { 1 };
                blocks.push(Block::new(channels, width, stride, config.bottleneck, &scope.at(block))?);
                channels = width * expansion;
            }
            stages.push(blocks);
        }
        Ok(Self { stem, pool: config.stem == Stem::Large, stages, feature_dim: channels })
    }

    /// Channels of the feature map.
    pub fn feature_dim(&self) -> usize {
        self.feature_dim
    }

    /// Writes the network into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: Edge) -> Result<Edge> {
        let mut x = self.stem.emit(graph, &x)?;
        if self.pool {
            x = graph.max_pool(&x, POOL);
        }
        for block in self.stages.iter().flatten() {
            x = block.emit(graph, x)?;
        }
        Ok(x)
    }

    /// Adds the network to a frozen one.
    pub(crate) fn freeze(&self, net: &mut Builder, x: Value) -> Result<Value> {
        let mut x = self.stem.freeze(net, x)?;
        if self.pool {
            x = net.max_pool(x, POOL)?;
        }
        for block in self.stages.iter().flatten() {
            x = block.freeze(net, x)?;
        }
        Ok(x)
    }
}

impl ModuleT for ResNet {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = self.stem.forward_t(x, train)?;
        if self.pool {
            x = max_pool2d(&x, POOL)?;
        }
        for block in self.stages.iter().flatten() {
            x = block.forward_t(&x, train)?;
        }
        Ok(x)
    }
}
