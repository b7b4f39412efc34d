//! Tests of the vision transformers, with numbers from timm.

use candle_core::{Device, Tensor};

use super::*;
use crate::backbone::check;
use crate::onnx::interpreter;
use crate::params::{Kind, ParamStore};

fn tiny() -> VitConfig {
    VitConfig { image: 12, patch: 4, dim: 8, depth: 2, heads: 2, ..VitConfig::vit(8, 2) }
}

/// The class token of two images.
fn class_token(config: &VitConfig, h: usize, w: usize) -> Vec<f32> {
    let store = ParamStore::new(0, &Device::Cpu);
    let vit = Vit::new(config, &store.root()).unwrap();
    check::fill(&store);
    let y = vit.forward_t(&check::images(h, w), false).unwrap();
    y.get_on_dim(1, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

// from timm.models.vision_transformer import VisionTransformer as V
// def fill(m):  # the same values as `check::fill`
//     for k, (name, p) in enumerate(sorted((n, p) for n, p in m.state_dict().items() if n != "head.bias")):
//         j = torch.arange(p.numel())
//         p.copy_((((k * 31 + j * 17) % 101) / 101 - .5).mul(.4)
//                 .add(p.ndim == 1 and name.endswith("weight")).reshape(p.shape))
//     return m.eval()
// def image(h, w): return (((torch.arange(2 * 3 * h * w) * 7919) % 255) / 127 - 1).reshape(2, 3, h, w)
// small = dict(patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=0)
// fill(V(img_size=12, **small))(image(12, 12))
// fill(V(img_size=12, init_values=1e-5, dynamic_img_size=True, **small))(image(8, 20))
// clip = fill(V(img_size=12, pre_norm=True, act_layer=QuickGELU, norm_layer=partial(LayerNorm, eps=1e-5),
//               **{**small, "num_classes": 6})); clip.head.bias.zero_(); clip(image(12, 12))
#[test]
fn class_tokens_are_timms() {
    let dinov2 = VitConfig { layer_scale: Some(1e-5), ..tiny() };
    let clip = VitConfig { pre_norm: true, gelu: Gelu::Quick, eps: 1e-5, projection: Some(6), ..tiny() };
    check::close(&class_token(&tiny(), 12, 12), &VIT);
    check::close(&class_token(&dinov2, 8, 20), &DINO);
    check::close(&class_token(&clip, 12, 12), &CLIP);
}

#[test]
fn the_graph_written_down_computes_the_same_at_every_size() {
    let dinov2 = VitConfig { layer_scale: Some(1e-5), ..tiny() };
    let clip = VitConfig { pre_norm: true, gelu: Gelu::Quick, eps: 1e-5, projection: Some(6), ..tiny() };
    for (config, side) in [(tiny(), 12), (dinov2.clone(), 8), (dinov2, 20), (clip, 16)] {
        let store = ParamStore::new(0, &Device::Cpu);
        let vit = Vit::new(&config, &store.root()).unwrap();
        check::fill(&store);
        let images = check::images(side, side);
        for n in [1, 2] {
            let images = images.narrow(0, 0, n).unwrap();
            let found = interpreter::run(side, &images, |graph, x| vit.emit(graph, &x));
            let worst = interpreter::difference(&found, &vit.forward_t(&images, false).unwrap());
            assert!(worst < 1e-5, "{config:?} at {side}: {worst}");
        }
    }
    let store = ParamStore::new(0, &Device::Cpu);
    let vit = Vit::new(&tiny(), &store.root()).unwrap();
    let mut graph = Graph::new(14);
    let images = graph.input();
    let error = vit.emit(&mut graph, &images).unwrap_err().to_string();
    assert!(error.contains("14 × 14"), "{error}");
}

#[test]
fn every_parameter_gets_a_gradient_at_any_size_and_batch() {
    let config = VitConfig { layer_scale: Some(0.1), pre_norm: true, projection: Some(6), ..tiny() };
    for (config, n, side) in [(tiny(), 1, 12), (config.clone(), 3, 12), (config, 2, 16)] {
        let store = ParamStore::new(3, &Device::Cpu);
        let vit = Vit::new(&config, &store.root()).unwrap();
        let x = Tensor::randn(0f32, 1.0, (n, 3, side, side), &Device::Cpu).unwrap();
        let y = vit.forward_t(&x, true).unwrap();
        assert_eq!(y.dims(), [n, 1 + (side / 4).pow(2), vit.feature_dim()]);
        let plain = vit.forward_t(&x, false).unwrap();
        let worst = (&plain - &y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-5, "inference and training differ by {worst}");
        let class = y.get_on_dim(1, 0).unwrap();
        let loss = class.powf(3.0).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        for (name, param) in store.entries("") {
            assert_eq!(param.kind, Kind::Parameter);
            let grad = grads.get(&param.var).unwrap_or_else(|| panic!("{name} has no gradient"));
            let size = grad.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(size > 0.0 && size.is_finite(), "{name}: {size}");
        }
    }
}

#[test]
fn an_image_that_does_not_divide_into_patches_is_refused() {
    let store = ParamStore::new(3, &Device::Cpu);
    let vit = Vit::new(&tiny(), &store.root()).unwrap();
    let error = vit.forward_t(&check::images(12, 14), false).unwrap_err().to_string();
    assert!(error.contains("12 × 14") && error.contains("4 × 4"), "{error}");
}

const VIT: [f32; 16] = [
    2.201419, -0.2048565, -1.07664, 0.4322155, -1.216157, 0.3599607, 1.164528, -0.8465184, 2.326943,
    -0.2457792, -1.09531, 0.4020855, -1.136953, 0.3119579, 1.062448, -0.8067794,
];
const DINO: [f32; 16] = [
    -0.3624299,
    -0.2977311,
    1.516994,
    -1.969887,
    0.2441029,
    1.111936,
    -0.3592165,
    -0.09459428,
    -0.3390491,
    -0.3074186,
    1.514721,
    -1.967416,
    0.1892799,
    1.123729,
    -0.3717774,
    -0.06498916,
];
const CLIP: [f32; 12] = [
    0.2256467, -0.6234602, 0.3945552, 0.2216604, -0.6274464, 0.3905689, 0.2103426, -0.6012415, 0.3917255,
    0.2063087, -0.6052755, 0.3876915,
];
