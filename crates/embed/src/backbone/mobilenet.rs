//! MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), with torchvision's names.

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::Activation;
use semblance_kernels::frozen::{Builder, Value};

use crate::layer::{ConvConfig, ConvNorm};
use crate::onnx::{Edge, Graph};
use crate::params::Scope;

/// Expansion, channels, repeats and first stride of each row of the paper's table 2.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// A convolution, its norm and ReLU6, nested one level as torchvision does.
fn pair(config: ConvConfig, scope: &Scope) -> Result<ConvNorm> {
    ConvNorm::new(config, Activation::Relu6, scope.at(0), scope.at(1))
}

/// Widen by a 1×1 convolution, filter depthwise, project back; the input added where shapes allow.
#[derive(Debug, Clone)]
struct InvertedResidual {
    layers: Vec<ConvNorm>,
    residual: bool,
}

impl InvertedResidual {
    fn new(input: usize, output: usize, expansion: usize, stride: usize, scope: &Scope) -> Result<Self> {
        let scope = scope.at("conv");
        let hidden = input * expansion;
        let mut layers = Vec::new();
        if expansion != 1 {
            layers.push(pair(ConvConfig::new(input, hidden, 1), &scope.at(0))?);
        }
        let depthwise = ConvConfig { stride, groups: hidden, ..ConvConfig::new(hidden, hidden, 3) };
        layers.push(pair(depthwise, &scope.at(layers.len()))?);
        // torchvision leaves the projection's pair unnested: `conv.2` and `conv.3`.
        let projection = ConvConfig::new(hidden, output, 1);
        let next = layers.len();
        let (conv, norm) = (scope.at(next), scope.at(next + 1));
        layers.push(ConvNorm::new(projection, Activation::None, conv, norm)?);
        Ok(Self { layers, residual: stride == 1 && input == output })
    }

    fn emit(&self, graph: &mut Graph, x: Edge) -> Result<Edge> {
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let residual = (self.residual && i + 1 == self.layers.len()).then_some(&x);
            y = layer.emit_onto(graph, &y, residual, layer.activation)?;
        }
        Ok(y)
    }

    fn freeze(&self, net: &mut Builder, x: Value) -> Result<Value> {
        let mut y = x;
        for (i, layer) in self.layers.iter().enumerate() {
            let residual = (self.residual && i + 1 == self.layers.len()).then_some(x);
            y = layer.freeze_onto(net, y, residual, layer.activation)?;
        }
        Ok(y)
    }
}

impl ModuleT for InvertedResidual {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let residual = (self.residual && i + 1 == self.layers.len()).then_some(x);
            y = layer.forward_onto(&y, residual, layer.activation, train)?;
        }
        Ok(y)
    }
}

/// MobileNetV2 1.0 up to its last feature map.
#[derive(Debug, Clone)]
pub struct MobileNetV2 {
    stem: ConvNorm,
    blocks: Vec<InvertedResidual>,
    last: ConvNorm,
}

impl MobileNetV2 {
    /// Channels of the feature map.
    pub const FEATURE_DIM: usize = 1280;

    /// Builds the network with its tensors registered in `scope`.
    pub fn new(scope: &Scope) -> Result<Self> {
        let scope = scope.at("features");
        let stem = pair(ConvConfig { stride: 2, ..ConvConfig::new(3, 32, 3) }, &scope.at(0))?;
        let mut channels = 32;
        let mut blocks = Vec::new();
        for (expansion, output, repeats, first_stride) in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let place = scope.at(blocks.len() + 1);
                blocks.push(InvertedResidual::new(channels, output, expansion, stride, &place)?);
                channels = output;
            }
        }
        let last = pair(ConvConfig::new(channels, Self::FEATURE_DIM, 1), &scope.at(blocks.len() + 1))?;
        Ok(Self { stem, blocks, last })
    }

    /// Writes the network into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: Edge) -> Result<Edge> {
        let mut x = self.stem.emit(graph, &x)?;
        for block in &self.blocks {
            x = block.emit(graph, x)?;
        }
        self.last.emit(graph, &x)
    }

    /// Adds the network to a frozen one.
    pub(crate) fn freeze(&self, net: &mut Builder, x: Value) -> Result<Value> {
        let mut x = self.stem.freeze(net, x)?;
        for block in &self.blocks {
            x = block.freeze(net, x)?;
        }
        self.last.freeze(net, x)
    }
}

impl ModuleT for MobileNetV2 {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = self.stem.forward_t(x, train)?;
        for block in &self.blocks {
            x = block.forward_t(&x, train)?;
        }
        self.last.forward_t(&x, train)
    }
}
