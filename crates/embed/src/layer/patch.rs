//! Images into patches: convolutions whose windows do not overlap.

use candle_core::{Result, Tensor, Var};
use semblance_kernels::{Conv2dConfig, conv2d};

use crate::onnx::{Edge, Graph};
use crate::params::{Init, Scope, value};

/// `(n, input, h, w)` → `(n, output, h / side, w / side)`: each square of `side` pixels by itself.
#[derive(Debug, Clone)]
pub struct PatchConv {
    weight: Var,
    bias: Option<Var>,
    side: usize,
}

impl PatchConv {
    /// Registers `weight (output, input, side, side)` and, if asked, `bias (output)`.
    pub fn new(input: usize, output: usize, side: usize, bias: bool, scope: &Scope) -> Result<Self> {
        let weight = scope.parameter("weight", (output, input, side, side), Init::Normal { std: 0.02 })?;
        let bias = bias.then(|| scope.parameter("bias", output, Init::Const(0.0))).transpose()?;
        Ok(Self { weight, bias, side })
    }

    /// Pixels at the right and lower edge that fill no patch are left out.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| value(bias, train));
        conv2d(x, &value(&self.weight, train), bias.as_ref(), self.config())
    }

    /// Writes the layer into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        graph.conv(x, &self.weight, self.bias.as_deref(), &self.config())
    }

    fn config(&self) -> Conv2dConfig {
        Conv2dConfig { stride: self.side, ..Conv2dConfig::default() }
    }
}
