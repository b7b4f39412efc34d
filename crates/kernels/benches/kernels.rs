//! Layers as they occur in ResNet-50 and MobileNetV2 at 224 pixels: frozen for inference, and a training step of one
//! layer. `cargo bench -p semblance-kernels`; the time of every layer of a whole network comes from the example
//! `layers`.

use std::hint::black_box;

use candle_core::{Device, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use semblance_kernels::frozen::{Builder, ConvLayer};
use semblance_kernels::{
    Activation, Conv2dConfig, ConvNormConfig, MaxPool2dConfig, Statistics, conv_norm_train, max_pool2d,
};

/// Channels in and out, side of the window, stride, groups, side of the map.
type Layer = (&'static str, usize, usize, usize, usize, usize, usize);

const LAYERS: [Layer; 7] = [
    ("stem 7x7", 3, 64, 7, 2, 1, 224),
    ("1x1 64-256", 64, 256, 1, 1, 1, 56),
    ("1x1 1024-256", 1024, 256, 1, 1, 1, 14),
    ("3x3 64", 64, 64, 3, 1, 1, 56),
    ("3x3 256", 256, 256, 3, 1, 1, 14),
    ("3x3 stride 2", 128, 128, 3, 2, 1, 56),
    ("depthwise 192", 192, 192, 3, 1, 192, 28),
];

fn random(dims: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, dims, &Device::Cpu).expect("shapes are small")
}

fn config((_, _, _, side, stride, groups, _): Layer) -> Conv2dConfig {
    Conv2dConfig { stride, padding: side / 2, dilation: 1, groups }
}

/// The layer alone as a frozen network; pooling its result costs little beside it.
fn frozen(c: &mut Criterion) {
    for batch in [1, 8] {
        let mut group = c.benchmark_group(format!("frozen, batch {batch}"));
        for layer in LAYERS {
            let (name, inp, out, side, stride, groups, map) = layer;
            let weight = random(&[out, inp / groups, side, side]);
            let mut net = Builder::new(inp).expect("there are channels");
            let input = net.input();
            let conv = ConvLayer { activation: Activation::Relu, ..ConvLayer::new(&weight, config(layer)) };
            let y = net.conv(input, &conv).and_then(|y| net.global_avg_pool(y)).expect("shapes fit");
            let net = net.finish(y).expect("a vector");
            let pixels = vec![0.5f32; batch * inp * map * map];
            let products = batch * (map / stride).pow(2) * out * (inp / groups) * side * side;
            group.throughput(Throughput::Elements(products as u64));
            group.bench_function(name, |b| {
                b.iter(|| net.forward(black_box(&pixels), batch, map, map).expect("pixels fit"))
            });
        }
        group.finish();
    }
}

fn training(c: &mut Criterion) {
    let mut group = c.benchmark_group("training step of a layer, batch 8");
    group.sample_size(10);
    for layer in LAYERS {
        let (name, inp, out, side, _, groups, map) = layer;
        let var = |dims: &[usize]| Var::from_tensor(&random(dims)).expect("a copy");
        let (x, weight) = (var(&[8, inp, map, map]), var(&[out, inp / groups, side, side]));
        let (gamma, beta) = (var(&[out]), var(&[out]));
        let cfg = ConvNormConfig { conv: config(layer), activation: Activation::Relu, ..Default::default() };
        group.bench_function(name, |b| {
            b.iter(|| {
                let (y, _, _) = conv_norm_train(&x, &weight, (&gamma, &beta), Statistics::Batch, None, cfg)
                    .expect("shapes fit");
                y.sum_all().and_then(|s| s.backward()).expect("a scalar")
            })
        });
    }
    let x = Var::from_tensor(&random(&[8, 64, 112, 112])).expect("a copy");
    group.bench_function("max-pool", |b| {
        b.iter(|| {
            let y = max_pool2d(&x, MaxPool2dConfig::default()).expect("shapes fit");
            y.sum_all().and_then(|s| s.backward()).expect("a scalar")
        })
    });
    group.finish();
}

criterion_group!(benches, frozen, training);
criterion_main!(benches);
