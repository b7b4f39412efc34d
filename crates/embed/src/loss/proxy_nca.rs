//! ProxyNCA++ (Teh, DeVries & Taylor 2020, arXiv 2004.01113).

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Loss, cross_entropy, normalize_rows};
use crate::params::{Init, Scope};

/// Settings of [`ProxyNca`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyNcaConfig {
    /// Divides the squared distances; the authors' is 1/9.
    pub temperature: f64,
}

impl Default for ProxyNcaConfig {
    fn default() -> Self {
        Self { temperature: 1.0 / 9.0 }
    }
}

/// Mean of `−ln(exp(−d_y / τ) / Σ_j exp(−d_j / τ))` with the squared distances `d_j` between a normalised
/// embedding and every class's normalised proxy, its own class's in the denominator too.
///
/// Every batch has a defined cost: a row needs no other row.
#[derive(Debug)]
pub struct ProxyNca {
    config: ProxyNcaConfig,
    proxies: Var,
}

impl ProxyNca {
    /// Registers `proxies (classes, dim)`, started from a normal distribution, as the authors' are.
    pub fn new(config: ProxyNcaConfig, dim: usize, classes: usize, scope: &Scope) -> Result<Self> {
        Ok(Self { config, proxies: scope.parameter("proxies", (classes, dim), Init::Normal { std: 0.125 })? })
    }
}

impl Loss for ProxyNca {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let cosines = normalize_rows(embeddings)?.matmul(&normalize_rows(&self.proxies)?.t()?)?;
        // −d / τ = (2 cos − 2) / τ, and what all logits share falls out.
        cross_entropy(&(cosines * (2.0 / self.config.temperature))?, labels, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, cross_entropy_row, embeddings, mean, numbers, squared, unit, value,
    };
    use crate::params::ParamStore;

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn build() -> ProxyNca {
        let store = ParamStore::new(0, &Device::Cpu);
        let loss = ProxyNca::new(ProxyNcaConfig::default(), 4, 4, &store.root()).unwrap();
        loss.proxies.set(&Tensor::from_vec(numbers(16, 2.0), (4, 4), &Device::Cpu).unwrap()).unwrap();
        loss
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import ProxyNCALoss
    // num = lambda n, s: torch.tensor(np.sin(np.arange(n)**2 + s), dtype=torch.float32)
    // loss = ProxyNCALoss(4, 4, softmax_scale=9.); loss.proxies.data = num(16, 2.).reshape(4, 4)
    // print(loss(num(32, .5).reshape(8, 4), torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])))
    #[test]
    fn the_value_is_pytorch_metric_learnings() {
        assert_close(value(&build(), &embeddings(8, 4), &LABELS), 10.676_265, 1e-4);
    }

    #[test]
    fn value_and_gradients_are_those_of_the_literal_loop() {
        let loss = build();
        assert_literal(&loss, &embeddings(8, 4), &LABELS, &[&loss.proxies], &|inputs| {
            let (u, p) = (unit(&inputs[0]), unit(&inputs[1]));
            let row = |i: usize| {
                let logits: Vec<f64> = p.iter().map(|p| -9.0 * squared(&u[i], p)).collect();
                cross_entropy_row(&logits, LABELS[i] as usize)
            };
            mean(&(0..8).map(row).collect::<Vec<_>>())
        });
    }
}
