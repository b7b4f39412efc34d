//! SoftTriple: several centres per class, softly chosen (Qian et al. 2019, arXiv 1909.05235).

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Loss, cross_entropy, normalize_rows};
use crate::params::{Init, Scope};

/// Settings of [`SoftTriple`]; the defaults are the authors'.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftTripleConfig {
    /// Centres a class.
    pub centers: usize,
    /// Scale of the similarities, λ.
    pub scale: f64,
    /// Temperature of the choice among a class's centres.
    pub gamma: f64,
    /// Subtracted from the similarity with the own class, δ.
    pub margin: f64,
    /// Weight of the regulariser that draws a class's centres together.
    pub tau: f64,
}

impl Default for SoftTripleConfig {
    fn default() -> Self {
        Self { centers: 10, scale: 20.0, gamma: 0.1, margin: 0.01, tau: 0.2 }
    }
}

/// A row's similarity with class `c` is `S_c = Σ_k softmax_k(s_ck / γ) s_ck` over the cosines with its centres; the
/// loss is the cross-entropy of `λ (S_c − δ [c = y])`, plus `τ Σ_c Σ_{k<l} √(2 + 1e-5 − 2 w_ck · w_cl) / (C K (K − 1))`.
///
/// Every batch has a defined cost: a row needs no other row.
#[derive(Debug)]
pub struct SoftTriple {
    config: SoftTripleConfig,
    centers: Var,
}

impl SoftTriple {
    /// Registers `centers (classes · centers, dim)`, a class's rows side by side.
    pub fn new(config: SoftTripleConfig, dim: usize, classes: usize, scope: &Scope) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / (dim as f32).sqrt() };
        Ok(Self {
            config,
            centers: scope.parameter("centers", (classes * config.centers.max(1), dim), init)?,
        })
    }

    fn regulariser(&self, unit: &Tensor, classes: usize) -> Result<Tensor> {
        let (k, dim) = (self.config.centers, unit.dim(1)?);
        let grouped = unit.reshape((classes, k, dim))?;
        let products = grouped.matmul(&grouped.transpose(1, 2)?.contiguous()?)?;
        let apart = ((products * -2.0)? + (2.0 + 1e-5))?.clamp(1e-6f32, 4.1f32)?.sqrt()?;
        let above = (0..k * k).map(|at| f32::from(u8::from(at / k < at % k))).collect();
        let above = Tensor::from_vec(above, (1, k, k), unit.device())?;
        apart.broadcast_mul(&above)?.sum_all()? / (classes * k * (k - 1)) as f64
    }
}

impl Loss for SoftTriple {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let SoftTripleConfig { centers, scale, gamma, margin, tau } = self.config;
        let unit = normalize_rows(&self.centers)?;
        let classes = unit.dim(0)? / centers.max(1);
        let cosines = normalize_rows(embeddings)?.matmul(&unit.t()?)?;
        let cosines = cosines.reshape((labels.len(), classes, centers.max(1)))?;
        let chosen = candle_nn::ops::softmax(&(&cosines / gamma)?, 2)?;
        let similarity = (chosen * cosines)?.sum(2)?;
        let own =
            labels.iter().flat_map(|&l| (0..classes).map(move |c| f32::from(u8::from(l as usize == c))));
        let own = Tensor::from_vec(own.collect(), similarity.shape(), similarity.device())?;
        let loss = cross_entropy(&((similarity - (own * margin)?)? * scale)?, labels, 0.0)?;
        if centers < 2 || tau == 0.0 {
            return Ok(loss);
        }
        loss + (self.regulariser(&unit, classes)? * tau)?
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, cosines, cross_entropy_row, embeddings, mean, numbers, value,
    };
    use crate::params::ParamStore;

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn build(tau: f64) -> SoftTriple {
        let store = ParamStore::new(0, &Device::Cpu);
        let config = SoftTripleConfig { centers: 2, tau, ..SoftTripleConfig::default() };
        let loss = SoftTriple::new(config, 4, 4, &store.root()).unwrap();
        loss.centers.set(&Tensor::from_vec(numbers(32, 2.0), (8, 4), &Device::Cpu).unwrap()).unwrap();
        loss
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import SoftTripleLoss
    // num = lambda n, s: torch.tensor(np.sin(np.arange(n)**2 + s), dtype=torch.float32)
    // loss = SoftTripleLoss(4, 4, centers_per_class=2); w = num(32, 2.).reshape(8, 4); loss.fc.data = w.T.clone()
    // plain = loss(num(32, .5).reshape(8, 4), torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])).item()
    // w = torch.nn.functional.normalize(w)
    // reg = sum((2 + 1e-5 - 2 * w[2 * c] @ w[2 * c + 1]).sqrt() for c in range(4)).item() / (4 * 2 * 1)
    // print(plain, plain + .2 * reg)
    #[test]
    fn values_are_pytorch_metric_learnings_and_the_authors_regulariser() {
        for (tau, wanted) in [(0.0, 7.195_198), (0.2, 7.195_198 + 0.2 * 0.765_009_7)] {
            assert_close(value(&build(tau), &embeddings(8, 4), &LABELS), wanted, 1e-4);
        }
    }

    #[test]
    fn value_and_gradients_are_those_of_the_literal_loop() {
        let loss = build(0.2);
        assert_literal(&loss, &embeddings(8, 4), &LABELS, &[&loss.centers], &|inputs| {
            let s = cosines(&inputs[0], &inputs[1]);
            let row = |i: usize| {
                let logit = |c: usize| {
                    let (a, b) = (s[i][2 * c], s[i][2 * c + 1]);
                    let (p, q) = ((a / 0.1).exp(), (b / 0.1).exp());
                    let delta = if LABELS[i] as usize == c { 0.01 } else { 0.0 };
                    20.0 * ((p * a + q * b) / (p + q) - delta)
                };
                cross_entropy_row(&(0..4).map(logit).collect::<Vec<_>>(), LABELS[i] as usize)
            };
            let centers = cosines(&inputs[1], &inputs[1]);
            let apart = |c: usize| (2.0 + 1e-5 - 2.0 * centers[2 * c][2 * c + 1]).sqrt();
            let apart: f64 = (0..4).map(apart).sum();
            mean(&(0..8).map(row).collect::<Vec<_>>()) + 0.2 * apart / 8.0
        });
    }
}
