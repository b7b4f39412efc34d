//! Tests of ConvNeXt, with numbers from timm.

use candle_core::{Device, Tensor};

use super::*;
use crate::backbone::check;
use crate::onnx::interpreter;
use crate::params::ParamStore;

fn tiny(store: &ParamStore) -> ConvNext {
    ConvNext::new(&ConvNextConfig { depths: [1, 1, 2, 1], width: 4 }, &store.root()).unwrap()
}

fn features(net: &ConvNext, x: &Tensor, train: bool) -> Tensor {
    let map = net.forward_t(x, train).unwrap();
    net.finish(&map.flatten_from(2).unwrap().mean(2).unwrap(), train).unwrap()
}

// from timm.models.convnext import ConvNeXt; with `fill` and `image` as in vit_tests.rs
// fill(ConvNeXt(depths=(1, 1, 2, 1), dims=(4, 8, 16, 32), num_classes=0))(image(32, 64))[:, ::4]
#[test]
fn features_are_timms() {
    let store = ParamStore::new(0, &Device::Cpu);
    let net = tiny(&store);
    check::fill(&store);
    let y: Vec<f32> = features(&net, &check::images(32, 64), false).flatten_all().unwrap().to_vec1().unwrap();
    let every_fourth: Vec<f32> = y.into_iter().step_by(4).collect();
    check::close(&every_fourth, &CONVNEXT);
}

#[test]
fn the_graph_written_down_computes_the_same() {
    let store = ParamStore::new(0, &Device::Cpu);
    let net = tiny(&store);
    check::fill(&store);
    let images = check::images(64, 64);
    let found = interpreter::run(64, &images, |graph, x| {
        let map = net.emit(graph, &x)?;
        let pooled = graph.global_avg_pool(&map);
        net.emit_finish(graph, &pooled)
    });
    assert!(interpreter::difference(&found, &features(&net, &images, false)) < 1e-5);
}

#[test]
fn every_parameter_gets_a_gradient_and_training_computes_what_inference_does() {
    let store = ParamStore::new(3, &Device::Cpu);
    let net = tiny(&store);
    check::fill(&store);
    let x = Tensor::randn(0f32, 1.0, (3, 3, 64, 32), &Device::Cpu).unwrap();
    let y = features(&net, &x, true);
    assert_eq!(y.dims(), [3, 32]);
    let worst = (features(&net, &x, false) - &y).unwrap().abs().unwrap().max_all().unwrap();
    assert!(worst.to_scalar::<f32>().unwrap() < 1e-5);
    let grads = y.powf(3.0).unwrap().sum_all().unwrap().backward().unwrap();
    for (name, param) in store.entries("") {
        let grad = grads.get(&param.var).unwrap_or_else(|| panic!("{name} has no gradient"));
        let size = grad.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(size > 0.0 && size.is_finite(), "{name}: {size}");
    }
}

const CONVNEXT: [f32; 16] = [
    -1.817627, -0.3116938, 2.318263, 0.7504272, -0.2097801, -1.204665, 0.02336063, -0.4455959, -0.5475648,
    -1.41124, 2.108523, 0.6987733, 0.7162585, 1.260032, -0.4379147, -1.411969,
];
