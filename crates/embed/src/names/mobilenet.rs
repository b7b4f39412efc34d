//! MobileNetV2 as timm names it. Hugging Face's has TensorFlow's padding and another ε: it is another network.

use super::Place;

/// torchvision's name for a tensor of timm's `mobilenetv2_100`.
pub(super) fn place(name: &str) -> Option<Place> {
    let (layer, value) = name.rsplit_once('.')?;
    let place = match layer {
        "conv_stem" => "features.0.0".to_owned(),
        "bn1" => "features.0.1".to_owned(),
        "conv_head" => "features.18.0".to_owned(),
        "bn2" => "features.18.1".to_owned(),
        block => {
            let mut parts = block.strip_prefix("blocks.")?.split('.');
            let stage: usize = parts.next()?.parse().ok()?;
            let repeat: usize = parts.next()?.parse().ok()?;
            let first = [1, 2, 4, 7, 11, 14, 17].get(stage)?;
            let inner = match (stage, parts.next()?) {
                (0, "conv_dw") => "0.0",
                (0, "bn1") => "0.1",
                (0, "conv_pw") => "1",
                (0, "bn2") => "2",
                (_, "conv_pw") => "0.0",
                (_, "bn1") => "0.1",
                (_, "conv_dw") => "1.0",
                (_, "bn2") => "1.1",
                (_, "conv_pwl") => "2",
                (_, "bn3") => "3",
                _ => return None,
            };
            format!("features.{}.conv.{inner}", first + repeat)
        }
    };
    Some(Place::whole(format!("{place}.{value}")))
}
