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

/// `activation(batch_norm(conv2d(x)) + residual)` with the statistics of the batch: one layer of a convolutional
/// network in training.
///
/// Shapes are those of [`conv2d`] and [`batch_norm_train`]; `residual` has the shape of the result. Returns the
/// result, the batch mean and the biased batch variance of the convolution (out), the last two without gradient.
///
/// # Errors
/// A wrapped [`KernelError`] for shapes that do not fit one another.
pub fn conv_norm_train(
    x: &Tensor,
    weight: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    residual: Option<&Tensor>,
    cfg: ConvNormConfig,
) -> Result<(Tensor, Tensor, Tensor)> {
    let shape = ConvShape::new(x.dims(), weight.dims(), cfg.conv)?;
    let dims = [shape.n, shape.out_c, shape.out_h, shape.out_w];
    for (what, tensor) in [("gamma", gamma), ("beta", beta)] {
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
        let z = conv2d(x, weight, None, cfg.conv)?;
        let (y, mean, variance) = batch_norm_train(&z, gamma, beta, cfg.eps, Activation::None)?;
        let y = if let Some(residual) = residual { (y + residual)? } else { y };
        return Ok((cfg.activation.composed(y)?, mean, variance));
    }
    let saved = Arc::new(Mutex::new(None));
    let op = ConvNormOp { shape, cfg, has_residual: residual.is_some(), saved: Arc::clone(&saved) };
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

/// What the backward pass needs of the forward pass.
struct Saved {
    /// The convolution's result.
    z: Vec<f32>,
    norm: BatchNorm,
    variance: Vec<f32>,
}

struct ConvNormOp {
    shape: ConvShape,
    cfg: ConvNormConfig,
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
        let (norm, variance) = BatchNorm::of(&z, (s.n, s.out_c, plane), self.cfg.eps, self.cfg.activation);
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
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Saved { z, norm, variance });
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
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Saved { z, norm, .. }) = &*saved else {
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
                    let (dz, dgamma, dbeta) =
                        host::with_values(OP, "the gradient", grad, |grad| match &masked {
                            Some(masked) => norm.gradients(z, scales, masked, dims, Activation::None, true),
                            None => norm.gradients(z, scales, grad, dims, self.cfg.activation, true),
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

    /// The same from its parts, each of which is compared with literal loops elsewhere.
    fn composed(t: &[Tensor], residual: Option<&Tensor>, cfg: ConvNormConfig) -> (Tensor, Tensor, Tensor) {
        let z = conv2d(&t[0], &t[1], None, cfg.conv).unwrap();
        let (y, mean, variance) = batch_norm_train(&z, &t[2], &t[3], cfg.eps, Activation::None).unwrap();
        let y = if let Some(r) = residual { (y + r).unwrap() } else { y };
        (cfg.activation.composed(y).unwrap(), mean, variance)
    }

    #[test]
    fn agrees_with_its_parts_forward_and_backward() {
        for (x, w, stride, groups) in [
            ([2, 3, 9, 8], [5, 3, 3, 3], 2, 1),
            ([3, 4, 5, 5], [6, 4, 1, 1], 1, 1),
            ([2, 6, 7, 7], [6, 1, 3, 3], 1, 6),
            ([1, 4, 6, 5], [8, 2, 3, 3], 1, 2),
        ] {
            for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
                for with_residual in [false, true] {
                    let conv = Conv2dConfig { stride, padding: w[2] / 2, dilation: 1, groups };
                    let cfg = ConvNormConfig { conv, eps: 1e-3, activation };
                    let vars =
                        [noise(&x, 1), noise(&w, 2), (noise(&[w[0]], 3) * 4.0).unwrap(), noise(&[w[0]], 4)]
                            .map(|t| Var::from_tensor(&t).unwrap());
                    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                    let shape = composed(&tensors, None, cfg).0.dims().to_vec();
                    let residual = Var::from_tensor(&noise(&shape, 5)).unwrap();
                    let added = with_residual.then(|| residual.as_tensor());
                    let expected = composed(&tensors, added, cfg);
                    let t = &tensors;
                    let got = conv_norm_train(&t[0], &t[1], &t[2], &t[3], added, cfg).unwrap();
                    let what = format!("{x:?} {w:?} {activation:?} {with_residual}");
                    assert_close(&got.0, &expected.0, 1e-5, &what);
                    assert_close(&got.1, &expected.1, 1e-6, &what);
                    assert_close(&got.2, &expected.2, 1e-6, &what);
                    let weights = noise(&shape, 6);
                    let gradient =
                        |y: &Tensor| (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                    let (found, wanted) = (gradient(&got.0), gradient(&expected.0));
                    for var in vars.iter().chain(with_residual.then_some(&residual)) {
                        assert_close(found.get(var).unwrap(), wanted.get(var).unwrap(), 2e-5, &what);
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
        assert_finite_differences(&[&x, &w, &gamma, &beta, &residual], |t| {
            let y = conv_norm_train(&t[0], &t[1], &t[2], &t[3], Some(&t[4]), cfg).unwrap().0;
            (y.sqr().unwrap() * &weights).unwrap().sum_all().unwrap()
        });
    }

    #[test]
    fn other_number_formats_take_the_parts_and_bad_shapes_are_errors() {
        let t = [noise(&[2, 3, 5, 5], 1), noise(&[4, 3, 3, 3], 2), noise(&[4], 3), noise(&[4], 4)];
        let cfg = ConvNormConfig { activation: Activation::Relu, ..Default::default() };
        let own = conv_norm_train(&t[0], &t[1], &t[2], &t[3], None, cfg).unwrap().0;
        let d = t.clone().map(|t| t.to_dtype(DType::F64).unwrap());
        let other = conv_norm_train(&d[0], &d[1], &d[2], &d[3], None, cfg).unwrap().0;
        assert_close(&own, &other, 1e-5, "f64");
        assert!(conv_norm_train(&t[0], &t[1], &noise(&[3], 1), &t[3], None, cfg).is_err());
        assert!(conv_norm_train(&t[0], &t[1], &t[2], &t[3], Some(&t[0]), cfg).is_err());
        assert!(conv_norm_train(&t[1], &t[1], &t[2], &t[3], None, Default::default()).is_ok());
        assert!(conv_norm_train(&t[2], &t[1], &t[2], &t[3], None, cfg).is_err());
    }
}
