//! Residual networks as Hugging Face's transformers name them.

use super::Place;

/// torchvision's name.
pub(super) fn place(name: &str) -> Option<Place> {
    let (layer, value) = name.rsplit_once('.')?;
    let (unit, kind) = layer.rsplit_once('.')?;
    let (conv, norm) = match unit {
        "embedder.embedder" => ("conv1".to_owned(), "bn1".to_owned()),
        _ => {
            let mut parts = unit.strip_prefix("stages.")?.split('.');
            let stage: usize = parts.next()?.parse().ok()?;
            let block = parts.nth(1)?;
            let place = format!("layer{}.{block}", stage + 1);
            match (parts.next()?, parts.next()) {
                ("shortcut", None) => (format!("{place}.downsample.0"), format!("{place}.downsample.1")),
                ("layer", Some(number)) => {
                    let number = number.parse::<usize>().ok()? + 1;
                    (format!("{place}.conv{number}"), format!("{place}.bn{number}"))
                }
                _ => return None,
            }
        }
    };
    let layer = match kind {
        "convolution" => conv,
        "normalization" => norm,
        _ => return None,
    };
    Some(Place::whole(format!("{layer}.{value}")))
}
