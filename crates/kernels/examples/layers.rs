//! Time of every layer of a network, and its share of the processor's peak.
//!
//! `cargo run --release -p semblance-kernels --example layers -- resnet50 8 [threads] [avx512|avx2|portable|detect] [f32|int16]`

use std::time::Duration;

use candle_core::{Device, Result, Tensor};
use semblance_kernels::frozen::{Activation, Builder, ConvLayer, FrozenNet, Precision, Value};
use semblance_kernels::{Conv2dConfig, Isa, MaxPool2dConfig};

/// A convolution with random weights; the channels say the rest.
struct Layers {
    net: Builder,
}

impl Layers {
    #[allow(clippy::too_many_arguments)]
    fn conv(
        &mut self,
        x: Value,
        inp: usize,
        out: usize,
        side: usize,
        stride: usize,
        groups: usize,
        activation: Activation,
        residual: Option<Value>,
    ) -> Result<Value> {
        let scale = (2.0 / (inp / groups * side * side) as f32).sqrt();
        let weight = Tensor::randn(0f32, scale, (out, inp / groups, side, side), &Device::Cpu)?;
        let cfg = Conv2dConfig { stride, padding: side / 2, groups, ..Default::default() };
        self.net.conv(x, &ConvLayer { activation, residual, ..ConvLayer::new(&weight, cfg) })
    }

    fn resnet(mut self, blocks: [usize; 4], bottleneck: bool) -> Result<FrozenNet> {
        let (relu, none) = (Activation::Relu, Activation::None);
        let x = self.net.input();
        let x = self.conv(x, 3, 64, 7, 2, 1, relu, None)?;
        let mut x = self.net.max_pool(x, MaxPool2dConfig::default())?;
        let mut inp = 64;
        for (stage, count) in blocks.into_iter().enumerate() {
            let mid = 64 << stage;
            let out = if bottleneck { mid * 4 } else { mid };
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let skip = if inp != out || stride > 1 {
                    self.conv(x, inp, out, 1, stride, 1, none, None)?
                } else {
                    x
                };
                x = if bottleneck {
                    let y = self.conv(x, inp, mid, 1, 1, 1, relu, None)?;
                    let y = self.conv(y, mid, mid, 3, stride, 1, relu, None)?;
                    self.conv(y, mid, out, 1, 1, 1, relu, Some(skip))?
                } else {
                    let y = self.conv(x, inp, out, 3, stride, 1, relu, None)?;
                    self.conv(y, out, out, 3, 1, 1, relu, Some(skip))?
                };
                inp = out;
            }
        }
        let x = self.net.global_avg_pool(x)?;
        self.net.finish(x)
    }

    fn mobilenet_v2(mut self) -> Result<FrozenNet> {
        let (relu6, none) = (Activation::Relu6, Activation::None);
        let x = self.net.input();
        let mut x = self.conv(x, 3, 32, 3, 2, 1, relu6, None)?;
        let mut inp = 32;
        let stages = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ];
        for (expand, out, count, stride) in stages {
            for block in 0..count {
                let stride = if block == 0 { stride } else { 1 };
                let mid = inp * expand;
                let y = if expand > 1 { self.conv(x, inp, mid, 1, 1, 1, relu6, None)? } else { x };
                let y = self.conv(y, mid, mid, 3, stride, mid, relu6, None)?;
                let skip = (stride == 1 && inp == out).then_some(x);
                x = self.conv(y, mid, out, 1, 1, 1, none, skip)?;
                inp = out;
            }
        }
        let x = self.conv(x, 320, 1280, 1, 1, 1, relu6, None)?;
        let x = self.net.global_avg_pool(x)?;
        self.net.finish(x)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or_else(|| default.to_owned());
    let (arch, n) = (arg(1, "resnet50"), arg(2, "1").parse().unwrap_or(1));
    if let Ok(threads) = arg(3, "2").parse() {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(candle_core::Error::wrap)?;
    }
    let isa = match arg(4, "").as_str() {
        "avx512" => Isa::Avx512,
        "avx2" => Isa::Avx2,
        "portable" => Isa::Portable,
        _ => Isa::detect(),
    };
    let precision: Precision = arg(5, "f32").parse().map_err(candle_core::Error::wrap)?;
    let layers = Layers { net: Builder::with_isa(3, isa)?.precision(precision) };
    let net = match arch.as_str() {
        "resnet18" => layers.resnet([2, 2, 2, 2], false)?,
        "resnet50" => layers.resnet([3, 4, 6, 3], true)?,
        "mobilenet_v2" => layers.mobilenet_v2()?,
        other => candle_core::bail!("unknown network {other}: resnet18, resnet50 or mobilenet_v2"),
    };
    let pixels: Vec<f32> = (0..n * 3 * 224 * 224).map(|i| ((i * 37 % 255) as f32 - 127.0) / 64.0).collect();
    let mut runs = Vec::new();
    let start = std::time::Instant::now();
    while runs.len() < 5 || (start.elapsed() < Duration::from_secs(4) && runs.len() < 200) {
        runs.push(net.measure(&pixels, n, 224, 224)?);
    }
    runs.remove(0);
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let mut whole = 0.0;
    for (i, layer) in runs[0].iter().enumerate() {
        let ms = median(runs.iter().map(|r| r[i].time).collect());
        whole += layer.flops;
        let speed = layer.flops / ms / 1e6;
        println!("{:8.3} ms {:7.1} GFLOP/s  {:10} {}", ms, speed, layer.algorithm, layer.layer);
    }
    let total = median(runs.iter().map(|r| r.iter().map(|l| l.time).sum()).collect());
    let speed = whole / total / 1e6;
    println!(
        "{arch} on {isa}, {precision}, batch {n}: {total:.2} ms, {:.2} ms an image, {speed:.1} GFLOP/s",
        total / n as f64
    );
    Ok(())
}
