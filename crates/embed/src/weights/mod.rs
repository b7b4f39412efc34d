//! Weight files of others: safetensors and PyTorch's, in torchvision's, timm's and Hugging Face's names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, pickle::PthTensors};
use safetensors::SafeTensors;

use crate::backbone::Arch;
use crate::error::{EmbedError, Result, io_at};
use crate::names;
use crate::params::ParamStore;

/// The tensors of a weight file by their own names, on the CPU.
#[derive(Debug)]
pub struct WeightFile {
    /// The file they came from.
    pub path: PathBuf,
    /// The tensors.
    pub tensors: BTreeMap<String, Tensor>,
    /// The architecture, where the file's metadata or its name says so.
    pub arch: Option<Arch>,
}

/// Tensors a network needs that a file does not have as it needs them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Tensors the network has and the file lacks.
    pub missing: Vec<String>,
    /// Tensors whose shape differs: name, shape in the file, shape in the network.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors the file has and the network does not know.
    pub unexpected: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| match names.len() {
            0 => "none".to_owned(),
            1..=8 => names.join(", "),
            more => format!("{} and {} more", names[..8].join(", "), more - 8),
        };
        let misshapen = self.misshapen.iter();
        let misshapen = misshapen.map(|(n, file, net)| format!("{n} is {file:?} but should be {net:?}"));
        let misshapen: Vec<_> = misshapen.collect();
        write!(f, "missing: {}; ", list(&self.missing))?;
        write!(f, "misshapen: {}; unexpected: {}", list(&misshapen), list(&self.unexpected))
    }
}

impl WeightFile {
    /// Reads a `.safetensors` file, or a PyTorch file (`.pth`, `.pt`, `.bin`) of tensors by name, also below
    /// the keys `state_dict`, `model` or `model_state_dict`. Which one it is, its content tells.
    ///
    /// # Errors
    /// [`EmbedError::Io`] if the file cannot be opened, [`EmbedError::WeightFile`] if it is damaged or of
    /// another kind.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(io_at(path))?;
        let damaged = |reason: String| EmbedError::WeightFile { path: path.to_owned(), reason };
        let from_name = path.file_stem().and_then(|stem| stem.to_str());
        // torchvision's files are named like `resnet50-11ad3fa6.pth`.
        let from_name = from_name.and_then(|stem| stem.split('-').next()?.parse().ok());
        if bytes.starts_with(b"PK\x03\x04") {
            return Ok(Self {
                tensors: read_pth(path).map_err(damaged)?,
                arch: from_name,
                path: path.into(),
            });
        }
        if bytes.starts_with(&[0x80, 0x02]) {
            let advice = "it is in PyTorch's format from before version 1.6; save it again with a newer one";
            return Err(damaged(advice.to_owned()));
        }
        let (_, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|e| damaged(format!("neither a safetensors nor a PyTorch file ({e})")))?;
        let said = metadata.metadata().as_ref().and_then(|pairs| pairs.get("arch")?.parse().ok());
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        let tensors = tensors.map_err(|e| damaged(e.to_string()))?.into_iter().collect();
        Ok(Self { path: path.to_owned(), tensors, arch: said.or(from_name) })
    }

    /// Copies the backbone's tensors into `store` below `prefix` (such as `backbone.`), in any of
    /// the names that `names` knows, and returns the names left over: classifiers and the like.
    ///
    /// # Errors
    /// [`EmbedError::Weights`] with every missing and misshapen tensor; then nothing was changed.
    pub fn load_backbone(&self, arch: Arch, store: &ParamStore, prefix: &str) -> Result<Vec<String>> {
        let ours = |name: &str| store.get(&format!("{prefix}{name}"));
        let (mut given, unexpected) = names::arrange(arch, &self.tensors, &|name| ours(name).is_some())?;
        for (name, tensor) in &mut given {
            if let Some(param) = ours(name) {
                *tensor = names::fitted(tensor.clone(), param.var.dims())?;
            }
        }
        let mut mismatch = assign(store, prefix, &given)?;
        if mismatch.missing.is_empty() && mismatch.misshapen.is_empty() {
            return Ok(unexpected);
        }
        mismatch.unexpected = unexpected;
        Err(EmbedError::Weights { path: self.path.clone(), arch: arch.to_string(), mismatch })
    }
}

/// Sets every tensor of `store` below `prefix` from `given`, which names them without the prefix; all of them
/// or, where one is missing or misshapen, none.
pub(crate) fn assign(store: &ParamStore, prefix: &str, given: &BTreeMap<String, Tensor>) -> Result<Mismatch> {
    let mut mismatch = Mismatch::default();
    let entries = store.entries(prefix);
    for (name, param) in &entries {
        let bare = &name[prefix.len()..];
        match given.get(bare) {
            None => mismatch.missing.push(bare.to_owned()),
            Some(t) if t.dims() != param.var.dims() => {
                mismatch.misshapen.push((bare.to_owned(), t.dims().to_vec(), param.var.dims().to_vec()));
            }
            Some(_) => {}
        }
    }
    let known = |name: &&String| entries.iter().any(|(n, _)| n[prefix.len()..] == ***name);
    mismatch.unexpected = given.keys().filter(|name| !known(name)).cloned().collect();
    if mismatch.missing.is_empty() && mismatch.misshapen.is_empty() {
        for (name, param) in &entries {
            let tensor = &given[&name[prefix.len()..]];
            param.var.set(&tensor.to_dtype(DType::F32)?.to_device(store.device())?)?;
        }
    }
    Ok(mismatch)
}

fn read_pth(path: &Path) -> Result<BTreeMap<String, Tensor>, String> {
    for key in [None, Some("state_dict"), Some("model"), Some("model_state_dict")] {
        let Ok(file) = PthTensors::new(path, key) else { continue };
        let mut tensors = BTreeMap::new();
        for name in file.tensor_infos().keys() {
            if let Some(tensor) = file.get(name).map_err(|e| format!("tensor {name}: {e}"))? {
                tensors.insert(name.clone(), tensor);
            }
        }
        if !tensors.is_empty() {
            return Ok(tensors);
        }
    }
    Err("it holds no tensors by name, nor below state_dict, model or model_state_dict".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(arch: Arch) -> ParamStore {
        let store = ParamStore::new(0, &Device::Cpu);
        arch.build(&store.root().at("backbone")).unwrap();
        store
    }

    fn file_of(store: &ParamStore) -> WeightFile {
        let entries = store.entries("backbone.").into_iter();
        let tensors = entries.map(|(n, p)| (n["backbone.".len()..].to_owned(), p.var.as_detached_tensor()));
        WeightFile { path: "weights.safetensors".into(), tensors: tensors.collect(), arch: None }
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
        let values = |name: &str| -> Vec<f32> {
            target.get(name).unwrap().var.flatten_all().unwrap().to_vec1().unwrap()
        };
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
}
