//! What training minimises. One file per loss; all of them see raw embeddings and class numbers.

mod arcmargin;
mod circle;
mod contrastive;
mod eml;
mod memory;
mod multi_similarity;
mod npairs;
mod pairs;
mod proxy_anchor;
mod proxy_nca;
mod quadruplet;
mod recall_surrogate;
mod smooth_ap;
mod soft_triple;
mod softmax;
mod subcenter;
mod supcon;
mod triplet;

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

pub use arcmargin::{ArcMargin, ArcMarginConfig};
pub use circle::{Circle, CircleConfig};
pub use contrastive::{Contrastive, ContrastiveConfig, Measure};
pub use eml::{Eml, EmlConfig};
pub use memory::CrossBatchMemory;
pub use multi_similarity::{MultiSimilarity, MultiSimilarityConfig};
pub use npairs::{Npairs, NpairsConfig};
pub use pairs::{PairLoss, Pairs};
pub use proxy_anchor::{ProxyAnchor, ProxyAnchorConfig};
pub use proxy_nca::{ProxyNca, ProxyNcaConfig};
pub use quadruplet::{Quadruplet, QuadrupletConfig};
pub use recall_surrogate::{RecallSurrogate, RecallSurrogateConfig};
pub use smooth_ap::{SmoothAp, SmoothApConfig};
pub use soft_triple::{SoftTriple, SoftTripleConfig};
pub use softmax::{Softmax, SoftmaxConfig};
pub use subcenter::{SubCenter, SubCenterConfig};
pub use supcon::{SupCon, SupConConfig};
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

    /// This loss as one over pairs, if it is one and so can also look at remembered embeddings.
    fn as_pair_loss(&self) -> Option<&dyn PairLoss> {
        None
    }
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
    /// The farthest pair of one class nearer than the nearest pair of two (margin sample mining).
    Quadruplet(QuadrupletConfig),
    /// Means of exponential distances.
    Eml(EmlConfig),
    /// Each anchor's positive among all classes' positives.
    Npairs(NpairsConfig),
    /// Pairs of one class near, pairs of two beyond a margin.
    Contrastive(ContrastiveConfig),
    /// Pairs weighed by their similarity and that of the others.
    MultiSimilarity(MultiSimilarityConfig),
    /// Pairs weighed by how far they are from their optimum.
    Circle(CircleConfig),
    /// Supervised contrastive.
    Supcon(SupConConfig),
    /// A proxy a class, the nearest one classifies (ProxyNCA++).
    ProxyNca(ProxyNcaConfig),
    /// A proxy a class is the anchor of the batch.
    ProxyAnchor(ProxyAnchorConfig),
    /// ArcFace with several weights a class.
    Subcenter(SubCenterConfig),
    /// Several centres per class, softly chosen.
    SoftTriple(SoftTripleConfig),
    /// Average precision with soft steps.
    SmoothAp(SmoothApConfig),
    /// Recall@K with soft steps.
    RecallSurrogate(RecallSurrogateConfig),
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
            Self::Quadruplet(_) => "quadruplet",
            Self::Eml(_) => "eml",
            Self::Npairs(_) => "npairs",
            Self::Contrastive(_) => "contrastive",
            Self::MultiSimilarity(_) => "multi_similarity",
            Self::Circle(_) => "circle",
            Self::Supcon(_) => "supcon",
            Self::ProxyNca(_) => "proxy_nca",
            Self::ProxyAnchor(_) => "proxy_anchor",
            Self::Subcenter(_) => "subcenter",
            Self::SoftTriple(_) => "soft_triple",
            Self::SmoothAp(_) => "smooth_ap",
            Self::RecallSurrogate(_) => "recall_surrogate",
        }
    }

    /// Photographs of each class a batch should have unless said otherwise: 0 for losses that look at each alone, 2 for
    /// the Paddle original's pair losses, 4 for the others that compare photographs.
    pub fn images_per_class(&self) -> usize {
        match self {
            Self::Softmax(_)
            | Self::Arcmargin(_)
            | Self::Subcenter(_)
            | Self::SoftTriple(_)
            | Self::ProxyNca(_)
            | Self::ProxyAnchor(_) => 0,
            Self::Quadruplet(_) | Self::Eml(_) | Self::Npairs(_) => 2,
            _ => 4,
        }
    }

    /// Builds the loss for embeddings of `dim` values and `classes` classes.
    pub fn build(&self, dim: usize, classes: usize, scope: &Scope) -> Result<Box<dyn Loss>> {
        Ok(match self {
            Self::Softmax(config) => Box::new(Softmax::new(*config, dim, classes, scope)?),
            Self::Arcmargin(config) => Box::new(ArcMargin::new(*config, dim, classes, scope)?),
            Self::Triplet(config) => Box::new(Triplet::new(*config)),
            Self::Quadruplet(config) => Box::new(Quadruplet::new(*config)),
            Self::Eml(config) => Box::new(Eml::new(*config)),
            Self::Npairs(config) => Box::new(Npairs::new(*config)),
            Self::Contrastive(config) => Box::new(Contrastive::new(*config)),
            Self::MultiSimilarity(config) => Box::new(MultiSimilarity::new(*config)),
            Self::Circle(config) => Box::new(Circle::new(*config)),
            Self::Supcon(config) => Box::new(SupCon::new(*config)),
            Self::ProxyNca(config) => Box::new(ProxyNca::new(*config, dim, classes, scope)?),
            Self::ProxyAnchor(config) => Box::new(ProxyAnchor::new(*config, dim, classes, scope)?),
            Self::Subcenter(config) => Box::new(SubCenter::new(*config, dim, classes, scope)?),
            Self::SoftTriple(config) => Box::new(SoftTriple::new(*config, dim, classes, scope)?),
            Self::SmoothAp(config) => Box::new(SmoothAp::new(*config)),
            Self::RecallSurrogate(config) => Box::new(RecallSurrogate::new(config.clone())),
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
pub(crate) mod check;
