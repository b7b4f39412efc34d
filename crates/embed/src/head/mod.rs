//! From features to an embedding, before normalisation.

mod pool;

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::Activation;
use semblance_kernels::frozen::{Builder, Value};
use serde::{Deserialize, Serialize};

pub use pool::Pool;
use pool::Pooling;

use crate::backbone::Features;
use crate::error::EmbedError;
use crate::layer::{BatchNorm2d, Gelu, LayerNorm, Linear};
use crate::onnx::{Edge, Graph};
use crate::params::Scope;

/// Added to the variance by a head's layer norm, as in PyTorch.
const EPS: f64 = 1e-5;

/// Which head sits on the pooled features.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadConfig {
    /// The pooled features straight through: the Paddle original's `embedding_size = 0`.
    #[default]
    Pooled,
    /// A linear projection to `dim` values, with bias, without activation.
    Linear {
        /// Size of the embedding.
        dim: usize,
    },
    /// A layer norm of the pooled features, then a linear projection if a size is given (Teh et al. 2020,
    /// arXiv 2004.01113).
    LayerNorm {
        /// Size of the embedding; that of the features without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dim: Option<usize>,
    },
    /// A linear projection if a size is given, then a batch norm whose shift stays 0 (BNNeck: Luo et al. 2019,
    /// arXiv 1903.07071).
    BatchNorm {
        /// Size of the embedding; that of the features without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dim: Option<usize>,
    },
    /// Several linear layers with an activation between them, none behind the last.
    Mlp {
        /// Size of the embedding.
        dim: usize,
        /// Sizes of the layers between, from the first to the last.
        hidden: Vec<usize>,
        /// What stands between the layers.
        #[serde(default)]
        activation: HeadActivation,
    },
}

/// What stands between the layers of a multi-layer head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadActivation {
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// The exact GELU.
    Gelu,
}

impl HeadConfig {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`EmbedError::Config`] for a layer of no values, or a multi-layer head of a single layer.
    pub fn check(&self) -> std::result::Result<(), EmbedError> {
        let fail = |key, reason: &str| Err(EmbedError::Config { key, reason: reason.to_owned() });
        match self {
            Self::Linear { dim: 0 } | Self::Mlp { dim: 0, .. } => fail(
                "embedding_dim",
                "an embedding needs at least one dimension; leave it out for pooled features",
            ),
            Self::LayerNorm { dim: Some(0) } | Self::BatchNorm { dim: Some(0) } => fail(
                "embedding_dim",
                "an embedding needs at least one dimension; leave it out for the features'",
            ),
            Self::Mlp { hidden, .. } if hidden.is_empty() || hidden.contains(&0) => fail(
                "hidden",
                "a multi-layer head needs hidden layers of at least one value; linear has none",
            ),
            _ => Ok(()),
        }
    }
}

/// Pools the features and makes the embedding of them.
#[derive(Debug, Clone)]
pub struct Head {
    pooling: Pooling,
    before: Option<LayerNorm>,
    hidden: Vec<(Linear, HeadActivation)>,
    projection: Option<Linear>,
    after: Option<BatchNorm2d>,
    dim: usize,
}

impl Head {
    /// Builds the head for features of `channels`.
    pub fn new(config: &HeadConfig, pool: Pool, channels: usize, scope: &Scope) -> Result<Self> {
        let pooling = Pooling::new(pool, &scope.at("pool"))?;
        let pooled = pooling.dim(channels);
        let (before, after, hidden) = (None, None, Vec::new());
        let mut head = Self { pooling, before, hidden, projection: None, after, dim: pooled };
        let (sizes, activation, last) = match config {
            HeadConfig::Pooled => (&[][..], HeadActivation::Relu, None),
            HeadConfig::Linear { dim } => (&[][..], HeadActivation::Relu, Some(*dim)),
            HeadConfig::LayerNorm { dim } | HeadConfig::BatchNorm { dim } => {
                (&[][..], HeadActivation::Relu, *dim)
            }
            HeadConfig::Mlp { dim, hidden, activation } => (&hidden[..], *activation, Some(*dim)),
        };
        if let HeadConfig::LayerNorm { .. } = config {
            head.before = Some(LayerNorm::new(pooled, EPS, &scope.at("norm"))?);
        }
        for (i, &size) in sizes.iter().enumerate() {
            let layer = Linear::new(head.dim, size, &scope.at("hidden").at(i))?;
            head.hidden.push((layer, activation));
            head.dim = size;
        }
        if let Some(size) = last {
            head.projection = Some(Linear::new(head.dim, size, &scope.at("projection"))?);
            head.dim = size;
        }
        if let HeadConfig::BatchNorm { .. } = config {
            head.after = Some(BatchNorm2d::without_shift(head.dim, &scope.at("norm"))?);
        }
        Ok(head)
    }

    /// Size of the embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The projection, where there is one.
    pub fn projection(&self) -> Option<&Linear> {
        self.projection.as_ref()
    }

    /// `(n, c)`: one vector an image.
    pub fn pool(&self, features: &Features, train: bool) -> Result<Tensor> {
        self.pooling.forward(features, train)
    }

    /// `(n, c)` → `(n, dim)`, not normalised.
    pub fn embed(&self, pooled: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = pooled.clone();
        if let Some(norm) = &self.before {
            x = norm.forward(&x, train)?;
        }
        for (layer, activation) in &self.hidden {
            x = layer.forward_t(&x, train)?;
            x = match activation {
                HeadActivation::Relu => x.relu()?,
                HeadActivation::Gelu => Gelu::Exact.forward(&x)?,
            };
        }
        if let Some(projection) = &self.projection {
            x = projection.forward_t(&x, train)?;
        }
        match &self.after {
            Some(norm) => {
                let (n, dim) = x.dims2()?;
                norm.forward_t(&x.reshape((n, dim, 1, 1))?, train)?.reshape((n, dim))
            }
            None => Ok(x),
        }
    }

    /// Whether the layers behind the pooling are together one linear map at inference.
    pub(crate) fn is_linear(&self) -> bool {
        self.before.is_none() && self.hidden.is_empty()
    }

    /// The linear map `first`, weight and bias, with the layers behind the pooling after it, as one map; `None` if neither
    /// does anything. For heads that [are linear](Self::is_linear).
    pub(crate) fn folded_behind(&self, first: Option<(Tensor, Tensor)>) -> Result<Option<(Tensor, Tensor)>> {
        let mut map = first;
        if let Some(layer) = &self.projection {
            let (weight, bias) = (layer.weight().as_detached_tensor(), layer.bias().as_detached_tensor());
            map = Some(match map {
                Some((before, shift)) => {
                    let shift = weight.matmul(&shift.unsqueeze(1)?)?.squeeze(1)?;
                    (weight.matmul(&before)?, (shift + bias)?)
                }
                None => (weight, bias),
            });
        }
        let Some(norm) = &self.after else { return Ok(map) };
        let (scale, shift) = norm.folded()?;
        let rows = scale.unsqueeze(1)?;
        Ok(Some(match map {
            Some((weight, bias)) => (weight.broadcast_mul(&rows)?, ((bias * scale)? + shift)?),
            None => {
                (Tensor::eye(scale.elem_count(), scale.dtype(), scale.device())?.broadcast_mul(&rows)?, shift)
            }
        }))
    }

    /// Whether it is a mean and at most one linear layer.
    fn is_plain(&self) -> bool {
        let layers = self.before.is_none() && self.hidden.is_empty() && self.after.is_none();
        layers && self.pooling.is_average()
    }

    /// As [`pool`](Self::pool) in an ONNX graph.
    pub(crate) fn emit_pool(&self, graph: &mut Graph, features: &Features<Edge>) -> Result<Edge> {
        self.pooling.emit(graph, features)
    }

    /// As [`embed`](Self::embed) in an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, pooled: Edge) -> Result<Edge> {
        let mut x = pooled;
        if let Some(norm) = &self.before {
            x = norm.emit(graph, &x)?;
        }
        for (layer, activation) in &self.hidden {
            x = layer.emit(graph, &x)?;
            x = match activation {
                HeadActivation::Relu => graph.activate(x, Activation::Relu),
                HeadActivation::Gelu => Gelu::Exact.emit(graph, &x),
            };
        }
        if let Some(projection) = &self.projection {
            x = projection.emit(graph, &x)?;
        }
        match &self.after {
            Some(norm) => norm.emit_rows(graph, &x),
            None => Ok(x),
        }
    }

    /// Adds the head to a frozen network; `None` if it has layers that cannot be frozen.
    pub(crate) fn freeze(&self, net: &mut Builder, x: Value) -> Result<Option<Value>> {
        if !self.is_plain() {
            return Ok(None);
        }
        let pooled = net.global_avg_pool(x)?;
        match &self.projection {
            Some(projection) => net.linear(pooled, projection.weight(), Some(projection.bias())).map(Some),
            None => Ok(Some(pooled)),
        }
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
