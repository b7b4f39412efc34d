//! Which network a model's configuration on the hub describes.

use serde_json::Value;

use crate::backbone::Arch;

/// The architecture that timm's or transformers' `config.json` describes.
pub(super) fn arch_of(config: &[u8]) -> Option<Arch> {
    let config: Value = serde_json::from_slice(config).ok()?;
    if let Some(name) = config["architecture"].as_str() {
        // timm's name alone does not tell OpenAI's activation; the tag of the weights does.
        let tag = config["pretrained_cfg"]["tag"].as_str().unwrap_or_default();
        return format!("{name}.{tag}").parse().ok();
    }
    if let Some(tower) = config["model_cfg"]["vision_cfg"].as_object() {
        // open_clip's own configuration, whose default is the exact GELU.
        let number = |key: &str| tower.get(key).and_then(Value::as_u64).unwrap_or_default();
        let quick = config["model_cfg"]["quick_gelu"].as_bool().unwrap_or(false);
        return clip(number("width"), number("patch_size"), number("image_size"), quick);
    }
    let kind = config["model_type"].as_str()?;
    // A whole CLIP describes its image tower inside.
    let config = if kind == "clip" { &config["vision_config"] } else { &config };
    let number = |key: &str, default: u64| config[key].as_u64().unwrap_or(default);
    let numbers = |key: &str| -> Vec<u64> {
        config[key].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    match kind {
        "vit" => match (number("hidden_size", 768), number("patch_size", 16), number("image_size", 224)) {
            (192, 16, 224) => Some(Arch::VitTiny16),
            (384, 16, 224) => Some(Arch::VitSmall16),
            (768, 16, 224) => Some(Arch::VitBase16),
            (1024, 16, 224) => Some(Arch::VitLarge16),
            _ => None,
        },
        "dinov2" => match (number("hidden_size", 768), number("patch_size", 14)) {
            (384, 14) => Some(Arch::DinoV2Small),
            (768, 14) => Some(Arch::DinoV2Base),
            (1024, 14) => Some(Arch::DinoV2Large),
            _ => None,
        },
        "clip" | "clip_vision_model" => {
            let quick = config["hidden_act"].as_str().unwrap_or("quick_gelu") == "quick_gelu";
            clip(number("hidden_size", 768), number("patch_size", 32), number("image_size", 224), quick)
        }
        "convnext" => match (numbers("hidden_sizes").first(), numbers("depths").get(2)) {
            (Some(96), Some(9)) => Some(Arch::ConvNextTiny),
            (Some(96), Some(27)) => Some(Arch::ConvNextSmall),
            (Some(128), Some(27)) => Some(Arch::ConvNextBase),
            _ => None,
        },
        "resnet" => match (config["layer_type"].as_str().unwrap_or("bottleneck"), &numbers("depths")[..]) {
            ("basic", [2, 2, 2, 2]) => Some(Arch::ResNet18),
            ("basic", [3, 4, 6, 3]) => Some(Arch::ResNet34),
            ("bottleneck", [3, 4, 6, 3]) => Some(Arch::ResNet50),
            ("bottleneck", [3, 4, 23, 3]) => Some(Arch::ResNet101),
            ("bottleneck", [3, 8, 36, 3]) => Some(Arch::ResNet152),
            _ => None,
        },
        _ => None,
    }
}

/// CLIP's image tower of these sizes, with OpenAI's approximate GELU if `quick`.
fn clip(width: u64, patch: u64, image: u64, quick: bool) -> Option<Arch> {
    match (width, patch, image, quick) {
        (768, 32, 224, true) => Some(Arch::ClipBase32),
        (768, 16, 224, true) => Some(Arch::ClipBase16),
        (1024, 14, 224, true) => Some(Arch::ClipLarge14),
        (768, 32, 224, false) => Some(Arch::ClipBase32Gelu),
        (768, 16, 224, false) => Some(Arch::ClipBase16Gelu),
        (1024, 14, 224, false) => Some(Arch::ClipLarge14Gelu),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timms_configuration_names_the_architecture() {
        assert_eq!(arch_of(br#"{"architecture": "resnet50", "num_classes": 1000}"#), Some(Arch::ResNet50));
        assert_eq!(arch_of(br#"{"architecture": "mobilenetv2_100"}"#), Some(Arch::MobileNetV2));
        let openai = br#"{"architecture": "vit_base_patch32_clip_224", "pretrained_cfg": {"tag": "openai"}}"#;
        assert_eq!(arch_of(openai), Some(Arch::ClipBase32));
        assert_eq!(arch_of(br#"{"architectures": ["ResNetForImageClassification"]}"#), None);
    }

    // What config.json of microsoft/resnet-50, google/vit-base-patch16-224, facebook/dinov2-small,
    // facebook/convnext-tiny-224 and openai/clip-vit-large-patch14 say of their sizes.
    #[test]
    fn configurations_of_transformers_are_recognised_by_their_sizes() {
        for (config, arch) in [
            (r#"{"model_type":"resnet","depths":[3,4,6,3],"layer_type":"bottleneck"}"#, Some(Arch::ResNet50)),
            (
                r#"{"model_type":"vit","hidden_size":768,"patch_size":16,"image_size":224}"#,
                Some(Arch::VitBase16),
            ),
            (r#"{"model_type":"vit","hidden_size":768,"patch_size":32,"image_size":224}"#, None),
            (r#"{"model_type":"dinov2","hidden_size":384,"patch_size":14}"#, Some(Arch::DinoV2Small)),
            (
                r#"{"model_type":"convnext","hidden_sizes":[96,192,384,768],"depths":[3,3,9,3]}"#,
                Some(Arch::ConvNextTiny),
            ),
            (
                r#"{"model_type":"clip","vision_config":{"hidden_size":1024,"patch_size":14}}"#,
                Some(Arch::ClipLarge14),
            ),
            (
                r#"{"model_type":"clip","vision_config":{"hidden_size":768,"hidden_act":"gelu"}}"#,
                Some(Arch::ClipBase32Gelu),
            ),
            (
                r#"{"model_cfg":{"embed_dim":512,"vision_cfg":{"image_size":224,"width":768,"patch_size":16}}}"#,
                Some(Arch::ClipBase16Gelu),
            ),
            (r#"{"model_type":"bert"}"#, None),
        ] {
            assert_eq!(arch_of(config.as_bytes()), arch, "{config}");
        }
    }
}
