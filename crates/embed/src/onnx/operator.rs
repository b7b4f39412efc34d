//! ONNX's operators, version 17, as far as networks here need them.

use candle_core::{Result, Tensor};
use semblance_kernels::{Activation, Conv2dConfig, MaxPool2dConfig};

use super::graph::{Edge, Graph};
use super::proto;

impl Graph {
    /// `(n, c_in, h, w)` → `(n, c_out, h', w')`, with the bias `(c_out)` where there is one.
    pub fn conv(
        &mut self,
        x: &Edge,
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: &Conv2dConfig,
    ) -> Result<Edge> {
        let kernel = weight.dim(2)? as i64;
        let Conv2dConfig { stride, padding, dilation, groups } = *config;
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("strides", &[stride as i64; 2]),
            ints("pads", &[padding as i64; 4]),
            ints("dilations", &[dilation as i64; 2]),
            int("group", groups as i64),
        ];
        let weight = self.constant(weight)?;
        let bias = bias.map(|bias| self.constant(bias)).transpose()?;
        let inputs: Vec<&Edge> = [x, &weight].into_iter().chain(&bias).collect();
        Ok(self.node("Conv", &inputs, attributes))
    }

    /// The activation, where there is one.
    pub fn activate(&mut self, x: Edge, activation: Activation) -> Edge {
        match activation {
            Activation::None => x,
            Activation::Relu => self.node("Relu", &[&x], vec![]),
            Activation::Relu6 => {
                let (low, high) = (self.scalar(0.0), self.scalar(6.0));
                self.node("Clip", &[&x, &low, &high], vec![])
            }
        }
    }

    /// `x (1 + erf(x / √2)) / 2`, in the order of operations that ONNX Runtime knows as GELU.
    pub fn gelu(&mut self, x: &Edge) -> Edge {
        let (root, one, half) = (self.scalar(std::f32::consts::SQRT_2), self.scalar(1.0), self.scalar(0.5));
        let scaled = self.node("Div", &[x, &root], vec![]);
        let error = self.node("Erf", &[&scaled], vec![]);
        let twice = self.add(&error, &one);
        let product = self.mul(x, &twice);
        self.mul(&product, &half)
    }

    /// `x σ(steepness · x)`.
    pub fn sigmoid_gelu(&mut self, x: &Edge, steepness: f32) -> Edge {
        let steepness = self.scalar(steepness);
        let steep = self.mul(x, &steepness);
        let gate = self.node("Sigmoid", &[&steep], vec![]);
        self.mul(x, &gate)
    }

    /// The sum of two tensors, one of which may be repeated along dimensions it lacks.
    pub fn add(&mut self, a: &Edge, b: &Edge) -> Edge {
        self.node("Add", &[a, b], vec![])
    }

    /// The product of two tensors value by value, repeated as in [`add`](Self::add).
    pub fn mul(&mut self, a: &Edge, b: &Edge) -> Edge {
        self.node("Mul", &[a, b], vec![])
    }

    /// `x Wᵀ + b` over the last dimension, with `W (output, input)`.
    pub fn linear(&mut self, x: &Edge, weight: &Tensor, bias: Option<&Tensor>) -> Result<Edge> {
        let weight = self.constant(&weight.t()?)?;
        let y = self.matmul(x, &weight);
        let Some(bias) = bias else { return Ok(y) };
        let bias = self.constant(bias)?;
        Ok(self.add(&y, &bias))
    }

    /// The matrix product of the last two dimensions.
    pub fn matmul(&mut self, a: &Edge, b: &Edge) -> Edge {
        self.node("MatMul", &[a, b], vec![])
    }

    /// The last dimension normalised by its own mean and variance, scaled and shifted.
    pub fn layer_norm(&mut self, x: &Edge, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Edge> {
        let (weight, bias) = (self.constant(weight)?, self.constant(bias)?);
        Ok(self.node(
            "LayerNormalization",
            &[x, &weight, &bias],
            vec![int("axis", -1), float("epsilon", eps)],
        ))
    }

    /// Softmax over the last dimension.
    pub fn softmax(&mut self, x: &Edge) -> Edge {
        self.node("Softmax", &[x], vec![int("axis", -1)])
    }

    /// Another shape: 0 keeps the dimension in its place, −1 is whatever is left.
    pub fn reshape(&mut self, x: &Edge, shape: &[i64]) -> Edge {
        let shape = self.integers(&[shape.len()], shape);
        self.node("Reshape", &[x, &shape], vec![])
    }

    /// The dimensions in another order.
    pub fn transpose(&mut self, x: &Edge, order: &[i64]) -> Edge {
        self.node("Transpose", &[x], vec![ints("perm", order)])
    }

    /// `(n, tokens, dim)` with a token of zeros before the others.
    pub fn token_before(&mut self, x: &Edge) -> Edge {
        let widths = self.integers(&[6], &[0, 1, 0, 0, 0, 0]);
        self.node("Pad", &[x, &widths], vec![])
    }

    /// The first of `(n, tokens, dim)`: `(n, dim)`.
    pub fn first_token(&mut self, x: &Edge) -> Edge {
        let first = self.integers(&[], &[0]);
        self.node("Gather", &[x, &first], vec![int("axis", 1)])
    }

    /// All but the first of `(n, tokens, dim)`.
    pub fn other_tokens(&mut self, x: &Edge) -> Edge {
        let bounds = [1, i64::MAX, 1].map(|bound| self.integers(&[1], &[bound]));
        self.node("Slice", &[x, &bounds[0], &bounds[1], &bounds[2]], vec![])
    }

    /// Two rows of values of each image, one behind the other.
    pub fn concat(&mut self, a: &Edge, b: &Edge) -> Edge {
        self.node("Concat", &[a, b], vec![int("axis", 1)])
    }

    /// The greatest value of each window.
    pub fn max_pool(&mut self, x: &Edge, config: MaxPool2dConfig) -> Edge {
        let attributes = vec![
            ints("kernel_shape", &[config.kernel as i64; 2]),
            ints("strides", &[config.stride as i64; 2]),
            ints("pads", &[config.padding as i64; 4]),
        ];
        self.node("MaxPool", &[x], attributes)
    }

    /// The mean over `axes`, which are left out of the result.
    pub fn mean(&mut self, x: &Edge, axes: &[i64]) -> Edge {
        self.node("ReduceMean", &[x], vec![ints("axes", axes), int("keepdims", 0)])
    }

    /// The greatest value over `axes`, which are left out of the result.
    pub fn max(&mut self, x: &Edge, axes: &[i64]) -> Edge {
        self.node("ReduceMax", &[x], vec![ints("axes", axes), int("keepdims", 0)])
    }

    /// `(mean max(x, floor)^power)^(1 / power)` over `axes`, which are left out of the result.
    pub fn power_mean(&mut self, x: &Edge, axes: &[i64], floor: f32, power: f32) -> Edge {
        let (floor, up, down) = (self.scalar(floor), self.scalar(power), self.scalar(power.recip()));
        let x = self.node("Max", &[x, &floor], vec![]);
        let powers = self.node("Pow", &[&x, &up], vec![]);
        let mean = self.mean(&powers, axes);
        self.node("Pow", &[&mean, &down], vec![])
    }

    /// `(n, c, h, w)` → `(n, c)`: the mean of each channel.
    pub fn global_avg_pool(&mut self, x: &Edge) -> Edge {
        let pooled = self.node("GlobalAveragePool", &[x], vec![]);
        self.node("Flatten", &[&pooled], vec![int("axis", 1)])
    }

    /// Each row of `(n, dim)` divided by its length.
    pub fn normalize(&mut self, x: &Edge) -> Edge {
        self.node("LpNormalization", &[x], vec![int("axis", 1), int("p", 2)])
    }
}

fn int(name: &str, i: i64) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), i, kind: 2, ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), ints: ints.to_vec(), kind: 7, ..Default::default() }
}

fn float(name: &str, f: f32) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), f, kind: 1, ..Default::default() }
}
