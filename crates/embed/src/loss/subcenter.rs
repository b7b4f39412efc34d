//! Sub-centre ArcFace: several weights per class, for classes that are not one cluster, or noisy (Deng et al. 2020,
//! ECCV).

use candle_core::{Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::arcmargin::with_margin;
use super::{ArcMarginConfig, Loss, cross_entropy, normalize_rows};
use crate::params::{Init, Scope};

/// Settings of [`SubCenter`]; the defaults are the authors'.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubCenterConfig {
    /// Multiplies the cosines.
    pub scale: f64,
    /// Added to the angle between an embedding and its class, in radians.
    pub margin: f64,
    /// Weights a class.
    pub centers: usize,
}

impl Default for SubCenterConfig {
    fn default() -> Self {
        Self { scale: 64.0, margin: 0.5, centers: 3 }
    }
}

/// [`ArcMargin`](super::ArcMargin) where a class's cosine is the largest of those with its several weights.
///
/// Every batch has a defined cost: a row needs no other row.
#[derive(Debug)]
pub struct SubCenter {
    config: SubCenterConfig,
    weight: Var,
}

impl SubCenter {
    /// Registers `weight (classes · centers, dim)`, a class's rows side by side.
    pub fn new(config: SubCenterConfig, dim: usize, classes: usize, scope: &Scope) -> Result<Self> {
        let rows = classes * config.centers.max(1);
        Ok(Self { config, weight: scope.parameter("weight", (rows, dim), Init::xavier_uniform(dim, rows))? })
    }
}

impl Loss for SubCenter {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let SubCenterConfig { scale, margin, centers } = self.config;
        let cosines = normalize_rows(embeddings)?.matmul(&normalize_rows(&self.weight)?.t()?)?;
        let classes = cosines.dim(1)? / centers.max(1);
        let nearest = cosines.reshape((labels.len(), classes, centers.max(1)))?.max(2)?;
        let config = ArcMarginConfig { scale, margin, easy_margin: false };
        cross_entropy(&with_margin(&nearest, labels, config)?, labels, 0.0)
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
    const MARGIN: f64 = 28.6 / 180.0 * std::f64::consts::PI;

    fn build() -> SubCenter {
        let store = ParamStore::new(0, &Device::Cpu);
        let config = SubCenterConfig { scale: 8.0, margin: MARGIN, centers: 2 };
        let loss = SubCenter::new(config, 4, 4, &store.root()).unwrap();
        loss.weight.set(&Tensor::from_vec(numbers(32, 2.0), (8, 4), &Device::Cpu).unwrap()).unwrap();
        loss
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import SubCenterArcFaceLoss
    // num = lambda n, s: torch.tensor(np.sin(np.arange(n)**2 + s), dtype=torch.float32)
    // loss = SubCenterArcFaceLoss(num_classes=4, embedding_size=4, margin=28.6, scale=8., sub_centers=2)
    // loss.W.data = num(32, 2.).reshape(8, 4).T.clone()
    // print(loss(num(32, .5).reshape(8, 4), torch.tensor([0, 0, 1, 1, 2, 2, 0, 3])))
    #[test]
    fn the_value_is_pytorch_metric_learnings() {
        assert_close(value(&build(), &embeddings(8, 4), &LABELS), 6.558_021, 1e-4);
    }

    #[test]
    fn value_and_gradients_are_those_of_the_literal_loop_over_angles() {
        let loss = build();
        assert_literal(&loss, &embeddings(8, 4), &LABELS, &[&loss.weight], &|inputs| {
            let s = cosines(&inputs[0], &inputs[1]);
            let row = |i: usize| {
                let label = LABELS[i] as usize;
                let mut logits: Vec<f64> = (0..4).map(|c| s[i][2 * c].max(s[i][2 * c + 1])).collect();
                let angle = logits[label].acos();
                logits[label] = if angle < std::f64::consts::PI - MARGIN {
                    (angle + MARGIN).cos()
                } else {
                    logits[label] - MARGIN * MARGIN.sin()
                };
                cross_entropy_row(&logits.iter().map(|z| 8.0 * z).collect::<Vec<_>>(), label)
            };
            mean(&(0..8).map(row).collect::<Vec<_>>())
        });
    }
}
