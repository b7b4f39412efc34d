//! Multi-head self-attention (Vaswani et al. 2017, arXiv 1706.03762).

use candle_core::{D, ModuleT, Result, Tensor, Var};

use super::Linear;
use crate::onnx::{Edge, Graph};
use crate::params::Scope;

/// Attention weights kept at once where no gradient is asked for: 64 MiB of them.
const SCORES: usize = 1 << 24;

/// Every token looks at every token of its image, in `heads` subspaces; timm's names.
#[derive(Debug, Clone)]
pub struct Attention {
    qkv: Linear,
    projection: Linear,
    heads: usize,
}

impl Attention {
    /// Registers `qkv (3 · dim, dim)` and `proj (dim, dim)`, both with biases; `heads` must divide `dim`.
    pub fn new(dim: usize, heads: usize, scope: &Scope) -> Result<Self> {
        if heads == 0 || !dim.is_multiple_of(heads) {
            candle_core::bail!("{heads} heads do not divide {dim} values")
        }
        let qkv = Linear::narrow(dim, 3 * dim, &scope.at("qkv"))?;
        Ok(Self { qkv, projection: Linear::narrow(dim, dim, &scope.at("proj"))?, heads })
    }

    /// `(n, tokens, dim)` → the same shape.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (n, tokens, dim) = x.dims3()?;
        let width = dim / self.heads;
        let parts = self.qkv.forward_t(x, train)?.reshape((n, tokens, 3, self.heads, width))?;
        let parts = parts.permute((2, 0, 3, 1, 4))?.contiguous()?;
        let query = (parts.get(0)? * (width as f64).sqrt().recip())?;
        let (key, value) = (parts.get(1)?, parts.get(2)?);
        let mixed = if query.track_op() {
            mix(&query, &key, &value)?
        } else {
            // Long sequences of large batches would need gigabytes at once.
            let images = (SCORES / (self.heads * tokens * tokens)).max(1);
            let pieces = (0..n).step_by(images).map(|i| {
                let piece = |t: &Tensor| t.narrow(0, i, images.min(n - i));
                mix(&piece(&query)?, &piece(&key)?, &piece(&value)?)
            });
            Tensor::cat(&pieces.collect::<Result<Vec<_>>>()?, 0)?
        };
        self.projection.forward_t(&mixed.transpose(1, 2)?.contiguous()?.reshape((n, tokens, dim))?, train)
    }

    /// Writes the layer into an ONNX graph, with the queries' scale in their weights.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Edge) -> Result<Edge> {
        let dim = self.projection.weight().dim(0)?;
        let width = dim / self.heads;
        let mut part = |which: usize, scale: f64, order: &[i64]| -> Result<Edge> {
            let slice = |all: &Var| all.as_detached_tensor().narrow(0, which * dim, dim)? * scale;
            let (weight, bias) = (slice(self.qkv.weight())?, slice(self.qkv.bias())?);
            let y = graph.linear(x, &weight, Some(&bias))?;
            let y = graph.reshape(&y, &[0, 0, self.heads as i64, width as i64]);
            Ok(graph.transpose(&y, order))
        };
        let query = part(0, (width as f64).sqrt().recip(), &[0, 2, 1, 3])?;
        let (key, value) = (part(1, 1.0, &[0, 2, 3, 1])?, part(2, 1.0, &[0, 2, 1, 3])?);
        let scores = graph.matmul(&query, &key);
        let scores = graph.softmax(&scores);
        let mixed = graph.matmul(&scores, &value);
        let mixed = graph.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = graph.reshape(&mixed, &[0, 0, dim as i64]);
        self.projection.emit(graph, &mixed)
    }
}

/// `softmax(q kᵀ) v` of `(n, heads, tokens, width)`.
fn mix(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    softmax(&query.matmul(&key.t()?)?)?.matmul(value)
}

/// Over the last dimension.
fn softmax(x: &Tensor) -> Result<Tensor> {
    // candle's fused operation has no gradient.
    if !x.track_op() {
        return candle_nn::ops::softmax_last_dim(x);
    }
    // The maximum only keeps the exponentials finite; no gradient need pass through it.
    let powers = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::params::ParamStore;

    /// The literal loop, in double precision.
    fn by_hand(attention: &Attention, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let matrix = |layer: &Linear| -> (Vec<Vec<f32>>, Vec<f32>) {
            (layer.weight().to_vec2().unwrap(), layer.bias().to_vec1().unwrap())
        };
        let apply = |(weight, bias): &(Vec<Vec<f32>>, Vec<f32>), x: &[f64]| -> Vec<f64> {
            let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
            weight.iter().zip(bias).map(|(row, b)| dot(row) + f64::from(*b)).collect()
        };
        let (qkv, proj) = (matrix(&attention.qkv), matrix(&attention.projection));
        let (dim, width) = (x[0].len(), x[0].len() / attention.heads);
        let rows: Vec<Vec<f64>> = x.iter().map(|x| apply(&qkv, x)).collect();
        let mixed = rows.iter().map(|row| {
            let mut out = vec![0.0; dim];
            for head in 0..attention.heads {
                let part = |row: &[f64], which: usize| row[which * dim + head * width..][..width].to_vec();
                let query = part(row, 0);
                let dot =
                    |other: &[f64]| -> f64 { query.iter().zip(part(other, 1)).map(|(a, b)| a * b).sum() };
                let powers: Vec<f64> = rows.iter().map(|r| (dot(r) / (width as f64).sqrt()).exp()).collect();
                let total: f64 = powers.iter().sum();
                for (power, row) in powers.iter().zip(&rows) {
                    for (i, value) in part(row, 2).iter().enumerate() {
                        out[head * width + i] += power / total * value;
                    }
                }
            }
            apply(&proj, &out)
        });
        mixed.collect()
    }

    #[test]
    fn attention_is_its_literal_loop_with_and_without_the_graph() {
        let store = ParamStore::new(5, &Device::Cpu);
        let attention = Attention::new(6, 2, &store.root()).unwrap();
        for (_, param) in store.entries("") {
            let wide = Tensor::randn(0f32, 0.8, param.var.shape(), &Device::Cpu).unwrap();
            param.var.set(&wide).unwrap();
        }
        let x = Var::randn(0f32, 1f32, (2, 5, 6), &Device::Cpu).unwrap();
        for train in [false, true] {
            let input = if train { x.as_tensor().clone() } else { x.as_detached_tensor() };
            let found: Vec<Vec<Vec<f32>>> = attention.forward(&input, train).unwrap().to_vec3().unwrap();
            for (found, image) in found.iter().zip(x.to_vec3::<f32>().unwrap()) {
                let image: Vec<Vec<f64>> =
                    image.iter().map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect();
                for (a, b) in found.iter().flatten().zip(by_hand(&attention, &image).iter().flatten()) {
                    assert!((f64::from(*a) - b).abs() < 1e-5, "{a} {b}");
                }
            }
        }
        assert!(Attention::new(6, 4, &store.root().at("other")).is_err());
    }
}
