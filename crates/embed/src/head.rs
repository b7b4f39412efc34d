//! From a feature map to an embedding, before normalisation.

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::frozen::{Builder, Value};
use semblance_kernels::global_avg_pool;
use serde::{Deserialize, Serialize};

use crate::layer::Linear;
use crate::onnx::{Edge, Graph};
use crate::params::Scope;

/// Which head sits on the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
}

/// Pools the feature map and, if asked, projects it.
#[derive(Debug, Clone)]
pub struct Head {
    projection: Option<Linear>,
    dim: usize,
}

impl Head {
    /// Builds the head for feature maps of `features` channels.
    pub fn new(config: HeadConfig, features: usize, scope: &Scope) -> Result<Self> {
        match config {
            HeadConfig::Pooled => Ok(Self { projection: None, dim: features }),
            HeadConfig::Linear { dim } => {
                Ok(Self { projection: Some(Linear::new(features, dim, &scope.at("projection"))?), dim })
            }
        }
    }

    /// Size of the embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The projection, where there is one.
    pub fn projection(&self) -> Option<&Linear> {
        self.projection.as_ref()
    }

    /// Writes the head into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let pooled = graph.global_avg_pool(x);
        match &self.projection {
            Some(projection) => graph.linear(&pooled, projection.weight(), projection.bias()),
            None => Ok(pooled),
        }
    }

    /// Adds the head to a frozen network.
    pub(crate) fn freeze(&self, net: &mut Builder, x: Value) -> Result<Value> {
        let pooled = net.global_avg_pool(x)?;
        match &self.projection {
            Some(projection) => net.linear(pooled, projection.weight(), Some(projection.bias())),
            None => Ok(pooled),
        }
    }
}

impl ModuleT for Head {
    /// `(n, c, h, w)` → `(n, dim)`, not normalised.
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let pooled = global_avg_pool(x)?;
        match &self.projection {
            Some(projection) => projection.forward_t(&pooled, train),
            None => Ok(pooled),
        }
    }
}
