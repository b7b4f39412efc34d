//! Batch normalisation with the statistics of the batch, and the gradient through them.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::activation::limit;
use crate::simd::vectorized;
use crate::{Activation, KernelError, host};

const OP: &str = "batch_norm_train";

/// Normalises every channel of `x` (n, c, h, w) to mean 0 and variance 1 over the batch, then scales by `gamma` (c)
/// and shifts by `beta` (c): Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1. The activation behind it is
/// part of the same pass.
///
/// Returns the result (n, c, h, w), the batch mean (c) and the biased batch variance (c). The last two are for
/// running statistics and carry no gradient; the gradient of the first passes through the statistics.
///
/// # Errors
/// A wrapped [`KernelError`] if the shapes do not fit or a channel has no values.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, Tensor, Tensor)> {
    let &[n, c, h, w] = x.dims() else {
        return Err(
            KernelError::Rank { op: OP, what: "the input", got: x.dims().to_vec(), expected: 4 }.into()
        );
    };
    for (what, tensor) in [("gamma", gamma), ("beta", beta)] {
        if tensor.dims().len() != 1 {
            return Err(KernelError::Rank { op: OP, what, got: tensor.dims().to_vec(), expected: 1 }.into());
        }
        if tensor.elem_count() != c {
            return Err(
                KernelError::PerChannel { op: OP, what, got: tensor.elem_count(), expected: c }.into()
            );
        }
    }
    if n * h * w == 0 {
        return Err(KernelError::TooFewValues { op: OP, got: x.dims().to_vec(), least: 1 }.into());
    }
    if !host::takes_own_kernels(&[x, gamma, beta]) {
        let (y, mean, variance) = composed(x, gamma, beta, eps)?;
        return Ok((activation.composed(y)?, mean, variance));
    }
    let x = x.contiguous()?;
    let shape = (n, c, h * w);
    let (norm, variance) =
        host::with_values(OP, "the input", &x, |x| Ok(BatchNorm::of(x, shape, eps, activation)))?;
    let mean_tensor = Tensor::from_slice(norm.mean(), c, x.device())?;
    let variance_tensor = Tensor::from_vec(variance, c, x.device())?;
    let y = x.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, norm)?;
    Ok((y, mean_tensor, variance_tensor))
}

/// The same from candle's operations, for other devices and number formats.
fn composed(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
    let c = x.dim(1)?;
    let channel = |t: &Tensor| t.reshape((1, c, 1, 1));
    let mean = x.mean_keepdim((0, 2, 3))?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((0, 2, 3))?;
    let normed = centred.broadcast_div(&(&variance + eps)?.sqrt()?)?;
    let y = normed.broadcast_mul(&channel(gamma)?)?.broadcast_add(&channel(beta)?)?;
    let flat = |t: &Tensor| t.flatten_all()?.to_dtype(DType::F32).map(|t| t.detach());
    Ok((y, flat(&mean)?, flat(&variance)?))
}

/// The statistics of one batch, and what follows the norm.
pub(crate) struct BatchNorm {
    mean: Vec<f32>,
    /// 1 / √(variance + eps)
    scale: Vec<f32>,
    activation: Activation,
    /// Whether mean and variance are constants, not functions of the input.
    fixed: bool,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        gamma: &CpuStorage,
        gl: &Layout,
        beta: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = xl.shape().dims4()?;
        let x = host::slice(OP, "the input", x, xl)?;
        let gamma = host::slice(OP, "gamma", gamma, gl)?;
        let beta = host::slice(OP, "beta", beta, bl)?;
        let limits = self.activation.limits();
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(h * w).zip(x.par_chunks(h * w)).enumerate().for_each(|(index, (y, x))| {
            normalise(y, x, self.affine(index % c, gamma, beta), limits);
        });
        Ok((CpuStorage::F32(y), Shape::from((n, c, h, w))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (n, c, h, w) = x.dims4()?;
        let (dx, dgamma, dbeta) = host::with_values(OP, "the gradient", grad, |grad| {
            host::with_values(OP, "the input", x, |x| {
                host::with_values(OP, "gamma", gamma, |gamma| {
                    host::with_values(OP, "beta", beta, |beta| {
                        let mut dx = x.to_vec();
                        let dims = (n, c, h * w);
                        let scales = self.gradients(&mut dx, (gamma, beta), grad, dims, self.activation)?;
                        Ok((dx, scales.0, scales.1))
                    })
                })
            })
        })?;
        let device = x.device();
        let dx = Tensor::from_vec(dx, x.shape(), device)?;
        Ok((Some(dx), Some(Tensor::from_vec(dgamma, c, device)?), Some(Tensor::from_vec(dbeta, c, device)?)))
    }
}

impl BatchNorm {
    /// The statistics of `x` (n, c, plane), and the biased variance.
    pub(crate) fn of(
        x: &[f32],
        (n, c, plane): (usize, usize, usize),
        eps: f64,
        activation: Activation,
    ) -> (Self, Vec<f32>) {
        let (mean, variance) = statistics(x, n, c, plane);
        (Self { fixed: false, ..Self::fixed(mean, &variance, eps, activation) }, variance)
    }

    /// With statistics that are constants.
    pub(crate) fn fixed(mean: Vec<f32>, variance: &[f32], eps: f64, activation: Activation) -> Self {
        let scale = variance.iter().map(|&v| (1.0 / (f64::from(v) + eps).sqrt()) as f32).collect();
        Self { mean, scale, activation, fixed: true }
    }

    pub(crate) fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Scale and shift that normalise a channel and apply `gamma` and `beta`.
    pub(crate) fn affine(&self, channel: usize, gamma: &[f32], beta: &[f32]) -> (f32, f32) {
        let scale = gamma[channel] * self.scale[channel];
        (scale, beta[channel] - self.mean[channel] * scale)
    }

    /// With x̂ = (x − mean)·scale and m values a channel: dβ = Σ g, dγ = Σ g·x̂,
    /// dx = γ·scale·(g − dβ/m − x̂·dγ/m), and dx = γ·scale·g where the statistics are constants.
    ///
    /// g is the gradient where `activation` behind the norm lets it pass, which is seen from x again. dx takes the place
    /// of x; returned are dγ and dβ.
    pub(crate) fn gradients(
        &self,
        x: &mut [f32],
        (gamma, beta): (&[f32], &[f32]),
        grad: &[f32],
        (n, c, plane): (usize, usize, usize),
        activation: Activation,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        if grad.len() != x.len() {
            return Err(KernelError::NotHostF32 { op: OP, what: "the gradient" }.into());
        }
        let gate = |channel| Gate { affine: self.affine(channel, gamma, beta), limits: activation.limits() };
        let sums: Vec<(f32, f32)> = (0..c)
            .into_par_iter()
            .map(|channel| {
                let (mut plain, mut weighted) = (0f64, 0f64);
                for image in 0..n {
                    let at = (image * c + channel) * plane;
                    let (grad, x) = (&grad[at..][..plane], &x[at..][..plane]);
                    let (s, t) = sum_and_centred_product(grad, x, self.mean[channel], gate(channel));
                    plain += s;
                    weighted += t;
                }
                (plain as f32, (weighted * f64::from(self.scale[channel])) as f32)
            })
            .collect();
        let count = (n * plane) as f32;
        x.par_chunks_mut(plane).zip(grad.par_chunks(plane)).enumerate().for_each(|(index, (x, grad))| {
            let channel = index % c;
            let (dbeta, dgamma) = sums[channel];
            let outer = gamma[channel] * self.scale[channel];
            let (slope, offset) = if self.fixed {
                (0.0, 0.0)
            } else {
                let slope = outer * self.scale[channel] * dgamma / count;
                (slope, outer * dbeta / count - slope * self.mean[channel])
            };
            input_gradient(x, grad, (outer, slope, offset), gate(channel));
        });
        let (dbeta, dgamma) = sums.into_iter().unzip();
        Ok((dgamma, dbeta))
    }
}

/// What stands between a gradient and a channel's norm: the activation, which passes it where the norm's result lies
/// within its limits.
#[derive(Clone, Copy)]
struct Gate {
    affine: (f32, f32),
    limits: (f32, f32),
}

impl Gate {
    #[inline(always)]
    fn pass(self, g: f32, x: f32) -> f32 {
        let y = x * self.affine.0 + self.affine.1;
        // Both sides are looked at, so that there is no branch.
        if (y > self.limits.0) & (y < self.limits.1) { g } else { 0.0 }
    }
}

vectorized! {
    /// `y` = x·scale + shift within the limits.
    pub(crate) fn normalise(y: &mut [f32], x: &[f32], affine: (f32, f32), limits: (f32, f32)) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = limit(x * affine.0 + affine.1, limits.0, limits.1));
    }
}

vectorized! {
    /// Puts dx where x was.
    fn input_gradient(x: &mut [f32], grad: &[f32], factors: (f32, f32, f32), gate: Gate) {
        let (outer, slope, offset) = factors;
        for (x, &g) in x.iter_mut().zip(grad) {
            *x = outer * gate.pass(g, *x) - slope * *x - offset;
        }
    }
}

/// Mean and biased variance of each channel. The second pass over the (small, cached) plane with the mean already
/// known keeps the variance exact where the mean is large.
fn statistics(x: &[f32], n: usize, c: usize, plane: usize) -> (Vec<f32>, Vec<f32>) {
    let count = (n * plane) as f64;
    (0..c)
        .into_par_iter()
        .map(|channel| {
            let planes = || (0..n).map(|image| &x[(image * c + channel) * plane..][..plane]);
            let mean = (planes().map(sum).sum::<f64>() / count) as f32;
            let variance = planes().map(|p| centred_square_sum(p, mean)).sum::<f64>() / count;
            (mean, variance as f32)
        })
        .unzip()
}

const LANES: usize = 16;
/// Values that are added in f32 before the partial sums go over to f64.
const RUN: usize = 1024;

/// Σ f(value) with vector-wide partial sums, each run of values carried over in f64.
#[inline(always)]
fn lane_sum(values: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0f64;
    for run in values.chunks(RUN) {
        let mut lanes = [0f32; LANES];
        let chunks = run.chunks_exact(LANES);
        let mut rest = 0f32;
        for &v in chunks.remainder() {
            rest += f(v);
        }
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += f(chunk[lane]);
            }
        }
        total += f64::from(lanes.iter().sum::<f32>() + rest);
    }
    total
}

vectorized! {
    fn sum(values: &[f32]) -> f64 {
        lane_sum(values, |v| v)
    }
}

vectorized! {
    fn centred_square_sum(values: &[f32], mean: f32) -> f64 {
        lane_sum(values, |v| (v - mean) * (v - mean))
    }
}

vectorized! {
    /// Σ g and Σ g·(x − mean) over the gradients g that pass.
    fn sum_and_centred_product(grad: &[f32], x: &[f32], mean: f32, gate: Gate) -> (f64, f64) {
        let mut total = (0f64, 0f64);
        for (grad, x) in grad.chunks(RUN).zip(x.chunks(RUN)) {
            let (mut plain, mut product) = ([0f32; LANES], [0f32; LANES]);
            let (g, v) = (grad.chunks_exact(LANES), x.chunks_exact(LANES));
            let mut rest = (0f32, 0f32);
            for (&g, &v) in g.remainder().iter().zip(v.remainder()) {
                let g = gate.pass(g, v);
                rest = (rest.0 + g, rest.1 + g * (v - mean));
            }
            for (g, v) in g.zip(v) {
                for lane in 0..LANES {
                    let g = gate.pass(g[lane], v[lane]);
                    plain[lane] += g;
                    product[lane] += g * (v[lane] - mean);
                }
            }
            total.0 += f64::from(plain.iter().sum::<f32>() + rest.0);
            total.1 += f64::from(product.iter().sum::<f32>() + rest.1);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::reference::{self, assert_close, assert_finite_differences, noise};

    #[test]
    fn agrees_with_the_literal_loop_and_with_candles_operations() {
        for dims in [[1, 1, 2, 1], [2, 3, 5, 7], [4, 17, 3, 3], [3, 2, 33, 35]] {
            let x = Var::from_tensor(&(noise(&dims, 1) * 3.0).unwrap().affine(1.0, 20.0).unwrap()).unwrap();
            let gamma = Var::from_tensor(&noise(&[dims[1]], 2)).unwrap();
            let beta = Var::from_tensor(&noise(&[dims[1]], 3)).unwrap();
            let grad = noise(&dims, 4);
            let expected = reference::batch_norm(&x, &gamma, &beta, &grad, 1e-5);
            let own = batch_norm_train(&x, &gamma, &beta, 1e-5, Activation::None).unwrap();
            let other = composed(&x, &gamma, &beta, 1e-5).unwrap();
            for (which, (y, mean, variance)) in [("own", own), ("composed", other)] {
                let what = format!("{which} {dims:?}");
                assert_close(&y, &expected.y, 2e-5, &format!("{what} result"));
                assert_close(&mean, &expected.mean, 1e-6, &format!("{what} mean"));
                assert_close(&variance, &expected.variance, 1e-5, &format!("{what} variance"));
                let grads = (&y * &grad).unwrap().sum_all().unwrap().backward().unwrap();
                assert_close(grads.get(&x).unwrap(), &expected.dx, 1e-4, &format!("{what} dx"));
                assert_close(grads.get(&gamma).unwrap(), &expected.dgamma, 1e-4, &format!("{what} dgamma"));
                assert_close(grads.get(&beta).unwrap(), &expected.dbeta, 1e-4, &format!("{what} dbeta"));
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (x, gamma, beta) = (noise(&[3, 2, 3, 2], 5), noise(&[2], 6), noise(&[2], 7));
        let weights = noise(&[3, 2, 3, 2], 8);
        assert_finite_differences(&[&x, &gamma, &beta], |t| {
            let y = batch_norm_train(&t[0], &t[1], &t[2], 1e-3, Activation::None).unwrap().0;
            (y.sqr().unwrap() * &weights).unwrap().sum_all().unwrap()
        });
    }

    #[test]
    fn a_fused_activation_is_one_behind_it() {
        let grad = noise(&[3, 4, 5, 3], 4);
        for activation in [Activation::Relu, Activation::Relu6] {
            let vars = [noise(&[3, 4, 5, 3], 1), (noise(&[4], 2) * 9.0).unwrap(), noise(&[4], 3)];
            let [x, gamma, beta] = vars.map(|t| Var::from_tensor(&t).unwrap());
            let fused = batch_norm_train(&x, &gamma, &beta, 1e-5, activation).unwrap().0;
            let plain = batch_norm_train(&x, &gamma, &beta, 1e-5, Activation::None).unwrap().0;
            let behind = activation.composed(plain).unwrap();
            assert_close(&fused, &behind, 1e-6, "result");
            let grads = |y: Tensor| (y * &grad).unwrap().sum_all().unwrap().backward().unwrap();
            let (fused, behind) = (grads(fused), grads(behind));
            for var in [&x, &gamma, &beta] {
                assert_close(fused.get(var).unwrap(), behind.get(var).unwrap(), 1e-5, "gradient");
            }
        }
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let (x, c3, c2) = (noise(&[2, 3, 2, 2], 1), noise(&[3], 2), noise(&[2], 3));
        assert!(batch_norm_train(&x, &c2, &c3, 1e-5, Activation::None).is_err());
        assert!(batch_norm_train(&x, &c3, &c2, 1e-5, Activation::None).is_err());
        assert!(batch_norm_train(&c3, &c3, &c3, 1e-5, Activation::None).is_err());
        let empty = Tensor::zeros((0, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(batch_norm_train(&empty, &c3, &c3, 1e-5, Activation::None).is_err());
    }
}
