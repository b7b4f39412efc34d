//! Fully connected layer.

use candle_core::{ModuleT, Result, Tensor, Var};

use crate::params::{Init, Scope, value};

/// `(n, input)` → `(n, output)`: `x Wᵀ + b`.
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

    /// The weights, `(output, input)`.
    pub fn weight(&self) -> &Var {
        &self.weight
    }

    /// The bias, `(output)`.
    pub fn bias(&self) -> &Var {
        &self.bias
    }
}

impl ModuleT for Linear {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        x.matmul(&value(&self.weight, train).t()?)?.broadcast_add(&value(&self.bias, train))
    }
}
