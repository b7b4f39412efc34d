//! Image batches to unit vectors.

use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use semblance_kernels::frozen::{Builder, FrozenNet};

use crate::backbone::{Arch, Backbone, Features};
use crate::checkpoint::{self, CONFIG_FILE, CheckpointWriter, MODEL_FILE, ModelConfig};
use crate::error::{EmbedError, Result};
use crate::head::{Head, HeadConfig, Pool};
use crate::hub;
use crate::params::ParamStore;
use crate::transform::EvalTransform;
use crate::weights::{WeightFile, assign};

/// Where the network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number; needs a build with the feature `cuda`.
    Cuda(usize),
}

impl DeviceKind {
    fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => Ok(Device::new_cuda(number)?),
        }
    }
}

impl FromStr for DeviceKind {
    type Err = EmbedError;

    fn from_str(name: &str) -> Result<Self> {
        let number = |text: &str| text.parse().ok().map(Self::Cuda);
        let kind = match name {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            other => other.strip_prefix("cuda:").and_then(number),
        };
        let reason = format!("{name:?} is none of cpu, cuda, cuda:NUMBER");
        kind.ok_or(EmbedError::Config { key: "device", reason })
    }
}

/// Which model to open.
#[derive(Debug, Clone, Default)]
pub struct ModelSource {
    /// A checkpoint folder, a weight file, a hub name such as `timm/resnet18.a1_in1k`, or `random:ARCH`.
    pub model: String,
    /// The architecture, where the model does not say it itself.
    pub arch: Option<Arch>,
    /// The head put on a bare backbone; a checkpoint has its own.
    pub head: HeadConfig,
    /// Replaces the architecture's own pooling on a bare backbone; a checkpoint has its own.
    pub pool: Option<Pool>,
    /// Replaces the default evaluation transform of a bare backbone; a checkpoint has its own.
    pub transform: Option<EvalTransform>,
    /// Replaces the length of the short side in the default transform of a bare backbone.
    pub resize: Option<u32>,
    /// Replaces the crop in the default transform of a bare backbone, and the short side in proportion unless
    /// `resize` says it.
    pub crop: Option<u32>,
    /// Seed of whatever is not loaded.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceKind,
}

impl ModelSource {
    /// The model of this name, computed on the processor.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }
}

/// Backbone, head and normalisation: `(n, 3, s, s)` pixels → `(n, dim)` unit vectors.
#[derive(Debug)]
pub struct Embedder {
    config: ModelConfig,
    store: ParamStore,
    backbone: Backbone,
    head: Head,
    fingerprint: String,
    unused: Vec<String>,
    /// The network frozen for inference on the processor, if it can be; made when it is first needed.
    frozen: OnceLock<Option<FrozenNet>>,
}

impl Embedder {
    /// An untrained network; `seed` decides its weights.
    pub fn untrained(config: ModelConfig, seed: u64, device: DeviceKind) -> Result<Self> {
        config.check()?;
        let store = ParamStore::new(seed, &device.open()?);
        let backbone = config.arch.build(&store.root().at("backbone"))?;
        let channels = backbone.feature_dim();
        let head = Head::new(&config.head, config.pool(), channels, &store.root().at("head"))?;
        let (fingerprint, unused, frozen) = Default::default();
        let mut embedder = Self { config, store, backbone, head, fingerprint, unused, frozen };
        embedder.weights_changed()?;
        Ok(embedder)
    }

    /// Opens a model wherever it comes from.
    ///
    /// # Errors
    /// [`EmbedError::UnknownModel`] if there is none of this name, [`EmbedError::ArchNeeded`] if a weight file
    /// does not say its architecture, [`EmbedError::Weights`] if its tensors do not fit, and others as a file
    /// or the hub fails.
    pub fn open(source: &ModelSource) -> Result<Self> {
        let name = source.model.as_str();
        if let Some(arch) = name.strip_prefix("random:") {
            return Self::untrained(Self::bare(source, arch.parse()?), source.seed, source.device);
        }
        let path = checkpoint::locate(Path::new(name));
        if path.join(CONFIG_FILE).is_file() {
            return Self::open_checkpoint(&path, source);
        }
        if path.is_file() {
            return Self::open_weights(&path, None, source);
        }
        if !path.exists() && hub::is_name(name) {
            let (file, arch) = hub::fetch(name)?;
            return Self::open_weights(&file, arch, source);
        }
        if path.is_dir() {
            let reason = format!("it has no {CONFIG_FILE}");
            return Err(EmbedError::Checkpoint { path, reason });
        }
        Err(EmbedError::UnknownModel { model: name.to_owned(), known: Arch::known() })
    }

    fn bare(source: &ModelSource, arch: Arch) -> ModelConfig {
        let mut config = ModelConfig { pool: source.pool, ..ModelConfig::new(arch, source.head.clone()) };
        if let Some(transform) = &source.transform {
            config.transform = transform.clone();
        }
        let EvalTransform { resize, crop, .. } = &mut config.transform;
        if let Some(side) = source.crop {
            *resize = (u64::from(side) * u64::from(*resize) / u64::from((*crop).max(1))) as u32;
            *crop = side;
        }
        *resize = source.resize.unwrap_or(*resize);
        config
    }

    fn open_checkpoint(dir: &Path, source: &ModelSource) -> Result<Self> {
        let config = checkpoint::read_config(dir)?;
        Self::check_arch(dir, config.arch, source.arch)?;
        let mut embedder = Self::untrained(config, source.seed, source.device)?;
        let path = dir.join(MODEL_FILE);
        let mismatch = assign(&embedder.store, "", &checkpoint::read_tensors(&path)?)?;
        if mismatch != Default::default() {
            return Err(EmbedError::Weights { path, arch: embedder.config.arch.to_string(), mismatch });
        }
        embedder.weights_changed()?;
        Ok(embedder)
    }

    fn open_weights(path: &Path, said: Option<Arch>, source: &ModelSource) -> Result<Self> {
        let file = WeightFile::read(path)?;
        let said = said.or(file.arch);
        if let Some(found) = said {
            Self::check_arch(path, found, source.arch)?;
        }
        let needed = || EmbedError::ArchNeeded { path: path.to_owned(), known: Arch::known() };
        let arch = said.or(source.arch).ok_or_else(needed)?;
        let mut embedder = Self::untrained(Self::bare(source, arch), source.seed, source.device)?;
        embedder.unused = file.load_backbone(arch, &embedder.store, "backbone.")?;
        embedder.weights_changed()?;
        Ok(embedder)
    }

    fn check_arch(path: &Path, found: Arch, wanted: Option<Arch>) -> Result<()> {
        match wanted {
            Some(wanted) if wanted != found => Err(EmbedError::ArchMismatch {
                path: path.to_owned(),
                found: found.to_string(),
                wanted: wanted.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Size of the vectors.
    pub fn dim(&self) -> usize {
        self.head.dim()
    }

    /// How photographs become this network's pixels.
    pub fn transform(&self) -> &EvalTransform {
        &self.config.transform
    }

    /// Architecture, head and transform.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What an index remembers of the model that made it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Tensors of the weight file that the network had no use for, such as a classifier.
    pub fn unused_weights(&self) -> &[String] {
        &self.unused
    }

    /// The named tensors, for training.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// To be called after the tensors of [`store`](Self::store) were changed from outside.
    pub fn weights_changed(&mut self) -> Result<()> {
        self.frozen = OnceLock::new();
        self.fingerprint = checkpoint::fingerprint(&self.config, &self.store)?;
        Ok(())
    }

    /// The network as it is now, with batch norm folded into the convolutions, for inference on the processor; `None`
    /// where it has layers that no frozen network has: transformers, ConvNeXt, heads other than pooled and linear.
    pub fn freeze(&self) -> Result<Option<FrozenNet>> {
        let mut net = Builder::new(3)?;
        let images = net.input();
        let Some(map) = self.backbone.freeze(&mut net, images)? else { return Ok(None) };
        let Some(embedding) = self.head.freeze(&mut net, map)? else { return Ok(None) };
        Ok(Some(net.finish(embedding)?))
    }

    /// Not normalised vectors of `n` images by the fastest way the device has.
    fn infer(&self, pixels: &[f32], n: usize, side: usize) -> Result<Vec<f32>> {
        if self.store.device().is_cpu() {
            let frozen = match self.frozen.get() {
                Some(frozen) => frozen,
                None => {
                    let made = self.freeze()?;
                    self.frozen.get_or_init(|| made)
                }
            };
            if let Some(frozen) = frozen {
                return Ok(frozen.forward(pixels, n, side, side)?);
            }
        }
        let images = Tensor::from_slice(pixels, (n, 3, side, side), self.store.device())?;
        Ok(self.features(&images, false)?.flatten_all()?.to_vec1()?)
    }

    /// `(n, 3, h, w)` → `(n, dim)`, not normalised; with `train`, tracked for gradients.
    pub fn features(&self, images: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        self.embed_features(&self.backbone.features(images, train)?, train, train)
    }

    /// As [`features`](Self::features) in training, where a frozen backbone is used as in inference and gets no
    /// gradient.
    pub(crate) fn train_features(&self, images: &Tensor, frozen: bool) -> candle_core::Result<Tensor> {
        if !frozen {
            return self.features(images, true);
        }
        self.embed_features(&self.backbone.features(images, false)?.detach(), false, true)
    }

    /// What head and backbone's end make of features; each as in training or not.
    fn embed_features(
        &self,
        features: &Features,
        train_backbone: bool,
        train_head: bool,
    ) -> candle_core::Result<Tensor> {
        let pooled = self.head.pool(features, train_head)?;
        self.head.embed(&self.backbone.finish(pooled, train_backbone)?, train_head)
    }

    /// Unit vectors of `n` images, row by row: `n * dim` values from `n * 3 * crop * crop` pixels, as the
    /// [`transform`](Self::transform) makes them.
    ///
    /// # Errors
    /// [`EmbedError::Config`] if the number of pixels is not that of `n` images, [`EmbedError::Tensor`] if a
    /// vector has no direction: all zero or not finite.
    pub fn embed(&self, pixels: &[f32], n: usize) -> Result<Vec<f32>> {
        let side = self.config.transform.crop as usize;
        if n == 0 || pixels.len() != n * 3 * side * side {
            let reason = format!("{} values are not {n} images of 3 × {side} × {side}", pixels.len());
            return Err(EmbedError::Config { key: "pixels", reason });
        }
        let mut vectors = self.infer(pixels, n, side)?;
        for (row, vector) in vectors.chunks_mut(self.dim()).enumerate() {
            let norm = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if !norm.is_finite() || norm < 1e-12 {
                let problem = format!(
                    "the embedding of image {row} of the batch has norm {norm}: the network is broken"
                );
                return Err(EmbedError::Tensor(candle_core::Error::Msg(problem)));
            }
            vector.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
        Ok(vectors)
    }

    /// Writes `model.safetensors` and `config.json` into the folder `dir`, replacing an older checkpoint there
    /// whole or not at all.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let writer = CheckpointWriter::new(dir)?;
        self.save_into(&writer)?;
        writer.commit()
    }

    pub(crate) fn save_into(&self, writer: &CheckpointWriter) -> Result<()> {
        let tensors = checkpoint::model_entries(&self.store).into_iter();
        let tensors = tensors.map(|(name, p)| (name, p.var.as_detached_tensor())).collect();
        writer.tensors(MODEL_FILE, &tensors)?;
        writer.json(CONFIG_FILE, &self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
