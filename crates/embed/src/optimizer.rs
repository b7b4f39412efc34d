//! Stochastic gradient descent with momentum, in PyTorch's form.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::params::{Kind, ParamStore};

/// Settings of [`Sgd`] that do not change during a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdConfig {
    /// Share of the last step's direction kept.
    pub momentum: f64,
    /// Look ahead along the momentum (Nesterov).
    pub nesterov: bool,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
    /// Also penalise scales, shifts and biases, as the Paddle original does.
    pub decay_vectors: bool,
    /// Learning rate of the loss's own parameters (class weights, proxies), as a multiple of the rest's.
    pub loss_lr: f64,
    /// Scale the gradient down to this norm over all parameters where it is longer; 0 leaves it alone.
    pub clip_norm: f64,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-4,
            decay_vectors: true,
            loss_lr: 1.0,
            clip_norm: 0.0,
        }
    }
}

/// Steps against the gradient. With gradient `g`, weight `w`, momentum `μ`, decay `λ`:
/// `g ← g + λ w`, `v ← μ v + g`, `w ← w − lr · v`, or with Nesterov `w ← w − lr · (g + μ v)`.
///
/// The directions `v` are kept by name, so that they can be saved and a run resumed exactly.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    velocity: BTreeMap<String, Var>,
}

impl Sgd {
    /// An optimiser at rest.
    pub fn new(config: SgdConfig) -> Self {
        Self { config, velocity: BTreeMap::new() }
    }

    /// The directions by parameter name, to be saved.
    pub fn state(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.velocity.iter().map(|(name, v)| (name.as_str(), v.as_detached_tensor()))
    }

    /// Goes on from saved directions.
    pub fn restore(&mut self, name: &str, velocity: &Tensor) -> Result<()> {
        self.velocity.insert(name.to_owned(), Var::from_tensor(&velocity.copy()?)?);
        Ok(())
    }

    /// One step with learning rate `lr`; returns the gradient's norm before clipping (zero if not asked to clip).
    pub fn step(&mut self, store: &ParamStore, grads: &GradStore, lr: f64) -> Result<f64> {
        let entries = store.entries("");
        let learned = entries.iter().filter(|(_, p)| p.kind == Kind::Parameter);
        let learned: Vec<_> = learned.filter_map(|(n, p)| Some((n, &p.var, grads.get(&p.var)?))).collect();
        let mut norm = 0.0;
        if self.config.clip_norm > 0.0 {
            for (_, _, grad) in &learned {
                norm += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
            norm = norm.sqrt();
        }
        let shrink = if norm > self.config.clip_norm { self.config.clip_norm / norm } else { 1.0 };
        for (name, var, grad) in learned {
            let velocity = match self.velocity.get(name) {
                Some(velocity) => velocity,
                None => self.velocity.entry(name.clone()).or_insert(Var::from_tensor(&var.zeros_like()?)?),
            };
            let decays = self.config.decay_vectors || var.rank() > 1;
            let update = Update {
                lr: lr * if name.starts_with("loss.") { self.config.loss_lr } else { 1.0 },
                decay: if decays { self.config.weight_decay } else { 0.0 },
                momentum: self.config.momentum,
                nesterov: self.config.nesterov,
                shrink,
            };
            update.apply(var, velocity, &grad.contiguous()?)?;
        }
        Ok(norm)
    }
}

/// One parameter's step.
#[derive(Debug, Clone, Copy)]
struct Update {
    lr: f64,
    decay: f64,
    momentum: f64,
    nesterov: bool,
    shrink: f64,
}

impl Update {
    fn apply(self, weight: &Var, velocity: &Var, grad: &Tensor) -> Result<()> {
        if weight.device().is_cpu() {
            velocity.inplace_op3(grad, weight, &Accelerate(self))?;
            return weight.inplace_op3(velocity, grad, &Move(self));
        }
        let weight_now = weight.as_detached_tensor();
        let grad = ((grad * self.shrink)? + (&weight_now * self.decay)?)?;
        let moved = ((velocity.as_detached_tensor() * self.momentum)? + &grad)?;
        velocity.set(&moved)?;
        let direction = if self.nesterov { (grad + (moved * self.momentum)?)? } else { moved };
        weight.set(&(weight_now - (direction * self.lr)?)?)
    }
}

/// `v ← μ v + (g + λ w)`, in place.
struct Accelerate(Update);

/// `w ← w − lr · v`, or Nesterov's form, in place.
struct Move(Update);

/// Values handled by one thread at a time.
const CHUNK: usize = 1 << 15;

/// Calls `f` on every value of the first tensor and its neighbours in the others; all contiguous.
fn zip3(
    (a, la): (&mut CpuStorage, &Layout),
    (b, lb): (&CpuStorage, &Layout),
    (c, lc): (&CpuStorage, &Layout),
    f: impl Fn(&mut f32, f32, f32) + Sync,
) -> Result<()> {
    let ranges = (la.contiguous_offsets(), lb.contiguous_offsets(), lc.contiguous_offsets());
    let (Some((a0, a1)), Some((b0, b1)), Some((c0, c1))) = ranges else {
        candle_core::bail!("an optimiser step needs contiguous tensors")
    };
    let CpuStorage::F32(a) = a else { candle_core::bail!("an optimiser step needs f32 tensors") };
    let (b, c) = (&b.as_slice::<f32>()?[b0..b1], &c.as_slice::<f32>()?[c0..c1]);
    let chunks = a[a0..a1].par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).zip(c.par_chunks(CHUNK));
    chunks.for_each(|((a, b), c)| a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| f(a, *b, *c)));
    Ok(())
}

impl InplaceOp3 for Accelerate {
    fn name(&self) -> &'static str {
        "sgd-accelerate"
    }

    fn cpu_fwd(
        &self,
        velocity: &mut CpuStorage,
        velocity_at: &Layout,
        grad: &CpuStorage,
        grad_at: &Layout,
        weight: &CpuStorage,
        weight_at: &Layout,
    ) -> Result<()> {
        let (shrink, decay, momentum) = (self.0.shrink as f32, self.0.decay as f32, self.0.momentum as f32);
        zip3((velocity, velocity_at), (grad, grad_at), (weight, weight_at), |v, g, w| {
            *v = momentum * *v + (g * shrink + decay * w);
        })
    }
}

impl InplaceOp3 for Move {
    fn name(&self) -> &'static str {
        "sgd-move"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        weight_at: &Layout,
        velocity: &CpuStorage,
        velocity_at: &Layout,
        grad: &CpuStorage,
        grad_at: &Layout,
    ) -> Result<()> {
        let Update { lr, decay, momentum, nesterov, shrink } = self.0;
        let (lr, decay, momentum, shrink) = (lr as f32, decay as f32, momentum as f32, shrink as f32);
        let at = (weight, weight_at);
        if nesterov {
            zip3(at, (velocity, velocity_at), (grad, grad_at), |w, v, g| {
                *w -= lr * (g * shrink + decay * *w + momentum * v);
            })
        } else {
            zip3(at, (velocity, velocity_at), (grad, grad_at), |w, v, _| *w -= lr * v)
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::params::Init;

    /// Three steps on `Σ (w_i - i)² / 2` from `w = 2`.
    fn three_steps(config: SgdConfig) -> Vec<f32> {
        let store = ParamStore::new(0, &Device::Cpu);
        let w = store.root().parameter("w", (1, 3), Init::Const(2.0)).unwrap();
        let mut sgd = Sgd::new(config);
        for _ in 0..3 {
            let target = Tensor::new(&[[0f32, 1., 2.]], &Device::Cpu).unwrap();
            let loss = ((w.as_tensor() - target).unwrap().sqr().unwrap().sum_all().unwrap() * 0.5).unwrap();
            sgd.step(&store, &loss.backward().unwrap(), 0.1).unwrap();
        }
        w.flatten_all().unwrap().to_vec1().unwrap()
    }

    // import torch
    // for nesterov in (False, True):
    //     w = torch.full((1, 3), 2., requires_grad=True)
    //     o = torch.optim.SGD([w], lr=.1, momentum=.9, weight_decay=.01, nesterov=nesterov)
    //     for _ in range(3):
    //         o.zero_grad(); ((w - torch.tensor([[0., 1., 2.]]))**2).sum().mul(.5).backward(); o.step()
    //     print(w.flatten().tolist())
    // (the same recurrence by hand: g = w - t + .01 w; v = .9 v + g; w -= .1 v, or w -= .1 (g + .9 v))
    #[test]
    fn three_steps_are_those_of_pytorchs_formula() {
        for nesterov in [false, true] {
            let config = SgdConfig { weight_decay: 0.01, nesterov, ..SgdConfig::default() };
            let found = three_steps(config);
            for (i, found) in found.into_iter().enumerate() {
                let (mut w, mut v) = (2.0f64, 0.0);
                for _ in 0..3 {
                    let g = w - i as f64 + 0.01 * w;
                    v = 0.9 * v + g;
                    w -= 0.1 * if nesterov { g + 0.9 * v } else { v };
                }
                assert!((f64::from(found) - w).abs() < 1e-6, "{i}: {found} {w}");
            }
        }
    }

    #[test]
    fn clipping_bounds_the_first_step() {
        let config = SgdConfig { clip_norm: 0.5, momentum: 0.0, weight_decay: 0.0, ..SgdConfig::default() };
        let store = ParamStore::new(0, &Device::Cpu);
        let w = store.root().parameter("w", 2, Init::Const(0.0)).unwrap();
        let loss =
            (w.as_tensor() * Tensor::new(&[3f32, 4.], &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
        let norm = Sgd::new(config).step(&store, &loss.backward().unwrap(), 1.0).unwrap();
        assert_eq!(norm, 5.0);
        let moved: Vec<f32> = w.to_vec1().unwrap();
        assert!((moved[0] + 0.3).abs() < 1e-6 && (moved[1] + 0.4).abs() < 1e-6, "{moved:?}");
    }

    #[test]
    fn vectors_are_spared_the_decay_if_asked_and_the_loss_has_its_own_rate() {
        let config =
            SgdConfig { weight_decay: 1.0, decay_vectors: false, loss_lr: 3.0, ..SgdConfig::default() };
        let store = ParamStore::new(0, &Device::Cpu);
        let bias = store.root().parameter("bias", 1, Init::Const(1.0)).unwrap();
        let proxy = store.root().at("loss").parameter("bias", 1, Init::Const(1.0)).unwrap();
        let loss = (bias.as_tensor() + proxy.as_tensor()).unwrap().sum_all().unwrap();
        Sgd::new(config).step(&store, &loss.backward().unwrap(), 0.1).unwrap();
        assert!((bias.to_vec1::<f32>().unwrap()[0] - 0.9).abs() < 1e-6);
        assert!((proxy.to_vec1::<f32>().unwrap()[0] - 0.7).abs() < 1e-6);
    }
}
