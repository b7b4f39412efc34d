//! Image batches to unit vectors.

use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use semblance_kernels::frozen::{Builder, FrozenNet, Precision};

use crate::backbone::{Arch, Backbone, Features};
use crate::checkpoint::{self, CONFIG_FILE, CheckpointWriter, LearnedFrom, MODEL_FILE, ModelConfig};
use crate::error::{EmbedError, Result};
use crate::head::{Head, HeadConfig, Pool};
use crate::hub;
use crate::onnx::{Edge, Graph};
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
    /// Replaces the length of the short side in the default transform of a bare backbone; a checkpoint's cannot be
    /// replaced.
    pub resize: Option<u32>,
    /// Replaces the crop in the default transform of a bare backbone, and the short side in proportion unless
    /// `resize` says it; a checkpoint's cannot be replaced.
    pub crop: Option<u32>,
    /// Seed of whatever is not loaded.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceKind,
    /// What a network that is frozen for inference multiplies.
    pub precision: Precision,
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
    precision: Precision,
    /// The network frozen for inference on the processor, if it can be; made when it is first needed.
    frozen: OnceLock<Option<FrozenNet>>,
}

impl Embedder {
    /// An untrained network; `seed` decides its weights.
    pub fn untrained(config: ModelConfig, seed: u64, device: DeviceKind) -> Result<Self> {
        let mut embedder = Self::unloaded(config, seed, device, &[])?;
        embedder.weights_changed()?;
        Ok(embedder)
    }

    /// A network whose tensors below the prefixes `loaded` the caller has to set; then it has to call
    /// [`weights_changed`](Self::weights_changed), which gives it its fingerprint.
    pub(crate) fn unloaded(
        config: ModelConfig,
        seed: u64,
        device: DeviceKind,
        loaded: &'static [&'static str],
    ) -> Result<Self> {
        config.check()?;
        let store = ParamStore::for_loading(seed, &device.open()?, loaded);
        let backbone = config.arch.build(&store.root().at("backbone"))?;
        let channels = backbone.feature_dim();
        let head = Head::new(&config.head, config.pool(), channels, &store.root().at("head"))?;
        let (fingerprint, unused, precision, frozen) = Default::default();
        Ok(Self { config, store, backbone, head, fingerprint, unused, precision, frozen })
    }

    /// Opens a model wherever it comes from.
    ///
    /// # Errors
    /// [`EmbedError::UnknownModel`] if there is none of this name, [`EmbedError::ArchNeeded`] if a weight file
    /// does not say its architecture, [`EmbedError::ArchMismatch`] or [`EmbedError::SizeMismatch`] if the source asks for
    /// something else than a checkpoint holds, [`EmbedError::Weights`] if tensors do not fit, and others as a file or the
    /// hub fails.
    pub fn open(source: &ModelSource) -> Result<Self> {
        Self::open_any(source)?.with_precision(source.precision)
    }

    /// The same model with other numbers inside at inference. Its fingerprint stays: vectors differ by far less than
    /// those of two photographs of one item.
    ///
    /// # Errors
    /// [`EmbedError::Config`] if integers are asked for on another device than the processor, or of a network that cannot
    /// be frozen.
    pub fn with_precision(self, precision: Precision) -> Result<Self> {
        let embedder = Self { precision, frozen: OnceLock::new(), ..self };
        if precision == Precision::F32 {
            return Ok(embedder);
        }
        let frozen = if embedder.store.device().is_cpu() { embedder.freeze()? } else { None };
        if frozen.is_none() {
            let reason = format!(
                "{precision} is for convolutional networks on the processor, with pooled or linear heads; take f32"
            );
            return Err(EmbedError::Config { key: "precision", reason });
        }
        Ok(Self { frozen: OnceLock::from(frozen), ..embedder })
    }

    fn open_any(source: &ModelSource) -> Result<Self> {
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
        let transform = source.transform.clone().unwrap_or(config.transform);
        config.transform = transform.resized(source.resize, source.crop);
        config
    }

    fn open_checkpoint(dir: &Path, source: &ModelSource) -> Result<Self> {
        let config = checkpoint::read_config(dir)?;
        Self::check_arch(dir, config.arch, source.arch)?;
        let (resize, crop) = (config.transform.resize, config.transform.crop);
        for (what, found, wanted) in [("resize", resize, source.resize), ("crop", crop, source.crop)] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                return Err(EmbedError::SizeMismatch { path: dir.to_owned(), what, found, wanted });
            }
        }
        let mut embedder = Self::unloaded(config, source.seed, source.device, &["backbone.", "head."])?;
        let path = dir.join(MODEL_FILE);
        let mismatch = assign(&embedder.store, "", &checkpoint::read_tensors(&path)?)?;
        mismatch.none_left(&path, &embedder.config.arch.to_string())?;
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
        let config = Self::bare(source, arch);
        let mut embedder = Self::unloaded(config, source.seed, source.device, &["backbone."])?;
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

    /// Notes what the weights are learned from.
    pub fn set_learned_from(&mut self, learned_from: Option<LearnedFrom>) {
        self.config.learned_from = learned_from;
    }

    /// What stands behind the backbone.
    pub(crate) fn head(&self) -> &Head {
        &self.head
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
        let mut net = Builder::new(3)?.precision(self.precision);
        let images = net.input();
        let Some(map) = self.backbone.freeze(&mut net, images)? else { return Ok(None) };
        let Some(embedding) = self.head.freeze(&mut net, map)? else { return Ok(None) };
        Ok(Some(net.finish(embedding)?))
    }

    /// Writes the network as it is at inference, normalisation included, into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph) -> Result<Edge> {
        let images = graph.input();
        let features = self.backbone.emit(graph, images)?;
        let pooled = self.head.emit_pool(graph, &features)?;
        let pooled = self.backbone.emit_finish(graph, pooled)?;
        let embedding = self.head.emit(graph, pooled)?;
        Ok(graph.normalize(&embedding))
    }

    /// Channels of the backbone's feature map.
    pub fn feature_dim(&self) -> usize {
        self.backbone.feature_dim()
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
#[path = "embedder_tests.rs"]
mod tests;
