//! Convolution where every group has one input channel: no sum over channels, so memory traffic is all there is.

use rayon::prelude::*;

use crate::conv_shape::ConvShape;

/// `y` (n, out, h', w') from `x` and `w` (out, 1, kh, kw); output channel o reads input channel o / (out / in).
pub(crate) fn forward(s: &ConvShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (multiplier, taps) = (s.out_c_group(), s.taps());
    y.par_chunks_mut(s.out_plane()).enumerate().for_each(|(index, y)| {
        let (image, out) = (index / s.out_c, index % s.out_c);
        let x = &x[(image * s.in_c + out / multiplier) * s.in_plane()..][..s.in_plane()];
        y.fill(bias.map_or(0.0, |b| b[out]));
        for (tap, &weight) in w[out * taps..][..taps].iter().enumerate() {
            for_each_row(s, tap, |out_row, in_row, len| {
                let from = &x[in_row..];
                let to = &mut y[out_row..][..len];
                if s.cfg.stride == 1 {
                    to.iter_mut().zip(&from[..len]).for_each(|(t, f)| *t += weight * f);
                } else {
                    to.iter_mut().zip(from.iter().step_by(s.cfg.stride)).for_each(|(t, f)| *t += weight * f);
                }
            });
        }
    });
}

/// Gradients to input and weight.
pub(crate) fn backward(
    s: &ConvShape,
    x: &[f32],
    w: &[f32],
    grad: &[f32],
    need_x: bool,
    need_w: bool,
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    let dx = need_x.then(|| input_gradient(s, w, grad));
    let dw = need_w.then(|| weight_gradient(s, x, grad));
    (dx, dw)
}

fn input_gradient(s: &ConvShape, w: &[f32], grad: &[f32]) -> Vec<f32> {
    let (multiplier, taps) = (s.out_c_group(), s.taps());
    let mut dx = vec![0f32; s.x_len()];
    dx.par_chunks_mut(s.in_plane()).enumerate().for_each(|(index, dx)| {
        let (image, channel) = (index / s.in_c, index % s.in_c);
        for out in channel * multiplier..(channel + 1) * multiplier {
            let grad = &grad[(image * s.out_c + out) * s.out_plane()..][..s.out_plane()];
            for (tap, &weight) in w[out * taps..][..taps].iter().enumerate() {
                for_each_row(s, tap, |out_row, in_row, len| {
                    let from = &grad[out_row..][..len];
                    let to = &mut dx[in_row..];
                    if s.cfg.stride == 1 {
                        to.iter_mut().zip(from).for_each(|(t, f)| *t += weight * f);
                    } else {
                        to.iter_mut().step_by(s.cfg.stride).zip(from).for_each(|(t, f)| *t += weight * f);
                    }
                });
            }
        }
    });
    dx
}

fn weight_gradient(s: &ConvShape, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let (multiplier, taps) = (s.out_c_group(), s.taps());
    let mut dw = vec![0f32; s.w_len()];
    dw.par_chunks_mut(taps).enumerate().for_each(|(out, dw)| {
        for image in 0..s.n {
            let grad = &grad[(image * s.out_c + out) * s.out_plane()..][..s.out_plane()];
            let x = &x[(image * s.in_c + out / multiplier) * s.in_plane()..][..s.in_plane()];
            for (tap, sum) in dw.iter_mut().enumerate() {
                let mut plane_sum = 0.0;
                for_each_row(s, tap, |out_row, in_row, len| {
                    let (grad, x) = (&grad[out_row..][..len], &x[in_row..]);
                    plane_sum += if s.cfg.stride == 1 {
                        dot(grad, &x[..len])
                    } else {
                        grad.iter().zip(x.iter().step_by(s.cfg.stride)).map(|(g, v)| g * v).sum::<f32>()
                    };
                });
                *sum += plane_sum;
            }
        }
    });
    dw
}

/// A dot product with eight partial sums, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Calls `f(first output index, first input index, length)` for each row of outputs that the tap meets inside the
/// image; the inputs lie `stride` apart.
fn for_each_row(s: &ConvShape, tap: usize, mut f: impl FnMut(usize, usize, usize)) {
    let (ky, kx) = (tap / s.k_w * s.cfg.dilation, tap % s.k_w * s.cfg.dilation);
    let (y0, y1) = s.valid_outputs(ky, s.in_h, s.out_h);
    let (x0, x1) = s.valid_outputs(kx, s.in_w, s.out_w);
    if x0 == x1 {
        return;
    }
    for oy in y0..y1 {
        let iy = oy * s.cfg.stride + ky - s.cfg.padding;
        let ix = x0 * s.cfg.stride + kx - s.cfg.padding;
        f(oy * s.out_w + x0, iy * s.in_w + ix, x1 - x0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_handles_every_remainder() {
        for len in 0..35 {
            let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..len).map(|i| 2.0 - i as f32).collect();
            let expected: f32 = (0..len).map(|i| i as f32 * (2.0 - i as f32)).sum();
            assert_eq!(dot(&a, &b), expected);
        }
    }
}
