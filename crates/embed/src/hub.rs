//! Models from the Hugging Face hub, kept in its cache folder.

use std::path::PathBuf;

use hf_hub::api::sync::ApiBuilder;
use serde::Deserialize;

use crate::backbone::Arch;
use crate::error::{EmbedError, Result};

/// Whether a name looks like `owner/model`.
pub fn is_name(name: &str) -> bool {
    let plain = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(fits)
    };
    name.split_once('/').is_some_and(|(owner, model)| plain(owner) && plain(model))
}

/// The weight file of `owner/model`, downloaded unless it is in the cache already, and the architecture its
/// `config.json` names.
///
/// # Errors
/// [`EmbedError::Hub`] if the model, or the network, is not there.
pub fn fetch(name: &str) -> Result<(PathBuf, Option<Arch>)> {
    let failed = |reason: String| EmbedError::Hub { model: name.to_owned(), reason };
    let api = ApiBuilder::from_env().with_progress(false).build().map_err(|e| failed(e.to_string()))?;
    let model = api.model(name.to_owned());
    let weights = model.get("model.safetensors").or_else(|_| model.get("pytorch_model.bin"));
    let weights = weights.map_err(|e| failed(e.to_string()))?;
    let config = model.get("config.json").ok().and_then(|path| std::fs::read(path).ok());
    Ok((weights, config.and_then(|text| arch_of(&text))))
}

/// The architecture timm's `config.json` names.
fn arch_of(config: &[u8]) -> Option<Arch> {
    #[derive(Deserialize)]
    struct TimmConfig {
        architecture: String,
    }
    serde_json::from_slice::<TimmConfig>(config).ok()?.architecture.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_are_told_from_paths() {
        for name in ["timm/resnet50.a1_in1k", "microsoft/resnet-50"] {
            assert!(is_name(name), "{name}");
        }
        for path in ["resnet50", "./timm/resnet50", "../x/y", "a/b/c", "/abs/path", "runs/", "/model"] {
            assert!(!is_name(path), "{path}");
        }
    }

    #[test]
    fn timms_configuration_names_the_architecture() {
        assert_eq!(arch_of(br#"{"architecture": "resnet50", "num_classes": 1000}"#), Some(Arch::ResNet50));
        assert_eq!(arch_of(br#"{"architecture": "mobilenetv2_100"}"#), Some(Arch::MobileNetV2));
        assert_eq!(arch_of(br#"{"architectures": ["ResNetForImageClassification"]}"#), None);
    }
}
