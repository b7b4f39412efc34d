//! Tests of the models for timm. That timm itself gives the same vectors is checked by `benches/peers/export`.

use super::*;
use crate::checkpoint::ModelConfig;
use crate::embedder::{DeviceKind, ModelSource};
use crate::head::{HeadActivation, HeadConfig};

fn model(arch: Arch, pool: Option<Pool>, head: HeadConfig) -> Embedder {
    let config = ModelConfig { pool, ..ModelConfig::new(arch, head) };
    Embedder::untrained(config, 3, DeviceKind::Cpu).unwrap()
}

#[test]
fn what_is_written_in_timms_names_is_read_back_the_same() {
    for (arch, file) in [
        (Arch::ResNet18, "resnet18.safetensors"),
        (Arch::MobileNetV2, "mobilenetv2_100.safetensors"),
        (Arch::VitTiny16, "vit_tiny_patch16_224.safetensors"),
        (Arch::ConvNextTiny, "convnext_tiny.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let saved = model(arch, None, HeadConfig::Pooled);
        // Without a head, a pooled model is what it is with one.
        for (out, write) in [("whole", save as fn(&Embedder, &Path) -> _), ("bare", save_backbone)] {
            let out = dir.path().join(out);
            write(&saved, &out).unwrap();
            let named = dir.path().join(file);
            std::fs::rename(out.join(MODEL_FILE), &named).unwrap();
            let source = ModelSource { seed: 9, ..ModelSource::new(named.to_str().unwrap()) };
            let opened = Embedder::open(&source).unwrap();
            assert_eq!(opened.fingerprint(), saved.fingerprint());
            assert_eq!(opened.unused_weights(), [""; 0]);
        }
    }
}

#[test]
fn a_linear_head_becomes_the_classifier() {
    let head = HeadConfig::Linear { dim: 16 };
    for (arch, name) in [
        (Arch::ResNet50, "fc"),
        (Arch::MobileNetV2, "classifier"),
        (Arch::ConvNextTiny, "head.fc"),
        (Arch::VitTiny16, "head"),
    ] {
        let (tensors, config) = convert(&model(arch, None, head.clone()), true).unwrap();
        assert_eq!(tensors[&format!("{name}.weight")].dim(0).unwrap(), 16);
        assert_eq!(config["pretrained_cfg"]["classifier"], name);
        assert_eq!(
            (&config["num_classes"], &config["pretrained_cfg"]["num_classes"]),
            (&16.into(), &16.into())
        );
    }
}

#[test]
fn what_is_one_linear_map_is_folded_into_one() {
    for dim in [None, Some(5)] {
        let neck = model(Arch::ResNet18, None, HeadConfig::BatchNorm { dim });
        for (_, param) in neck.store().entries("head.") {
            let values = Tensor::rand(0.5f32, 1.5, param.var.shape(), param.var.device()).unwrap();
            param.var.set(&values).unwrap();
        }
        let (tensors, config) = convert(&neck, true).unwrap();
        assert_eq!(config["num_classes"], dim.unwrap_or(512));
        let x = Tensor::randn(0f32, 1.0, (3, 512), neck.store().device()).unwrap();
        let found = x.matmul(&tensors["fc.weight"].t().unwrap()).unwrap();
        let found = found.broadcast_add(&tensors["fc.bias"]).unwrap();
        let wanted = neck.head().embed(&x, false).unwrap();
        let worst = (found - wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-4, "{worst}");
    }
}

#[test]
fn timm_resizes_as_far_as_we_do() {
    for (size, resize) in [(224, 256), (224, 248), (23, 41), (224, 224), (518, 592), (160, 183)] {
        assert_eq!(
            (f64::from(size) / crop_share(size, resize)).floor(),
            f64::from(resize),
            "{size} {resize}"
        );
    }
    assert_eq!(crop_share(224, 256), 0.875);
}

#[test]
fn pooling_is_told_by_timms_arguments() {
    let (avg, max) = (json!({ "global_pool": "avg", "fc_norm": false }), json!({ "global_pool": "max" }));
    for (arch, pool, arguments) in [
        (Arch::ResNet18, Pool::Average, Some(json!({}))),
        (Arch::ConvNextTiny, Pool::Max, Some(max)),
        (Arch::VitTiny16, Pool::ClassToken, Some(json!({}))),
        (Arch::DinoV2Large, Pool::Average, Some(avg.clone())),
        (Arch::ClipBase32, Pool::Average, Some(avg)),
        (Arch::ClipBase32, Pool::Max, None),
        (Arch::VitTiny16, Pool::ClassAndMean, None),
        (Arch::ResNet18, Pool::Gem { p: 3.0 }, None),
    ] {
        assert_eq!(pooling(arch, pool), arguments, "{arch} {pool}");
    }
}

#[test]
fn what_timm_does_not_have_is_refused_with_what_to_do() {
    let refused = |arch, pool, head| convert(&model(arch, pool, head), true).unwrap_err().to_string();
    let error = refused(Arch::ResNet10Tiny, None, HeadConfig::Pooled);
    assert!(error.contains("resnet10_tiny") && error.contains("ONNX"), "{error}");
    let mlp = HeadConfig::Mlp { dim: 4, hidden: vec![8], activation: HeadActivation::Gelu };
    for head in [mlp.clone(), HeadConfig::LayerNorm { dim: None }] {
        let error = refused(Arch::ResNet18, None, head);
        assert!(error.contains("without its head") && error.contains("ONNX"), "{error}");
    }
    let error = refused(Arch::VitTiny16, Some(Pool::ClassAndMean), HeadConfig::Pooled);
    assert!(error.contains("class_and_mean") && error.contains("without its head"), "{error}");

    let (tensors, config) = convert(&model(Arch::ResNet18, Some(Pool::Gem { p: 3.0 }), mlp), false).unwrap();
    assert_eq!((&config["num_classes"], &config["semblance"]["without_head"]), (&0.into(), &true.into()));
    assert!(tensors.keys().all(|name| !name.starts_with("head") && !name.starts_with("fc")));
}
