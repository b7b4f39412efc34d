//! A network being written down as a graph.

use candle_core::{Result, Tensor};

use super::proto;

/// Name of the graph's input, `(batch, 3, size, size)`: normalised pixels.
pub const INPUT: &str = "images";
/// Name of the graph's output, `(batch, dim)`: unit vectors.
pub const OUTPUT: &str = "embeddings";

/// A tensor that flows through the graph.
#[derive(Debug, Clone)]
pub struct Edge(String);

/// A graph being written, for images of one size. Nodes are in the order they compute in, as ONNX wants them. Its
/// operators are in `operator.rs`.
#[derive(Debug)]
pub struct Graph {
    side: usize,
    nodes: Vec<proto::Node>,
    initializers: Vec<proto::Tensor>,
}

impl Graph {
    /// A graph without a node for images of `side` pixels in width and height.
    pub fn new(side: usize) -> Self {
        Self { side, nodes: Vec::new(), initializers: Vec::new() }
    }

    /// Width and height of the images.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The images.
    pub fn input(&self) -> Edge {
        Edge(INPUT.to_owned())
    }

    /// A tensor that is part of the file.
    pub fn constant(&mut self, value: &Tensor) -> Result<Edge> {
        let values: Vec<f32> = value.detach().flatten_all()?.to_vec1()?;
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(self.initializer(value.dims(), proto::FLOAT, bytes))
    }

    /// A single number, of no dimension.
    pub(super) fn scalar(&mut self, value: f32) -> Edge {
        self.initializer(&[], proto::FLOAT, value.to_le_bytes().to_vec())
    }

    /// Sizes, places or axes: `values`, in one dimension, or one of them in none.
    pub(super) fn integers(&mut self, dims: &[usize], values: &[i64]) -> Edge {
        self.initializer(dims, proto::INT64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn initializer(&mut self, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> Edge {
        let name = format!("constant_{}", self.initializers.len());
        let dims = dims.iter().map(|&side| side as i64).collect();
        self.initializers.push(proto::Tensor { dims, data_type, name: name.clone(), raw_data });
        Edge(name)
    }

    /// A node with one result.
    pub(super) fn node(&mut self, op: &str, inputs: &[&Edge], attribute: Vec<proto::Attribute>) -> Edge {
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

    /// The whole graph, whose answer is `output` of `dim` values an image.
    pub(super) fn finish(mut self, output: &Edge, dim: usize) -> proto::Graph {
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
            input: vec![value(INPUT, &[3, self.side, self.side])],
            output: vec![value(OUTPUT, &[dim])],
            node: self.nodes,
            initializer: self.initializers,
        }
    }
}
