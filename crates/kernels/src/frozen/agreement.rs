//! Frozen layers and networks against the same made of plain operations, on every instruction path.

use candle_core::{Device, Tensor};
use proptest::prelude::*;

use super::map::Map;
use super::*;
use crate::reference::{self, assert_close, noise, values};
use crate::simd::LANES;
use crate::{Conv2dConfig, MaxPool2dConfig, conv2d, global_avg_pool, max_pool2d};

fn paths() -> impl Iterator<Item = Isa> {
    [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.available())
}

/// Runs a network whose last value is a map and returns that map as an NCHW tensor.
pub(super) fn map_forward(builder: Builder, output: Value, x: &Tensor) -> (Tensor, &'static str) {
    let (isa, precision, nodes, kinds) = builder.into_parts();
    let (n, _, h, w) = x.dims4().unwrap();
    let pixels: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let plan = Plan::new(isa, precision, &nodes, &kinds, (n, h, w)).unwrap();
    let mut arena = plan.arena();
    // Twice, so that what the first run leaves behind would be noticed.
    for _ in 0..2 {
        let nodes = nodes.iter().enumerate();
        team::lead(|team| nodes.for_each(|(i, node)| plan.step(team, i, node, &pixels, &mut arena)));
    }
    let (buffer, map) = plan.map_values(output.index, &arena);
    (unpack(&buffer, map, n), plan.describe(output.index))
}

fn unpack(buffer: &[f32], map: Map, n: usize) -> Tensor {
    let mut out = Vec::new();
    for image in 0..n {
        for c in 0..map.channels {
            for y in 0..map.height {
                for x in 0..map.width {
                    let plane = (image * map.planes() + c / LANES) * map.plane();
                    out.push(buffer[plane + map.offset(y, x) + c % LANES]);
                }
            }
        }
    }
    Tensor::from_vec(out, (n, map.channels, map.height, map.width), &Device::Cpu).unwrap()
}

fn channel(t: &Tensor) -> Tensor {
    t.reshape((1, (), 1, 1)).unwrap()
}

/// One convolution with everything fused into it, against literal loops; returns the algorithms taken.
fn check_conv(x: [usize; 4], w: [usize; 4], cfg: Conv2dConfig, full: bool) -> Vec<&'static str> {
    let (x, w) = (noise(&x, 1), noise(&w, 2));
    let out_c = w.dims()[0];
    let (bias, gamma, beta) = (noise(&[out_c], 3), noise(&[out_c], 4), noise(&[out_c], 5));
    let (mean, variance) = (noise(&[out_c], 6), noise(&[out_c], 7).sqr().unwrap());
    let plain =
        reference::conv2d(&x, &w, full.then_some(&bias), cfg).to_dtype(candle_core::DType::F32).unwrap();
    let residual_dims = plain.dims().to_vec();
    let (expected, norm) = if full {
        let scale = gamma.div(&(&variance + 1e-3).unwrap().sqrt().unwrap()).unwrap();
        let normed = plain.broadcast_sub(&channel(&mean)).unwrap().broadcast_mul(&channel(&scale)).unwrap();
        let normed = normed.broadcast_add(&channel(&beta)).unwrap();
        let norm = Norm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, eps: 1e-3 };
        (normed, Some(norm))
    } else {
        (plain, None)
    };
    paths()
        .map(|isa| {
            let mut net = Builder::with_isa(x.dims()[1], isa).unwrap();
            let input = net.input();
            let mut layer = ConvLayer { norm, bias: full.then_some(&bias), ..ConvLayer::new(&w, cfg) };
            let mut expected = expected.clone();
            // A residual of the right shape: the input itself, or a 1×1 convolution of it where only channels differ.
            if full && residual_dims[2..] == x.dims()[2..] {
                let one = noise(&[out_c, x.dims()[1], 1, 1], 8);
                let added = conv2d(&x, &one, None, Conv2dConfig::default()).unwrap();
                layer.residual =
                    Some(net.conv(input, &ConvLayer::new(&one, Conv2dConfig::default())).unwrap());
                expected = (expected + added).unwrap();
            }
            if full {
                layer.activation = Activation::Relu;
                expected = expected.relu().unwrap();
            }
            let y = net.conv(input, &layer).unwrap();
            let (got, algorithm) = map_forward(net, y, &x);
            let what = format!("{isa} {algorithm} {:?} {:?} {cfg:?}", x.dims(), w.dims());
            assert_close(&got, &expected, if algorithm == "winograd" { 2e-5 } else { 5e-6 }, &what);
            algorithm
        })
        .collect()
}

#[test]
fn convolutions_agree_with_the_literal_loop() {
    let cfg = |stride, padding, dilation, groups| Conv2dConfig { stride, padding, dilation, groups };
    for full in [false, true] {
        // Planar input, odd sizes, every stride.
        check_conv([2, 3, 15, 17], [20, 3, 7, 7], cfg(2, 3, 1, 1), full);
        check_conv([1, 1, 5, 5], [3, 1, 3, 3], cfg(1, 1, 1, 1), full);
        check_conv([1, 3, 9, 8], [16, 3, 3, 3], cfg(3, 2, 2, 1), full);
        // Blocked, 1×1, whole rows and planes.
        check_conv([2, 40, 7, 7], [48, 40, 1, 1], cfg(1, 0, 1, 1), full);
        check_conv([1, 17, 14, 9], [33, 17, 1, 1], cfg(2, 0, 1, 1), full);
        check_conv([1, 16, 3, 3], [16, 16, 1, 1], cfg(1, 2, 1, 1), full);
        check_conv([3, 20, 11, 6], [24, 20, 3, 3], cfg(2, 1, 1, 1), full);
        check_conv([1, 20, 11, 6], [24, 20, 3, 2], cfg(3, 4, 1, 1), full);
        check_conv([1, 20, 11, 12], [24, 20, 3, 3], cfg(1, 2, 2, 1), full);
        // Groups, and depthwise with and without a multiplier.
        check_conv([1, 32, 6, 6], [32, 8, 3, 3], cfg(1, 1, 1, 4), full);
        check_conv([2, 24, 6, 5], [36, 4, 1, 1], cfg(1, 0, 1, 6), full);
        check_conv([2, 40, 9, 9], [40, 1, 3, 3], cfg(1, 1, 1, 40), full);
        check_conv([2, 40, 9, 9], [40, 1, 5, 5], cfg(2, 3, 1, 40), full);
        check_conv([1, 20, 8, 9], [40, 1, 3, 3], cfg(1, 1, 1, 20), full);
    }
}

#[test]
fn winograd_agrees_with_the_literal_loop() {
    for (n, c, out, h, w, padding) in [
        (1, 32, 32, 20, 20, 1),
        (2, 32, 48, 21, 22, 1),
        (8, 34, 36, 15, 7, 1),
        (1, 32, 32, 24, 19, 0),
        (1, 32, 16, 17, 21, 2),
    ] {
        let cfg = Conv2dConfig { padding, ..Default::default() };
        for full in [false, true] {
            let taken = check_conv([n, c, h, w], [out, c, 3, 3], cfg, full);
            assert!(taken.iter().all(|a| *a == "winograd"), "{taken:?}");
        }
    }
}

#[test]
fn a_large_winograd_layer_runs_in_chunks() {
    let (x, w) = (noise(&[2, 32, 65, 66], 1), noise(&[40, 32, 3, 3], 2));
    let cfg = Conv2dConfig { padding: 1, ..Default::default() };
    let expected = conv2d(&x, &w, None, cfg).unwrap();
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut net = Builder::new(32).unwrap();
            let y = net.conv(net.input(), &ConvLayer::new(&w, cfg)).unwrap();
            let (got, algorithm) = map_forward(net, y, &x);
            assert_eq!(algorithm, "winograd");
            assert_close(&got, &expected, 2e-5, &format!("{threads} threads"));
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_convolutions_agree(
        n in 1usize..3, in_c in 1usize..40, out_c in 1usize..40, h in 1usize..12, w in 1usize..12, kh in 1usize..4,
        kw in 1usize..4, stride in 1usize..4, padding in 0usize..4, dilation in 1usize..3, full in any::<bool>(),
    ) {
        prop_assume!(h + 2 * padding > dilation * (kh - 1) && w + 2 * padding > dilation * (kw - 1));
        check_conv([n, in_c, h, w], [out_c, in_c, kh, kw], Conv2dConfig { stride, padding, dilation, groups: 1 }, full);
    }
}

#[test]
fn pooling_agrees_with_the_plain_operations() {
    for (h, w) in [(7, 9), (12, 5)] {
        let x = noise(&[2, 20, h, w], 1);
        for cfg in [MaxPool2dConfig::default(), MaxPool2dConfig { kernel: 2, stride: 3, padding: 1 }] {
            for isa in paths() {
                let mut net = Builder::with_isa(20, isa).unwrap();
                let y = net.max_pool(net.input(), cfg).unwrap();
                let (got, _) = map_forward(net, y, &x);
                assert_close(&got, &max_pool2d(&x, cfg).unwrap(), 0.0, "max-pool");
            }
        }
    }
}

/// A small network with everything in it: stem, pooling, residual blocks with and without projection, depthwise.
fn network(isa: Isa) -> (FrozenNet, impl Fn(&Tensor) -> Tensor) {
    let same = Conv2dConfig { padding: 1, ..Default::default() };
    let half = Conv2dConfig { stride: 2, ..same };
    let skip = Conv2dConfig { stride: 2, ..Default::default() };
    let depthwise = Conv2dConfig { groups: 40, ..same };
    let weights = [
        noise(&[32, 3, 7, 7], 1),
        noise(&[32, 32, 3, 3], 2),
        noise(&[32, 32, 3, 3], 3),
        noise(&[40, 32, 3, 3], 4),
        noise(&[40, 32, 1, 1], 5),
        noise(&[40, 40, 3, 3], 6),
        noise(&[40, 1, 3, 3], 7),
        noise(&[24, 40, 1, 1], 8),
    ]
    .map(|w| (w * 0.2).unwrap());
    let (head, bias) = (noise(&[10, 24], 9), noise(&[10], 10));
    let mut net = Builder::with_isa(3, isa).unwrap();
    let relu = |w, cfg| ConvLayer { activation: Activation::Relu, ..ConvLayer::new(w, cfg) };
    let x =
        net.conv(net.input(), &relu(&weights[0], Conv2dConfig { stride: 2, padding: 3, ..same })).unwrap();
    let x = net.max_pool(x, MaxPool2dConfig::default()).unwrap();
    let y = net.conv(x, &relu(&weights[1], same)).unwrap();
    let x = net.conv(y, &ConvLayer { residual: Some(x), ..relu(&weights[2], same) }).unwrap();
    let y = net.conv(x, &relu(&weights[3], half)).unwrap();
    let s = net.conv(x, &ConvLayer::new(&weights[4], skip)).unwrap();
    let x = net.conv(y, &ConvLayer { residual: Some(s), ..relu(&weights[5], same) }).unwrap();
    let x = net
        .conv(x, &ConvLayer { activation: Activation::Relu6, ..ConvLayer::new(&weights[6], depthwise) })
        .unwrap();
    let x = net.conv(x, &ConvLayer::new(&weights[7], Conv2dConfig::default())).unwrap();
    let x = net.global_avg_pool(x).unwrap();
    let x = net.linear(x, &head, Some(&bias)).unwrap();
    let frozen = net.finish(x).unwrap();
    let plain = move |x: &Tensor| {
        let conv = |x: &Tensor, i: usize, cfg| conv2d(x, &weights[i], None, cfg).unwrap();
        let x = conv(x, 0, Conv2dConfig { stride: 2, padding: 3, ..same }).relu().unwrap();
        let x = max_pool2d(&x, MaxPool2dConfig::default()).unwrap();
        let y = conv(&x, 1, same).relu().unwrap();
        let x = (conv(&y, 2, same) + x).unwrap().relu().unwrap();
        let y = conv(&x, 3, half).relu().unwrap();
        let x = (conv(&y, 5, same) + conv(&x, 4, skip)).unwrap().relu().unwrap();
        let x = conv(&x, 6, depthwise).clamp(0.0, 6.0).unwrap();
        let x = global_avg_pool(&conv(&x, 7, Conv2dConfig::default())).unwrap();
        x.matmul(&head.t().unwrap()).unwrap().broadcast_add(&bias).unwrap()
    };
    (frozen, plain)
}

#[test]
fn whole_networks_agree_at_any_size_batch_and_number_of_threads() {
    for isa in paths() {
        let (net, plain) = network(isa);
        assert_eq!((net.dim(), net.isa()), (10, isa));
        for (n, h, w) in [(1, 64, 64), (3, 37, 50), (8, 33, 33), (1, 64, 64), (2, 21, 90), (1, 8, 8)] {
            let x = noise(&[n, 3, h, w], 20);
            let pixels: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let got = pool.install(|| net.forward(&pixels, n, h, w)).unwrap();
                let got = Tensor::from_vec(got, (n, 10), &Device::Cpu).unwrap();
                assert_close(&got, &plain(&x), 2e-5, &format!("{isa} {n}×{h}×{w} on {threads}"));
            }
        }
    }
}

#[test]
fn several_threads_may_use_a_network_at_once() {
    let (net, plain) = network(Isa::detect());
    let x = noise(&[2, 3, 40, 40], 21);
    let pixels: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let expected = values(&plain(&x));
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..3 {
                    let got = net.forward(&pixels, 2, 40, 40).unwrap();
                    assert!(got.iter().zip(&expected).all(|(g, e)| (f64::from(*g) - e).abs() < 1e-3));
                }
            });
        }
    });
}

#[test]
fn memory_does_not_grow_with_depth() {
    let lines = |depth: usize| {
        let w = noise(&[16, 16, 3, 3], 1);
        let mut net = Builder::new(16).unwrap();
        let cfg = Conv2dConfig { padding: 1, ..Default::default() };
        let mut x = net.input();
        for _ in 0..depth {
            let y = net.conv(x, &ConvLayer::new(&w, cfg)).unwrap();
            x = net.conv(y, &ConvLayer { residual: Some(x), ..ConvLayer::new(&w, cfg) }).unwrap();
        }
        let (isa, precision, nodes, kinds) = net.into_parts();
        Plan::new(isa, precision, &nodes, &kinds, (1, 20, 20)).unwrap().lines()
    };
    assert_eq!(lines(3), lines(30));
}

#[test]
fn wrong_use_gives_typed_errors() {
    let (net, _) = network(Isa::detect());
    let message = net.forward(&[0.0; 10], 1, 2, 2).unwrap_err().to_string();
    assert!(message.contains("10 values are not 1 images of 3 × 2 × 2"), "{message}");
    assert!(net.forward(&[], 0, 5, 5).unwrap().is_empty());
    assert!(net.forward(&[], usize::MAX, usize::MAX, 2).is_err());
    let cfg = Conv2dConfig::default();
    let (w, wide) = (noise(&[8, 3, 3, 3], 1), noise(&[4, 8, 3, 3], 1));
    let mut builder = Builder::new(3).unwrap();
    let x = builder.input();
    assert!(builder.conv(x, &ConvLayer::new(&wide, cfg)).is_err());
    assert!(builder.conv(x, &ConvLayer { bias: Some(&noise(&[3], 1)), ..ConvLayer::new(&w, cfg) }).is_err());
    assert!(builder.conv(x, &ConvLayer { residual: Some(x), ..ConvLayer::new(&w, cfg) }).is_err());
    assert!(builder.conv(x, &ConvLayer::new(&w, Conv2dConfig { dilation: usize::MAX, ..cfg })).is_err());
    assert!(builder.max_pool(x, MaxPool2dConfig { kernel: 2, stride: 1, padding: 2 }).is_err());
    assert!(builder.linear(x, &noise(&[2, 3], 1), None).is_err());
    let foreign = Builder::new(3).unwrap().input();
    assert!(
        builder.conv(foreign, &ConvLayer::new(&w, cfg)).unwrap_err().to_string().contains("another builder")
    );
    let v = builder.global_avg_pool(x).unwrap();
    assert!(builder.max_pool(v, MaxPool2dConfig::default()).is_err());
    assert!(builder.linear(v, &noise(&[2, 4], 1), None).is_err());
    // The sizes of a residual are known only with the image.
    let y = builder.conv(x, &ConvLayer::new(&w, cfg)).unwrap();
    let z = builder
        .conv(x, &ConvLayer { residual: Some(y), ..ConvLayer::new(&w, Conv2dConfig { padding: 1, ..cfg }) });
    let v = builder.global_avg_pool(z.unwrap()).unwrap();
    let net = builder.finish(v).unwrap();
    assert!(net.forward(&[0.0; 48], 1, 4, 4).unwrap_err().to_string().contains("residual"));
    assert!(net.forward(&[0.0; 12], 1, 2, 2).unwrap_err().to_string().contains("does not fit"));
}
