//! Where a run stands, so that it can go on as if it had never stopped.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TrainConfig;
use super::average::Average;
use super::learner::Learner;
use crate::checkpoint::{self, CheckpointWriter, MODEL_FILE, ModelConfig};
use crate::dataset::Dataset;
use crate::embedder::Embedder;
use crate::error::{EmbedError, Result};
use crate::params::ParamStore;
use crate::weights::assign;

const STATE_FILE: &str = "state.json";
const TENSORS_FILE: &str = "state.safetensors";
const OPTIMIZER: &str = "optimizer.";
const MEMORY: &str = "memory.";
const WATCH: &str = "watch.";
/// The weights that learn, where `model.safetensors` holds their average.
const RAW: &str = "raw.";

/// What `last/state.json` holds. Samplers and augmentation need no state of their own: both are functions of
/// the seed and the step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Steps done.
    pub(super) step: usize,
    /// The best validation so far: its step and Recall@1.
    pub(super) best: Option<(usize, f64)>,
    /// MAP@R of the best validation.
    #[serde(default)]
    pub(super) best_map_at_r: Option<f64>,
    /// Validations since the best one.
    #[serde(default)]
    pub(super) stale: usize,
    /// Recall@1 before the first step.
    pub(super) recall_before: Option<f64>,
    /// The settings of the run.
    config: TrainConfig,
    /// The network.
    model: ModelConfig,
    /// Of the paths and classes trained on.
    data: String,
}

impl State {
    pub(super) fn new(config: &TrainConfig, model: &ModelConfig, data: &Dataset) -> Self {
        let mut hasher = Sha256::new();
        for sample in &data.samples {
            hasher.update(sample.key().as_bytes());
            hasher.update([0]);
            hasher.update(sample.class.as_deref().unwrap_or_default().as_bytes());
            hasher.update([0]);
        }
        let data = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let (config, model) = (config.clone(), model.clone());
        Self { step: 0, best: None, best_map_at_r: None, stale: 0, recall_before: None, config, model, data }
    }

    /// With an average, to be called while it is in the model's place.
    pub(super) fn save_into(
        &self,
        writer: &CheckpointWriter,
        store: &ParamStore,
        learner: &Learner,
    ) -> Result<()> {
        let prefixed = |prefix: &str, named: Vec<(String, Tensor)>| -> Vec<(String, Tensor)> {
            named.into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)).collect()
        };
        let mut tensors: BTreeMap<String, Tensor> =
            prefixed(OPTIMIZER, learner.optimizer.state()?).into_iter().collect();
        tensors.extend(store.entries("loss.").into_iter().map(|(n, p)| (n, p.var.as_detached_tensor())));
        tensors.extend(prefixed(WATCH, learner.watch.state()?));
        if let Some(memory) = &learner.memory {
            tensors.extend(prefixed(MEMORY, memory.state()?));
        }
        if let Some(average) = &learner.average {
            tensors.extend(average.held().map(|(name, t)| (format!("{RAW}{name}"), t.clone())));
        }
        writer.tensors(TENSORS_FILE, &tensors)?;
        writer.json(STATE_FILE, self)
    }

    /// Reads the state in `last` and puts its tensors into the network, the loss and the optimiser, provided it is
    /// of the same run as `fresh`.
    pub(super) fn load(
        last: &Path,
        fresh: &Self,
        embedder: &mut Embedder,
        learner: &mut Learner,
    ) -> Result<Self> {
        let last = checkpoint::locate(last);
        let path = last.join(STATE_FILE);
        if !path.exists() {
            let reason = "there is no run to resume; start one without resuming".to_owned();
            return Err(EmbedError::Checkpoint { path: last, reason });
        }
        let saved: Self = checkpoint::read_json(&path)?;
        if let Some(what) = saved.difference(fresh) {
            let reason =
                format!("it is of another run: {what} differ; resume with the same, or begin a new run");
            return Err(EmbedError::Checkpoint { path, reason });
        }
        let model = checkpoint::read_tensors(&last.join(MODEL_FILE))?;
        let state = checkpoint::read_tensors(&last.join(TENSORS_FILE))?;
        for (prefix, tensors) in [("backbone.", &model), ("head.", &model), ("loss.", &state)] {
            let bare = tensors
                .iter()
                .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone())));
            let mismatch = assign(embedder.store(), prefix, &bare.collect())?;
            mismatch.none_left(&last, &embedder.config().arch.to_string())?;
        }
        let part = |prefix: &str| -> BTreeMap<String, Tensor> {
            let named =
                state.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_owned(), t.clone())));
            named.collect()
        };
        let store = embedder.store();
        learner.optimizer.restore(&part(OPTIMIZER), store)?;
        learner.watch.restore(&part(WATCH))?;
        if let Some(memory) = &mut learner.memory {
            memory.restore(&part(MEMORY))?;
        }
        if let Some(average) = &mut learner.average {
            *average = Average::new(saved.config.average, store)?;
            for (name, raw) in part(RAW) {
                if let Some(param) = store.get(&name) {
                    param.var.set(&raw.to_device(store.device())?)?;
                }
            }
        }
        embedder.weights_changed()?;
        Ok(saved)
    }

    /// What makes `other` another run.
    fn difference(&self, other: &Self) -> Option<String> {
        if !self.model.is_same_network(&other.model) {
            return Some("the networks".to_owned());
        }
        if self.data != other.data {
            return Some("the photographs or their classes".to_owned());
        }
        // The number of threads changes the speed only.
        let config = TrainConfig { threads: other.config.threads, ..self.config.clone() };
        if config == other.config {
            return None;
        }
        let (a, b) = (serde_json::to_value(&config).ok()?, serde_json::to_value(&other.config).ok()?);
        let keys = a.as_object()?.iter().filter(|(key, value)| b.get(key.as_str()) != Some(value));
        Some(format!("the settings {}", keys.map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ")))
    }
}
