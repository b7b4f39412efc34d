//! The smooth activations of transformers (Hendrycks & Gimpel 2016, arXiv 1606.08415), in parallel.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::onnx::{Edge, Graph};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gelu {
    /// `x Φ(x)` with the normal distribution's Φ.
    #[default]
    Exact,
    /// `x σ(1.702 x)`: what OpenAI's CLIP was trained with.
    Quick,
}

/// Values handled by one thread at a time.
const CHUNK: usize = 1 << 13;
const STEEPNESS: f32 = 1.702;

impl Gelu {
    /// Any shape → the same shape.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            return x.contiguous()?.apply_op1(Op { kind: self, derivative: false });
        }
        match self {
            Self::Exact => x.gelu_erf(),
            Self::Quick => x * candle_nn::ops::sigmoid(&(x * f64::from(STEEPNESS))?)?,
        }
    }

    /// Writes the activation into an ONNX graph.
    pub(crate) fn emit(self, graph: &mut Graph, x: &Edge) -> Edge {
        match self {
            Self::Exact => graph.gelu(x),
            Self::Quick => graph.sigmoid_gelu(x, STEEPNESS),
        }
    }

    fn value(self, x: f32) -> f32 {
        match self {
            Self::Exact => x * normal(x),
            Self::Quick => x * sigmoid(STEEPNESS * x),
        }
    }

    fn slope(self, x: f32) -> f32 {
        match self {
            Self::Exact => {
                let density =
                    (-0.5 * x * x).exp() * std::f32::consts::FRAC_1_SQRT_2 / std::f32::consts::PI.sqrt();
                normal(x) + x * density
            }
            Self::Quick => {
                let s = sigmoid(STEEPNESS * x);
                s + STEEPNESS * x * s * (1.0 - s)
            }
        }
    }
}

fn normal(x: f32) -> f32 {
    0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

struct Op {
    kind: Gelu,
    derivative: bool,
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((from, to)) = layout.contiguous_offsets() else {
            candle_core::bail!("gelu needs a contiguous tensor")
        };
        let x = &x.as_slice::<f32>()?[from..to];
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = if self.derivative { self.kind.slope(x) } else { self.kind.value(x) };
            }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        if self.derivative {
            candle_core::bail!("gelu has no second derivative here")
        }
        let slope = x.detach().contiguous()?.apply_op1_no_bwd(&Op { kind: self.kind, derivative: true })?;
        Ok(Some((grad * slope)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    // x = torch.tensor([-3., -.5, 0., .7, 2.], requires_grad=True)
    // y = torch.nn.functional.gelu(x); y.sum().backward(); y, x.grad
    // y = x * torch.sigmoid(1.702 * x); y.sum().backward(); y, x.grad
    #[test]
    fn values_and_slopes_are_pytorchs() {
        for (kind, values, slopes) in [
            (
                Gelu::Exact,
                [-0.004049867, -0.1542688, 0.0, 0.5306255, 1.9545],
                [-0.01194561, 0.1325049, 0.5, 0.9766141, 1.085232],
            ),
            (
                Gelu::Quick,
                [-0.01807131, -0.1496116, 0.0, 0.536894, 1.935659],
                [-0.02454833, 0.1207781, 0.5, 0.9799132, 1.073815],
            ),
        ] {
            let x = Var::new(&[-3f32, -0.5, 0.0, 0.7, 2.0], &Device::Cpu).unwrap();
            let y = kind.forward(x.as_tensor()).unwrap();
            let grads = y.sum_all().unwrap().backward().unwrap();
            for (found, wanted) in [(&y, values), (grads.get(&x).unwrap(), slopes)] {
                let found: Vec<f32> = found.to_vec1().unwrap();
                assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 2e-6), "{kind:?} {found:?}");
            }
        }
    }
}
