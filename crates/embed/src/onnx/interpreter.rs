//! A literal reading of a graph, node by node, with candle's own operations.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::proto;

/// What the graph gives for these images.
pub(super) fn evaluate(graph: &proto::Graph, images: &Tensor) -> Tensor {
    let mut values: HashMap<&str, Tensor> = HashMap::new();
    values.insert(&graph.input[0].name, images.clone());
    for constant in &graph.initializer {
        let numbers: Vec<f32> =
            constant.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let dims: Vec<usize> = constant.dims.iter().map(|&side| side as usize).collect();
        let old = values.insert(&constant.name, Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap());
        assert!(old.is_none(), "{} is there twice", constant.name);
    }
    for node in &graph.node {
        let inputs: Vec<&Tensor> = node.input.iter().map(|name| &values[name.as_str()]).collect();
        let result = apply(node, &inputs);
        assert!(values.insert(&node.output[0], result).is_none(), "{} computed twice", node.output[0]);
    }
    values[graph.output[0].name.as_str()].clone()
}

fn apply(node: &proto::Node, x: &[&Tensor]) -> Tensor {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name).unwrap();
    let int = |name: &str| attribute(name).i as usize;
    let square = |name: &str| {
        let ints = &attribute(name).ints;
        assert!(ints.iter().all(|i| *i == ints[0]), "{name} is not square");
        ints[0] as usize
    };
    let per_channel = |bias: &Tensor| bias.reshape((1, bias.elem_count(), 1, 1)).unwrap();
    match node.op_type.as_str() {
        "Conv" => {
            let (padding, stride, dilation) = (square("pads"), square("strides"), square("dilations"));
            assert_eq!(square("kernel_shape"), x[1].dim(2).unwrap());
            let y = x[0].conv2d(x[1], padding, stride, dilation, int("group")).unwrap();
            y.broadcast_add(&per_channel(x[2])).unwrap()
        }
        "Relu" => x[0].relu().unwrap(),
        "Clip" => x[0].broadcast_maximum(x[1]).unwrap().broadcast_minimum(x[2]).unwrap(),
        "Add" => (x[0] + x[1]).unwrap(),
        "MaxPool" => {
            let pad = square("pads");
            // Zeros do for padding behind a ReLU.
            let padded = x[0].pad_with_zeros(2, pad, pad).unwrap().pad_with_zeros(3, pad, pad).unwrap();
            padded.max_pool2d_with_stride(square("kernel_shape"), square("strides")).unwrap()
        }
        "GlobalAveragePool" => x[0].mean_keepdim((2, 3)).unwrap(),
        "Flatten" => x[0].flatten_from(int("axis")).unwrap(),
        "Gemm" => {
            assert_eq!(int("transB"), 1);
            x[0].matmul(&x[1].t().unwrap()).unwrap().broadcast_add(x[2]).unwrap()
        }
        "LpNormalization" => {
            assert_eq!((int("axis"), int("p")), (1, 2));
            x[0].broadcast_div(&x[0].sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap()).unwrap()
        }
        other => panic!("{other} is not among the operators this program writes"),
    }
}
