//! Models on disk: a folder with `model.safetensors` and `config.json`, written whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::backbone::Arch;
use crate::error::{EmbedError, Result, io_at};
use crate::head::{HeadConfig, Pool};
use crate::params::{Param, ParamStore};
use crate::transform::EvalTransform;
use crate::weights::{self, kind};

/// Version of the folder's layout; a reader refuses others.
pub const FORMAT: u32 = 1;
/// The weights' file.
pub const MODEL_FILE: &str = "model.safetensors";
/// The configuration's file.
pub const CONFIG_FILE: &str = "config.json";

/// Everything needed to build the network its weights belong to, and to feed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// [`FORMAT`] of the folder it was read from or is written to.
    pub format: u32,
    /// The backbone.
    pub arch: Arch,
    /// The head.
    pub head: HeadConfig,
    /// How the head pools; as [`Pool::of`] the architecture without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// How photographs become pixels, the one definition used for indexing, searching and evaluating.
    pub transform: EvalTransform,
    /// What the weights were learned from, where that limits what they are good for. It is no part of the fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_from: Option<LearnedFrom>,
}

/// What a model was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedFrom {
    /// Pictures that the program draws itself ([`sample`](crate::dataset::sample)), from random weights: of little use on
    /// photographs.
    DrawnPictures,
}

impl ModelConfig {
    /// A network with the architecture's own pooling and transform.
    pub fn new(arch: Arch, head: HeadConfig) -> Self {
        Self { format: FORMAT, arch, head, pool: None, transform: arch.transform(), learned_from: None }
    }

    /// Whether `other` describes the same network, whatever it learned from.
    pub(crate) fn is_same_network(&self, other: &Self) -> bool {
        Self { learned_from: other.learned_from, ..self.clone() } == *other
    }

    /// How the head pools.
    pub fn pool(&self) -> Pool {
        self.pool.unwrap_or_else(|| Pool::of(self.arch))
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`EmbedError::Config`] with the setting's name: a head or a pooling the network cannot have, an image size that
    /// does not divide into its patches.
    pub fn check(&self) -> Result<()> {
        self.head.check()?;
        self.pool().check(self.arch)?;
        self.check_side("crop", self.transform.crop)
    }

    /// Refuses images of `side` pixels, a setting called `key`, that do not divide into the network's patches.
    pub(crate) fn check_side(&self, key: &'static str, side: u32) -> Result<()> {
        match self.arch.patch() {
            Some(patch) if !(side as usize).is_multiple_of(patch) || side == 0 => {
                let below = side as usize / patch * patch;
                let reason = format!(
                    "{side} pixels do not divide into the patches of {patch} that {} looks at; take {} or {}",
                    self.arch,
                    below.max(patch),
                    below.max(patch) + patch
                );
                Err(EmbedError::Config { key, reason })
            }
            _ => Ok(()),
        }
    }
}

/// The tensors that belong to the model. Losses register theirs in the same store; those are part of a
/// training run's state instead.
pub(crate) fn model_entries(store: &ParamStore) -> Vec<(String, Param)> {
    ["backbone.", "head."].into_iter().flat_map(|prefix| store.entries(prefix)).collect()
}

/// What two models must share for their vectors to be comparable: SHA-256, in hexadecimal, over the
/// configuration and every tensor's name, shape and values.
pub fn fingerprint(config: &ModelConfig, store: &ParamStore) -> Result<String> {
    let mut hasher = Sha256::new();
    let config = ModelConfig { learned_from: None, ..config.clone() };
    hasher.update(serde_json::to_vec(&config).map_err(|e| unusable(Path::new(CONFIG_FILE), e))?);
    for (name, param) in model_entries(store) {
        hasher.update(name.as_bytes());
        for &side in param.var.dims() {
            hasher.update((side as u64).to_le_bytes());
        }
        let values: Vec<f32> = param.var.as_detached_tensor().flatten_all()?.to_vec1()?;
        let mut bytes = [0; 16 << 10];
        for chunk in values.chunks(bytes.len() / 4) {
            for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(chunk) {
                *bytes = value.to_le_bytes();
            }
            hasher.update(&bytes[..chunk.len() * 4]);
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A folder being written: under another name until all of it lies on disk.
///
/// A crash at any moment leaves the previous checkpoint whole, at its own name or beside it under the name
/// that [`locate`] also looks at.
#[derive(Debug)]
pub struct CheckpointWriter {
    target: PathBuf,
    staging: PathBuf,
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{suffix}"))
}

impl CheckpointWriter {
    /// Begins writing the folder `target`.
    pub fn new(target: &Path) -> Result<Self> {
        let staging = beside(target, "partial");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(io_at(&staging))?;
        }
        fs::create_dir_all(&staging).map_err(io_at(&staging))?;
        Ok(Self { target: target.to_owned(), staging })
    }

    /// Adds a file of tensors.
    pub fn tensors(&self, file: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let path = self.staging.join(file);
        let tensors: HashMap<&str, Tensor> = tensors
            .iter()
            .map(|(name, t)| Ok((name.as_str(), t.to_device(&Device::Cpu)?)))
            .collect::<Result<_>>()?;
        candle_core::safetensors::save(&tensors, &path).map_err(|e| unusable(&path, e))?;
        File::open(&path).and_then(|f| f.sync_all()).map_err(io_at(&path))
    }

    /// Adds a JSON file.
    pub fn json(&self, file: &str, value: &impl Serialize) -> Result<()> {
        let path = self.staging.join(file);
        let mut text = serde_json::to_vec_pretty(value).map_err(|e| unusable(&path, e))?;
        text.push(b'\n');
        fs::write(&path, text).map_err(io_at(&path))?;
        File::open(&path).and_then(|f| f.sync_all()).map_err(io_at(&path))
    }

    /// Puts the finished folder in the place of an older one.
    pub fn commit(self) -> Result<()> {
        let previous = beside(&self.target, "previous");
        if self.target.exists() {
            if previous.exists() {
                fs::remove_dir_all(&previous).map_err(io_at(&previous))?;
            }
            fs::rename(&self.target, &previous).map_err(io_at(&self.target))?;
        }
        fs::rename(&self.staging, &self.target).map_err(io_at(&self.target))?;
        let parent = self.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|f| f.sync_all()).map_err(io_at(parent))?;
        if previous.exists() {
            fs::remove_dir_all(&previous).map_err(io_at(&previous))?;
        }
        Ok(())
    }
}

/// The folder to read for the checkpoint named `dir`: itself, or its predecessor where a crash came between
/// moving the one away and the other in.
pub fn locate(dir: &Path) -> PathBuf {
    let previous = beside(dir, "previous");
    if !dir.exists() && previous.join(CONFIG_FILE).exists() { previous } else { dir.to_owned() }
}

/// Reads the configuration of the checkpoint in `dir`.
///
/// # Errors
/// [`EmbedError::Checkpoint`] if it is missing, damaged or of another format.
pub fn read_config(dir: &Path) -> Result<ModelConfig> {
    let path = dir.join(CONFIG_FILE);
    let text = fs::read(&path).map_err(|e| unusable(&path, e))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| not_json(&path, &text, e))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(other) => {
            let reason =
                format!("it is of format {other}, this program reads {FORMAT}; train or convert it again");
            return Err(EmbedError::Checkpoint { path, reason });
        }
        None => {
            let reason = "it names no format, so it is not a checkpoint of this program; a weight file of \
                          another project can be given by its own path";
            return Err(EmbedError::Checkpoint { path, reason: reason.to_owned() });
        }
    }
    serde_json::from_value(value).map_err(|e| unusable(&path, e))
}

/// Reads a file of tensors of a checkpoint.
///
/// # Errors
/// [`EmbedError::Checkpoint`] if it is missing, damaged, or something else, such as a Git LFS pointer.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs::read(path).map_err(|e| unusable(path, e))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
    Ok(tensors.map_err(|e| unusable(path, weights::refusal(&bytes, &e)))?.into_iter().collect())
}

/// Reads a JSON file of a checkpoint.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(|e| unusable(path, e))?;
    serde_json::from_slice(&text).map_err(|e| not_json(path, &text, e))
}

/// Why a file is no JSON: it may be something else.
fn not_json(path: &Path, text: &[u8], error: serde_json::Error) -> EmbedError {
    match error.classify() {
        serde_json::error::Category::Data => unusable(path, error),
        _ => unusable(path, kind::describe(text).unwrap_or_else(|| error.to_string())),
    }
}

fn unusable(path: &Path, reason: impl ToString) -> EmbedError {
    EmbedError::Checkpoint { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_replaced_whole_and_found_after_a_crash_between_the_renames() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("last");
        for step in 0..2 {
            let writer = CheckpointWriter::new(&target).unwrap();
            writer.json("state.json", &step).unwrap();
            writer.json(CONFIG_FILE, &"a config").unwrap();
            writer.commit().unwrap();
        }
        assert_eq!(read_json::<u32>(&locate(&target).join("state.json")).unwrap(), 1);
        // The crash: the old folder moved away, the new one not yet moved in.
        fs::rename(&target, dir.path().join(".last.previous")).unwrap();
        assert_eq!(read_json::<u32>(&locate(&target).join("state.json")).unwrap(), 1);
    }

    #[test]
    fn an_unfinished_folder_is_never_seen() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("best");
        let writer = CheckpointWriter::new(&target).unwrap();
        writer.json(CONFIG_FILE, &1).unwrap();
        drop(writer);
        assert!(!target.exists() && read_config(&locate(&target)).is_err());
    }

    #[test]
    fn another_format_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG_FILE), r#"{"format": 7}"#).unwrap();
        let error = read_config(dir.path()).unwrap_err().to_string();
        assert!(error.contains('7') && error.contains('1') && error.contains(CONFIG_FILE), "{error}");
        fs::write(dir.path().join(CONFIG_FILE), r#"{"architecture": "resnet50"}"#).unwrap();
        assert!(read_config(dir.path()).unwrap_err().to_string().contains("names no format"));
    }

    #[test]
    fn a_config_written_before_there_were_poolings_loads_and_is_written_as_it_was() {
        let old = r#"{"format":1,"arch":"resnet50","head":{"kind":"linear","dim":512},"transform":{"resize":256,"crop":224,"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],"interpolation":"bilinear"}}"#;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG_FILE), old).unwrap();
        let config = read_config(dir.path()).unwrap();
        assert_eq!(config, ModelConfig::new(Arch::ResNet50, HeadConfig::Linear { dim: 512 }));
        assert_eq!(config.pool(), Pool::Average);
        // Fingerprints are made of it: an index built then must go on fitting its model.
        assert_eq!(serde_json::to_string(&config).unwrap(), old);
    }

    #[test]
    fn what_a_model_learned_from_is_kept_and_changes_no_fingerprint() {
        let plain = ModelConfig::new(Arch::ResNet10Tiny, HeadConfig::Pooled);
        let drawn = ModelConfig { learned_from: Some(LearnedFrom::DrawnPictures), ..plain.clone() };
        let text = serde_json::to_string(&drawn).unwrap();
        assert!(text.contains(r#""learned_from":"drawn_pictures""#), "{text}");
        assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), drawn);
        assert!(!serde_json::to_string(&plain).unwrap().contains("learned_from"));
        let store = ParamStore::new(0, &Device::Cpu);
        assert_eq!(fingerprint(&plain, &store).unwrap(), fingerprint(&drawn, &store).unwrap());
        assert!(plain.is_same_network(&drawn));
    }

    #[test]
    fn settings_that_the_network_cannot_have_are_refused_by_name() {
        let vit = ModelConfig::new(Arch::VitSmall16, HeadConfig::Pooled);
        vit.check().unwrap();
        let mut odd = vit.clone();
        odd.transform.crop = 230;
        let error = odd.check().unwrap_err().to_string();
        assert!(error.contains("crop") && error.contains("230") && error.contains("224"), "{error}");
        let pool = Some(Pool::ClassToken);
        let net = ModelConfig { pool, ..ModelConfig::new(Arch::ResNet18, HeadConfig::Pooled) };
        assert!(net.check().unwrap_err().to_string().contains("resnet18"));
    }
}
