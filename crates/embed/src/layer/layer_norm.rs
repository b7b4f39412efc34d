//! Layer normalisation (Ba et al. 2016, arXiv 1607.06450).

use candle_core::{D, Result, Tensor, Var};

use crate::onnx::{Edge, Graph};
use crate::params::{Init, Scope, value};

/// Normalises the last dimension by its own mean and variance, then scales and shifts it.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Var,
    bias: Var,
    eps: f64,
}

impl LayerNorm {
    /// Registers scale and shift of `width` values in `scope`; `eps` is added to the variance.
    pub fn new(width: usize, eps: f64, scope: &Scope) -> Result<Self> {
        Ok(Self {
            weight: scope.parameter("weight", width, Init::Const(1.0))?,
            bias: scope.parameter("bias", width, Init::Const(0.0))?,
            eps,
        })
    }

    /// `(…, width)` → the same shape.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (weight, bias) = (value(&self.weight, train), value(&self.bias, train));
        // candle's fused operation has no gradient.
        if !x.track_op() && !train {
            return candle_nn::ops::layer_norm(&x.contiguous()?, &weight, &bias, self.eps as f32);
        }
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        centred.broadcast_div(&deviation)?.broadcast_mul(&weight)?.broadcast_add(&bias)
    }

    /// The same over the channels of `(n, c, h, w)`.
    pub fn forward_channels(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let y = self.forward(&x.permute((0, 2, 3, 1))?.contiguous()?, train)?;
        y.permute((0, 3, 1, 2))?.contiguous()
    }

    /// Writes the layer into an ONNX graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        graph.layer_norm(x, &self.weight, &self.bias, self.eps as f32)
    }

    /// As [`forward_channels`](Self::forward_channels) in an ONNX graph.
    pub(crate) fn emit_channels(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let last = graph.transpose(x, &[0, 2, 3, 1]);
        let y = self.emit(graph, &last)?;
        Ok(graph.transpose(&y, &[0, 3, 1, 2]))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::params::ParamStore;

    // ln = torch.nn.LayerNorm(4, eps=1e-5); ln.weight.data.copy_(torch.tensor([1., 2., 3., 4.])); ln.bias.data.fill_(.5)
    // x = torch.tensor([[1., 2., 4., 9.]], requires_grad=True); y = ln(x)
    // (y * torch.tensor([1., -1., 2., .5])).sum().backward(); y, x.grad
    #[test]
    fn values_and_gradients_are_pytorchs_with_and_without_the_graph() {
        let store = ParamStore::new(0, &Device::Cpu);
        let norm = LayerNorm::new(4, 1e-5, &store.root()).unwrap();
        norm.weight.set(&Tensor::new(&[1f32, 2., 3., 4.], &Device::Cpu).unwrap()).unwrap();
        norm.bias.set(&Tensor::new(&[0.5f32; 4], &Device::Cpu).unwrap()).unwrap();
        let x = Var::new(&[[1f32, 2., 4., 9.]], &Device::Cpu).unwrap();
        let factors = Tensor::new(&[[1f32, -1., 2., 0.5]], &Device::Cpu).unwrap();
        let close = |found: &Tensor, wanted: [f32; 4]| {
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {wanted:?}");
        };
        let wanted = [-0.4733281, -0.7977707, 0.5, 6.988853];
        close(&norm.forward(&x.as_detached_tensor(), false).unwrap(), wanted);
        let y = norm.forward(x.as_tensor(), true).unwrap();
        close(&y, wanted);
        let grads = (y * factors).unwrap().sum_all().unwrap().backward().unwrap();
        close(grads.get(&x).unwrap(), [0.03842057, -1.028825, 1.378881, -0.388477]);
    }
}
