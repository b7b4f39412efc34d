//! Answers requests for one timed run each, so that a script can interleave them with other implementations'.
//!
//! Reads lines `forward ARCH BATCH SIDE`, `int16 ARCH BATCH SIDE` (forward in 16-bit codes) or `train ARCH BATCH SIDE` and writes the seconds that the run took, a line
//! each; `memory` writes the most memory the process has held, in MiB. The first run of a kind also warms up.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::Tensor;
use semblance_embed::backbone::Arch;
use semblance_embed::checkpoint::ModelConfig;
use semblance_embed::gradients::Gradients;
use semblance_embed::head::HeadConfig;
use semblance_embed::optimizer::{Optimizer, OptimizerConfig};
use semblance_embed::{DeviceKind, Embedder, Precision};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn pixels(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 255) as f32 / 127.0 - 1.0).collect()
}

/// Forward, backward and update on a loss whose gradient reaches every weight.
fn train(embedder: &Embedder, sgd: &mut Optimizer, images: &Tensor) -> candle_core::Result<()> {
    let loss = embedder.features(images, true)?.sqr()?.mean_all()?;
    let grads = Gradients::collect(embedder.store(), &loss.backward()?)?;
    sgd.step(embedder.store(), &grads, 1e-4)?;
    Ok(())
}

/// The most memory that this process has held, in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut models: HashMap<String, (Embedder, Optimizer)> = HashMap::new();
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, arch, batch, side] = words[..] else {
            writeln!(out, "{}", peak_memory().unwrap_or(f64::NAN))?;
            out.flush()?;
            continue;
        };
        let (batch, side): (usize, usize) = (batch.parse()?, side.parse()?);
        let model = match models.entry(format!("{} {arch} {side}", kind == "int16")) {
            std::collections::hash_map::Entry::Occupied(model) => model.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let mut config = ModelConfig::new(arch.parse::<Arch>()?, HeadConfig::Pooled);
                config.transform.crop = side as u32;
                let precision = if kind == "int16" { Precision::Int16 } else { Precision::F32 };
                let embedder = Embedder::untrained(config, 0, DeviceKind::Cpu)?.with_precision(precision)?;
                place.insert((embedder, Optimizer::new(OptimizerConfig::default())))
            }
        };
        let pixels = pixels(batch * 3 * side * side);
        let images = Tensor::from_slice(&pixels, (batch, 3, side, side), model.0.store().device())?;
        let start = Instant::now();
        match kind {
            "forward" | "int16" => drop(model.0.embed(&pixels, batch)?),
            "train" => train(&model.0, &mut model.1, &images)?,
            other => return Err(format!("{other:?} is none of forward, int16 and train").into()),
        }
        writeln!(out, "{}", start.elapsed().as_secs_f64())?;
        out.flush()?;
    }
    Ok(())
}
