//! ViT and DINOv2 as torchvision and Hugging Face's transformers name them. DINOv2's authors and timm agree.

use super::{Part, Place};

/// timm's name.
pub(super) fn place(name: &str) -> Option<Place> {
    let whole = |name: &str| Some(Place::whole(name.to_owned()));
    match name {
        "class_token" | "embeddings.cls_token" => return whole("cls_token"),
        "encoder.pos_embedding" | "pos_embedding" | "embeddings.position_embeddings" => {
            return whole("pos_embed");
        }
        _ => {}
    }
    let (layer, value) = name.rsplit_once('.')?;
    match layer {
        "conv_proj" | "embeddings.patch_embeddings.projection" => {
            return Some(Place::whole(format!("patch_embed.proj.{value}")));
        }
        "encoder.ln" | "ln" | "layernorm" => return Some(Place::whole(format!("norm.{value}"))),
        _ => {}
    }
    let rest = name.strip_prefix("encoder.").unwrap_or(name);
    let blocks = ["layers.encoder_layer_", "layer.", "layers."];
    let (block, rest) = blocks.iter().find_map(|prefix| rest.strip_prefix(prefix))?.split_once('.')?;
    block.parse::<usize>().ok()?;
    let (inner, part) = in_block(rest)?;
    Some(Place { name: format!("blocks.{block}.{inner}"), part })
}

fn in_block(name: &str) -> Option<(String, Part)> {
    let (layer, value) = name.rsplit_once('.')?;
    match name {
        "self_attention.in_proj_weight" => return Some(("attn.qkv.weight".to_owned(), Part::Whole)),
        "self_attention.in_proj_bias" => return Some(("attn.qkv.bias".to_owned(), Part::Whole)),
        "layer_scale1.lambda1" => return Some(("ls1.gamma".to_owned(), Part::Whole)),
        "layer_scale2.lambda1" => return Some(("ls2.gamma".to_owned(), Part::Whole)),
        _ => {}
    }
    let third = match layer {
        "attention.attention.query" | "attention.q_proj" => Some(0),
        "attention.attention.key" | "attention.k_proj" => Some(1),
        "attention.attention.value" | "attention.v_proj" => Some(2),
        _ => None,
    };
    if let Some(third) = third {
        return Some((format!("attn.qkv.{value}"), Part::Third(third)));
    }
    let ours = match layer {
        "ln_1" | "layernorm_before" | "norm1" => "norm1",
        "ln_2" | "layernorm_after" | "norm2" => "norm2",
        "self_attention.out_proj" | "attention.output.dense" | "attention.o_proj" => "attn.proj",
        "mlp.0" | "mlp.linear_1" | "intermediate.dense" | "mlp.fc1" => "mlp.fc1",
        "mlp.3" | "mlp.linear_2" | "output.dense" | "mlp.fc2" => "mlp.fc2",
        _ => return None,
    };
    Some((format!("{ours}.{value}"), Part::Whole))
}
