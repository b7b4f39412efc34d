//! Max-pooling with overlapping, padded windows, and its gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::{KernelError, host};

const OP: &str = "max_pool2d";

/// Window, step and margin of a pooling; the same along both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MaxPool2dConfig {
    /// Side of the window.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Margin on each side, which never wins.
    pub padding: usize,
}

impl Default for MaxPool2dConfig {
    /// Side 3, step 2, margin 1: the pooling of a ResNet.
    fn default() -> Self {
        Self { kernel: 3, stride: 2, padding: 1 }
    }
}

/// The geometry of one pooling, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PoolShape {
    pub(crate) in_h: usize,
    pub(crate) in_w: usize,
    pub(crate) out_h: usize,
    pub(crate) out_w: usize,
    pub(crate) cfg: MaxPool2dConfig,
}

impl PoolShape {
    pub(crate) fn new(
        in_h: usize,
        in_w: usize,
        cfg: MaxPool2dConfig,
    ) -> std::result::Result<Self, KernelError> {
        for (value, what) in [(cfg.kernel, "the kernel"), (cfg.stride, "the stride")] {
            if value == 0 {
                return Err(KernelError::Zero { op: OP, what });
            }
        }
        if cfg.padding >= cfg.kernel {
            return Err(KernelError::PoolPadding { padding: cfg.padding, kernel: cfg.kernel });
        }
        let out = |side: usize| {
            let room = side.checked_add(cfg.padding.checked_mul(2)?)?.checked_sub(cfg.kernel)?;
            (side > 0).then_some(room / cfg.stride + 1)
        };
        let (Some(out_h), Some(out_w)) = (out(in_h), out(in_w)) else {
            let window = (cfg.kernel, cfg.kernel);
            return Err(KernelError::WindowTooLarge {
                op: OP,
                window,
                input: (in_h, in_w),
                padding: cfg.padding,
            });
        };
        Ok(Self { in_h, in_w, out_h, out_w, cfg })
    }

    /// The part of window `out` that lies inside a side of `side` pixels. Never empty: a window in the padding
    /// alone would need padding ≥ kernel, or to start after the last pixel.
    pub(crate) fn window(&self, out: usize, side: usize) -> std::ops::Range<usize> {
        let start = out * self.cfg.stride;
        start.saturating_sub(self.cfg.padding)..(start + self.cfg.kernel - self.cfg.padding).min(side)
    }
}

/// The greatest value of every window of `x` (n, c, h, w), giving (n, c, h', w') with
/// h' = (h + 2·padding − kernel) / stride + 1.
///
/// The gradient of a window goes to its greatest value, the first in reading order if there are several, as in
/// PyTorch. (On devices other than the CPU equal values share it.)
///
/// # Errors
/// A wrapped [`KernelError`] if the input is not four-dimensional, a window does not fit, or
/// padding ≥ kernel.
pub fn max_pool2d(x: &Tensor, cfg: MaxPool2dConfig) -> Result<Tensor> {
    let &[_, _, h, w] = x.dims() else {
        return Err(
            KernelError::Rank { op: OP, what: "the input", got: x.dims().to_vec(), expected: 4 }.into()
        );
    };
    let shape = PoolShape::new(h, w, cfg)?;
    if host::takes_own_kernels(&[x]) {
        x.contiguous()?.apply_op1(MaxPool2dOp { shape })
    } else {
        composed(x, &shape)
    }
}

/// The same from candle's elementwise maximum, which has a gradient on every device.
fn composed(x: &Tensor, s: &PoolShape) -> Result<Tensor> {
    let MaxPool2dConfig { kernel, stride, padding } = s.cfg;
    let mut padded = x.clone();
    for dim in [2, 3] {
        if padding > 0 {
            let mut dims = padded.dims().to_vec();
            dims[dim] = padding;
            let margin = Tensor::full(f32::MIN, dims, x.device())?.to_dtype(x.dtype())?;
            padded = Tensor::cat(&[&margin, &padded, &margin], dim)?;
        }
    }
    let taken = |out: usize, offset: usize| {
        let index: Vec<u32> = (0..out).map(|o| (o * stride + offset) as u32).collect();
        Tensor::new(index, x.device())
    };
    let mut best: Option<Tensor> = None;
    for ky in 0..kernel {
        let rows = padded.index_select(&taken(s.out_h, ky)?, 2)?;
        for kx in 0..kernel {
            let values = rows.index_select(&taken(s.out_w, kx)?, 3)?;
            best = Some(match best {
                Some(best) => best.maximum(&values)?,
                None => values,
            });
        }
    }
    best.ok_or_else(|| KernelError::Zero { op: OP, what: "the kernel" }.into())
}

struct MaxPool2dOp {
    shape: PoolShape,
}

impl CustomOp1 for MaxPool2dOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = &self.shape;
        let (n, c, _, _) = layout.shape().dims4()?;
        let x = host::slice(OP, "the input", x, layout)?;
        let mut y = vec![0f32; n * c * s.out_h * s.out_w];
        y.par_chunks_mut(s.out_h * s.out_w)
            .zip(x.par_chunks(s.in_h * s.in_w))
            .for_each(|(y, x)| pool_plane(s, x, y));
        Ok((CpuStorage::F32(y), Shape::from((n, c, s.out_h, s.out_w))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let s = &self.shape;
        let dx = host::with_values(OP, "the gradient", grad, |grad| {
            host::with_values(OP, "the input", x, |x| {
                let mut dx = vec![0f32; x.len()];
                let planes = dx.par_chunks_mut(s.in_h * s.in_w).zip(x.par_chunks(s.in_h * s.in_w));
                planes
                    .zip(grad.par_chunks(s.out_h * s.out_w))
                    .for_each(|((dx, x), grad)| route(s, x, grad, dx));
                Ok(dx)
            })
        })?;
        Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
    }
}

fn pool_plane(s: &PoolShape, x: &[f32], y: &mut [f32]) {
    // Columns first for the rows of one window, then along the row: each input row is read in one sweep.
    let mut highest = vec![0f32; s.in_w];
    for (oy, y) in y.chunks_mut(s.out_w).enumerate() {
        let rows = s.window(oy, s.in_h);
        highest.copy_from_slice(&x[rows.start * s.in_w..][..s.in_w]);
        for iy in rows.start + 1..rows.end {
            for (a, b) in highest.iter_mut().zip(&x[iy * s.in_w..][..s.in_w]) {
                *a = if b.is_nan() || *b > *a { *b } else { *a };
            }
        }
        for (ox, y) in y.iter_mut().enumerate() {
            let window = &highest[s.window(ox, s.in_w)];
            *y = window.iter().fold(f32::NEG_INFINITY, |a, b| if b.is_nan() || *b > a { *b } else { a });
        }
    }
}

fn route(s: &PoolShape, x: &[f32], grad: &[f32], dx: &mut [f32]) {
    for oy in 0..s.out_h {
        let rows = s.window(oy, s.in_h);
        for ox in 0..s.out_w {
            let columns = s.window(ox, s.in_w);
            let mut best = (f32::NEG_INFINITY, rows.start * s.in_w + columns.start);
            for iy in rows.clone() {
                let at = iy * s.in_w;
                for (ix, &v) in x[at + columns.start..at + columns.end].iter().enumerate() {
                    if v > best.0 || v.is_nan() {
                        best = (v, at + columns.start + ix);
                    }
                }
            }
            dx[best.1] += grad[oy * s.out_w + ox];
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::reference::{self, assert_close, noise};

    #[test]
    fn agrees_with_the_literal_loop_and_with_candles_operations() {
        for (h, w) in [(1, 1), (4, 4), (7, 5), (8, 13), (15, 14)] {
            for (kernel, stride, padding) in
                [(1, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (5, 2, 4)]
            {
                let cfg = MaxPool2dConfig { kernel, stride, padding };
                if h.min(w) + 2 * padding < kernel {
                    continue;
                }
                let what = format!("{h}×{w} {cfg:?}");
                let x = Var::from_tensor(&noise(&[2, 3, h, w], 5)).unwrap();
                let y = max_pool2d(&x, cfg).unwrap();
                let grad = noise(y.dims(), 6);
                let (expected, dx) = reference::max_pool2d(&x, &grad, cfg);
                assert_close(&y, &expected, 0.0, &format!("{what} forward"));
                let other = composed(&x, &PoolShape::new(h, w, cfg).unwrap()).unwrap();
                assert_close(&other, &expected, 0.0, &format!("{what} composed"));
                for y in [&y, &other] {
                    let grads = (y * &grad).unwrap().sum_all().unwrap().backward().unwrap();
                    assert_close(grads.get(&x).unwrap(), &dx, 1e-6, &format!("{what} gradient"));
                }
            }
        }
    }

    #[test]
    fn equal_values_give_the_gradient_to_the_first_and_nan_is_not_hidden() {
        let x = Var::from_tensor(
            &Tensor::ones((1, 1, 4, 4), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
        );
        let x = x.unwrap();
        let cfg = MaxPool2dConfig { kernel: 2, stride: 2, padding: 0 };
        let grads = max_pool2d(&x, cfg).unwrap().sum_all().unwrap().backward().unwrap();
        let dx: Vec<f32> = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(dx, [1., 0., 1., 0., 0., 0., 0., 0., 1., 0., 1., 0., 0., 0., 0., 0.]);
        let x = Tensor::new(&[[[[1f32, f32::NAN], [2., 3.]]]], &candle_core::Device::Cpu).unwrap();
        let y: Vec<f32> = max_pool2d(&x, cfg).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(y[0].is_nan() || y[0] == 3.0, "{y:?}");
    }

    #[test]
    fn bad_windows_are_errors() {
        let x = noise(&[1, 1, 2, 2], 1);
        for (kernel, stride, padding) in [(0, 1, 0), (2, 0, 0), (3, 1, 0), (2, 1, 2), (usize::MAX, 1, 3)] {
            assert!(max_pool2d(&x, MaxPool2dConfig { kernel, stride, padding }).is_err());
        }
        assert!(max_pool2d(&noise(&[2, 2], 1), MaxPool2dConfig::default()).is_err());
    }
}
