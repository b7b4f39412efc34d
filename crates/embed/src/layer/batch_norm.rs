//! Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167) that can train.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{ModuleT, Result, Tensor, Var};
use semblance_kernels::frozen::Norm;
use semblance_kernels::{Activation, Statistics, activate, batch_norm_train};

use crate::onnx::{Edge, Graph};
use crate::params::{Init, Scope, value};

/// Added to the variance, as in torchvision.
const EPS: f64 = 1e-5;
/// Weight of the newest batch in the running statistics, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// Normalises each channel of `(n, c, h, w)`: by the batch's own statistics in training, which also move the
/// running ones, and by the running statistics otherwise. Where they are
/// [frozen](crate::params::ParamStore::freeze_norms), training too normalises by the running statistics and leaves
/// them; scale and shift are learned all the same.
#[derive(Debug, Clone)]
pub struct BatchNorm2d {
    weight: Var,
    bias: Var,
    running_mean: Var,
    running_var: Var,
    frozen: Arc<AtomicBool>,
}

impl BatchNorm2d {
    /// Registers scale, shift and running statistics of `channels` in `scope`, under PyTorch's names.
    pub fn new(channels: usize, scope: &Scope) -> Result<Self> {
        Self::with_scale(channels, 1.0, scope)
    }

    /// As [`new`](Self::new), with the scale starting at `scale`: zero on the last norm of a residual block
    /// lets the block start as the identity (Goyal et al. 2017, arXiv 1706.02677).
    pub fn with_scale(channels: usize, scale: f32, scope: &Scope) -> Result<Self> {
        Ok(Self {
            weight: scope.parameter("weight", channels, Init::Const(scale))?,
            bias: scope.parameter("bias", channels, Init::Const(0.0))?,
            running_mean: scope.buffer("running_mean", channels, Init::Const(0.0))?,
            running_var: scope.buffer("running_var", channels, Init::Const(1.0))?,
            frozen: scope.norms_frozen(),
        })
    }

    /// As [`new`](Self::new), with a shift that stays 0.
    pub fn without_shift(channels: usize, scope: &Scope) -> Result<Self> {
        Ok(Self {
            weight: scope.parameter("weight", channels, Init::Const(1.0))?,
            bias: scope.buffer("bias", channels, Init::Const(0.0))?,
            running_mean: scope.buffer("running_mean", channels, Init::Const(0.0))?,
            running_var: scope.buffer("running_var", channels, Init::Const(1.0))?,
            frozen: scope.norms_frozen(),
        })
    }

    /// The affine map `x · scale + shift` a channel, each `(c)`, that this layer is at inference.
    pub fn folded(&self) -> Result<(Tensor, Tensor)> {
        self.affine(false)
    }

    /// Writes the layer for rows `(n, c)` into an ONNX graph.
    pub(crate) fn emit_rows(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let (scale, shift) = self.folded()?;
        let (scale, shift) = (graph.constant(&scale)?, graph.constant(&shift)?);
        let scaled = graph.mul(x, &scale);
        Ok(graph.add(&scaled, &shift))
    }

    /// As [`folded`](Self::folded), with gradients in training.
    pub(crate) fn affine(&self, train: bool) -> Result<(Tensor, Tensor)> {
        let deviation = (self.running_var.as_detached_tensor() + EPS)?.sqrt()?;
        let scale = (value(&self.weight, train) / deviation)?;
        let shift = (value(&self.bias, train) - (self.running_mean.as_detached_tensor() * &scale)?)?;
        Ok((scale, shift))
    }

    /// What training normalises by.
    pub(crate) fn statistics(&self) -> Statistics<'_> {
        match self.frozen.load(Ordering::Relaxed) {
            true => Statistics::Fixed(&self.running_mean, &self.running_var),
            false => Statistics::Batch,
        }
    }

    /// The layer as a frozen network takes it.
    pub(crate) fn frozen(&self) -> Norm<'_> {
        Norm {
            gamma: &self.weight,
            beta: &self.bias,
            mean: &self.running_mean,
            variance: &self.running_var,
            eps: EPS,
        }
    }

    /// Scale and shift, to be learned, and what is added to the variance.
    pub(crate) fn learned(&self) -> (&Tensor, &Tensor, f64) {
        (self.weight.as_tensor(), self.bias.as_tensor(), EPS)
    }

    /// Moves the running statistics towards those of a batch of `count` values a channel.
    pub(crate) fn update_running(&self, mean: &Tensor, var: &Tensor, count: usize) -> Result<()> {
        // The running variance estimates the population's, so it takes the unbiased batch variance.
        let unbiased = count as f64 / (count.max(2) - 1) as f64;
        let blend = |running: &Var, batch: Tensor| -> Result<()> {
            running.set(&((running.as_detached_tensor() * (1.0 - MOMENTUM))? + (batch * MOMENTUM)?)?)
        };
        blend(&self.running_mean, mean.detach())?;
        blend(&self.running_var, (var.detach() * unbiased)?)
    }
}

impl BatchNorm2d {
    /// As [`forward_t`](ModuleT::forward_t), with an activation behind it in the same pass.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation, train: bool) -> Result<Tensor> {
        if train && matches!(self.statistics(), Statistics::Batch) {
            let (n, _, h, w) = x.dims4()?;
            let (weight, bias) = (self.weight.as_tensor(), self.bias.as_tensor());
            let (y, mean, var) = batch_norm_train(x, weight, bias, EPS, activation)?;
            self.update_running(&mean, &var, n * h * w)?;
            return Ok(y);
        }
        let (scale, shift) = self.affine(train)?;
        let per_channel = (1, scale.elem_count(), 1, 1);
        let y = x.broadcast_mul(&scale.reshape(per_channel)?)?.broadcast_add(&shift.reshape(per_channel)?)?;
        activate(&y, activation)
    }
}

impl ModuleT for BatchNorm2d {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_activated(x, Activation::None, train)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::params::ParamStore;

    // import torch; torch.manual_seed(0)
    // bn = torch.nn.BatchNorm2d(1); bn.weight.data.fill_(2.); bn.bias.data.fill_(.5); bn.train()
    // y = bn(torch.tensor([1., 2., 3., 6.]).reshape(2, 1, 1, 2))
    // y.flatten().tolist(), bn.running_mean.item(), bn.running_var.item()
    // bn.eval(); bn(torch.tensor([[[[1.]]]])).item()
    #[test]
    fn training_normalises_and_moves_the_running_statistics_as_pytorch_does() {
        let store = ParamStore::new(0, &Device::Cpu);
        let bn = BatchNorm2d::new(1, &store.root()).unwrap();
        bn.weight.set(&Tensor::new(&[2f32], &Device::Cpu).unwrap()).unwrap();
        bn.bias.set(&Tensor::new(&[0.5f32], &Device::Cpu).unwrap()).unwrap();
        let x = Tensor::new(&[1f32, 2., 3., 6.], &Device::Cpu).unwrap().reshape((2, 1, 1, 2)).unwrap();
        let y: Vec<f32> = bn.forward_t(&x, true).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let wanted = [-1.638_087_2, -0.569_043_6, 0.5, 3.707_131];
        assert!(y.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{y:?}");
        let mean = bn.running_mean.to_vec1::<f32>().unwrap()[0];
        let var = bn.running_var.to_vec1::<f32>().unwrap()[0];
        assert!((mean - 0.3).abs() < 1e-6 && (var - 1.366_666_7).abs() < 1e-6, "{mean} {var}");
        let one = Tensor::ones((1, 1, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let at_inference: Vec<f32> =
            bn.forward_t(&one, false).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!((at_inference[0] - 1.697_554_1).abs() < 1e-5, "{at_inference:?}");
    }

    // With running mean 0.3 and variance 1.37, scale 2 and shift 0.5, at ε = 1e-5.
    #[test]
    fn frozen_training_normalises_by_the_running_statistics_and_learns_scale_and_shift() {
        let store = ParamStore::new(0, &Device::Cpu);
        let bn = BatchNorm2d::new(1, &store.root()).unwrap();
        for (var, to) in
            [(&bn.weight, 2f32), (&bn.bias, 0.5), (&bn.running_mean, 0.3), (&bn.running_var, 1.37)]
        {
            var.set(&Tensor::new(&[to], &Device::Cpu).unwrap()).unwrap();
        }
        store.freeze_norms(true);
        let x = Tensor::new(&[1f32, 2., 3., 6.], &Device::Cpu).unwrap().reshape((2, 1, 1, 2)).unwrap();
        let y = bn.forward_t(&x, true).unwrap();
        let found: Vec<f32> = y.flatten_all().unwrap().to_vec1().unwrap();
        let plain = bn.forward_t(&x, false).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, plain);
        assert_eq!(bn.running_mean.to_vec1::<f32>().unwrap(), [0.3]);
        let grads = y.sum_all().unwrap().backward().unwrap();
        let grad = |var: &Var| grads.get(var).unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((grad(&bn.weight) - (12.0 - 4.0 * 0.3) / 1.370_01f32.sqrt()).abs() < 1e-4);
        assert_eq!(grad(&bn.bias), 4.0);
    }
}
