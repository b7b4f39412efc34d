//! Models for timm (PyTorch Image Models): weights in its names, and the `config.json` its `local-dir:` opens.
//!
//! A pooled model is timm's with `num_classes=0`; a linear head takes the place of timm's classifier, so that the model's
//! output is the embedding before normalisation.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use crate::backbone::Arch;
use crate::checkpoint::{CONFIG_FILE, CheckpointWriter, MODEL_FILE};
use crate::embedder::Embedder;
use crate::error::{EmbedError, Result};
use crate::transform::Interpolation;

/// timm's name of an architecture, and of its classifier.
fn names(arch: Arch) -> Option<(&'static str, &'static str)> {
    match arch {
        Arch::ResNet18 => Some(("resnet18", "fc")),
        Arch::ResNet34 => Some(("resnet34", "fc")),
        Arch::ResNet50 => Some(("resnet50", "fc")),
        Arch::ResNet101 => Some(("resnet101", "fc")),
        Arch::ResNet152 => Some(("resnet152", "fc")),
        Arch::MobileNetV2 => Some(("mobilenetv2_100", "classifier")),
        _ => None,
    }
}

/// Writes `model.safetensors` and `config.json` into a folder that is new.
///
/// # Errors
/// [`EmbedError::Export`] for an architecture or head that timm does not have, and failures of the disk.
pub fn save(embedder: &Embedder, folder: &std::path::Path) -> Result<()> {
    let (tensors, config) = convert(embedder)?;
    let writer = CheckpointWriter::new(folder)?;
    writer.tensors(MODEL_FILE, &tensors)?;
    writer.json(CONFIG_FILE, &config)?;
    writer.commit()
}

fn convert(embedder: &Embedder) -> Result<(BTreeMap<String, Tensor>, Value)> {
    let (config, transform) = (embedder.config(), embedder.transform());
    let refused = |reason: &str| EmbedError::Export {
        arch: config.arch.to_string(),
        format: "safetensors for timm",
        reason: reason.to_owned(),
    };
    let (name, classifier) =
        names(config.arch).ok_or_else(|| refused("there is no way yet to give it timm's names"))?;
    let mut tensors = BTreeMap::new();
    for (name, param) in embedder.store().entries("backbone.") {
        let bare = &name["backbone.".len()..];
        let theirs =
            if config.arch == Arch::MobileNetV2 { mobilenet_v2(bare) } else { Some(bare.to_owned()) };
        let theirs = theirs.ok_or_else(|| refused(&format!("its tensor {bare} has no place there")))?;
        if let Some(norm) = theirs.strip_suffix("running_mean") {
            let device = param.var.device();
            tensors.insert(format!("{norm}num_batches_tracked"), Tensor::zeros((), DType::I64, device)?);
        }
        tensors.insert(theirs, param.var.as_detached_tensor());
    }
    let mut classes = 0;
    for (name, param) in embedder.store().entries("head.") {
        let Some(value) = name.strip_prefix("head.projection.") else {
            return Err(refused(&format!("its head's tensor {name} has no place there")));
        };
        classes = embedder.dim();
        tensors.insert(format!("{classifier}.{value}"), param.var.as_detached_tensor());
    }
    let size = transform.crop;
    let interpolation = match transform.interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Lanczos3 => "lanczos",
    };
    let config = json!({
        "architecture": name,
        "num_classes": classes,
        "num_features": embedder.feature_dim(),
        "pretrained_cfg": {
            "tag": "semblance", "custom_load": false, "input_size": [3, size, size], "fixed_input_size": false,
            "interpolation": interpolation, "crop_pct": f64::from(size) / f64::from(transform.resize),
            "crop_mode": "center", "mean": shortest(transform.mean), "std": shortest(transform.std), "num_classes": classes,
            "pool_size": null, "first_conv": if config.arch == Arch::MobileNetV2 { "conv_stem" } else { "conv1" }, "classifier": classifier,
        },
        "semblance": { "fingerprint": embedder.fingerprint(), "head": config.head, "transform": transform },
    });
    Ok((tensors, config))
}

/// The numbers as they were written: 0.485, not the double next to the float next to it.
fn shortest(values: [f32; 3]) -> [f64; 3] {
    values.map(|value| value.to_string().parse().unwrap_or_else(|_| value.into()))
}

/// timm's name for a tensor of torchvision's `mobilenet_v2`.
fn mobilenet_v2(name: &str) -> Option<String> {
    /// Blocks of each stage.
    const STAGES: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];
    let (layer, value) = name.strip_prefix("features.")?.rsplit_once('.')?;
    let (block, inner) = layer.split_once('.')?;
    let block: usize = block.parse().ok()?;
    let place = match (block, inner) {
        (0, "0") => "conv_stem".to_owned(),
        (0, "1") => "bn1".to_owned(),
        (18, "0") => "conv_head".to_owned(),
        (18, "1") => "bn2".to_owned(),
        _ => {
            let inner = inner.strip_prefix("conv.")?;
            let (mut stage, mut repeat) = (0, block.checked_sub(1)?);
            while repeat >= *STAGES.get(stage)? {
                (stage, repeat) = (stage + 1, repeat - STAGES[stage]);
            }
            let layer = match (stage, inner) {
                (0, "0.0") => "conv_dw",
                (0, "0.1") => "bn1",
                (0, "1") => "conv_pw",
                (0, "2") => "bn2",
                (_, "0.0") => "conv_pw",
                (_, "0.1") => "bn1",
                (_, "1.0") => "conv_dw",
                (_, "1.1") => "bn2",
                (_, "2") => "conv_pwl",
                (_, "3") => "bn3",
                _ => return None,
            };
            format!("blocks.{stage}.{repeat}.{layer}")
        }
    };
    Some(format!("{place}.{value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::ModelConfig;
    use crate::embedder::{DeviceKind, ModelSource};
    use crate::head::HeadConfig;

    fn model(arch: Arch, head: HeadConfig) -> Embedder {
        Embedder::untrained(ModelConfig::new(arch, head), 3, DeviceKind::Cpu).unwrap()
    }

    #[test]
    fn what_is_written_in_timms_names_is_read_back_the_same() {
        for (arch, file) in
            [(Arch::ResNet18, "resnet18.safetensors"), (Arch::MobileNetV2, "mobilenetv2_100.safetensors")]
        {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            let saved = model(arch, HeadConfig::Pooled);
            save(&saved, &out).unwrap();
            let named = dir.path().join(file);
            std::fs::rename(out.join(MODEL_FILE), &named).unwrap();
            let source = ModelSource { seed: 9, ..ModelSource::new(named.to_str().unwrap()) };
            let opened = Embedder::open(&source).unwrap();
            assert_eq!(opened.fingerprint(), saved.fingerprint());
            assert_eq!(opened.unused_weights(), [""; 0]);
        }
    }

    #[test]
    fn a_linear_head_becomes_the_classifier() {
        let head = HeadConfig::Linear { dim: 16 };
        for (arch, name) in [(Arch::ResNet50, "fc"), (Arch::MobileNetV2, "classifier")] {
            let (tensors, config) = convert(&model(arch, head.clone())).unwrap();
            assert_eq!(tensors[&format!("{name}.weight")].dim(0).unwrap(), 16);
            assert_eq!(
                (&config["num_classes"], &config["pretrained_cfg"]["num_classes"]),
                (&16.into(), &16.into())
            );
        }
    }

    #[test]
    fn a_network_timm_does_not_have_is_refused_by_name() {
        let error = convert(&model(Arch::ResNet10Tiny, HeadConfig::Pooled)).unwrap_err().to_string();
        assert!(error.contains("resnet10_tiny") && error.contains("onnx"), "{error}");
    }
}
