//! Convolution, batch norm and activation: the unit convolutional networks are made of, and the one that a
//! frozen network runs as a single operation.

use candle_core::{ModuleT, Result, Tensor};
use semblance_kernels::frozen::{Builder, ConvLayer, Value};
use semblance_kernels::{Activation, ConvNormConfig, Statistics, add_activate, conv_norm_train};

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
        if train {
            let (gamma, beta, eps) = self.norm.learned();
            let config = ConvNormConfig { conv: *self.conv.config(), eps, activation };
            let weight = self.conv.weight().as_tensor();
            let statistics = self.norm.statistics();
            let (y, mean, var) = conv_norm_train(x, weight, (gamma, beta), statistics, residual, config)?;
            if let Statistics::Batch = statistics {
                self.norm.update_running(&mean, &var, y.elem_count() / y.dim(1)?)?;
            }
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::params::ParamStore;

    #[test]
    fn training_with_a_frozen_norm_is_the_convolution_and_the_norm_one_after_the_other() -> Result<()> {
        for (activation, groups, with_residual) in
            [(Activation::None, 1, false), (Activation::Relu, 1, true), (Activation::Relu6, 4, false)]
        {
            let store = ParamStore::new(3, &Device::Cpu);
            let root = store.root();
            let config = ConvConfig { groups, ..ConvConfig::new(4, 8, 3) };
            let unit = ConvNorm::new(config, activation, root.at("conv"), root.at("norm"))?;
            let noise = |name: &str, dims: &[usize]| {
                let count: usize = dims.iter().product();
                let seed = name.len() as f32;
                let values = (0..count).map(|i| ((i as f32 + seed) * 1.7).sin() * 2.0).collect();
                Tensor::from_vec(values, dims, &Device::Cpu)
            };
            unit.norm.update_running(&noise("mean", &[8])?, &noise("variance", &[8])?.sqr()?, 10)?;
            store.freeze_norms(true);
            let x = candle_core::Var::from_tensor(&noise("x", &[2, 4, 5, 6])?)?;
            let residual = noise("residual", &[2, 8, 5, 6])?;
            let residual = with_residual.then_some(&residual);
            let got = unit.forward_onto(&x, residual, activation, true)?;
            let apart = unit.conv.forward_t(&x, true)?;
            let apart = unit.norm.forward_activated(&apart, Activation::None, true)?;
            let apart = residual.map_or_else(|| Ok(apart.clone()), |residual| &apart + residual)?;
            let expected = semblance_kernels::activate(&apart, activation)?;
            let near = |a: &Tensor, b: &Tensor| -> Result<bool> {
                Ok((a - b)?.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? < 1e-4)
            };
            assert!(near(&got, &expected)?, "{activation:?}");
            let towards = noise("towards", got.dims())?;
            let gradients = |y: Tensor| (y * &towards)?.sum_all()?.backward();
            let (got, expected) = (gradients(got)?, gradients(expected)?);
            let (gamma, beta, _) = unit.norm.learned();
            for tensor in [x.as_tensor(), unit.conv.weight().as_tensor(), gamma, beta] {
                let (got, expected) = (got.get(tensor).unwrap(), expected.get(tensor).unwrap());
                assert!(near(got, expected)?, "{activation:?} {:?}", tensor.dims());
            }
        }
        Ok(())
    }
}
