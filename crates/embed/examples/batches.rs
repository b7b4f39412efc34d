//! Writes down what a training run saw, so that another implementation can learn from the very same.
//!
//! `batches STATE LIST ROOT OUT`: the run's `last/state.json`, its table of photographs (with a header) and the folder
//! their paths are relative to. Writes `OUT/loss.safetensors`, the loss's own parameters as they started, if it has any,
//! and one file per batch, `OUT/000000.safetensors` and so on: the pixels `x` (n, 3, s, s) and the classes `labels` (n).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use semblance_embed::checkpoint::ModelConfig;
use semblance_embed::dataset::{Dataset, DatasetConfig, Format, TableConfig};
use semblance_embed::loader::{Loader, LoaderConfig, Transform};
use semblance_embed::sampler::Sampler;
use semblance_embed::train::TrainConfig;
use semblance_embed::{DeviceKind, Embedder};

/// What of `state.json` is needed here.
#[derive(serde::Deserialize)]
struct State {
    config: TrainConfig,
    model: ModelConfig,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [state, list, root, out] = &words[..] else {
        return Err("usage: batches STATE LIST ROOT OUT".into());
    };
    let out = Path::new(out);
    std::fs::create_dir_all(out)?;
    let State { config, model } = serde_json::from_reader(std::fs::File::open(state)?)?;
    let table = TableConfig { root: Some(root.into()), ..TableConfig::default() };
    let data = Dataset::open(&DatasetConfig { format: Format::Table(table), ..DatasetConfig::new(list) })?
        .filter(|sample| sample.class.is_some());
    let labels: Vec<i64> = data.class_indices().into_iter().map(|c| c.unwrap_or(0) as i64).collect();

    let embedder = Embedder::untrained(model, config.seed, DeviceKind::Cpu)?;
    let scope = embedder.store().root().at("loss");
    config.loss.build(embedder.dim(), data.classes().len(), &scope)?;
    let own: HashMap<String, Tensor> = embedder
        .store()
        .entries("loss.")
        .into_iter()
        .map(|(name, param)| (name, param.var.as_detached_tensor()))
        .collect();
    if !own.is_empty() {
        candle_core::safetensors::save(&own, out.join("loss.safetensors"))?;
    }

    let sampler = Sampler::new(&config.sampler_config(), &data, config.seed)?;
    let steps = config.total_steps(sampler.batches_per_epoch() as usize);
    let settings = LoaderConfig { seed: config.seed, sizes: config.sizes(steps), ..LoaderConfig::default() };
    let transform = Transform::Train(config.augment.clone());
    let loader = Loader::new(Arc::new(data), sampler, transform, &settings)?;
    for (number, batch) in loader.take(steps * config.accumulate).enumerate() {
        if let Some((_, error)) = batch.failures.first() {
            return Err(error.to_string().into());
        }
        let (n, side) = (batch.indices.len(), batch.size);
        let labels: Vec<i64> = batch.indices.iter().map(|&index| labels[index]).collect();
        let tensors = HashMap::from([
            ("x", Tensor::from_vec(batch.pixels, (n, 3, side, side), &Device::Cpu)?),
            ("labels", Tensor::from_vec(labels, n, &Device::Cpu)?),
        ]);
        candle_core::safetensors::save(&tensors, out.join(format!("{number:06}.safetensors")))?;
    }
    Ok(())
}
