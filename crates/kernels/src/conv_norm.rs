//! Convolution, batch norm, residual and activation as one operation with one gradient.
//!
//! Apart, they would be four nodes of candle's graph, and every node costs several passes over the feature map on
//! one thread when gradients are summed. Together the backward pass reads the map twice and writes it once, on all
//! threads.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::activation::limit;
use crate::batch_norm::{BatchNorm, batch_norm_train, normalise};
use crate::conv_shape::ConvShape;
use crate::conv2d::{self, conv2d};
use crate::simd::vectorized;
use crate::{Activation, Conv2dConfig, KernelError, host};

const OP: &str = "conv_norm_train";

/// What [`conv_norm_train`] does besides its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvNormConfig {
    /// Stride, padding, dilation and groups.
    pub conv: Conv2dConfig,
    /// Added to the variance.
    pub eps: f64,
    /// Applied last.
    pub activation: Activation,
}

impl Default for ConvNormConfig {
    /// A bare convolution, 1e-5, no activation.
    fn default() -> Self {
        Self { conv: Conv2dConfig::default(), eps: 1e-5, activation: Activation::None }
    }
}

/// What the convolution's channels are normalised by.
#[derive(Debug, Clone, Copy)]
pub enum Statistics<'a> {
    /// Their own mean and variance over the batch, through which the gradient passes.
    Batch,
    /// A mean and a variance (out) that are constants.
    Fixed(&'a Tensor, &'a Tensor),
}

/// `activation(batch_norm(conv2d(x)) + residual)`: one layer of a convolutional network in training. The norm has
/// `gamma` and `beta` (out), which are learned, and `statistics`.
///
/// Shapes are those of [`conv2d`] and [`batch_norm_train`]; `residual` has the shape of the result. Returns the
/// result, and the mean and the biased variance (out) it was normalised by, the last two without gradient.
///
/// # Errors
/// A wrapped [`KernelError`] for shapes that do not fit one another.
pub fn conv_norm_train(
    x: &Tensor,
    weight: &Tensor,
    (gamma, beta): (&Tensor, &Tensor),
    statistics: Statistics<'_>,
    residual: Option<&Tensor>,
    cfg: ConvNormConfig,
) -> Result<(Tensor, Tensor, Tensor)> {
    let shape = ConvShape::new(x.dims(), weight.dims(), cfg.conv)?;
    let dims = [shape.n, shape.out_c, shape.out_h, shape.out_w];
    let mut channels = vec![("gamma", gamma), ("beta", beta)];
    if let Statistics::Fixed(mean, variance) = statistics {
        channels.extend([("the mean", mean), ("the variance", variance)]);
    }
    for (what, tensor) in channels {
        if tensor.dims().len() != 1 {
            return Err(KernelError::Rank { op: OP, what, got: tensor.dims().to_vec(), expected: 1 }.into());
        }
        if tensor.elem_count() != shape.out_c {
            let got = tensor.elem_count();
            return Err(KernelError::PerChannel { op: OP, what, got, expected: shape.out_c }.into());
        }
    }
    if let Some(residual) = residual.filter(|r| r.dims() != dims) {
        let got = residual.dims().to_vec();
        return Err(KernelError::Differ { op: OP, left: dims.to_vec(), right: got }.into());
    }
    if shape.y_len() == 0 {
        return Err(KernelError::TooFewValues { op: OP, got: x.dims().to_vec(), least: 1 }.into());
    }
    let own = host::takes_own_kernels(&[x, weight, gamma, beta])
        && residual.is_none_or(|r| host::takes_own_kernels(&[r]));
    if !own {
        return composed(x, weight, (gamma, beta), statistics, residual, cfg);
    }
    let fixed = match statistics {
        Statistics::Batch => None,
        Statistics::Fixed(mean, variance) => Some((mean.to_vec1()?, variance.to_vec1()?)),
    };
    let saved = Arc::new(Mutex::new(None));
    let op = ConvNormOp { shape, cfg, fixed, has_residual: residual.is_some(), saved: Arc::clone(&saved) };
    let x = x.contiguous()?;
    let y = match residual {
        // An operation has three arguments at most: with a residual, all parameters travel together.
        Some(residual) => {
            let parameters = Tensor::cat(&[&weight.flatten_all()?, gamma, beta], 0)?;
            x.apply_op3(&parameters, &residual.contiguous()?, op)?
        }
        None => x.apply_op3(&weight.contiguous()?, &Tensor::cat(&[gamma, beta], 0)?, op)?,
    };
    let guard = saved.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Saved { norm, variance, .. }) = &*guard else {
        return Err(KernelError::NotHostF32 { op: OP, what: "the input" }.into());
    };
    let mean = Tensor::from_slice(norm.mean(), shape.out_c, x.device())?;
    let variance = Tensor::from_slice(variance, shape.out_c, x.device())?;
    Ok((y, mean, variance))
}

/// The same from its parts.
fn composed(
    x: &Tensor,
    weight: &Tensor,
    (gamma, beta): (&Tensor, &Tensor),
    statistics: Statistics<'_>,
    residual: Option<&Tensor>,
    cfg: ConvNormConfig,
) -> Result<(Tensor, Tensor, Tensor)> {
    let z = conv2d(x, weight, None, cfg.conv)?;
    let (y, mean, variance) = match statistics {
        Statistics::Batch => batch_norm_train(&z, gamma, beta, cfg.eps, Activation::None)?,
        Statistics::Fixed(mean, variance) => {
            let (mean, variance) = (mean.detach(), variance.detach());
            let wide = |t: Tensor| t.reshape((1, (), 1, 1));
            let scale = (gamma / (&variance + cfg.eps)?.sqrt()?)?;
            let shift = (beta - (&mean * &scale)?)?;
            (z.broadcast_mul(&wide(scale)?)?.broadcast_add(&wide(shift)?)?, mean, variance)
        }
    };
    let y = if let Some(residual) = residual { (y + residual)? } else { y };
    Ok((cfg.activation.composed(y)?, mean, variance))
}

/// What the backward pass needs of the forward pass.
struct Saved {
    /// The convolution's result, until a backward pass has used it up.
    z: Option<Vec<f32>>,
    norm: BatchNorm,
    variance: Vec<f32>,
}

struct ConvNormOp {
    shape: ConvShape,
    cfg: ConvNormConfig,
    /// Mean and variance, if they are not the batch's.
    fixed: Option<(Vec<f32>, Vec<f32>)>,
    has_residual: bool,
    saved: Arc<Mutex<Option<Saved>>>,
}

/// The parameters as they lie in the operation's second and third argument.
struct Parameters<'a> {
    weight: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    residual: Option<&'a [f32]>,
}

impl ConvNormOp {
    fn parameters<'a>(&self, second: &'a [f32], third: &'a [f32]) -> Parameters<'a> {
        let (weight, scales, residual) = if self.has_residual {
            let (weight, scales) = second.split_at(self.shape.w_len());
            (weight, scales, Some(third))
        } else {
            (second, third, None)
        };
        let (gamma, beta) = scales.split_at(self.shape.out_c);
        Parameters { weight, gamma, beta, residual }
    }
}

impl CustomOp3 for ConvNormOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        second: &CpuStorage,
        sl: &Layout,
        third: &CpuStorage,
        tl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        let x = host::slice(OP, "the input", x, xl)?;
        let second = host::slice(OP, "the weight", second, sl)?;
        let third = host::slice(OP, "the parameters", third, tl)?;
        let p = self.parameters(second, third);
        let z = conv2d::forward(s, x, p.weight, None);
        let plane = s.out_plane();
        let (eps, activation) = (self.cfg.eps, self.cfg.activation);
        let (norm, variance) = match self.fixed.clone() {
            Some((mean, variance)) => (BatchNorm::fixed(mean, &variance, eps, activation), variance),
            None => BatchNorm::of(&z, (s.n, s.out_c, plane), eps, activation),
        };
        let (low, high) = self.cfg.activation.limits();
        let mut y = vec![0f32; z.len()];
        y.par_chunks_mut(plane).zip(z.par_chunks(plane)).enumerate().for_each(|(index, (y, z))| {
            let (scale, shift) = norm.affine(index % s.out_c, p.gamma, p.beta);
            match p.residual {
                Some(residual) => {
                    let residual = &residual[index * plane..][..plane];
                    normalise_and_add(y, z, residual, (scale, shift), (low, high));
                }
                None => normalise(y, z, (scale, shift), (low, high)),
            }
        });
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Saved { z: Some(z), norm, variance });
        Ok((CpuStorage::F32(y), Shape::from((s.n, s.out_c, s.out_h, s.out_w))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        second: &Tensor,
        third: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let s = &self.shape;
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Saved { z, norm, .. }) = &mut *saved else {
            return Err(KernelError::NotHostF32 { op: OP, what: "the input" }.into());
        };
        // A residual has the gradient behind the activation for its own; without one it is never written down.
        let masked = match self.has_residual {
            true => Some(host::with_values(OP, "the gradient", grad, |grad| {
                host::with_values(OP, "the result", y, |y| Ok(self.cfg.activation.masked(grad, y)))
            })?),
            false => None,
        };
        let (need_x, need_weight) = (x.track_op(), second.track_op());
        let (dx, dw, dscales) = host::with_values(OP, "the input", x, |x| {
            host::with_values(OP, "the weight", second, |second| {
                host::with_values(OP, "the parameters", third, |third| {
                    let p = self.parameters(second, third);
                    let (dims, scales) = ((s.n, s.out_c, s.out_plane()), (p.gamma, p.beta));
                    // The gradient takes the place of z, so that memory shrinks on the way back. A second
                    // backward pass computes the convolution again.
                    let mut dz = z.take().unwrap_or_else(|| conv2d::forward(s, x, p.weight, None));
                    let (dgamma, dbeta) =
                        host::with_values(OP, "the gradient", grad, |grad| match &masked {
                            Some(masked) => norm.gradients(&mut dz, scales, masked, dims, Activation::None),
                            None => norm.gradients(&mut dz, scales, grad, dims, self.cfg.activation),
                        })?;
                    let (dx, dw) = conv2d::backward(s, x, p.weight, &dz, need_x, need_weight)?;
                    Ok((dx, dw, [dgamma, dbeta].concat()))
                })
            })
        })?;
        let device = x.device();
        let dx = dx.map(|v| Tensor::from_vec(v, x.shape(), device)).transpose()?;
        if let Some(masked) = masked {
            let parameters = dw.map(|mut dw| {
                dw.extend_from_slice(&dscales);
                Tensor::from_vec(dw, second.shape(), device)
            });
            let residual = Tensor::from_vec(masked, third.shape(), device)?;
            return Ok((dx, parameters.transpose()?, Some(residual)));
        }
        let dw = dw.map(|v| Tensor::from_vec(v, second.shape(), device)).transpose()?;
        Ok((dx, dw, Some(Tensor::from_vec(dscales, third.shape(), device)?)))
    }
}

vectorized! {
    /// `y` = z·scale + shift + residual within the limits.
    fn normalise_and_add(y: &mut [f32], z: &[f32], residual: &[f32], affine: (f32, f32), limits: (f32, f32)) {
        for ((y, z), r) in y.iter_mut().zip(z).zip(residual) {
            *y = limit(z * affine.0 + affine.1 + r, limits.0, limits.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::reference::{assert_close, assert_finite_differences, noise};

    #[test]
    fn agrees_with_its_parts_forward_and_backward() {
        for (x, w, stride, groups) in [
            ([2, 3, 9, 8], [5, 3, 3, 3], 2, 1),
            ([3, 4, 5, 5], [6, 4, 1, 1], 1, 1),
            ([2, 6, 7, 7], [6, 1, 3, 3], 1, 6),
            ([1, 4, 6, 5], [8, 2, 3, 3], 1, 2),
        ] {
            for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
                for (with_residual, fixed) in [(false, false), (true, false), (false, true), (true, true)] {
                    let conv = Conv2dConfig { stride, padding: w[2] / 2, dilation: 1, groups };
                    let cfg = ConvNormConfig { conv, eps: 1e-3, activation };
                    let vars =
                        [noise(&x, 1), noise(&w, 2), (noise(&[w[0]], 3) * 4.0).unwrap(), noise(&[w[0]], 4)]
                            .map(|t| Var::from_tensor(&t).unwrap());
                    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                    let t = &tensors;
                    let shape = conv2d(&t[0], &t[1], None, conv).unwrap().dims().to_vec();
                    let residual = Var::from_tensor(&noise(&shape, 5)).unwrap();
                    let added = with_residual.then(|| residual.as_tensor());
                    let (mean, variance) = (noise(&[w[0]], 7), noise(&[w[0]], 8).sqr().unwrap());
                    let by = if fixed { Statistics::Fixed(&mean, &variance) } else { Statistics::Batch };
                    let expected = composed(&t[0], &t[1], (&t[2], &t[3]), by, added, cfg).unwrap();
                    let got = conv_norm_train(&t[0], &t[1], (&t[2], &t[3]), by, added, cfg).unwrap();
                    let what = format!("{x:?} {w:?} {activation:?} {with_residual} {fixed}");
                    assert_close(&got.0, &expected.0, 1e-5, &what);
                    assert_close(&got.1, &expected.1, 1e-6, &what);
                    assert_close(&got.2, &expected.2, 1e-6, &what);
                    let weights = noise(&shape, 6);
                    let gradient =
                        |y: &Tensor| (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                    let (found, wanted, again) = (gradient(&got.0), gradient(&expected.0), gradient(&got.0));
                    for var in vars.iter().chain(with_residual.then_some(&residual)) {
                        assert_close(found.get(var).unwrap(), wanted.get(var).unwrap(), 2e-5, &what);
                        assert_close(again.get(var).unwrap(), found.get(var).unwrap(), 1e-6, &what);
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (x, w, gamma, beta) =
            (noise(&[3, 2, 4, 4], 1), noise(&[3, 2, 3, 3], 2), noise(&[3], 3), noise(&[3], 4));
        let (residual, weights) = (noise(&[3, 3, 4, 4], 5), noise(&[3, 3, 4, 4], 6));
        let conv = Conv2dConfig { padding: 1, ..Default::default() };
        let cfg = ConvNormConfig { conv, eps: 1e-2, activation: Activation::None };
        let (mean, variance) = (noise(&[3], 7), noise(&[3], 8).sqr().unwrap());
        for by in [Statistics::Batch, Statistics::Fixed(&mean, &variance)] {
            assert_finite_differences(&[&x, &w, &gamma, &beta, &residual], |t| {
                let y = conv_norm_train(&t[0], &t[1], (&t[2], &t[3]), by, Some(&t[4]), cfg).unwrap().0;
                (y.sqr().unwrap() * &weights).unwrap().sum_all().unwrap()
            });
        }
    }

    #[test]
    fn other_number_formats_take_the_parts_and_bad_shapes_are_errors() {
        let t = [noise(&[2, 3, 5, 5], 1), noise(&[4, 3, 3, 3], 2), noise(&[4], 3), noise(&[4], 4)];
        let cfg = ConvNormConfig { activation: Activation::Relu, ..Default::default() };
        let (batch, three) = (Statistics::Batch, noise(&[3], 1));
        let scales = (&t[2], &t[3]);
        let own = conv_norm_train(&t[0], &t[1], scales, batch, None, cfg).unwrap().0;
        let d = t.clone().map(|t| t.to_dtype(DType::F64).unwrap());
        let other = conv_norm_train(&d[0], &d[1], (&d[2], &d[3]), batch, None, cfg).unwrap().0;
        assert_close(&own, &other, 1e-5, "f64");
        assert!(conv_norm_train(&t[0], &t[1], (&three, &t[3]), batch, None, cfg).is_err());
        assert!(conv_norm_train(&t[0], &t[1], scales, Statistics::Fixed(&t[2], &three), None, cfg).is_err());
        assert!(conv_norm_train(&t[0], &t[1], scales, batch, Some(&t[0]), cfg).is_err());
        assert!(conv_norm_train(&t[1], &t[1], scales, batch, None, Default::default()).is_ok());
        assert!(conv_norm_train(&t[2], &t[1], scales, batch, None, cfg).is_err());
    }
}
