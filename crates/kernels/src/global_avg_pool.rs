//! The mean of each channel's plane.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::{KernelError, host};

const OP: &str = "global_avg_pool";

/// The mean over all pixels of `x` (n, c, h, w), giving (n, c).
///
/// # Errors
/// A wrapped [`KernelError`] if the input is not four-dimensional or has no pixels.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let &[_, _, h, w] = x.dims() else {
        return Err(
            KernelError::Rank { op: OP, what: "the input", got: x.dims().to_vec(), expected: 4 }.into()
        );
    };
    if h * w == 0 {
        return Err(KernelError::TooFewValues { op: OP, got: x.dims().to_vec(), least: 1 }.into());
    }
    if host::takes_own_kernels(&[x]) { x.contiguous()?.apply_op1(GlobalAvgPoolOp) } else { x.mean((2, 3)) }
}

struct GlobalAvgPoolOp;

impl CustomOp1 for GlobalAvgPoolOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        let x = host::slice(OP, "the input", x, layout)?;
        let mean = |plane: &[f32]| plane.iter().map(|&v| f64::from(v)).sum::<f64>() as f32 / (h * w) as f32;
        Ok((CpuStorage::F32(x.par_chunks(h * w).map(mean).collect()), Shape::from((n, c))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let plane = x.dim(2)? * x.dim(3)?;
        let dx = host::with_values(OP, "the gradient", grad, |grad| {
            let mut dx = vec![0f32; x.elem_count()];
            dx.par_chunks_mut(plane).zip(grad).for_each(|(dx, g)| dx.fill(g / plane as f32));
            Ok(dx)
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, assert_finite_differences, noise};

    #[test]
    fn agrees_with_candles_mean_forward_and_backward() {
        for dims in [[1, 1, 1, 1], [2, 3, 7, 5], [3, 17, 2, 9]] {
            let x = noise(&dims, 1);
            assert_close(&global_avg_pool(&x).unwrap(), &x.mean((2, 3)).unwrap(), 1e-6, "mean");
        }
        let x = noise(&[2, 2, 3, 3], 2);
        assert_finite_differences(&[&x], |t| {
            global_avg_pool(&t[0]).unwrap().sqr().unwrap().sum_all().unwrap()
        });
    }

    #[test]
    fn planes_without_pixels_are_errors() {
        assert!(global_avg_pool(&noise(&[2, 3, 0, 4], 1)).is_err());
        assert!(global_avg_pool(&noise(&[2, 3], 1)).is_err());
    }
}
