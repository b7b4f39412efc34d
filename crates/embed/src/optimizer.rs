//! Stochastic gradient descent with momentum, Adam and AdamW, in PyTorch's form.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Result, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::gradients::Gradients;
use crate::params::{Kind, ParamStore};

/// The rule by which a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Gradient descent with momentum.
    #[default]
    Sgd,
    /// Adam (Kingma & Ba 2015, arXiv 1412.6980), the weight decay added to the gradient.
    Adam,
    /// Adam with the weight decay apart (Loshchilov & Hutter 2019, arXiv 1711.05101).
    #[serde(rename = "adamw")]
    AdamW,
}

/// Settings of an [`Optimizer`] that do not change during a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule.
    pub algorithm: Algorithm,
    /// Share of the last step's direction kept (SGD).
    pub momentum: f64,
    /// Look ahead along the momentum (SGD, Nesterov).
    pub nesterov: bool,
    /// Share of the mean gradient kept (Adam).
    pub beta1: f64,
    /// Share of the mean squared gradient kept (Adam).
    pub beta2: f64,
    /// Added to the root of the mean squared gradient (Adam).
    pub epsilon: f64,
    /// L2 penalty, added to the gradient; with AdamW the share of a weight a step of rate 1 takes away.
    pub weight_decay: f64,
    /// Also penalise scales, shifts and biases, class tokens and position embeddings, as the Paddle original does (which
    /// has no tokens). Without it the groups are timm's.
    pub decay_vectors: bool,
    /// Learning rate of the head, as a multiple of the backbone's.
    pub head_lr: f64,
    /// Learning rate of the loss's own parameters (class weights, proxies), as a multiple of the backbone's.
    pub loss_lr: f64,
    /// Scale the gradient down to this norm over all parameters where it is longer; 0 leaves it alone.
    pub clip_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Sgd,
            momentum: 0.9,
            nesterov: false,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-4,
            decay_vectors: true,
            head_lr: 1.0,
            loss_lr: 1.0,
            clip_norm: 0.0,
        }
    }
}

impl OptimizerConfig {
    /// Values remembered of each weight.
    pub fn copies(&self) -> usize {
        if self.algorithm == Algorithm::Sgd { 1 } else { 2 }
    }
}

/// Steps against the gradient. With gradient `g`, weight `w`, decay `λ` and rate `lr`:
///
/// - SGD: `g ← g + λ w`, `v ← μ v + g`, `w ← w − lr · v`, or with Nesterov `w ← w − lr · (g + μ v)`;
/// - Adam: `g ← g + λ w`, `m ← β₁ m + (1 − β₁) g`, `s ← β₂ s + (1 − β₂) g²`,
///   `w ← w − lr / (1 − β₁ᵗ) · m / (√s / √(1 − β₂ᵗ) + ε)` at the parameter's step `t`;
/// - AdamW: `w ← w − lr λ w` first, and no decay in `g`.
///
/// What it remembers is kept by the parameter's name, so that it can be saved and a run resumed exactly.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    slots: BTreeMap<String, Slot>,
}

/// What is remembered of one parameter.
#[derive(Debug)]
struct Slot {
    /// The direction of SGD, the mean gradient of Adam.
    first: Var,
    /// The mean squared gradient of Adam.
    second: Option<Var>,
    /// Steps this parameter took.
    steps: u32,
}

const FIRST: &str = "first.";
const SECOND: &str = "second.";
const STEPS: &str = "steps.";

impl Optimizer {
    /// An optimiser at rest.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, slots: BTreeMap::new() }
    }

    /// What it remembers, by names to save it under.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for (name, slot) in &self.slots {
            all.push((format!("{FIRST}{name}"), slot.first.as_detached_tensor()));
            if let Some(second) = &slot.second {
                all.push((format!("{SECOND}{name}"), second.as_detached_tensor()));
            }
            all.push((format!("{STEPS}{name}"), Tensor::new(&[slot.steps], slot.first.device())?));
        }
        Ok(all)
    }

    /// Goes on from what was saved; names that are not [`state`](Self::state)'s are passed over.
    pub fn restore(&mut self, saved: &BTreeMap<String, Tensor>, store: &ParamStore) -> Result<()> {
        let copy = |t: &Tensor| Var::from_tensor(&t.to_device(store.device())?.copy()?);
        for (key, first) in saved {
            let Some(name) = key.strip_prefix(FIRST) else { continue };
            let second = saved.get(&format!("{SECOND}{name}")).map(copy).transpose()?;
            let steps = match saved.get(&format!("{STEPS}{name}")) {
                Some(steps) => steps.to_dtype(DType::U32)?.flatten_all()?.to_vec1::<u32>()?[0],
                None => candle_core::bail!("the saved state has no {STEPS}{name}"),
            };
            self.slots.insert(name.to_owned(), Slot { first: copy(first)?, second, steps });
        }
        Ok(())
    }

    /// One step with learning rate `lr`; returns the gradient's norm before clipping. A gradient that is not
    /// finite changes nothing.
    pub fn step(&mut self, store: &ParamStore, grads: &Gradients, lr: f64) -> Result<f64> {
        let norm = grads.norm()?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clip = self.config.clip_norm;
        let shrink = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
        for (name, param) in store.entries("") {
            let Some(grad) = grads.get(&name).filter(|_| param.kind == Kind::Parameter) else { continue };
            let rate = match name.split('.').next() {
                Some("loss") => lr * self.config.loss_lr,
                Some("head") => lr * self.config.head_lr,
                _ => lr,
            };
            let decays = self.config.decay_vectors || !is_vector(&name, &param.var);
            let decay = if decays { self.config.weight_decay } else { 0.0 };
            if !self.slots.contains_key(&name) {
                let zeros = || Var::from_tensor(&param.var.zeros_like()?);
                let second = (self.config.algorithm != Algorithm::Sgd).then(zeros).transpose()?;
                self.slots.insert(name.clone(), Slot { first: zeros()?, second, steps: 0 });
            }
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            slot.steps += 1;
            let update = Update { config: self.config, lr: rate, decay, shrink, steps: slot.steps };
            update.apply(&param.var, slot, &grad.contiguous()?)?;
        }
        Ok(norm)
    }
}

/// Whether a parameter is no matrix to be kept small: scales, shifts and biases (of norms, LayerScale and all others),
/// and the two embeddings that timm's vision transformers exempt by name.
fn is_vector(name: &str, var: &Var) -> bool {
    var.rank() <= 1 || matches!(name.rsplit('.').next(), Some("cls_token" | "pos_embed"))
}

/// One parameter's step.
#[derive(Debug, Clone, Copy)]
struct Update {
    config: OptimizerConfig,
    lr: f64,
    decay: f64,
    shrink: f64,
    steps: u32,
}

impl Update {
    fn apply(self, weight: &Var, slot: &Slot, grad: &Tensor) -> Result<()> {
        match &slot.second {
            None => self.descend(weight, &slot.first, grad),
            Some(second) => self.adapt(weight, &slot.first, second, grad),
        }
    }

    fn descend(self, weight: &Var, velocity: &Var, grad: &Tensor) -> Result<()> {
        let OptimizerConfig { momentum, nesterov, .. } = self.config;
        if weight.device().is_cpu() {
            let (lr, decay, shrink) = (self.lr as f32, self.decay as f32, self.shrink as f32);
            let momentum = momentum as f32;
            let accelerate = |v: &mut f32, g: f32, w: f32| *v = momentum * *v + (g * shrink + decay * w);
            velocity.inplace_op3(grad, weight, &Elementwise(accelerate))?;
            let ahead = |w: &mut f32, v: f32, g: f32| *w -= lr * (g * shrink + decay * *w + momentum * v);
            let along = |w: &mut f32, v: f32, _: f32| *w -= lr * v;
            return match nesterov {
                true => weight.inplace_op3(velocity, grad, &Elementwise(ahead)),
                false => weight.inplace_op3(velocity, grad, &Elementwise(along)),
            };
        }
        let now = weight.as_detached_tensor();
        let grad = ((grad * self.shrink)? + (&now * self.decay)?)?;
        let moved = ((velocity.as_detached_tensor() * momentum)? + &grad)?;
        velocity.set(&moved)?;
        let direction = if nesterov { (grad + (moved * momentum)?)? } else { moved };
        weight.set(&(now - (direction * self.lr)?)?)
    }

    fn adapt(self, weight: &Var, mean: &Var, square: &Var, grad: &Tensor) -> Result<()> {
        let OptimizerConfig { algorithm, beta1, beta2, epsilon, .. } = self.config;
        let apart = algorithm == Algorithm::AdamW;
        let coupled = if apart { 0.0 } else { self.decay };
        let keep = if apart { 1.0 - self.lr * self.decay } else { 1.0 };
        let rate = self.lr / (1.0 - beta1.powi(self.steps as i32));
        let root = (1.0 - beta2.powi(self.steps as i32)).sqrt();
        if weight.device().is_cpu() {
            let (shrink, coupled) = (self.shrink as f32, coupled as f32);
            let (b1, b2, rest1, rest2) =
                (beta1 as f32, beta2 as f32, (1.0 - beta1) as f32, (1.0 - beta2) as f32);
            let average = |m: &mut f32, g: f32, w: f32| *m = b1 * *m + rest1 * (g * shrink + coupled * w);
            mean.inplace_op3(grad, weight, &Elementwise(average))?;
            let spread = |s: &mut f32, g: f32, w: f32| {
                let g = g * shrink + coupled * w;
                *s = b2 * *s + rest2 * g * g;
            };
            square.inplace_op3(grad, weight, &Elementwise(spread))?;
            let (rate, root, epsilon, keep) = (rate as f32, root as f32, epsilon as f32, keep as f32);
            let walk = |w: &mut f32, m: f32, s: f32| *w = keep * *w - rate * m / (s.sqrt() / root + epsilon);
            return weight.inplace_op3(mean, square, &Elementwise(walk));
        }
        let now = weight.as_detached_tensor();
        let grad = ((grad * self.shrink)? + (&now * coupled)?)?;
        let m = ((mean.as_detached_tensor() * beta1)? + (&grad * (1.0 - beta1))?)?;
        let s = ((square.as_detached_tensor() * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?;
        mean.set(&m)?;
        square.set(&s)?;
        let direction = (m / ((s.sqrt()? / root)? + epsilon)?)?;
        weight.set(&((now * keep)? - (direction * rate)?)?)
    }
}

/// Calls a function on every value of the first tensor and its neighbours in the two others, in place.
struct Elementwise<F>(F);

/// Values handled by one thread at a time.
const CHUNK: usize = 1 << 15;

impl<F: Fn(&mut f32, f32, f32) + Sync> InplaceOp3 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(
        &self,
        a: &mut CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
        c: &CpuStorage,
        lc: &Layout,
    ) -> Result<()> {
        let ranges = (la.contiguous_offsets(), lb.contiguous_offsets(), lc.contiguous_offsets());
        let (Some((a0, a1)), Some((b0, b1)), Some((c0, c1))) = ranges else {
            candle_core::bail!("an optimiser step needs contiguous tensors")
        };
        let CpuStorage::F32(a) = a else { candle_core::bail!("an optimiser step needs f32 tensors") };
        let (b, c) = (&b.as_slice::<f32>()?[b0..b1], &c.as_slice::<f32>()?[c0..c1]);
        let chunks = a[a0..a1].par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).zip(c.par_chunks(CHUNK));
        chunks.for_each(|((a, b), c)| a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| self.0(a, *b, *c)));
        Ok(())
    }
}

#[cfg(test)]
#[path = "optimizer_tests.rs"]
mod tests;
