//! A network written down as a graph of ONNX's operators, version 17.

use candle_core::{Result, Tensor};
use semblance_kernels::{Activation, Conv2dConfig, MaxPool2dConfig};

use super::proto;

/// Name of the graph's input, `(batch, 3, size, size)`: normalised pixels.
pub const INPUT: &str = "images";
/// Name of the graph's output, `(batch, dim)`: unit vectors.
pub const OUTPUT: &str = "embeddings";

/// A tensor that flows through the graph.
#[derive(Debug, Clone)]
pub struct Edge(String);

/// A graph being written. Nodes are in the order they compute in, as ONNX wants them.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<proto::Node>,
    initializers: Vec<proto::Tensor>,
}

impl Graph {
    /// The images.
    pub fn input(&self) -> Edge {
        Edge(INPUT.to_owned())
    }

    /// `(n, c_in, h, w)` → `(n, c_out, h', w')`, with the bias `(c_out)`.
    pub fn conv(&mut self, x: &Edge, weight: &Tensor, bias: &Tensor, config: &Conv2dConfig) -> Result<Edge> {
        let kernel = weight.dim(2)? as i64;
        let Conv2dConfig { stride, padding, dilation, groups } = *config;
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("strides", &[stride as i64; 2]),
            ints("pads", &[padding as i64; 4]),
            ints("dilations", &[dilation as i64; 2]),
            int("group", groups as i64),
        ];
        let (weight, bias) = (self.constant(weight)?, self.constant(bias)?);
        Ok(self.node("Conv", &[x, &weight, &bias], attributes))
    }

    /// The activation, where there is one.
    pub fn activate(&mut self, x: Edge, activation: Activation) -> Result<Edge> {
        Ok(match activation {
            Activation::None => x,
            Activation::Relu => self.node("Relu", &[&x], vec![]),
            Activation::Relu6 => {
                let device = candle_core::Device::Cpu;
                let low = self.constant(&Tensor::new(0f32, &device)?)?;
                let high = self.constant(&Tensor::new(6f32, &device)?)?;
                self.node("Clip", &[&x, &low, &high], vec![])
            }
        })
    }

    /// The sum of two tensors of one shape.
    pub fn add(&mut self, a: &Edge, b: &Edge) -> Edge {
        self.node("Add", &[a, b], vec![])
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

    /// `(n, c, h, w)` → `(n, c)`: the mean of each channel.
    pub fn global_avg_pool(&mut self, x: &Edge) -> Edge {
        let pooled = self.node("GlobalAveragePool", &[x], vec![]);
        self.node("Flatten", &[&pooled], vec![int("axis", 1)])
    }

    /// `x Wᵀ + b` with `W (output, input)`.
    pub fn linear(&mut self, x: &Edge, weight: &Tensor, bias: &Tensor) -> Result<Edge> {
        let (weight, bias) = (self.constant(weight)?, self.constant(bias)?);
        Ok(self.node("Gemm", &[x, &weight, &bias], vec![int("transB", 1)]))
    }

    /// Each row of `(n, dim)` divided by its length.
    pub fn normalize(&mut self, x: &Edge) -> Edge {
        self.node("LpNormalization", &[x], vec![int("axis", 1), int("p", 2)])
    }

    fn node(&mut self, op: &str, inputs: &[&Edge], attribute: Vec<proto::Attribute>) -> Edge {
        let name = format!("{op}_{}", self.nodes.len());
        self.nodes.push(proto::Node {
            input: inputs.iter().map(|edge| edge.0.clone()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.to_owned(),
            attribute,
        });
        Edge(name)
    }

    fn constant(&mut self, value: &Tensor) -> Result<Edge> {
        let values: Vec<f32> = value.detach().flatten_all()?.to_vec1()?;
        let name = format!("constant_{}", self.initializers.len());
        self.initializers.push(proto::Tensor {
            dims: value.dims().iter().map(|&side| side as i64).collect(),
            data_type: proto::FLOAT,
            name: name.clone(),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        });
        Ok(Edge(name))
    }

    /// The whole graph for images `size` wide and high, whose answer is `output` of `dim` values an image.
    pub(super) fn finish(mut self, output: &Edge, size: usize, dim: usize) -> proto::Graph {
        // The last node gives its result the name users ask for.
        for node in self.nodes.iter_mut().filter(|node| node.output == [output.0.clone()]) {
            node.output = vec![OUTPUT.to_owned()];
        }
        let side = |side: usize| proto::Dimension { dim_value: Some(side as i64), dim_param: None };
        let value = |name: &str, sides: &[usize]| {
            let batch = proto::Dimension { dim_value: None, dim_param: Some("batch".to_owned()) };
            let dim = std::iter::once(batch).chain(sides.iter().copied().map(side)).collect();
            let shape = Some(proto::Shape { dim });
            let tensor_type = Some(proto::TensorType { elem_type: proto::FLOAT, shape });
            proto::ValueInfo { name: name.to_owned(), r#type: Some(proto::Type { tensor_type }) }
        };
        proto::Graph {
            name: "embedder".to_owned(),
            input: vec![value(INPUT, &[3, size, size])],
            output: vec![value(OUTPUT, &[dim])],
            node: self.nodes,
            initializer: self.initializers,
        }
    }
}

fn int(name: &str, i: i64) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), i, ints: vec![], kind: 2 }
}

fn ints(name: &str, ints: &[i64]) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), i: 0, ints: ints.to_vec(), kind: 7 }
}
