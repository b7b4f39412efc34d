//! Windows of an image laid out as the columns of a matrix, and the way back.

use crate::conv_shape::ConvShape;

/// Writes the windows of one image's group of channels (`x`: channels × h × w) as a matrix of taps × output pixels, into
/// columns of `columns` from its column `at` on. `pitch` is the length of its rows.
pub(crate) fn im2col(s: &ConvShape, x: &[f32], columns: &mut [f32], (pitch, at): (usize, usize)) {
    let (plane, d) = (s.out_plane(), s.cfg.dilation);
    for c in 0..s.in_c_group() {
        let image = &x[c * s.in_plane()..][..s.in_plane()];
        for ky in 0..s.k_h {
            let (y0, y1) = s.valid_outputs(ky * d, s.in_h, s.out_h);
            for kx in 0..s.k_w {
                let row = &mut columns[((c * s.k_h + ky) * s.k_w + kx) * pitch + at..][..plane];
                let (x0, x1) = s.valid_outputs(kx * d, s.in_w, s.out_w);
                row[..y0 * s.out_w].fill(0.0);
                row[y1 * s.out_w..].fill(0.0);
                for oy in y0..y1 {
                    let iy = oy * s.cfg.stride + ky * d - s.cfg.padding;
                    let from = &image[iy * s.in_w..][..s.in_w];
                    let to = &mut row[oy * s.out_w..][..s.out_w];
                    to[..x0].fill(0.0);
                    to[x1..].fill(0.0);
                    if x0 == x1 {
                        continue;
                    }
                    let first = x0 * s.cfg.stride + kx * d - s.cfg.padding;
                    if s.cfg.stride == 1 {
                        to[x0..x1].copy_from_slice(&from[first..first + x1 - x0]);
                    } else {
                        for (t, f) in to[x0..x1].iter_mut().zip(from[first..].iter().step_by(s.cfg.stride)) {
                            *t = *f;
                        }
                    }
                }
            }
        }
    }
}

/// Adds each element of a matrix of taps × output pixels to the pixel it was taken from by [`im2col`].
pub(crate) fn col2im(s: &ConvShape, columns: &[f32], (pitch, at): (usize, usize), x: &mut [f32]) {
    let (plane, d) = (s.out_plane(), s.cfg.dilation);
    for c in 0..s.in_c_group() {
        let image = &mut x[c * s.in_plane()..][..s.in_plane()];
        for ky in 0..s.k_h {
            let (y0, y1) = s.valid_outputs(ky * d, s.in_h, s.out_h);
            for kx in 0..s.k_w {
                let row = &columns[((c * s.k_h + ky) * s.k_w + kx) * pitch + at..][..plane];
                let (x0, x1) = s.valid_outputs(kx * d, s.in_w, s.out_w);
                if x0 == x1 {
                    continue;
                }
                let first = x0 * s.cfg.stride + kx * d - s.cfg.padding;
                for oy in y0..y1 {
                    let iy = oy * s.cfg.stride + ky * d - s.cfg.padding;
                    let from = &row[oy * s.out_w..][x0..x1];
                    let to = &mut image[iy * s.in_w..][first..s.in_w];
                    if s.cfg.stride == 1 {
                        for (t, f) in to.iter_mut().zip(from) {
                            *t += *f;
                        }
                    } else {
                        for (t, f) in to.iter_mut().step_by(s.cfg.stride).zip(from) {
                            *t += *f;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv2dConfig;

    #[test]
    fn columns_hold_the_windows_and_return_to_their_pixels() {
        for (stride, padding, dilation) in [(1, 0, 1), (1, 1, 1), (2, 1, 1), (2, 3, 2), (3, 4, 1)] {
            let cfg = Conv2dConfig { stride, padding, dilation, groups: 1 };
            let s = ConvShape::new(&[1, 2, 7, 5], &[1, 2, 3, 2], cfg).unwrap();
            let x: Vec<f32> = (0..s.in_c * s.in_plane()).map(|i| i as f32 + 1.0).collect();
            let mut columns = vec![f32::NAN; s.taps() * s.out_plane()];
            im2col(&s, &x, &mut columns, (s.out_plane(), 0));
            let mut visits = vec![0f32; x.len()];
            for (row, values) in columns.chunks(s.out_plane()).enumerate() {
                let (c, ky, kx) = (row / 6, row / 2 % 3, row % 2);
                for (p, &value) in values.iter().enumerate() {
                    let iy = (p / s.out_w * stride + ky * dilation) as isize - padding as isize;
                    let ix = (p % s.out_w * stride + kx * dilation) as isize - padding as isize;
                    let inside = (0..7).contains(&iy) && (0..5).contains(&ix);
                    let at = || c * 35 + iy as usize * 5 + ix as usize;
                    assert_eq!(value, if inside { x[at()] } else { 0.0 });
                    if inside {
                        visits[at()] += value;
                    }
                }
            }
            let mut back = vec![0f32; x.len()];
            col2im(&s, &columns, (s.out_plane(), 0), &mut back);
            assert_eq!(back, visits);
        }
    }
}
