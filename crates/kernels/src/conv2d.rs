//! Convolution with gradients to input, weight and bias.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::KernelError;
use crate::conv_shape::{Conv2dConfig, ConvShape};
use crate::frozen::single;
use crate::{depthwise, host, windows};

const OP: &str = "conv2d";

/// Convolves `x` (n, c, h, w) with `weight` (out, c / groups, kh, kw) and adds `bias` (out), giving
/// (n, out, h', w') with h' = (h + 2·padding − dilation·(kh − 1) − 1) / stride + 1.
///
/// As everywhere in deep learning this is a cross-correlation: the window is not mirrored. Gradients reach all
/// three tensors.
///
/// # Errors
/// A wrapped [`KernelError`] for shapes that do not fit one another.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, cfg: Conv2dConfig) -> Result<Tensor> {
    let shape = ConvShape::new(x.dims(), weight.dims(), cfg)?;
    if let Some(bias) = bias {
        if bias.dims().len() != 1 {
            return Err(KernelError::Rank {
                op: OP,
                what: "the bias",
                got: bias.dims().to_vec(),
                expected: 1,
            }
            .into());
        }
        let got = bias.elem_count();
        if got != shape.out_c {
            return Err(
                KernelError::PerChannel { op: OP, what: "the bias", got, expected: shape.out_c }.into()
            );
        }
    }
    if shape.n == 0 {
        return Tensor::zeros((0, shape.out_c, shape.out_h, shape.out_w), x.dtype(), x.device());
    }
    match bias {
        None if host::takes_own_kernels(&[x, weight]) => {
            x.contiguous()?.apply_op2(&weight.contiguous()?, Conv2dOp { shape })
        }
        Some(bias) if host::takes_own_kernels(&[x, weight, bias]) => {
            x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Conv2dOp { shape })
        }
        _ => {
            let y = x.conv2d(weight, cfg.padding, cfg.stride, cfg.dilation, cfg.groups)?;
            match bias {
                Some(bias) => y.broadcast_add(&bias.reshape((1, shape.out_c, 1, 1))?),
                None => Ok(y),
            }
        }
    }
}

struct Conv2dOp {
    shape: ConvShape,
}

impl Conv2dOp {
    fn output_shape(&self) -> Shape {
        let s = &self.shape;
        Shape::from((s.n, s.out_c, s.out_h, s.out_w))
    }

    /// Gradients to input and weight; each only if somebody upstream asks for it.
    fn gradients(&self, x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let s = &self.shape;
        let (need_x, need_w) = (x.track_op(), w.track_op());
        let (dx, dw) = host::with_values(OP, "the gradient", grad, |grad| {
            host::with_values(OP, "the input", x, |x| {
                host::with_values(OP, "the weight", w, |w| backward(s, x, w, grad, need_x, need_w))
            })
        })?;
        let dx = dx.map(|v| Tensor::from_vec(v, x.shape(), x.device())).transpose()?;
        let dw = dw.map(|v| Tensor::from_vec(v, w.shape(), w.device())).transpose()?;
        Ok((dx, dw))
    }
}

impl CustomOp2 for Conv2dOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = host::slice(OP, "the input", x, xl)?;
        let w = host::slice(OP, "the weight", w, wl)?;
        Ok((CpuStorage::F32(forward(&self.shape, x, w, None)), self.output_shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(x, w, grad)
    }
}

impl CustomOp3 for Conv2dOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = host::slice(OP, "the input", x, xl)?;
        let w = host::slice(OP, "the weight", w, wl)?;
        let b = host::slice(OP, "the bias", b, bl)?;
        Ok((CpuStorage::F32(forward(&self.shape, x, w, Some(b))), self.output_shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = self.gradients(x, w, grad)?;
        let db = if b.track_op() { Some(grad.sum((0, 2, 3))?) } else { None };
        Ok((dx, dw, db))
    }
}

pub(crate) fn forward(s: &ConvShape, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut y = if s.is_depthwise() {
        depthwise::forward(s, x, w)
    } else if single::suits(s) {
        single::convolve(s, x, w.to_vec())
    } else {
        windows::forward(s, x, w)
    };
    if let Some(bias) = bias {
        y.par_chunks_mut(s.out_plane()).enumerate().for_each(|(index, plane)| {
            let bias = bias[index % s.out_c];
            plane.iter_mut().for_each(|v| *v += bias);
        });
    }
    y
}

pub(crate) type Gradients = (Option<Vec<f32>>, Option<Vec<f32>>);

pub(crate) fn backward(
    s: &ConvShape,
    x: &[f32],
    w: &[f32],
    grad: &[f32],
    need_x: bool,
    need_w: bool,
) -> Result<Gradients> {
    if x.len() != s.x_len() || w.len() != s.w_len() || grad.len() != s.y_len() {
        return Err(KernelError::NotHostF32 { op: OP, what: "the gradient" }.into());
    }
    let slices = (x, w, grad);
    match s.mirrored().filter(|mirrored| need_x && single::suits(mirrored)) {
        Some(mirrored) => {
            let dx = single::convolve(&mirrored, grad, s.mirrored_weight(w));
            Ok((Some(dx), by_shares(s, slices, false, need_w).1))
        }
        None => Ok(by_shares(s, slices, need_x, need_w)),
    }
}

/// Gradients of each thread's share of the images. Those to the weight are added in order, so that the result does not
/// depend on which thread was faster.
fn by_shares(s: &ConvShape, slices: (&[f32], &[f32], &[f32]), need_x: bool, need_w: bool) -> Gradients {
    let share = s.n.div_ceil(rayon::current_num_threads()).max(1);
    let run = |first: usize, dx: Option<&mut [f32]>| {
        let images = first..(first + share).min(s.n);
        if s.is_depthwise() {
            depthwise::gradients(s, slices, images, dx, need_w)
        } else {
            windows::gradients(s, slices, images, dx, need_w)
        }
    };
    let mut dx = vec![0f32; if need_x { s.x_len() } else { 0 }];
    let parts: Vec<Vec<f32>> = if need_x {
        let shares = dx.par_chunks_mut(share * s.in_c * s.in_plane()).enumerate();
        shares.map(|(i, dx)| run(i * share, Some(dx))).collect()
    } else {
        (0..s.n.div_ceil(share)).into_par_iter().map(|i| run(i * share, None)).collect()
    };
    let dw = parts.into_iter().reduce(|mut sum, part| {
        sum.iter_mut().zip(&part).for_each(|(a, b)| *a += b);
        sum
    });
    (need_x.then_some(dx), if need_w { dw } else { None })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    use super::*;
    use crate::reference::{self, assert_close, noise};

    /// Forward and all three gradients against the literal loop, for one shape.
    fn check(x_dims: [usize; 4], w_dims: [usize; 4], cfg: Conv2dConfig, with_bias: bool) {
        let what = format!("{x_dims:?} {w_dims:?} {cfg:?}");
        let (x, w, b) = (noise(&x_dims, 1), noise(&w_dims, 2), noise(&[w_dims[0]], 3));
        let (x, w, b) =
            (Var::from_tensor(&x).unwrap(), Var::from_tensor(&w).unwrap(), Var::from_tensor(&b).unwrap());
        let bias = with_bias.then(|| b.as_tensor());
        let y = conv2d(&x, &w, bias, cfg).unwrap();
        let expected = reference::conv2d(&x, &w, bias, cfg);
        assert_close(&y, &expected, 1e-5, &format!("{what} forward"));
        let grad = noise(y.dims(), 4);
        let grads = (&y * &grad).unwrap().sum_all().unwrap().backward().unwrap();
        let (dx, dw, db) = reference::conv2d_gradients(&x, &w, &grad, cfg);
        assert_close(grads.get(&x).unwrap(), &dx, 1e-5, &format!("{what} input gradient"));
        assert_close(grads.get(&w).unwrap(), &dw, 1e-5, &format!("{what} weight gradient"));
        if with_bias {
            assert_close(grads.get(&b).unwrap(), &db, 1e-5, &format!("{what} bias gradient"));
        }
    }

    #[test]
    fn agrees_with_the_literal_loop_over_a_grid_of_shapes() {
        for (h, w) in [(1, 1), (5, 7), (8, 8), (9, 4), (14, 15)] {
            for kernel in [1, 2, 3, 5, 7] {
                for stride in [1, 2, 3] {
                    for padding in [0, 1, 3] {
                        if h.min(w) + 2 * padding < kernel {
                            continue;
                        }
                        let cfg = Conv2dConfig { stride, padding, ..Default::default() };
                        check([2, 3, h, w], [5, 3, kernel, kernel], cfg, stride == 2);
                    }
                }
            }
        }
    }

    #[test]
    fn padding_larger_than_the_kernel_dilation_and_batch_one() {
        let cfg = Conv2dConfig { stride: 2, padding: 5, dilation: 2, groups: 1 };
        check([1, 4, 6, 5], [3, 4, 3, 3], cfg, true);
        check([1, 1, 1, 1], [1, 1, 1, 1], Conv2dConfig { padding: 4, ..Default::default() }, true);
        check(
            [3, 2, 9, 11],
            [4, 2, 2, 3],
            Conv2dConfig { dilation: 3, padding: 1, ..Default::default() },
            false,
        );
    }

    #[test]
    fn groups_and_depthwise() {
        for stride in [1, 2] {
            for padding in [0, 1, 2] {
                let cfg = |groups| Conv2dConfig { stride, padding, dilation: 1, groups };
                check([2, 6, 7, 8], [4, 3, 3, 3], cfg(2), true);
                check([2, 6, 7, 8], [6, 1, 3, 3], cfg(6), true);
                check([3, 5, 9, 6], [10, 1, 5, 5], Conv2dConfig { padding: padding + 2, ..cfg(5) }, false);
                check([1, 40, 14, 14], [40, 1, 3, 3], cfg(40), false);
            }
        }
        check(
            [2, 4, 9, 9],
            [4, 1, 3, 3],
            Conv2dConfig { stride: 1, padding: 3, dilation: 2, groups: 4 },
            true,
        );
    }

    #[test]
    fn large_planes_take_winograd_and_small_ones_stand_side_by_side() {
        for padding in 0..4 {
            let cfg = Conv2dConfig { padding, ..Default::default() };
            check([3, 17, 24, 25], [20, 17, 3, 3], cfg, padding == 1);
        }
        for (kernel, stride, groups) in [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 2), (1, 1, 2)] {
            let cfg = Conv2dConfig { stride, padding: kernel / 2, dilation: 1, groups };
            check([11, 4, 3, 4], [6, 4 / groups, kernel, kernel], cfg, groups == 2);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_the_literal_loop_for_random_shapes(
            n in 1usize..4, groups in 1usize..4, in_g in 1usize..5, out_g in 1usize..5, h in 1usize..12,
            w in 1usize..12, kh in 1usize..5, kw in 1usize..5, stride in 1usize..4, padding in 0usize..4,
            dilation in 1usize..3, bias in any::<bool>(),
        ) {
            prop_assume!(h + 2 * padding > dilation * (kh - 1) && w + 2 * padding > dilation * (kw - 1));
            let cfg = Conv2dConfig { stride, padding, dilation, groups };
            check([n, groups * in_g, h, w], [groups * out_g, in_g, kh, kw], cfg, bias);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let cfg = Conv2dConfig { stride: 2, padding: 1, ..Default::default() };
        let (x, w, b) = (noise(&[2, 2, 5, 4], 7), noise(&[3, 2, 3, 3], 8), noise(&[3], 9));
        reference::assert_finite_differences(&[&x, &w, &b], |t| {
            conv2d(&t[0], &t[1], Some(&t[2]), cfg).unwrap().sqr().unwrap().sum_all().unwrap()
        });
    }

    #[test]
    fn transposed_inputs_are_read_in_their_own_order() {
        let x = noise(&[2, 6, 5, 3], 1).transpose(1, 3).unwrap();
        let w = noise(&[4, 3, 2, 2], 2);
        let cfg = Conv2dConfig::default();
        assert_close(
            &conv2d(&x, &w, None, cfg).unwrap(),
            &reference::conv2d(&x, &w, None, cfg),
            1e-5,
            "transposed",
        );
    }

    #[test]
    fn other_number_formats_take_candles_operations() {
        let x = noise(&[1, 2, 5, 5], 1).to_dtype(candle_core::DType::F64).unwrap();
        let w = noise(&[3, 2, 3, 3], 2).to_dtype(candle_core::DType::F64).unwrap();
        let b = noise(&[3], 3).to_dtype(candle_core::DType::F64).unwrap();
        let cfg = Conv2dConfig { padding: 1, ..Default::default() };
        let y = conv2d(&x, &w, Some(&b), cfg).unwrap();
        assert_close(&y, &reference::conv2d(&x, &w, Some(&b), cfg), 1e-9, "f64");
    }

    #[test]
    fn bad_shapes_are_errors_and_empty_batches_are_not() {
        let x = noise(&[1, 4, 5, 5], 1);
        let w = noise(&[2, 3, 3, 3], 2);
        let cfg = Conv2dConfig::default();
        let message = conv2d(&x, &w, None, cfg).unwrap_err().to_string();
        assert!(message.contains("4 input channels"), "{message}");
        let w = noise(&[2, 4, 3, 3], 2);
        let message = conv2d(&x, &w, Some(&noise(&[3], 1)), cfg).unwrap_err().to_string();
        assert!(message.contains("3 elements"), "{message}");
        assert!(conv2d(&x, &w, Some(&noise(&[2, 1], 1)), cfg).is_err());
        let none = Tensor::zeros((0, 4, 5, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(conv2d(&none, &w, None, cfg).unwrap().dims(), &[0, 2, 3, 3]);
    }
}
