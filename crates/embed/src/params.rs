//! The named tensors of a model: what is learned, and what is only kept.
//!
//! candle's `VarMap` is a hash map whose order changes from run to run, draws its initial values from an
//! unseeded generator and makes no difference between parameters and buffers. Training that resumes exactly
//! needs all three, so the store is our own: sorted by name, every tensor's initial value a function of
//! (seed, name) alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};
use sha2::{Digest, Sha256};

/// How a tensor gets its first values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same.
    Const(f32),
    /// Uniform between `-bound` and `bound`.
    Uniform {
        /// Half the width of the interval.
        bound: f32,
    },
    /// Normal around zero.
    Normal {
        /// Standard deviation.
        std: f32,
    },
}

impl Init {
    /// He et al. 2015 (arXiv 1502.01852), `fan_out` and the gain of a ReLU: what torchvision's ResNet and
    /// MobileNetV2 start their convolutions from.
    pub fn he_fan_out(fan_out: usize) -> Self {
        Self::Normal { std: (2.0 / fan_out as f32).sqrt() }
    }

    /// Glorot & Bengio 2010: uniform with bound `sqrt(6 / (fan_in + fan_out))`.
    pub fn xavier_uniform(fan_in: usize, fan_out: usize) -> Self {
        Self::Uniform { bound: (6.0 / (fan_in + fan_out) as f32).sqrt() }
    }

    fn draw(self, count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
        match self {
            Self::Const(value) => vec![value; count],
            Self::Uniform { bound } => {
                let range = Uniform::new_inclusive(-bound, bound).expect("bounds are finite and ordered");
                range.sample_iter(rng).take(count).collect()
            }
            Self::Normal { std } => {
                let normal = Normal::new(0.0, std).expect("the deviation is finite");
                normal.sample_iter(rng).take(count).collect()
            }
        }
    }
}

/// Whether gradients change a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Learned by gradient descent.
    Parameter,
    /// Kept alongside: running statistics.
    Buffer,
}

/// One named tensor of a model.
#[derive(Debug, Clone)]
pub struct Param {
    /// The tensor; clones share its storage.
    pub var: Var,
    /// Learned or only kept.
    pub kind: Kind,
}

/// All named tensors of a model, in the order of their names.
#[derive(Debug)]
pub struct ParamStore {
    entries: RefCell<BTreeMap<String, Param>>,
    seed: u64,
    device: Device,
    /// Prefixes of the names whose first values are read from a file.
    loaded: &'static [&'static str],
    norms_frozen: Arc<AtomicBool>,
}

impl ParamStore {
    /// An empty store on `device`; `seed` decides every initial value.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self::for_loading(seed, device, &[])
    }

    /// As [`new`](Self::new), where tensors whose names start with one of `loaded` are set from a file afterwards: they
    /// begin as zeros, as drawing values for a large network takes longer than reading them.
    pub(crate) fn for_loading(seed: u64, device: &Device, loaded: &'static [&'static str]) -> Self {
        let (entries, norms_frozen) = Default::default();
        Self { entries, seed, device: device.clone(), loaded, norms_frozen }
    }

    /// The device its tensors are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where layers register their tensors.
    pub fn root(&self) -> Scope<'_> {
        Scope { store: self, prefix: String::new() }
    }

    /// Whether batch norms keep their running statistics in training, and normalise by them.
    pub fn freeze_norms(&self, frozen: bool) {
        self.norms_frozen.store(frozen, Ordering::Relaxed);
    }

    /// A copy of the list of names and (shared) tensors whose names start with `prefix`.
    pub fn entries(&self, prefix: &str) -> Vec<(String, Param)> {
        let entries = self.entries.borrow();
        entries
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(n, p)| (n.clone(), p.clone()))
            .collect()
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<Param> {
        self.entries.borrow().get(name).cloned()
    }

    /// Number of learned values under `prefix`.
    pub fn parameter_count(&self, prefix: &str) -> usize {
        let learned = |(_, p): &(String, Param)| (p.kind == Kind::Parameter).then(|| p.var.elem_count());
        self.entries(prefix).iter().filter_map(learned).sum()
    }

    fn register(&self, name: String, shape: Shape, init: Init, kind: Kind) -> Result<Var> {
        if self.entries.borrow().contains_key(&name) {
            candle_core::bail!("the tensor {name} was registered twice")
        }
        let var = if self.loaded.iter().any(|prefix| name.starts_with(prefix)) {
            Var::zeros(shape, DType::F32, &self.device)?
        } else {
            let mut hasher = Sha256::new();
            hasher.update(self.seed.to_le_bytes());
            hasher.update(name.as_bytes());
            let mut rng = ChaCha8Rng::from_seed(hasher.finalize().into());
            Var::from_vec(init.draw(shape.elem_count(), &mut rng), shape, &self.device)?
        };
        self.entries.borrow_mut().insert(name, Param { var: var.clone(), kind });
        Ok(var)
    }
}

/// A place in the tree of names, such as `backbone.layer1.0`.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    store: &'a ParamStore,
    prefix: String,
}

impl Scope<'_> {
    /// The place `name` below this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { store: self.store, prefix: format!("{}{name}.", self.prefix) }
    }

    /// Registers a learned tensor.
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        self.store.register(format!("{}{name}", self.prefix), shape.into(), init, Kind::Parameter)
    }

    /// What [`ParamStore::freeze_norms`] says, for a layer to look at.
    pub(crate) fn norms_frozen(&self) -> Arc<AtomicBool> {
        self.store.norms_frozen.clone()
    }

    /// Registers a tensor that is kept but not learned.
    pub fn buffer(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        self.store.register(format!("{}{name}", self.prefix), shape.into(), init, Kind::Buffer)
    }
}

/// The tensor to compute with: tracked for gradients in training, free of the graph otherwise, so that
/// inference does not keep every intermediate result alive.
pub fn value(var: &Var, train: bool) -> Tensor {
    if train { var.as_tensor().clone() } else { var.as_detached_tensor() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, names: &[&str]) -> Vec<Vec<f32>> {
        let store = ParamStore::new(seed, &Device::Cpu);
        for name in names {
            store.root().at("layer").parameter(name, 5, Init::Normal { std: 1.0 }).unwrap();
        }
        store.entries("layer.").iter().map(|(_, p)| p.var.to_vec1().unwrap()).collect()
    }

    #[test]
    fn values_depend_on_seed_and_name_only() {
        assert_eq!(draw(1, &["a", "b"]), draw(1, &["b", "a"]));
        assert_ne!(draw(1, &["a"]), draw(2, &["a"]));
        let both = draw(1, &["a", "b"]);
        assert_ne!(both[0], both[1]);
    }

    #[test]
    fn nothing_is_drawn_for_what_is_loaded_and_everything_else_as_ever() {
        let drawn = ParamStore::new(3, &Device::Cpu);
        let loading = ParamStore::for_loading(3, &Device::Cpu, &["backbone."]);
        for store in [&drawn, &loading] {
            for place in ["backbone", "head", "loss"] {
                store.root().at(place).parameter("w", 4, Init::Normal { std: 1.0 }).unwrap();
            }
        }
        let values = |store: &ParamStore, name: &str| store.get(name).unwrap().var.to_vec1::<f32>().unwrap();
        assert_eq!(values(&loading, "backbone.w"), [0.0; 4]);
        for name in ["head.w", "loss.w"] {
            assert_eq!(values(&loading, name), values(&drawn, name));
        }
    }

    #[test]
    fn the_same_name_twice_is_an_error() {
        let store = ParamStore::new(0, &Device::Cpu);
        store.root().parameter("w", (2, 3), Init::Const(0.0)).unwrap();
        let twice = store.root().buffer("w", (2, 3), Init::Const(0.0)).unwrap_err().to_string();
        assert!(twice.contains("w was registered twice"), "{twice}");
    }

    #[test]
    fn only_parameters_are_counted() {
        let store = ParamStore::new(0, &Device::Cpu);
        store.root().parameter("w", (2, 3), Init::Const(0.0)).unwrap();
        store.root().buffer("mean", 7, Init::Const(0.0)).unwrap();
        assert_eq!(store.parameter_count(""), 6);
    }

    #[test]
    fn inference_values_carry_no_graph() {
        let store = ParamStore::new(0, &Device::Cpu);
        let w = store.root().parameter("w", 3, Init::Const(2.0)).unwrap();
        let free = (value(&w, false) * 2.0).unwrap();
        let tracked = (value(&w, true) * 2.0).unwrap().sum_all().unwrap();
        assert!(!free.track_op() && tracked.track_op());
        let grads = tracked.backward().unwrap();
        assert_eq!(grads.get(&w).unwrap().to_vec1::<f32>().unwrap(), [2.0; 3]);
    }
}
