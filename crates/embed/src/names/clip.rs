//! CLIP's image tower as OpenAI, open_clip and Hugging Face's transformers name it. Their files may hold the text tower
//! too, so that the image tower's prefix must be there.

use super::{Part, Place};

/// timm's name.
pub(super) fn place(name: &str) -> Option<Place> {
    if let Some(bare) = name.strip_prefix("vision_model.") {
        return transformers(bare);
    }
    match name {
        "visual_projection.weight" => Some(Place::whole("head.weight".to_owned())),
        _ => openai(name.strip_prefix("visual.")?),
    }
}

fn openai(name: &str) -> Option<Place> {
    let whole = |name: String| Some(Place::whole(name));
    match name {
        "class_embedding" => return whole("cls_token".to_owned()),
        "positional_embedding" => return whole("pos_embed".to_owned()),
        "proj" => return Some(Place { name: "head.weight".to_owned(), part: Part::Transposed }),
        _ => {}
    }
    for (theirs, ours) in [("conv1.", "patch_embed.proj."), ("ln_pre.", "norm_pre."), ("ln_post.", "norm.")] {
        if let Some(value) = name.strip_prefix(theirs) {
            return whole(format!("{ours}{value}"));
        }
    }
    let (block, rest) = name.strip_prefix("transformer.resblocks.")?.split_once('.')?;
    let inner = match rest {
        "attn.in_proj_weight" => "attn.qkv.weight".to_owned(),
        "attn.in_proj_bias" => "attn.qkv.bias".to_owned(),
        _ => {
            let (layer, value) = rest.rsplit_once('.')?;
            let layer = match layer {
                "ln_1" => "norm1",
                "ln_2" => "norm2",
                "attn.out_proj" => "attn.proj",
                "mlp.c_fc" => "mlp.fc1",
                "mlp.c_proj" => "mlp.fc2",
                _ => return None,
            };
            format!("{layer}.{value}")
        }
    };
    whole(format!("blocks.{block}.{inner}"))
}

fn transformers(name: &str) -> Option<Place> {
    let whole = |name: String| Some(Place::whole(name));
    match name {
        "embeddings.class_embedding" => return whole("cls_token".to_owned()),
        "embeddings.position_embedding.weight" => return whole("pos_embed".to_owned()),
        "embeddings.patch_embedding.weight" => return whole("patch_embed.proj.weight".to_owned()),
        _ => {}
    }
    let (layer, value) = name.rsplit_once('.')?;
    match layer {
        // The misspelling is theirs.
        "pre_layrnorm" | "pre_layernorm" => return whole(format!("norm_pre.{value}")),
        "post_layernorm" => return whole(format!("norm.{value}")),
        _ => {}
    }
    let (block, layer) = layer.strip_prefix("encoder.layers.")?.split_once('.')?;
    let (ours, part) = match layer {
        "self_attn.q_proj" => ("attn.qkv", Part::Third(0)),
        "self_attn.k_proj" => ("attn.qkv", Part::Third(1)),
        "self_attn.v_proj" => ("attn.qkv", Part::Third(2)),
        "self_attn.out_proj" => ("attn.proj", Part::Whole),
        "layer_norm1" => ("norm1", Part::Whole),
        "layer_norm2" => ("norm2", Part::Whole),
        "mlp.fc1" | "mlp.fc2" => (layer, Part::Whole),
        _ => return None,
    };
    Some(Place { name: format!("blocks.{block}.{ours}.{value}"), part })
}
