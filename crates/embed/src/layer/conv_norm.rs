//! Convolution, batch norm and activation: the unit convolutional networks are made of, and the one that a
//! frozen network runs as a single operation.

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::frozen::{Builder, ConvLayer, Value};
use semblance_kernels::{Activation, ConvNormConfig, add_activate, conv_norm_train};

use super::batch_norm::activate;
use super::{BatchNorm2d, Conv2d, ConvConfig};
use crate::onnx::{Edge, Graph};
use crate::params::Scope;

/// `activation(norm(conv(x)))`.
#[derive(Debug, Clone)]
pub struct ConvNorm {
    /// The convolution, without bias.
    pub conv: Conv2d,
    /// The norm of its output.
    pub norm: BatchNorm2d,
    /// What follows.
    pub activation: Activation,
}

impl ConvNorm {
    /// Registers the two layers at two places of their own, as families name them differently
    /// (`conv1`/`bn1`, or `0`/`1`).
    pub fn new(config: ConvConfig, activation: Activation, conv: Scope, norm: Scope) -> Result<Self> {
        let output = config.output;
        Ok(Self { conv: Conv2d::new(config, &conv)?, norm: BatchNorm2d::new(output, &norm)?, activation })
    }

    /// `activation(norm(conv(x)) + residual)` with an activation that takes the place of the unit's own. In
    /// training that is a single operation.
    pub(crate) fn forward_onto(
        &self,
        x: &Tensor,
        residual: Option<&Tensor>,
        activation: Activation,
        train: bool,
    ) -> Result<Tensor> {
        if train && self.norm.is_frozen() {
            let y = self.conv.forward_t(x, true)?;
            let y = self.norm.forward_activated(&y, Activation::None, true)?;
            let y = residual.map_or_else(|| Ok(y.clone()), |residual| &y + residual)?;
            return activate(&y, activation);
        }
        if train {
            let (gamma, beta, eps) = self.norm.learned();
            let config = ConvNormConfig { conv: *self.conv.config(), eps, activation };
            let weight = self.conv.weight().as_tensor();
            let (y, mean, var) = conv_norm_train(x, weight, gamma, beta, residual, config)?;
            self.norm.update_running(&mean, &var, y.elem_count() / y.dim(1)?)?;
            return Ok(y);
        }
        let y = self.conv.forward_t(x, false)?;
        match residual {
            Some(residual) => {
                add_activate(&self.norm.forward_activated(&y, Activation::None, false)?, residual, activation)
            }
            None => self.norm.forward_activated(&y, activation, false),
        }
    }

    /// Writes the unit into an ONNX graph: the norm folded into the convolution, a residual added before an activation
    /// that takes the place of the unit's own.
    pub(crate) fn emit_onto(
        &self,
        graph: &mut Graph,
        x: &Edge,
        residual: Option<&Edge>,
        activation: Activation,
    ) -> Result<Edge> {
        let (scale, shift) = self.norm.folded()?;
        let weight = self.conv.weight().as_detached_tensor();
        let weight = weight.broadcast_mul(&scale.reshape((scale.elem_count(), 1, 1, 1))?)?;
        let y = graph.conv(x, &weight, Some(&shift), self.conv.config())?;
        let y = match residual {
            Some(residual) => graph.add(&y, residual),
            None => y,
        };
        Ok(graph.activate(y, activation))
    }

    /// As [`emit_onto`](Self::emit_onto), with its own activation and nothing added.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        self.emit_onto(graph, x, None, self.activation)
    }

    /// Adds the unit to a frozen network, as one layer.
    pub(crate) fn freeze(&self, net: &mut Builder, x: Value) -> Result<Value> {
        self.freeze_onto(net, x, None, self.activation)
    }

    /// As [`freeze`](Self::freeze), with a residual added before an activation that takes the place of its own.
    pub(crate) fn freeze_onto(
        &self,
        net: &mut Builder,
        x: Value,
        residual: Option<Value>,
        activation: Activation,
    ) -> Result<Value> {
        let norm = Some(self.norm.frozen());
        let layer = ConvLayer::new(self.conv.weight(), *self.conv.config());
        net.conv(x, &ConvLayer { norm, residual, activation, ..layer })
    }
}

impl ModuleT for ConvNorm {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_onto(x, None, self.activation, train)
    }
}
