//! A literal reading of a graph, node by node, with candle's own operations: for tests.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor};
use prost::Message as _;

use super::{Edge, Graph, proto};

/// What the pieces of a network that `write` writes down make of `x`, from the bytes of a file.
pub(crate) fn run(side: usize, x: &Tensor, write: impl FnOnce(&mut Graph, Edge) -> Result<Edge>) -> Tensor {
    let mut graph = Graph::new(side);
    let input = graph.input();
    let output = write(&mut graph, input).unwrap();
    let bytes = graph.finish(&output, 0).encode_to_vec();
    evaluate(&proto::Graph::decode(bytes.as_slice()).unwrap(), x)
}

/// The greatest difference between two tensors of the same shape.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a.detach() - b.detach())
        .unwrap()
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap()
        .max(0)
        .unwrap()
        .to_scalar()
        .unwrap()
}

/// What the graph gives for these images.
pub(super) fn evaluate(graph: &proto::Graph, images: &Tensor) -> Tensor {
    let mut values: HashMap<&str, Tensor> = HashMap::new();
    values.insert(&graph.input[0].name, images.clone());
    for constant in &graph.initializer {
        let old = values.insert(&constant.name, read(constant));
        assert!(old.is_none(), "{} is there twice", constant.name);
    }
    for node in &graph.node {
        let inputs: Vec<&Tensor> = node.input.iter().map(|name| &values[name.as_str()]).collect();
        let result = apply(node, &inputs).unwrap_or_else(|error| panic!("{}: {error}", node.name));
        assert!(values.insert(&node.output[0], result).is_none(), "{} computed twice", node.output[0]);
    }
    values[graph.output[0].name.as_str()].clone()
}

fn read(constant: &proto::Tensor) -> Tensor {
    let dims: Vec<usize> = constant.dims.iter().map(|&side| side as usize).collect();
    let bytes = &constant.raw_data;
    match constant.data_type {
        proto::FLOAT => {
            let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            Tensor::from_vec(numbers.collect::<Vec<_>>(), dims, &Device::Cpu).unwrap()
        }
        proto::INT64 => {
            let numbers = bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()));
            Tensor::from_vec(numbers.collect::<Vec<_>>(), dims, &Device::Cpu).unwrap()
        }
        other => panic!("{} is of type {other}", constant.name),
    }
}

fn apply(node: &proto::Node, x: &[&Tensor]) -> Result<Tensor> {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name).unwrap();
    let int = |name: &str| attribute(name).i;
    let ints = |name: &str| -> Vec<usize> { attribute(name).ints.iter().map(|&i| i as usize).collect() };
    let square = |name: &str| {
        let ints = ints(name);
        assert!(ints.iter().all(|i| *i == ints[0]), "{name} is not square");
        ints[0]
    };
    let integers = |at: usize| x[at].flatten_all().unwrap().to_vec1::<i64>().unwrap();
    let reduced = || assert_eq!(int("keepdims"), 0);
    match node.op_type.as_str() {
        "Conv" => {
            let (padding, stride, dilation) = (square("pads"), square("strides"), square("dilations"));
            assert_eq!(square("kernel_shape"), x[1].dim(2)?);
            let y = x[0].conv2d(x[1], padding, stride, dilation, int("group") as usize)?;
            match x.get(2) {
                Some(bias) => y.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?),
                None => Ok(y),
            }
        }
        "Relu" => x[0].relu(),
        "Clip" => x[0].broadcast_maximum(x[1])?.broadcast_minimum(x[2]),
        "Sigmoid" => (x[0].neg()?.exp()? + 1.0)?.recip(),
        "Erf" => x[0].erf(),
        "Add" => x[0].broadcast_add(x[1]),
        "Mul" => x[0].broadcast_mul(x[1]),
        "Div" => x[0].broadcast_div(x[1]),
        "Max" => x[0].broadcast_maximum(x[1]),
        "Pow" => x[0].powf(x[1].to_scalar::<f32>()?.into()),
        "MatMul" => x[0].contiguous()?.broadcast_matmul(&x[1].contiguous()?),
        "LayerNormalization" => {
            assert_eq!(int("axis"), -1);
            let centred = x[0].broadcast_sub(&x[0].mean_keepdim(D::Minus1)?)?;
            let variance = (centred.sqr()?.mean_keepdim(D::Minus1)? + f64::from(attribute("epsilon").f))?;
            centred.broadcast_div(&variance.sqrt()?)?.broadcast_mul(x[1])?.broadcast_add(x[2])
        }
        "Softmax" => {
            assert_eq!(int("axis"), -1);
            let powers = x[0].broadcast_sub(&x[0].max_keepdim(D::Minus1)?)?.exp()?;
            powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
        }
        "Reshape" => {
            let wanted = integers(1);
            let kept = |(at, &side): (usize, &i64)| match side {
                0 => x[0].dims()[at],
                -1 => 1,
                side => side as usize,
            };
            let mut shape: Vec<usize> = wanted.iter().enumerate().map(kept).collect();
            if let Some(at) = wanted.iter().position(|&side| side == -1) {
                shape[at] = x[0].elem_count() / shape.iter().product::<usize>();
            }
            x[0].reshape(shape)
        }
        "Transpose" => x[0].permute(ints("perm"))?.contiguous(),
        "Pad" => {
            let (widths, rank) = (integers(1), x[0].rank());
            (0..rank).try_fold(x[0].clone(), |y, d| {
                y.pad_with_zeros(d, widths[d] as usize, widths[d + rank] as usize)
            })
        }
        "Gather" => {
            assert_eq!(x[1].rank(), 0, "one place, whose dimension goes");
            x[0].get_on_dim(int("axis") as usize, x[1].to_scalar::<i64>()? as usize)
        }
        "Slice" => {
            let (start, end, axis) = (integers(1)[0] as usize, integers(2)[0], integers(3)[0] as usize);
            let end = (end as usize).min(x[0].dim(axis)?);
            x[0].narrow(axis, start, end - start)
        }
        "Concat" => Tensor::cat(x, int("axis") as usize),
        "MaxPool" => {
            let pad = square("pads");
            // Zeros do for padding behind a ReLU.
            let padded = x[0].pad_with_zeros(2, pad, pad)?.pad_with_zeros(3, pad, pad)?;
            padded.max_pool2d_with_stride(square("kernel_shape"), square("strides"))
        }
        "ReduceMean" => {
            reduced();
            x[0].mean(ints("axes"))
        }
        "ReduceMax" => {
            reduced();
            ints("axes").into_iter().rev().try_fold(x[0].clone(), |y, axis| y.contiguous()?.max(axis))
        }
        "GlobalAveragePool" => x[0].mean_keepdim((2, 3)),
        "Flatten" => x[0].flatten_from(int("axis") as usize),
        "LpNormalization" => {
            assert_eq!((int("axis"), int("p")), (1, 2));
            x[0].broadcast_div(&x[0].sqr()?.sum_keepdim(1)?.sqrt()?)
        }
        other => panic!("{other} is not among the operators this program writes"),
    }
}

#[test]
fn every_constant_and_node_is_used_and_the_batch_has_no_size() {
    let mut graph = Graph::new(8);
    let x = graph.input();
    let weight = Tensor::ones((4, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let y = graph.conv(&x, &weight, None, &Default::default()).unwrap();
    let y = graph.gelu(&y);
    let y = graph.power_mean(&y, &[2, 3], 1e-6, 3.0);
    let y = graph.normalize(&y);
    let graph = graph.finish(&y, 4);
    let used: Vec<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
    assert!(graph.initializer.iter().all(|constant| used.contains(&&constant.name)));
    assert!(graph.node.iter().rev().skip(1).all(|node| used.contains(&&node.output[0])));
    assert_eq!(graph.node.last().unwrap().output, ["embeddings"]);
    let shape = |value: &proto::ValueInfo| -> Vec<(Option<i64>, Option<String>)> {
        let dims = value.r#type.clone().unwrap().tensor_type.unwrap().shape.unwrap().dim;
        dims.into_iter().map(|dim| (dim.dim_value, dim.dim_param)).collect()
    };
    let (batch, fixed) = ((None, Some("batch".to_owned())), |side| (Some(side), None));
    assert_eq!(shape(&graph.input[0]), [batch.clone(), fixed(3), fixed(8), fixed(8)]);
    assert_eq!(shape(&graph.output[0]), [batch, fixed(4)]);
}
