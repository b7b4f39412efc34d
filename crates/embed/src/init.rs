//! What a second stage of training starts from: the weights of an earlier run, under a head that may be another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::backbone::Arch;
use crate::checkpoint::{self, CONFIG_FILE, MODEL_FILE, ModelConfig};
use crate::embedder::{DeviceKind, Embedder, ModelSource};
use crate::error::{EmbedError, Result};
use crate::head::{HeadConfig, Pool};
use crate::weights::assign;

/// Which weights to start from, and what network to put them into.
#[derive(Debug, Clone, Default)]
pub struct InitConfig {
    /// A checkpoint folder, or a weight file (`.safetensors`, `.pth`) of the backbone.
    pub path: PathBuf,
    /// The architecture; by default that of the weights.
    pub arch: Option<Arch>,
    /// The head; by default the checkpoint's, or none on a weight file.
    pub head: Option<HeadConfig>,
    /// How the head pools; by default as the checkpoint's, or as the architecture does.
    pub pool: Option<Pool>,
    /// Replaces the length of the short side before cropping.
    pub resize: Option<u32>,
    /// Replaces the crop, and the short side in proportion unless `resize` says it.
    pub crop: Option<u32>,
    /// Seed of whatever is not loaded.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceKind,
}

/// What became of the head of the earlier run.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadStart {
    /// The new network's head has its weights, or neither has any.
    Kept,
    /// The new network's head is another one, and starts from random weights if it has any.
    Anew {
        /// The head of the earlier run.
        was: HeadConfig,
        /// How the earlier run pooled.
        pooled: Pool,
    },
}

/// Opens a network with the weights of an earlier run. What its loss had learned, and its optimiser, are not carried over.
///
/// # Errors
/// [`EmbedError::ArchMismatch`] if the weights are of another architecture than the one asked for,
/// [`EmbedError::Checkpoint`] if there are none, and others as a file fails.
pub fn init(config: &InitConfig) -> Result<(Embedder, HeadStart)> {
    let path = checkpoint::locate(&config.path);
    // The weights' file within a checkpoint stands for the checkpoint.
    let folder = match path.parent() {
        Some(parent) if path.ends_with(MODEL_FILE) && parent.join(CONFIG_FILE).is_file() => parent.to_owned(),
        _ => path,
    };
    if folder.join(CONFIG_FILE).is_file() {
        return from_checkpoint(&folder, config);
    }
    if !folder.is_file() {
        let reason =
            if folder.is_dir() { "it has no config.json" } else { "there is no such file or folder" };
        return Err(EmbedError::Checkpoint { path: folder, reason: reason.to_owned() });
    }
    let source = ModelSource {
        arch: config.arch,
        head: config.head.clone().unwrap_or_default(),
        pool: config.pool,
        resize: config.resize,
        crop: config.crop,
        seed: config.seed,
        device: config.device,
        ..ModelSource::new(folder.to_string_lossy())
    };
    Ok((Embedder::open(&source)?, HeadStart::Kept))
}

fn from_checkpoint(folder: &Path, config: &InitConfig) -> Result<(Embedder, HeadStart)> {
    let saved = checkpoint::read_config(folder)?;
    if let Some(wanted) = config.arch.filter(|&wanted| wanted != saved.arch) {
        let (found, wanted) = (saved.arch.to_string(), wanted.to_string());
        return Err(EmbedError::ArchMismatch { path: folder.to_owned(), found, wanted });
    }
    let head = config.head.clone().unwrap_or_else(|| saved.head.clone());
    let transform = saved.transform.clone().resized(config.resize, config.crop);
    let pool = config.pool.or(saved.pool);
    let network = ModelConfig { head, pool, transform, ..saved.clone() };
    let kept = network.head == saved.head && network.pool() == saved.pool();
    let loaded: &'static [&'static str] = if kept { &["backbone.", "head."] } else { &["backbone."] };
    let mut embedder = Embedder::unloaded(network, config.seed, config.device, loaded)?;
    let path = folder.join(MODEL_FILE);
    let tensors = checkpoint::read_tensors(&path)?;
    put(&embedder, "backbone.", &tensors, &path)?;
    let start = if kept {
        put(&embedder, "head.", &tensors, &path)?;
        HeadStart::Kept
    } else {
        HeadStart::Anew { pooled: saved.pool(), was: saved.head }
    };
    embedder.weights_changed()?;
    Ok((embedder, start))
}

/// Sets the network's tensors below `prefix` from those of the checkpoint.
fn put(embedder: &Embedder, prefix: &str, all: &BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
    let bare = all.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone())));
    let mismatch = assign(embedder.store(), prefix, &bare.collect())?;
    mismatch.none_left(path, &embedder.config().arch.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Embedder {
        let config = ModelConfig::new(Arch::ResNet10Tiny, HeadConfig::Linear { dim: 8 });
        Embedder::untrained(config, 5, DeviceKind::Cpu).unwrap()
    }

    fn values(embedder: &Embedder, name: &str) -> Vec<f32> {
        embedder.store().get(name).unwrap().var.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn backbone_and_head_are_taken_where_they_fit_and_another_head_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("best");
        first().save(&path).unwrap();
        let with = |head| InitConfig { path: path.clone(), head, seed: 9, ..InitConfig::default() };

        let (same, start) = init(&with(None)).unwrap();
        assert_eq!((same.fingerprint(), start), (first().fingerprint(), HeadStart::Kept));
        let file = InitConfig { path: path.join(MODEL_FILE), ..with(None) };
        assert_eq!(init(&file).unwrap().0.fingerprint(), first().fingerprint());

        let (other, start) = init(&with(Some(HeadConfig::Linear { dim: 4 }))).unwrap();
        let was = HeadConfig::Linear { dim: 8 };
        assert_eq!(start, HeadStart::Anew { was: was.clone(), pooled: Pool::Average });
        assert_eq!(other.dim(), 4);
        for name in ["backbone.conv1.weight", "backbone.layer4.0.bn2.running_var"] {
            assert_eq!(values(&other, name), values(&first(), name), "{name}");
        }
        let (pooled, start) = init(&with(Some(HeadConfig::Pooled))).unwrap();
        assert_eq!((pooled.dim(), start), (256, HeadStart::Anew { was, pooled: Pool::Average }));
    }

    #[test]
    fn another_architecture_and_nothing_at_all_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("best");
        first().save(&path).unwrap();
        let other = InitConfig { path, arch: Some(Arch::ResNet50), ..InitConfig::default() };
        let error = init(&other).unwrap_err().to_string();
        assert!(error.contains("resnet10_tiny") && error.contains("resnet50"), "{error}");
        let none = InitConfig { path: dir.path().join("none"), ..InitConfig::default() };
        let error = init(&none).unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("no such file"), "{error}");
    }
}
