//! Tests of weight files on their way into a network.

use candle_core::{DType, Device};

use super::*;

fn network(arch: Arch) -> ParamStore {
    let store = ParamStore::new(0, &Device::Cpu);
    arch.build(&store.root().at("backbone")).unwrap();
    store
}

fn file_of(store: &ParamStore) -> WeightFile {
    let entries = store.entries("backbone.").into_iter();
    let tensors = entries.map(|(n, p)| (n["backbone.".len()..].to_owned(), p.var.as_detached_tensor()));
    WeightFile {
        path: "weights.safetensors".into(),
        tensors: tensors.collect(),
        unreadable: BTreeMap::new(),
        arch: None,
    }
}

#[test]
fn every_missing_misshapen_and_unexpected_tensor_is_named_and_nothing_changed() {
    let mut file = file_of(&network(Arch::ResNet18));
    file.tensors.remove("bn1.bias");
    file.tensors
        .insert("conv1.weight".into(), Tensor::zeros((64, 3, 3, 3), DType::F32, &Device::Cpu).unwrap());
    file.tensors.insert("fc.weight".into(), Tensor::zeros((10, 512), DType::F32, &Device::Cpu).unwrap());
    let target = ParamStore::new(9, &Device::Cpu);
    Arch::ResNet18.build(&target.root().at("backbone")).unwrap();
    let values =
        |name: &str| -> Vec<f32> { target.get(name).unwrap().var.flatten_all().unwrap().to_vec1().unwrap() };
    let before = values("backbone.layer1.0.conv1.weight");
    let error = file.load_backbone(Arch::ResNet18, &target, "backbone.").unwrap_err().to_string();
    for part in ["weights.safetensors", "bn1.bias", "[64, 3, 3, 3]", "[64, 3, 7, 7]", "fc.weight"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert_eq!(before, values("backbone.layer1.0.conv1.weight"));
}

#[test]
fn a_safetensors_file_goes_in_and_names_what_is_left_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resnet18-5c106cde.safetensors");
    let mut tensors: std::collections::HashMap<String, Tensor> =
        file_of(&network(Arch::ResNet18)).tensors.into_iter().collect();
    tensors.insert("fc.bias".into(), Tensor::zeros(10, DType::F32, &Device::Cpu).unwrap());
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let file = WeightFile::read(&path).unwrap();
    assert_eq!(file.arch, Some(Arch::ResNet18));
    let target = ParamStore::new(9, &Device::Cpu);
    Arch::ResNet18.build(&target.root().at("backbone")).unwrap();
    assert_eq!(file.load_backbone(Arch::ResNet18, &target, "backbone.").unwrap(), ["fc.bias"]);
    let name = "layer4.1.conv2.weight";
    let got: Vec<f32> =
        target.get(&format!("backbone.{name}")).unwrap().var.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(got, tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap());
}

#[test]
fn a_file_of_another_kind_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for content in [&b"just text, no weights"[..], b"", &[0x80, 0x02, 0x8a]] {
        let path = dir.path().join("weights.pth");
        std::fs::write(&path, content).unwrap();
        let error = WeightFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("weights.pth"), "{error}");
    }
}

#[test]
fn what_makes_vectors_useless_is_named_and_nothing_changed() {
    let source = network(Arch::ResNet18);
    let load = |file: &WeightFile| {
        let target = ParamStore::new(9, &Device::Cpu);
        Arch::ResNet18.build(&target.root().at("backbone")).unwrap();
        let error = file.load_backbone(Arch::ResNet18, &target, "backbone.").unwrap_err();
        let kept: Vec<f32> = target.get("backbone.bn1.weight").unwrap().var.to_vec1().unwrap();
        assert_eq!(kept, [1.0; 64]);
        error
    };
    let with = |name: &str, values: &[f32]| {
        let mut file = file_of(&source);
        let shape = file.tensors[name].shape().clone();
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        file.tensors.insert(name.to_owned(), tensor);
        file.tensors.insert("fc.bias".into(), Tensor::new(&[f32::NAN], &Device::Cpu).unwrap());
        file
    };
    let mut values = [0.5f32; 64];
    (values[3], values[40]) = (f32::NAN, f32::NEG_INFINITY);
    let error = load(&with("bn1.bias", &values));
    assert!(matches!(&error, EmbedError::NotFinite { tensors, .. } if tensors.0.len() == 1), "{error}");
    let error = error.to_string();
    // The classifier, which no vector depends on, may hold anything.
    assert!(error.contains("bn1.bias (2 of 64 values)") && !error.contains("fc.bias"), "{error}");

    let mut file = file_of(&source);
    file.tensors.insert("bn1.bias".into(), Tensor::zeros(64, DType::I64, &Device::Cpu).unwrap());
    let error = load(&file).to_string();
    assert!(error.contains("bn1.bias (it holds integers"), "{error}");

    let mut file = file_of(&source);
    file.tensors.remove("bn1.bias");
    file.unreadable = [("module.bn1.bias", "it is quantised"), ("fc.weight", "it is quantised")]
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .into();
    let error = load(&file).to_string();
    assert!(
        error.contains("module.bn1.bias (it is quantised)") && error.contains("missing: none"),
        "{error}"
    );
    assert!(error.contains("unexpected: fc.weight"), "{error}");
}
