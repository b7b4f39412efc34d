//! Tests of the embedder.

use super::*;
use crate::transform::{Limits, decode_bytes, decode_file, decode_small_bytes};

fn tiny(seed: u64) -> Embedder {
    let mut config = ModelConfig::new(Arch::ResNet10Tiny, HeadConfig::Linear { dim: 24 });
    config.transform.resize = 36;
    config.transform.crop = 32;
    Embedder::untrained(config, seed, DeviceKind::Cpu).unwrap()
}

fn pixels(n: usize) -> Vec<f32> {
    (0..n * 3 * 32 * 32).map(|i| ((i * 7919) % 255) as f32 / 127.0 - 1.0).collect()
}

#[test]
fn vectors_have_unit_norm_and_do_not_depend_on_the_batch() {
    let embedder = tiny(1);
    let (three, pixels) = (embedder.embed(&pixels(3), 3).unwrap(), pixels(3));
    assert_eq!(three.len(), 3 * 24);
    for (i, vector) in three.chunks(24).enumerate() {
        let norm: f32 = vector.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-5);
        let image = &pixels[i * 3 * 1024..][..3 * 1024];
        let alone = embedder.embed(image, 1).unwrap();
        assert!(alone.iter().zip(vector).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

/// Random running statistics, so that folding them matters.
fn shake_norms(embedder: &Embedder) {
    for (i, (name, param)) in embedder.store().entries("").into_iter().enumerate() {
        let values: Vec<f32> = param.var.flatten_all().unwrap().to_vec1().unwrap();
        let wave = |j: usize| ((i * 31 + j * 17) % 13) as f32 / 13.0 - 0.5;
        let moved = values.iter().enumerate().map(|(j, v)| match name.rsplit('.').next() {
            Some("running_mean") => v + 0.2 * wave(j),
            Some("running_var") => v + 0.5 * wave(j),
            Some("bias") => v + 0.1 * wave(j),
            _ => *v,
        });
        let moved = Tensor::from_vec(moved.collect(), param.var.shape(), &Device::Cpu).unwrap();
        param.var.set(&moved).unwrap();
    }
}

#[test]
fn a_frozen_network_agrees_with_the_plain_one() {
    let linear = HeadConfig::Linear { dim: 24 };
    for (arch, head) in [
        (Arch::ResNet10Tiny, HeadConfig::Pooled),
        (Arch::ResNet18, linear.clone()),
        (Arch::ResNet50, HeadConfig::Pooled),
        (Arch::MobileNetV2, linear),
    ] {
        let mut embedder =
            Embedder::untrained(ModelConfig::new(arch, head.clone()), 3, DeviceKind::Cpu).unwrap();
        shake_norms(&embedder);
        embedder.weights_changed().unwrap();
        for (n, side) in [(1, 96), (3, 70)] {
            let x = Tensor::randn(0f32, 1.0, (n, 3, side, side), &Device::Cpu).unwrap();
            let wanted = embedder.features(&x, false).unwrap();
            let wanted: Vec<f32> = wanted.flatten_all().unwrap().to_vec1().unwrap();
            let pixels: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            let found = embedder.infer(&pixels, n, side).unwrap();
            let scale = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst = wanted.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < 1e-4 * scale, "{arch} {head:?} {n} × {side}: {worst} of {scale}");
        }
    }
}

#[test]
fn changed_weights_are_frozen_anew() {
    let mut embedder = tiny(1);
    let before = embedder.embed(&pixels(1), 1).unwrap();
    shake_norms(&embedder);
    embedder.weights_changed().unwrap();
    assert_ne!(embedder.embed(&pixels(1), 1).unwrap(), before);
}

#[test]
fn a_saved_model_opens_with_the_same_fingerprint_and_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let saved = tiny(5);
    saved.save(&path).unwrap();
    let opened = Embedder::open(&ModelSource::new(path.to_str().unwrap())).unwrap();
    assert_eq!(opened.fingerprint(), saved.fingerprint());
    assert_eq!(opened.embed(&pixels(2), 2).unwrap(), saved.embed(&pixels(2), 2).unwrap());
    assert_ne!(tiny(6).fingerprint(), saved.fingerprint());
}

#[test]
fn a_damaged_or_foreign_checkpoint_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    tiny(5).save(&path).unwrap();
    let wrong = ModelSource { arch: Some(Arch::ResNet18), ..ModelSource::new(path.to_str().unwrap()) };
    let error = Embedder::open(&wrong).unwrap_err().to_string();
    assert!(error.contains("resnet10_tiny") && error.contains("resnet18"), "{error}");
    let own = tiny(5).config().transform.crop;
    let sized = |crop| ModelSource { crop: Some(crop), ..ModelSource::new(path.to_str().unwrap()) };
    let error = Embedder::open(&sized(own + 1)).unwrap_err().to_string();
    assert!(error.contains(&format!("crop {own}, not {}", own + 1)), "{error}");
    assert!(Embedder::open(&sized(own)).is_ok());
    let weights = std::fs::read(path.join(MODEL_FILE)).unwrap();
    std::fs::write(path.join(MODEL_FILE), &weights[..weights.len() / 2]).unwrap();
    let error = Embedder::open(&ModelSource::new(path.to_str().unwrap())).unwrap_err().to_string();
    assert!(error.contains(MODEL_FILE), "{error}");
    std::fs::remove_file(path.join(CONFIG_FILE)).unwrap();
    let error = Embedder::open(&ModelSource::new(path.to_str().unwrap())).unwrap_err().to_string();
    assert!(error.contains(CONFIG_FILE), "{error}");
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    let error = Embedder::open(&ModelSource::new("resnet5000")).unwrap_err().to_string();
    assert!(error.contains("resnet5000") && error.contains("mobilenet_v2"), "{error}");
    let error = Embedder::open(&ModelSource::new("random:vgg")).unwrap_err().to_string();
    assert!(error.contains("vgg") && error.contains("resnet18"), "{error}");
}

#[test]
fn a_wrong_number_of_pixels_is_an_error() {
    let error = tiny(0).embed(&pixels(2), 3).unwrap_err().to_string();
    assert!(error.contains("6144") && error.contains("3 images"), "{error}");
}

/// The 1280 pooled features PyTorch computes for four photographs from the same weights.
#[test]
fn features_of_real_photographs_are_pytorchs() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/weights");
    if !data.exists() {
        return;
    }
    let source = ModelSource::new(data.join("mobilenet_v2.safetensors").to_str().unwrap());
    let embedder = Embedder::open(&source).unwrap();
    assert_eq!((embedder.config().arch, embedder.dim()), (Arch::MobileNetV2, 1280));
    assert_eq!(embedder.unused_weights(), [""; 0]);
    let input = Tensor::read_npy(data.join("golden_input.npy")).unwrap();
    let wanted = Tensor::read_npy(data.join("golden_features.npy")).unwrap();
    let pixels: Vec<f32> = input.flatten_all().unwrap().to_vec1().unwrap();
    let frozen = embedder.infer(&pixels, input.dim(0).unwrap(), input.dim(2).unwrap()).unwrap();
    let frozen = Tensor::from_vec(frozen, wanted.shape(), &Device::Cpu).unwrap();
    for found in [embedder.features(&input, false).unwrap(), frozen] {
        let greatest = |t: Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let scale = greatest(wanted.clone());
        let worst = greatest((found - &wanted).unwrap());
        assert!(worst < 1e-4 * scale, "worst difference {worst} at a scale of {scale}");
    }
}

/// Photographs of 348 pixels, enlarged so that their detail is what a quarter and an eighth of the pixels can show, for a
/// network that sees half of that.
#[test]
fn vectors_of_photographs_decoded_at_a_reduced_size_are_those_of_whole_ones() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let Ok(list) = std::fs::read_to_string(data.join("grocery/val.txt")) else { return };
    let weights = data.join("weights/mobilenet_v2.safetensors");
    let embedder = Embedder::open(&ModelSource::new(weights.to_str().unwrap())).unwrap();
    let (side, limits) = (174, Limits::default());
    let transform = embedder.transform().clone().resized(Some(side), Some(side));
    let vector = |picture: &image::RgbImage| -> Vec<f32> {
        let vector = embedder.infer(&transform.apply(picture), 1, side as usize).unwrap();
        let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        vector.into_iter().map(|v| v / norm).collect()
    };
    for photo in list.lines().step_by(50).map(|line| line.split(',').next().unwrap()) {
        let original = decode_file(&data.join("grocery").join(photo), &limits).unwrap();
        for divisor in [4, 8] {
            let (width, height) = (original.width() * divisor, original.height() * divisor);
            let large =
                image::imageops::resize(&original, width, height, image::imageops::FilterType::Triangle);
            let mut bytes = Vec::new();
            image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(&large).unwrap();
            let small = decode_small_bytes(&bytes, &limits, side).unwrap();
            assert_eq!((small.picture.width(), small.width), (original.width(), width), "{photo}");
            let full = decode_bytes(&bytes, &limits).unwrap();
            let cosine: f32 = vector(&small.picture).iter().zip(vector(&full)).map(|(a, b)| a * b).sum();
            println!("{photo} at 1/{divisor}: cosine distance {}", 1.0 - cosine);
            assert!(cosine > 0.99, "{photo} at 1/{divisor}: {cosine}");
        }
    }
}

#[test]
fn integers_inside_hardly_move_a_vector_and_are_refused_where_there_are_none() {
    let embedder = tiny(7);
    let plain = embedder.embed(&pixels(2), 2).unwrap();
    let fingerprint = embedder.fingerprint().to_owned();
    let integers = embedder.with_precision(Precision::Int16).unwrap();
    assert_eq!(integers.fingerprint(), fingerprint);
    let found = integers.embed(&pixels(2), 2).unwrap();
    for (a, b) in plain.chunks(24).zip(found.chunks(24)) {
        let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9999, "{cosine}");
    }
    let transformer =
        ModelSource { precision: Precision::Int16, ..ModelSource::new("random:vit_tiny_patch16_224") };
    let error = Embedder::open(&transformer).unwrap_err().to_string();
    assert!(error.contains("int16") && error.contains("f32"), "{error}");
}
