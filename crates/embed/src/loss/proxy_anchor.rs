//! Proxy-Anchor (Kim et al. 2020, arXiv 2003.13911).

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::pairs::{masked_log_sum_exp, rows_with_any};
use super::{Loss, normalize_rows};
use crate::params::{Init, Scope};

/// Settings of [`ProxyAnchor`]; the defaults are the authors'.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyAnchorConfig {
    /// Subtracted from cosines of a proxy's class, added to those of others.
    pub margin: f64,
    /// Scale of the cosines.
    pub alpha: f64,
}

impl Default for ProxyAnchorConfig {
    fn default() -> Self {
        Self { margin: 0.1, alpha: 32.0 }
    }
}

/// With a proxy a class as the anchor and cosines `s`: the mean over proxies whose class is in the batch of
/// `ln(1 + Σ_p exp(−α(s − m)))`, plus the mean over all proxies of `ln(1 + Σ_n exp(α(s + m)))`.
///
/// A batch of one class is no special case: it pushes the other classes' proxies.
#[derive(Debug)]
pub struct ProxyAnchor {
    config: ProxyAnchorConfig,
    proxies: Var,
}

impl ProxyAnchor {
    /// Registers `proxies (classes, dim)`, started normal with deviation `√(2 / classes)` (He, fan-out), as the
    /// authors' are.
    pub fn new(config: ProxyAnchorConfig, dim: usize, classes: usize, scope: &Scope) -> Result<Self> {
        Ok(Self { config, proxies: scope.parameter("proxies", (classes, dim), Init::he_fan_out(classes))? })
    }
}

impl Loss for ProxyAnchor {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let ProxyAnchorConfig { margin, alpha } = self.config;
        let classes = self.proxies.dim(0)?;
        let cosines = normalize_rows(&self.proxies)?.matmul(&normalize_rows(embeddings)?.t()?)?;
        let own =
            (0..classes).flat_map(|c| labels.iter().map(move |&l| f32::from(u8::from(l as usize == c))));
        let own = Tensor::from_vec(own.collect(), cosines.shape(), cosines.device())?;
        let present = rows_with_any(&own)?.sum_all()?.to_scalar::<f32>()?;
        let pull = masked_log_sum_exp(&((&cosines - margin)? * -alpha)?, &own, true)?;
        let push = masked_log_sum_exp(&((&cosines + margin)? * alpha)?, &(1.0 - &own)?, true)?;
        (pull.sum_all()? / f64::from(present.max(1.0)))? + (push.sum_all()? / classes as f64)?
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::loss::check::{assert_close, assert_literal, cosines, embeddings, numbers, value};
    use crate::params::ParamStore;

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn build() -> ProxyAnchor {
        let store = ParamStore::new(0, &Device::Cpu);
        let loss = ProxyAnchor::new(ProxyAnchorConfig::default(), 4, 4, &store.root()).unwrap();
        loss.proxies.set(&Tensor::from_vec(numbers(16, 2.0), (4, 4), &Device::Cpu).unwrap()).unwrap();
        loss
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import ProxyAnchorLoss
    // num = lambda n, s: torch.tensor(np.sin(np.arange(n)**2 + s), dtype=torch.float32)
    // loss = ProxyAnchorLoss(4, 4); loss.proxies.data = num(16, 2.).reshape(4, 4)
    // print(loss(num(32, .5).reshape(8, 4), torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])))
    #[test]
    fn the_value_is_pytorch_metric_learnings() {
        assert_close(value(&build(), &embeddings(8, 4), &LABELS), 38.815_37, 1e-4);
    }

    #[test]
    fn value_and_gradients_are_those_of_the_literal_loop() {
        // The second batch has one class only.
        for labels in [LABELS, [2; 8]] {
            let loss = build();
            assert_literal(&loss, &embeddings(8, 4), &labels, &[&loss.proxies], &|inputs| {
                let s = cosines(&inputs[0], &inputs[1]);
                let (mut pull, mut push, mut present) = (0.0, 0.0, 0.0);
                for c in 0..4 {
                    let (mut own, mut other) = (0.0, 0.0);
                    for (s, &label) in s.iter().zip(&labels) {
                        if label as usize == c {
                            own += (-32.0 * (s[c] - 0.1)).exp();
                        } else {
                            other += (32.0 * (s[c] + 0.1)).exp();
                        }
                    }
                    present += f64::from(u8::from(own > 0.0));
                    pull += f64::ln_1p(own);
                    push += f64::ln_1p(other);
                }
                pull / present + push / 4.0
            });
        }
    }
}
