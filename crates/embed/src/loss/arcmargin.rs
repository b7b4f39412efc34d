//! Classification with an additive angular margin: ArcFace (Deng et al. 2019, arXiv 1801.07698).

use std::f64::consts::PI;

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Loss, cross_entropy, normalize_rows};
use crate::params::{Init, Scope};

/// Settings of [`ArcMargin`]; the defaults are the Paddle original's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArcMarginConfig {
    /// Multiplies the cosines.
    pub scale: f64,
    /// Added to the angle between an embedding and its class, in radians.
    pub margin: f64,
    /// Apply the margin only where that angle is below 90°, instead of continuing it linearly beyond π − margin.
    pub easy_margin: bool,
}

impl Default for ArcMarginConfig {
    fn default() -> Self {
        Self { scale: 80.0, margin: 0.15, easy_margin: false }
    }
}

/// With `c_j = cos(x, w_j)` and `φ = cos(angle + m) = c cos m − √(1 − c² + 1e-6) sin m`: cross-entropy of the
/// logits `s · c_j`, where the label's own `c` is replaced by
///
/// - `φ` if `c > cos(π − m)`, else `c − m sin(π − m)`, so that the logit keeps falling as the angle grows;
/// - with `easy_margin`, `φ` if `c > 0`, else `c`.
#[derive(Debug)]
pub struct ArcMargin {
    config: ArcMarginConfig,
    weight: Var,
}

impl ArcMargin {
    /// Registers `weight (classes, dim)`, started by Xavier's rule.
    pub fn new(config: ArcMarginConfig, dim: usize, classes: usize, scope: &Scope) -> Result<Self> {
        let weight = scope.parameter("weight", (classes, dim), Init::xavier_uniform(dim, classes))?;
        Ok(Self { config, weight })
    }
}

impl Loss for ArcMargin {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let cosines = normalize_rows(embeddings)?.matmul(&normalize_rows(&self.weight)?.t()?)?;
        cross_entropy(&with_margin(&cosines, labels, self.config)?, labels, 0.0)
    }
}

/// The logits of the cosines `(n, classes)`, with the margin at the labels.
pub(super) fn with_margin(cosine: &Tensor, labels: &[u32], config: ArcMarginConfig) -> Result<Tensor> {
    let ArcMarginConfig { scale, margin, easy_margin } = config;
    let index = Tensor::new(labels, cosine.device())?.unsqueeze(1)?;
    let own = cosine.gather(&index, 1)?;
    // Rounding can carry a cosine past 1 by more than the constant under the root.
    let sine = (own.clamp(-1f32, 1f32)?.sqr()?.neg()? + (1.0 + 1e-6))?.sqrt()?;
    let phi = ((&own * margin.cos())? - (sine * margin.sin())?)?;
    let (threshold, otherwise) = match easy_margin {
        true => (0.0, own.clone()),
        false => ((PI - margin).cos(), (&own - margin * (PI - margin).sin())?),
    };
    let own_with_margin = own.gt(threshold)?.where_cond(&phi, &otherwise)?;
    let change = (own_with_margin - &own)?;
    // Added through a mask, as candle's scatter has no usable gradient.
    let ones = own.ones_like()?.detach();
    let mask = cosine.zeros_like()?.detach().scatter_add(&index, &ones, 1)?;
    (mask.broadcast_mul(&change)? + cosine)? * scale
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::loss::check::{assert_close, assert_gradient, embeddings, numbers, value};
    use crate::params::ParamStore;

    // The last label's cosine is negative and beyond the threshold of the wide margin.
    const LABELS: [u32; 4] = [0, 0, 1, 1];

    fn build(config: ArcMarginConfig) -> ArcMargin {
        let store = ParamStore::new(0, &Device::Cpu);
        let loss = ArcMargin::new(config, 5, 3, &store.root()).unwrap();
        loss.weight.set(&Tensor::from_vec(numbers(15, 2.0), (3, 5), &Device::Cpu).unwrap()).unwrap();
        loss
    }

    fn settings() -> [ArcMarginConfig; 4] {
        let gentle = ArcMarginConfig { scale: 8.0, margin: 0.15, easy_margin: false };
        let wide = ArcMarginConfig { margin: 1.3, ..gentle };
        [
            gentle,
            ArcMarginConfig { easy_margin: true, ..gentle },
            wide,
            ArcMarginConfig { easy_margin: true, ..wide },
        ]
    }

    // import numpy as np
    // num = lambda n, s: np.sin(np.arange(n)**2 + s)
    // unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
    // c = unit(num(20, .5).reshape(4, 5)) @ unit(num(15, 2.).reshape(3, 5)).T
    // y, r = np.array([0, 0, 1, 1]), np.arange(4)
    // for m in (.15, 1.3):
    //     for easy in (False, True):
    //         o = c[r, y]; phi = o * np.cos(m) - np.sqrt(1 - o**2 + 1e-6) * np.sin(m)
    //         t = np.where(o > 0, phi, o) if easy else np.where(o > np.cos(np.pi - m), phi, o - m * np.sin(np.pi - m))
    //         z = c.copy(); z[r, y] = t; z *= 8
    //         print(np.mean(np.log(np.exp(z).sum(1)) - z[r, y]))
    const REFERENCE: [f32; 4] = [2.532_581_7, 1.977_796, 7.929_459_6, 3.820_489_6];

    #[test]
    fn values_are_the_formulas() {
        for (config, wanted) in settings().into_iter().zip(REFERENCE) {
            assert_close(value(&build(config), &embeddings(4, 5), &LABELS), wanted, 1e-4);
        }
    }

    #[test]
    fn values_are_those_of_the_literal_loop_over_angles() {
        let (x, w) = (numbers(20, 0.5), numbers(15, 2.0));
        for config in settings() {
            let (margin, mut total) = (config.margin as f32, 0.0);
            for (i, &label) in LABELS.iter().enumerate() {
                let row = &x[i * 5..][..5];
                let norm = |v: &[f32]| v.iter().map(|a| a * a).sum::<f32>().sqrt();
                let logit = |j: usize| {
                    let class = &w[j * 5..][..5];
                    let dot: f32 = row.iter().zip(class).map(|(a, b)| a * b).sum();
                    let cosine = dot / norm(row) / norm(class);
                    let angle = cosine.acos();
                    let own = match config.easy_margin {
                        true if cosine > 0.0 => (angle + margin).cos(),
                        true => cosine,
                        false if angle < std::f32::consts::PI - margin => (angle + margin).cos(),
                        false => cosine - margin * margin.sin(),
                    };
                    8.0 * if j == label as usize { own } else { cosine }
                };
                let sum: f32 = (0..3).map(|j| logit(j).exp()).sum();
                total -= (logit(label as usize).exp() / sum).ln();
            }
            assert_close(value(&build(config), &embeddings(4, 5), &LABELS), total / 4.0, 1e-4);
        }
    }

    #[test]
    fn gradients_are_finite_differences() {
        for config in settings() {
            assert_gradient(&build(config), &embeddings(4, 5), &LABELS);
        }
    }

    #[test]
    fn an_embedding_on_its_class_weight_has_a_finite_gradient() {
        let loss = build(ArcMarginConfig::default());
        let x = Var::from_tensor(&(loss.weight.as_detached_tensor() * 3.0).unwrap()).unwrap();
        let grads = loss.forward(x.as_tensor(), &[0, 1, 2]).unwrap().backward().unwrap();
        let grad: Vec<f32> = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(grad.iter().all(|g| g.is_finite()), "{grad:?}");
    }
}
