//! Two-dimensional convolution.

use candle_core::{ModuleT, Result, Tensor, Var};
use semblance_kernels::{Conv2dConfig, conv2d};

use crate::params::{Init, Scope, value};

/// Shape of a square convolution without bias, as batch norm follows each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvConfig {
    /// Channels in.
    pub input: usize,
    /// Channels out.
    pub output: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Groups; as many as channels makes it depthwise.
    pub groups: usize,
}

impl ConvConfig {
    /// A dense convolution with stride 1.
    pub fn new(input: usize, output: usize, kernel: usize) -> Self {
        Self { input, output, kernel, stride: 1, groups: 1 }
    }
}

/// `(n, c_in, h, w)` → `(n, c_out, h', w')`, padded so that stride 1 keeps the size of odd kernels.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Var,
    config: Conv2dConfig,
}

impl Conv2d {
    /// Registers the kernel `weight (c_out, c_in / groups, k, k)` in `scope`.
    pub fn new(config: ConvConfig, scope: &Scope) -> Result<Self> {
        let ConvConfig { input, output, kernel, stride, groups } = config;
        let init = Init::he_fan_out(output * kernel * kernel / groups);
        let weight = scope.parameter("weight", (output, input / groups, kernel, kernel), init)?;
        let padding = (kernel - 1) / 2;
        Ok(Self { weight, config: Conv2dConfig { stride, padding, dilation: 1, groups } })
    }

    /// The kernel.
    pub fn weight(&self) -> &Var {
        &self.weight
    }

    /// Stride, padding and groups.
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }
}

impl ModuleT for Conv2d {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        conv2d(x, &value(&self.weight, train), None, self.config)
    }
}
