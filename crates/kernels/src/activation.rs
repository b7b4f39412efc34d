//! Activations that end a layer, alone or after a sum.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::simd::vectorized;
use crate::{KernelError, host};

const OP: &str = "add_activate";
/// Values handled by one thread at a time.
const CHUNK: usize = 1 << 14;

/// What follows a layer's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// max(0, v)
    Relu,
    /// min(6, max(0, v))
    Relu6,
}

impl Activation {
    /// The range that results are limited to.
    pub(crate) fn limits(self) -> (f32, f32) {
        match self {
            Self::None => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::Relu6 => (0.0, 6.0),
        }
    }

    /// The same from candle's operations.
    pub(crate) fn composed(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x),
            Self::Relu => x.relu(),
            Self::Relu6 => x.clamp(0f32, 6f32),
        }
    }

    /// The gradient before the activation, from the one behind it and the activation's result: where the result
    /// lies on a limit, the activation was flat.
    pub(crate) fn masked(self, grad: &[f32], result: &[f32]) -> Vec<f32> {
        let (low, high) = self.limits();
        let mut masked = vec![0f32; grad.len()];
        let chunks = masked.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK)).zip(result.par_chunks(CHUNK));
        chunks.for_each(|((masked, grad), result)| mask(masked, grad, result, low, high));
        masked
    }
}

vectorized! {
    fn mask(masked: &mut [f32], grad: &[f32], result: &[f32], low: f32, high: f32) {
        for ((m, &g), &y) in masked.iter_mut().zip(grad).zip(result) {
            // Both sides are looked at, so that there is no branch.
            *m = if (y > low) & (y < high) { g } else { 0.0 };
        }
    }
}

vectorized! {
    fn limited(y: &mut [f32], x: &[f32], low: f32, high: f32) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = limit(*x, low, high));
    }
}

vectorized! {
    fn add_limited(y: &mut [f32], a: &[f32], b: &[f32], low: f32, high: f32) {
        y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = limit(a + b, low, high));
    }
}

/// `v` within `low ..= high`; NaN stays NaN.
#[inline(always)]
pub(crate) fn limit(v: f32, low: f32, high: f32) -> f32 {
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

/// `activation(x)` with its gradient, in one pass each.
///
/// # Errors
/// Those of candle's operations.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if activation == Activation::None {
        return Ok(x.clone());
    }
    if !host::takes_own_kernels(&[x]) {
        return activation.composed(x.clone());
    }
    x.contiguous()?.apply_op1(ActivateOp(activation))
}

struct ActivateOp(Activation);

impl CustomOp1 for ActivateOp {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = host::slice(self.name(), "the input", x, xl)?;
        let (low, high) = self.0.limits();
        let mut y = vec![0f32; x.len()];
        let chunks = y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
        chunks.for_each(|(y, x)| limited(y, x, low, high));
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let masked = host::with_values(self.name(), "the gradient", grad, |grad| {
            host::with_values(self.name(), "the result", result, |result| Ok(self.0.masked(grad, result)))
        })?;
        Ok(Some(Tensor::from_vec(masked, result.shape(), result.device())?))
    }
}

/// `activation(a + b)` for tensors of one shape: the end of a residual block, in one pass.
///
/// # Errors
/// A wrapped [`KernelError`] if the shapes differ.
pub fn add_activate(a: &Tensor, b: &Tensor, activation: Activation) -> Result<Tensor> {
    if a.dims() != b.dims() {
        let (left, right) = (a.dims().to_vec(), b.dims().to_vec());
        return Err(KernelError::Differ { op: OP, left, right }.into());
    }
    if !host::takes_own_kernels(&[a, b]) {
        return activation.composed((a + b)?);
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, AddActivateOp(activation))
}

struct AddActivateOp(Activation);

impl CustomOp2 for AddActivateOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        al: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let a = host::slice(OP, "the first sum", a, al)?;
        let b = host::slice(OP, "the second sum", b, bl)?;
        let (low, high) = self.0.limits();
        let mut y = vec![0f32; a.len()];
        let chunks = y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
        chunks.for_each(|((y, a), b)| add_limited(y, a, b, low, high));
        Ok((CpuStorage::F32(y), al.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let masked = host::with_values(OP, "the gradient", grad, |grad| {
            host::with_values(OP, "the result", result, |result| Ok(self.0.masked(grad, result)))
        })?;
        let masked = Tensor::from_vec(masked, result.shape(), result.device())?;
        Ok((Some(masked.clone()), Some(masked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, noise};
    use candle_core::Var;

    #[test]
    fn agrees_with_candles_operations_forward_and_backward() {
        for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
            let a = Var::from_tensor(&(noise(&[2, 3, 5, 7], 1) * 9.0).unwrap()).unwrap();
            let b = Var::from_tensor(&(noise(&[2, 3, 5, 7], 2) * 9.0).unwrap()).unwrap();
            let weight = noise(&[2, 3, 5, 7], 3);
            let own = add_activate(&a, &b, activation).unwrap();
            let other = activation.composed((a.as_tensor() + b.as_tensor()).unwrap()).unwrap();
            assert_close(&own, &other, 1e-6, "sum");
            let grads = |y: Tensor| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
            let (own, other) = (grads(own), grads(other));
            let (alone, composed) =
                (activate(&a, activation).unwrap(), activation.composed(a.as_tensor().clone()).unwrap());
            assert_close(&alone, &composed, 0.0, "alone");
            let (alone, composed) = (grads(alone), grads(composed));
            assert_close(alone.get(&a).unwrap(), composed.get(&a).unwrap(), 0.0, "gradient alone");
            for var in [&a, &b] {
                assert_close(own.get(var).unwrap(), other.get(var).unwrap(), 1e-6, "gradient");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let nan = Tensor::full(f32::NAN, 3, &candle_core::Device::Cpu).unwrap();
        for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
            for y in [activate(&nan, activation), add_activate(&nan, &nan, activation)] {
                assert!(y.unwrap().to_vec1::<f32>().unwrap().into_iter().all(f32::is_nan), "{activation:?}");
            }
        }
    }

    #[test]
    fn shapes_that_differ_are_an_error() {
        let error = add_activate(&noise(&[2, 3], 1), &noise(&[3, 2], 1), Activation::Relu).unwrap_err();
        assert!(error.to_string().contains("[2, 3]"), "{error}");
    }
}
