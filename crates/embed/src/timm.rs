//! Models for timm (PyTorch Image Models): weights in its names, and the `config.json` its `local-dir:` opens.
//!
//! The model's output there is the embedding before normalisation. timm has a linear classifier and no other head, so
//! whatever is one linear map at inference takes the classifier's place: a linear layer, a batch norm, CLIP's projection,
//! and these one behind the other. A pooled model without any is timm's with `num_classes=0`. Position embeddings stay
//! those that were learned; timm interpolates them to `input_size` as this program does.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use crate::backbone::{Arch, Family};
use crate::checkpoint::{CONFIG_FILE, CheckpointWriter, MODEL_FILE};
use crate::embedder::Embedder;
use crate::error::{EmbedError, Result};
use crate::head::Pool;
use crate::transform::Interpolation;

/// What timm calls an architecture, its first convolution and its classifier.
struct Names {
    arch: &'static str,
    first: &'static str,
    classifier: &'static str,
}

fn names(arch: Arch) -> Option<Names> {
    let (name, first, classifier) = match arch.family() {
        Family::ResNet if arch == Arch::ResNet10Tiny => return None,
        Family::ResNet => (arch.name(), "conv1", "fc"),
        Family::MobileNetV2 => ("mobilenetv2_100", "conv_stem", "classifier"),
        Family::ConvNext => (arch.name(), "stem.0", "head.fc"),
        Family::Vit | Family::DinoV2 | Family::Clip => (arch.name(), "patch_embed.proj", "head"),
    };
    Some(Names { arch: name, first, classifier })
}

/// The arguments that make timm's model pool so; `None` where it cannot.
fn pooling(arch: Arch, pool: Pool) -> Option<Value> {
    if pool == Pool::of(arch) {
        return Some(json!({}));
    }
    let name = match pool {
        Pool::Average => "avg",
        // timm projects what is pooled, and the greatest values of projected tokens are others.
        Pool::Max if arch.family() != Family::Clip => "max",
        Pool::Max | Pool::Gem { .. } | Pool::ClassToken | Pool::ClassAndMean => return None,
    };
    // Transformers there would otherwise move the last norm behind the pooling.
    Some(match arch.vit() {
        Some(_) => json!({ "global_pool": name, "fc_norm": false }),
        None => json!({ "global_pool": name }),
    })
}

/// Writes `model.safetensors` and `config.json` into a folder that is new.
///
/// # Errors
/// [`EmbedError::Export`] for an architecture, pooling or head that timm does not have, and failures of the disk.
pub fn save(embedder: &Embedder, folder: &Path) -> Result<()> {
    write(folder, convert(embedder, true)?)
}

/// As [`save`], leaving out the head: the network gives the features its authors pool. It works for any head.
///
/// # Errors
/// [`EmbedError::Export`] for an architecture that timm does not have, and failures of the disk.
pub fn save_backbone(embedder: &Embedder, folder: &Path) -> Result<()> {
    write(folder, convert(embedder, false)?)
}

fn write(folder: &Path, (tensors, config): (BTreeMap<String, Tensor>, Value)) -> Result<()> {
    let writer = CheckpointWriter::new(folder)?;
    writer.tensors(MODEL_FILE, &tensors)?;
    writer.json(CONFIG_FILE, &config)?;
    writer.commit()
}

fn convert(embedder: &Embedder, with_head: bool) -> Result<(BTreeMap<String, Tensor>, Value)> {
    let (config, transform) = (embedder.config(), embedder.transform());
    let arch = config.arch;
    let refused = |reason: String, fits_without_head| EmbedError::Export {
        arch: arch.to_string(),
        format: "safetensors for timm",
        reason,
        fits_without_head,
    };
    let names = names(arch).ok_or_else(|| refused("timm does not have it".to_owned(), false))?;
    let mut tensors = BTreeMap::new();
    for (name, param) in embedder.store().entries("backbone.") {
        let bare = &name["backbone.".len()..];
        let theirs = if arch == Arch::MobileNetV2 { mobilenet_v2(bare) } else { Some(bare.to_owned()) };
        let theirs = theirs.ok_or_else(|| refused(format!("its tensor {bare} has no place there"), false))?;
        if let Some(norm) = theirs.strip_suffix("running_mean") {
            let device = param.var.device();
            tensors.insert(format!("{norm}num_batches_tracked"), Tensor::zeros((), DType::I64, device)?);
        }
        tensors.insert(theirs, param.var.as_detached_tensor());
    }
    let projection = tensors.remove("head.weight");
    let mut last = match projection {
        Some(weight) => {
            let bias = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
            Some((weight, bias))
        }
        None => None,
    };
    let mut arguments = json!({});
    if with_head {
        let pool = config.pool();
        arguments = pooling(arch, pool).ok_or_else(|| {
            refused(format!("timm cannot pool by {pool}, but it has the network without its head"), true)
        })?;
        let head = embedder.head();
        if !head.is_linear() {
            let reason = "its head is more than a linear layer, but timm has the network without its head";
            return Err(refused(reason.to_owned(), true));
        }
        last = head.folded_behind(last)?;
    }
    let outputs = last.as_ref().map_or(Ok(0), |(weight, _)| weight.dim(0))?;
    if let Some((weight, bias)) = last {
        tensors.insert(format!("{}.weight", names.classifier), weight);
        tensors.insert(format!("{}.bias", names.classifier), bias);
    }
    let size = transform.crop;
    let interpolation = match transform.interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Lanczos3 => "lanczos",
    };
    let mut source =
        json!({ "fingerprint": embedder.fingerprint(), "without_head": !with_head, "transform": transform });
    if with_head {
        (source["head"], source["pool"]) = (json!(config.head), json!(config.pool()));
    }
    let config = json!({
        "architecture": names.arch,
        "num_classes": outputs,
        "num_features": arch.vit().map_or(embedder.feature_dim(), |vit| vit.dim),
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "semblance", "custom_load": false, "input_size": [3, size, size], "fixed_input_size": arch.vit().is_some(),
            "interpolation": interpolation, "crop_pct": crop_share(size, transform.resize),
            "crop_mode": "center", "mean": shortest(transform.mean), "std": shortest(transform.std), "num_classes": outputs,
            "pool_size": null, "first_conv": names.first, "classifier": names.classifier,
        },
        "semblance": source,
    });
    Ok((tensors, config))
}

/// What of the resized photograph is kept: timm resizes to the whole part of `size / share`, which rounding may not take
/// below `resize`.
fn crop_share(size: u32, resize: u32) -> f64 {
    let (size, resize) = (f64::from(size), f64::from(resize));
    let share = size / resize;
    if (size / share).floor() < resize { size / (resize + 1e-6) } else { share }
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
#[path = "timm_tests.rs"]
mod tests;
