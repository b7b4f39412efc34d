//! ConvNeXt as torchvision, Hugging Face's transformers and its authors name it.

use super::Place;

/// timm's name.
pub(super) fn place(name: &str) -> Option<Place> {
    torchvision(name).or_else(|| authors(name)).map(Place::whole)
}

/// What stands in a block, by the names of all three.
fn in_block(layer: &str) -> Option<&'static str> {
    Some(match layer {
        "block.0" | "dwconv" => "conv_dw",
        "block.2" | "layernorm" | "norm" => "norm",
        "block.3" | "pwconv1" => "mlp.fc1",
        "block.5" | "pwconv2" => "mlp.fc2",
        _ => return None,
    })
}

/// `features` alternates between stems or downsampling (even) and stages (odd).
fn torchvision(name: &str) -> Option<String> {
    if let Some(value) = name.strip_prefix("classifier.0.") {
        return Some(format!("head.norm.{value}"));
    }
    let (step, rest) = name.strip_prefix("features.")?.split_once('.')?;
    let (number, rest) = (step.parse::<usize>().ok()?, rest);
    if number == 0 {
        return Some(format!("stem.{rest}"));
    }
    if number % 2 == 0 {
        return Some(format!("stages.{}.downsample.{rest}", number / 2));
    }
    let (block, rest) = rest.split_once('.')?;
    block_name(number / 2, block, rest)
}

/// The authors' names, which transformers changes little.
fn authors(name: &str) -> Option<String> {
    let name = name.strip_prefix("encoder.").unwrap_or(name);
    for (theirs, ours) in [
        ("embeddings.patch_embeddings.", "stem.0."),
        ("embeddings.layernorm.", "stem.1."),
        ("downsample_layers.0.", "stem."),
        ("layernorm.", "head.norm."),
        ("norm.", "head.norm."),
    ] {
        if let Some(rest) = name.strip_prefix(theirs) {
            return Some(format!("{ours}{rest}"));
        }
    }
    if let Some(rest) = name.strip_prefix("downsample_layers.") {
        let (stage, rest) = rest.split_once('.')?;
        return Some(format!("stages.{stage}.downsample.{rest}"));
    }
    let (stage, rest) = name.strip_prefix("stages.")?.split_once('.')?;
    if let Some(rest) = rest.strip_prefix("downsampling_layer.") {
        return Some(format!("stages.{stage}.downsample.{rest}"));
    }
    let rest = rest.strip_prefix("layers.").unwrap_or(rest);
    let (block, rest) = rest.split_once('.')?;
    block_name(stage.parse().ok()?, block, rest)
}

fn block_name(stage: usize, block: &str, rest: &str) -> Option<String> {
    let place = format!("stages.{stage}.blocks.{block}");
    if matches!(rest, "layer_scale" | "layer_scale_parameter" | "gamma") {
        return Some(format!("{place}.gamma"));
    }
    let (layer, value) = rest.rsplit_once('.')?;
    Some(format!("{place}.{}.{value}", in_block(layer)?))
}
