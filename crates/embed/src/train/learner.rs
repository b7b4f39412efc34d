//! What learns in a run: the loss, the optimiser, and what they remember.

use candle_core::{Tensor, Var};

use super::TrainConfig;
use super::average::Average;
use super::watch::Watch;
use crate::embedder::Embedder;
use crate::error::{EmbedError, Result};
use crate::gradients::Gradients;
use crate::loader::Batch;
use crate::loss::{CrossBatchMemory, Loss};
use crate::optimizer::Optimizer;
use crate::params::Kind;

/// A run's moving parts beside the network.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) optimizer: Optimizer,
    pub(super) memory: Option<CrossBatchMemory>,
    pub(super) average: Option<Average>,
    pub(super) watch: Watch,
    loss: Box<dyn Loss>,
    config: TrainConfig,
}

impl Learner {
    pub(super) fn new(config: &TrainConfig, embedder: &Embedder, classes: usize) -> Result<Self> {
        let store = embedder.store();
        let loss = config.loss.build(embedder.dim(), classes, &store.root().at("loss"))?;
        let memory = (config.memory > 0).then(|| CrossBatchMemory::new(config.memory, embedder.dim()));
        if memory.is_some() && loss.as_pair_loss().is_none() {
            let reason = format!(
                "{} does not compare pairs; contrastive, multi_similarity, circle, supcon and triplet do",
                config.loss.name()
            );
            return Err(EmbedError::Config { key: "memory", reason });
        }
        let learned = ["head.", "loss."].iter().map(|part| store.parameter_count(part)).sum::<usize>();
        if config.freeze_backbone == super::Freeze::All && learned == 0 {
            let reason = "with a frozen backbone there is nothing to learn: neither the head nor the loss has \
                          parameters";
            return Err(EmbedError::Config { key: "freeze_backbone", reason: reason.to_owned() });
        }
        let average = (config.average > 0.0).then(|| Average::new(config.average, store)).transpose()?;
        let optimizer = Optimizer::new(config.optimizer);
        let watch = Watch::new(config.explode_factor, config.explode_steps);
        Ok(Self { optimizer, memory, average, watch, loss, config: config.clone() })
    }

    /// One step from the mean gradient of these batches: the mean of their losses, and the gradient's norm. A loss
    /// or a gradient that is not finite changes nothing.
    pub(super) fn step(
        &mut self,
        embedder: &Embedder,
        batches: &[&Batch],
        labels: &[u32],
        step: usize,
        lr: f64,
    ) -> Result<(f32, f64)> {
        let store = embedder.store();
        store.freeze_norms(self.config.freeze_norms.at(step));
        let (mut gradients, mut total) = (Gradients::default(), 0.0);
        for batch in batches {
            let labels: Vec<u32> = batch.indices.iter().map(|&i| labels[i]).collect();
            total += self.add_gradients(&mut gradients, embedder, batch, &labels, step)?;
        }
        if batches.len() > 1 {
            gradients.scale(1.0 / batches.len() as f64)?;
        }
        let loss = total / batches.len().max(1) as f32;
        if !loss.is_finite() {
            return Ok((loss, f64::NAN));
        }
        let norm = self.optimizer.step(store, &gradients, lr)?;
        if let Some(average) = self.average.as_mut().filter(|_| norm.is_finite()) {
            average.follow(store)?;
        }
        Ok((loss, norm))
    }

    fn objective(&mut self, embeddings: &Tensor, labels: &[u32], step: usize) -> candle_core::Result<Tensor> {
        match (&mut self.memory, self.loss.as_pair_loss()) {
            (Some(memory), Some(loss)) if step >= self.config.memory_start => {
                memory.forward(loss, embeddings, labels)
            }
            _ => self.loss.forward(embeddings, labels),
        }
    }

    fn add_gradients(
        &mut self,
        gradients: &mut Gradients,
        embedder: &Embedder,
        batch: &Batch,
        labels: &[u32],
        step: usize,
    ) -> Result<f32> {
        let store = embedder.store();
        let shape = (labels.len(), 3, batch.size, batch.size);
        let images = Tensor::from_slice(&batch.pixels, shape, store.device())?;
        let frozen = self.config.freeze_backbone.at(step);
        let chunk = self.config.chunk;
        if chunk == 0 || chunk >= labels.len() {
            let loss = self.objective(&embedder.train_features(&images, frozen)?, labels, step)?;
            gradients.add(store, &loss.backward()?)?;
            return Ok(loss.to_scalar()?);
        }
        // The gradient for the embeddings comes first, from a pass that keeps nothing but them; then each chunk's
        // pass again, now keeping what its own gradient needs (Gao et al. 2021, arXiv 2101.06983).
        let chunks: Vec<(usize, usize)> =
            (0..labels.len()).step_by(chunk).map(|at| (at, chunk.min(labels.len() - at))).collect();
        let features = |&(at, n): &(usize, usize)| -> Result<Tensor> {
            Ok(embedder.train_features(&images.narrow(0, at, n)?, frozen)?)
        };
        let buffers: Vec<(Var, Tensor)> = store
            .entries("")
            .into_iter()
            .filter(|(_, param)| param.kind == Kind::Buffer)
            .map(|(_, param)| Ok((param.var.clone(), param.var.as_detached_tensor().copy()?)))
            .collect::<candle_core::Result<_>>()?;
        let parts = chunks.iter().map(|part| Ok(features(part)?.detach())).collect::<Result<Vec<_>>>()?;
        // Running statistics move once a step, not once a pass.
        for (var, before) in buffers {
            var.set(&before)?;
        }
        let embeddings = Var::from_tensor(&Tensor::cat(&parts, 0)?)?;
        let loss = self.objective(embeddings.as_tensor(), labels, step)?;
        let grads = loss.backward()?;
        gradients.add(store, &grads)?;
        if let Some(wanted) = grads.get(&embeddings) {
            for part in &chunks {
                let along = (features(part)? * wanted.narrow(0, part.0, part.1)?)?.sum_all()?;
                gradients.add(store, &along.backward()?)?;
            }
        }
        Ok(loss.to_scalar()?)
    }
}
