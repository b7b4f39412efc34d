//! Classification by a linear layer and cross-entropy, plain or normalised.

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Loss, cross_entropy, normalize_rows};
use crate::params::{Init, Scope};

/// Settings of [`Softmax`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftmaxConfig {
    /// Normalise embeddings and class weights, leave out the bias and multiply the cosines by `scale`
    /// (NormSoftmax: Zhai & Wu 2019, arXiv 1811.12649).
    pub normalize: bool,
    /// The inverse temperature of the normalised form; without `normalize` it has no effect.
    pub scale: f64,
    /// Share of the target spread evenly over all classes.
    pub label_smoothing: f64,
}

impl Default for SoftmaxConfig {
    fn default() -> Self {
        Self { normalize: false, scale: 20.0, label_smoothing: 0.0 }
    }
}

/// `-log softmax(W x + b)` at the label; with `normalize`, `-log softmax(s · cos(x, w_j))`.
#[derive(Debug)]
pub struct Softmax {
    config: SoftmaxConfig,
    weight: Var,
    bias: Option<Var>,
}

impl Softmax {
    /// Registers `weight (classes, dim)` and, unless normalised, `bias (classes)`. The weights start uniform in
    /// ±1/√dim and the bias at zero, as in the Paddle original.
    pub fn new(config: SoftmaxConfig, dim: usize, classes: usize, scope: &Scope) -> Result<Self> {
        let bound = 1.0 / (dim as f32).sqrt();
        let weight = scope.parameter("weight", (classes, dim), Init::Uniform { bound })?;
        let bias =
            (!config.normalize).then(|| scope.parameter("bias", classes, Init::Const(0.0))).transpose()?;
        Ok(Self { config, weight, bias })
    }
}

impl Loss for Softmax {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let logits = match &self.bias {
            Some(bias) => embeddings.matmul(&self.weight.t()?)?.broadcast_add(bias)?,
            None => {
                let weight = normalize_rows(&self.weight)?;
                (normalize_rows(embeddings)?.matmul(&weight.t()?)? * self.config.scale)?
            }
        };
        cross_entropy(&logits, labels, self.config.label_smoothing)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::loss::check::{assert_close, assert_gradient, embeddings, numbers, value};
    use crate::params::ParamStore;

    const LABELS: [u32; 4] = [0, 2, 1, 2];

    fn build(config: SoftmaxConfig) -> Softmax {
        let store = ParamStore::new(0, &Device::Cpu);
        let loss = Softmax::new(config, 5, 3, &store.root()).unwrap();
        let weight = Tensor::from_vec(numbers(15, 2.0), (3, 5), &Device::Cpu).unwrap();
        loss.weight.set(&weight).unwrap();
        if let Some(bias) = &loss.bias {
            bias.set(&Tensor::from_vec(numbers(3, 3.0), 3, &Device::Cpu).unwrap()).unwrap();
        }
        loss
    }

    fn settings() -> [SoftmaxConfig; 4] {
        let plain = SoftmaxConfig::default();
        let normalized = SoftmaxConfig { normalize: true, scale: 8.0, ..plain };
        [
            plain,
            SoftmaxConfig { label_smoothing: 0.1, ..plain },
            normalized,
            SoftmaxConfig { label_smoothing: 0.1, ..normalized },
        ]
    }

    // import torch, numpy as np, torch.nn.functional as F
    // num = lambda n, s: torch.tensor(np.sin(np.arange(n)**2 + s), dtype=torch.float32)
    // x, W, b = num(20, .5).reshape(4, 5), num(15, 2.).reshape(3, 5), num(3, 3.)
    // y = torch.tensor([0, 2, 1, 2]); n = lambda t: F.normalize(t)
    // for z in (x @ W.T + b, 8 * n(x) @ n(W).T):
    //     for eps in (0., .1): print(F.cross_entropy(z, y, label_smoothing=eps).item())
    #[test]
    fn values_are_pytorchs() {
        let wanted = [0.484_343_6, 0.590_482_9, 0.559_513_3, 0.856_448_7];
        for (config, wanted) in settings().into_iter().zip(wanted) {
            assert_close(value(&build(config), &embeddings(4, 5), &LABELS), wanted, 1e-5);
        }
    }

    #[test]
    fn values_are_those_of_the_literal_loop() {
        let (x, w, b) = (numbers(20, 0.5), numbers(15, 2.0), numbers(3, 3.0));
        for config in settings() {
            let mut total = 0.0;
            for (i, &label) in LABELS.iter().enumerate() {
                let row = &x[i * 5..][..5];
                let norm = |v: &[f32]| v.iter().map(|a| a * a).sum::<f32>().sqrt();
                let logit = |j: usize| {
                    let class = &w[j * 5..][..5];
                    let dot: f32 = row.iter().zip(class).map(|(a, b)| a * b).sum();
                    if config.normalize { 8.0 * dot / norm(row) / norm(class) } else { dot + b[j] }
                };
                let sum: f32 = (0..3).map(|j| logit(j).exp()).sum();
                for j in 0..3 {
                    let smooth = config.label_smoothing as f32;
                    let target = smooth / 3.0 + if j == label as usize { 1.0 - smooth } else { 0.0 };
                    total -= target * (logit(j).exp() / sum).ln();
                }
            }
            assert_close(value(&build(config), &embeddings(4, 5), &LABELS), total / 4.0, 1e-5);
        }
    }

    #[test]
    fn gradients_are_finite_differences() {
        for config in settings() {
            assert_gradient(&build(config), &embeddings(4, 5), &LABELS);
        }
    }
}
