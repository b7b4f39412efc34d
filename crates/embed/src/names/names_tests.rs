//! Tests of the names: one of each kind of every project, as its state_dict() lists them.

use candle_core::{DType, Device};

use super::*;
use crate::params::ParamStore;

fn check(arch: Arch, pairs: &[(&str, &str, Part)]) {
    let store = ParamStore::new(0, &Device::Cpu);
    arch.build(&store.root()).unwrap();
    let known = |name: &str| store.get(name).is_some();
    for (theirs, ours, part) in pairs {
        let found = place(arch, theirs, &known);
        assert_eq!(found, Some(Place { name: (*ours).to_owned(), part: *part }), "{arch}: {theirs}");
    }
    for unknown in
        ["fc.weight", "classifier.weight", "text_model.encoder.layers.0.mlp.fc1.weight", "logit_scale"]
    {
        assert_eq!(place(arch, unknown, &known), None, "{arch}: {unknown}");
    }
}

#[test]
fn convolutional_networks() {
    use Part::Whole;
    check(
        Arch::ResNet50,
        &[
            ("module.layer1.0.bn1.bias", "layer1.0.bn1.bias", Whole),
            ("resnet.embedder.embedder.convolution.weight", "conv1.weight", Whole),
            ("embedder.embedder.normalization.running_var", "bn1.running_var", Whole),
            ("resnet.encoder.stages.0.layers.2.layer.1.convolution.weight", "layer1.2.conv2.weight", Whole),
            ("encoder.stages.3.layers.0.shortcut.normalization.bias", "layer4.0.downsample.1.bias", Whole),
        ],
    );
    check(
        Arch::MobileNetV2,
        &[
            ("features.0.0.weight", "features.0.0.weight", Whole),
            ("conv_stem.weight", "features.0.0.weight", Whole),
            ("bn1.running_mean", "features.0.1.running_mean", Whole),
            ("blocks.0.0.conv_dw.weight", "features.1.conv.0.0.weight", Whole),
            ("blocks.0.0.bn2.bias", "features.1.conv.2.bias", Whole),
            ("blocks.1.1.conv_pw.weight", "features.3.conv.0.0.weight", Whole),
            ("blocks.3.2.bn2.weight", "features.9.conv.1.1.weight", Whole),
            ("blocks.6.0.conv_pwl.weight", "features.17.conv.2.weight", Whole),
            ("blocks.6.0.bn3.running_var", "features.17.conv.3.running_var", Whole),
            ("bn2.weight", "features.18.1.weight", Whole),
        ],
    );
    check(
        Arch::ConvNextTiny,
        &[
            ("features.0.1.bias", "stem.1.bias", Whole),
            ("features.3.2.block.5.weight", "stages.1.blocks.2.mlp.fc2.weight", Whole),
            ("features.7.0.layer_scale", "stages.3.blocks.0.gamma", Whole),
            ("features.4.1.weight", "stages.2.downsample.1.weight", Whole),
            ("classifier.0.weight", "head.norm.weight", Whole),
            ("convnext.embeddings.patch_embeddings.weight", "stem.0.weight", Whole),
            ("encoder.stages.2.layers.8.dwconv.bias", "stages.2.blocks.8.conv_dw.bias", Whole),
            ("encoder.stages.1.downsampling_layer.0.weight", "stages.1.downsample.0.weight", Whole),
            ("stages.0.0.gamma", "stages.0.blocks.0.gamma", Whole),
            ("stages.0.1.pwconv1.weight", "stages.0.blocks.1.mlp.fc1.weight", Whole),
            ("downsample_layers.0.1.weight", "stem.1.weight", Whole),
            ("downsample_layers.3.0.bias", "stages.3.downsample.0.bias", Whole),
            ("norm.bias", "head.norm.bias", Whole),
        ],
    );
}

#[test]
fn vision_transformers() {
    use Part::{Third, Transposed, Whole};
    check(
        Arch::DinoV2Small,
        &[
            ("module.blocks.3.ls2.gamma", "blocks.3.ls2.gamma", Whole),
            ("class_token", "cls_token", Whole),
            ("encoder.pos_embedding", "pos_embed", Whole),
            ("encoder.layers.encoder_layer_7.self_attention.in_proj_bias", "blocks.7.attn.qkv.bias", Whole),
            ("encoder.layers.encoder_layer_0.mlp.linear_2.weight", "blocks.0.mlp.fc2.weight", Whole),
            ("encoder.ln.weight", "norm.weight", Whole),
            ("vit.embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias", Whole),
            ("vit.encoder.layer.2.attention.attention.key.weight", "blocks.2.attn.qkv.weight", Third(1)),
            ("vit.encoder.layer.2.attention.output.dense.bias", "blocks.2.attn.proj.bias", Whole),
            ("vit.encoder.layer.2.output.dense.bias", "blocks.2.mlp.fc2.bias", Whole),
            ("layers.11.attention.v_proj.bias", "blocks.11.attn.qkv.bias", Third(2)),
            ("dinov2.encoder.layer.4.layer_scale1.lambda1", "blocks.4.ls1.gamma", Whole),
            ("layernorm.weight", "norm.weight", Whole),
        ],
    );
    check(
        Arch::ClipBase32,
        &[
            ("visual.trunk.blocks.1.norm1.bias", "blocks.1.norm1.bias", Whole),
            ("visual.class_embedding", "cls_token", Whole),
            ("visual.proj", "head.weight", Transposed),
            ("visual.transformer.resblocks.5.attn.in_proj_weight", "blocks.5.attn.qkv.weight", Whole),
            ("module.visual.transformer.resblocks.5.mlp.c_fc.bias", "blocks.5.mlp.fc1.bias", Whole),
            ("visual.ln_post.bias", "norm.bias", Whole),
            ("vision_model.pre_layrnorm.weight", "norm_pre.weight", Whole),
            ("vision_model.encoder.layers.9.self_attn.q_proj.bias", "blocks.9.attn.qkv.bias", Third(0)),
            ("visual_projection.weight", "head.weight", Whole),
        ],
    );
    // The text tower of a whole CLIP lies beside the image tower, in OpenAI's files without a prefix.
    check(Arch::ClipBase32, &[("visual.positional_embedding", "pos_embed", Whole)]);
    for text in ["positional_embedding", "transformer.resblocks.0.ln_1.weight"] {
        assert_eq!(clip::place(text), None);
    }
}

#[test]
fn parts_are_put_together_and_sizes_of_one_passed_over() {
    let vector = |value: f32| Tensor::full(value, 2, &Device::Cpu).unwrap();
    let file: BTreeMap<String, Tensor> = [
        ("layers.0.attention.k_proj.bias", vector(2.0)),
        ("layers.0.attention.q_proj.bias", vector(1.0)),
        ("layers.0.attention.v_proj.bias", vector(3.0)),
        ("layers.1.attention.q_proj.bias", vector(1.0)),
        ("pooler.dense.bias", vector(9.0)),
        ("norm.num_batches_tracked", vector(9.0)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into();
    let known = |name: &str| name.ends_with("attn.qkv.bias");
    let (whole, unexpected) = arrange(Arch::VitTiny16, &file, &known).unwrap();
    assert_eq!(unexpected, ["pooler.dense.bias"]);
    assert_eq!(whole.keys().collect::<Vec<_>>(), ["blocks.0.attn.qkv.bias"]);
    assert_eq!(whole["blocks.0.attn.qkv.bias"].to_vec1::<f32>().unwrap(), [1., 1., 2., 2., 3., 3.]);
    let tensor = Tensor::zeros((4, 1, 1), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(fitted(tensor.clone(), &[4]).unwrap().dims(), [4]);
    assert_eq!(fitted(tensor, &[2, 2]).unwrap().dims(), [4, 1, 1]);
}
