//! What training minimises. One file a loss; all of them see raw embeddings and class numbers.

mod arcmargin;
mod softmax;
mod triplet;

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

pub use arcmargin::{ArcMargin, ArcMarginConfig};
pub use softmax::{Softmax, SoftmaxConfig};
pub use triplet::{Triplet, TripletConfig};

use crate::params::Scope;

/// A training objective.
///
/// A loss may own parameters (class weights, proxies), registered in the scope it is built with, and may look
/// for the pairs or triplets it wants by a [`Miner`](crate::miner::Miner).
pub trait Loss: std::fmt::Debug {
    /// The scalar to minimise, from embeddings `(n, dim)` as the head gives them, **not** normalised (whether
    /// to normalise is part of a loss's definition), and their `n` class numbers.
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor>;
}

/// Which loss, with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum LossConfig {
    /// Classification by a linear layer.
    Softmax(SoftmaxConfig),
    /// Classification with an additive angular margin (ArcFace).
    Arcmargin(ArcMarginConfig),
    /// Anchor nearer to the positive than to the negative by a margin.
    Triplet(TripletConfig),
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::Arcmargin(ArcMarginConfig::default())
    }
}

impl LossConfig {
    /// The name used in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Softmax(_) => "softmax",
            Self::Arcmargin(_) => "arcmargin",
            Self::Triplet(_) => "triplet",
        }
    }

    /// Builds the loss for embeddings of `dim` values and `classes` classes.
    pub fn build(&self, dim: usize, classes: usize, scope: &Scope) -> Result<Box<dyn Loss>> {
        Ok(match self {
            Self::Softmax(config) => Box::new(Softmax::new(*config, dim, classes, scope)?),
            Self::Arcmargin(config) => Box::new(ArcMargin::new(*config, dim, classes, scope)?),
            Self::Triplet(config) => Box::new(Triplet::new(*config)),
        })
    }
}

/// `x / |x|` row by row. A row of zeros stays zero, with a zero gradient.
pub(crate) fn normalize_rows(x: &Tensor) -> Result<Tensor> {
    // The constant is far below any real squared norm in f32 and keeps the root's gradient finite at zero.
    let norm = (x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    x.broadcast_div(&norm)
}

/// Mean over rows of `-Σ_j t_ij log softmax(logits_i)_j`, where the target `t_i` puts `1 - smoothing` on the
/// row's label and spreads `smoothing` evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567).
pub(crate) fn cross_entropy(logits: &Tensor, labels: &[u32], smoothing: f64) -> Result<Tensor> {
    let log_p = candle_nn::ops::log_softmax(logits, 1)?;
    let index = Tensor::new(labels, logits.device())?.unsqueeze(1)?;
    let at_label = log_p.gather(&index, 1)?.mean_all()?.neg()?;
    if smoothing == 0.0 {
        return Ok(at_label);
    }
    let everywhere = log_p.mean_all()?.neg()?;
    (at_label * (1.0 - smoothing))? + (everywhere * smoothing)?
}

#[cfg(test)]
pub(crate) mod check {
    //! What every loss's test needs: fixed inputs and finite differences.

    use candle_core::{Device, Tensor, Var};

    use super::Loss;

    /// Small numbers without pattern, the same everywhere: `sin(i² + shift)`.
    pub(crate) fn numbers(count: usize, shift: f64) -> Vec<f32> {
        (0..count).map(|i| ((i * i) as f64 + shift).sin() as f32).collect()
    }

    pub(crate) fn embeddings(n: usize, dim: usize) -> Tensor {
        Tensor::from_vec(numbers(n * dim, 0.5), (n, dim), &Device::Cpu).unwrap()
    }

    pub(crate) fn value(loss: &dyn Loss, x: &Tensor, labels: &[u32]) -> f32 {
        loss.forward(x, labels).unwrap().to_scalar().unwrap()
    }

    pub(crate) fn assert_close(found: f32, wanted: f32, tolerance: f32) {
        let scale = wanted.abs().max(1.0);
        assert!((found - wanted).abs() <= tolerance * scale, "found {found}, wanted {wanted}");
    }

    /// Compares the gradient with respect to the embeddings with central differences.
    pub(crate) fn assert_gradient(loss: &dyn Loss, x: &Tensor, labels: &[u32]) {
        let var = Var::from_tensor(x).unwrap();
        let grads = loss.forward(var.as_tensor(), labels).unwrap().backward().unwrap();
        let grad: Vec<f32> = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        let step = 2e-3f32;
        for i in 0..values.len() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                value(loss, &Tensor::from_vec(values, x.shape(), &Device::Cpu).unwrap(), labels)
            };
            let numeric = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((grad[i] - numeric).abs() < 4e-3 * numeric.abs().max(1.0), "{i}: {} {numeric}", grad[i]);
        }
    }
}
