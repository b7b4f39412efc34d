//! Fully connected layer.

use candle_core::{ModuleT, Result, Tensor, Var};

use crate::onnx::{Edge, Graph};
use crate::params::{Init, Scope, value};

/// `(…, input)` → `(…, output)`: `x Wᵀ + b`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Var,
    bias: Var,
}

impl Linear {
    /// Registers `weight (output, input)` and `bias (output)` in `scope`, started as PyTorch starts them.
    pub fn new(input: usize, output: usize, scope: &Scope) -> Result<Self> {
        let bound = 1.0 / (input as f32).sqrt();
        let weight = scope.parameter("weight", (output, input), Init::Uniform { bound })?;
        let bias = scope.parameter("bias", output, Init::Uniform { bound })?;
        Ok(Self { weight, bias })
    }

    /// As [`new`](Self::new), started as vision transformers are: weights of deviation 0.02, no bias.
    pub fn narrow(input: usize, output: usize, scope: &Scope) -> Result<Self> {
        let weight = scope.parameter("weight", (output, input), Init::Normal { std: 0.02 })?;
        let bias = scope.parameter("bias", output, Init::Const(0.0))?;
        Ok(Self { weight, bias })
    }

    /// Writes the layer into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        graph.linear(x, &self.weight, Some(&self.bias))
    }

    /// The weights, `(output, input)`.
    pub fn weight(&self) -> &Var {
        &self.weight
    }

    /// The bias, `(output)`.
    pub fn bias(&self) -> &Var {
        &self.bias
    }
}

/// `x Wᵀ` over the last dimension of `x (…, input)`, as one matrix product.
pub(crate) fn project(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (output, input) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let Some(last) = shape.last_mut() else { candle_core::bail!("a scalar has no last dimension") };
    *last = output;
    let rows = x.elem_count() / input.max(1);
    x.reshape((rows, input))?.matmul(&weight.t()?)?.reshape(shape)
}

impl ModuleT for Linear {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        project(x, &value(&self.weight, train))?.broadcast_add(&value(&self.bias, train))
    }
}
