//! Convolution where every group has one input channel: no sum over channels, so memory traffic is all there is.
//!
//! Each plane is copied into a bordered one, whose pixels then are one long row to every tap of the window: result
//! i is Σ weight · pixel\[i + offset of the tap\], however short the image's own rows are. What falls on the border or, with a
//! stride, between the results is computed and left out, or is zero in a gradient.

use std::ops::Range;

use rayon::prelude::*;

use crate::conv_shape::ConvShape;
use crate::simd::{Isa, LANES, Lanes, on_isa};

/// Values of a result that are summed in registers together.
const STEP: usize = 2 * LANES;
/// Taps whose gradients are summed together.
const TOGETHER: usize = 3;

/// The result (n, out, h', w') from `x` and `w` (out, 1, kh, kw); output channel o reads input channel o / (out / in).
pub(crate) fn forward(s: &ConvShape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let mut y = vec![0f32; s.y_len()];
    let (multiplier, taps, rows) = (s.out_c_group(), s.taps(), Rows::new(s));
    let scratch = || (rows.input_buffer(), rows.result_buffer());
    y.par_chunks_mut(s.out_plane()).enumerate().for_each_init(scratch, |(image, result), (index, y)| {
        let (n, out) = (index / s.out_c, index % s.out_c);
        rows.put_input(image, &x[(n * s.in_c + out / multiplier) * s.in_plane()..][..s.in_plane()]);
        Rows::correlate(result, image, &rows.offsets, &w[out * taps..][..taps]);
        rows.take_result(result, y);
    });
    y
}

/// Writes the gradient to the input of some images into `dx`, and returns that to the weight, which is empty unless
/// `need_w`.
pub(crate) fn gradients(
    s: &ConvShape,
    (x, w, grad): (&[f32], &[f32], &[f32]),
    images: Range<usize>,
    mut dx: Option<&mut [f32]>,
    need_w: bool,
) -> Vec<f32> {
    let (rows, multiplier, taps) = (Rows::new(s), s.out_c_group(), s.taps());
    let (mut image, mut gradient) = (rows.input_buffer(), rows.gradient_buffer());
    let inside = rows.inside.1 - rows.inside.0;
    let (mut sum, mut part) = (vec![0f32; inside + STEP], vec![0f32; inside + STEP]);
    let mut dw = vec![0f32; if need_w { s.w_len() } else { 0 }];
    for (at, n) in images.enumerate() {
        for channel in 0..s.in_c {
            if need_w {
                rows.put_input(&mut image, &x[(n * s.in_c + channel) * s.in_plane()..][..s.in_plane()]);
            }
            for i in 0..multiplier {
                let out = channel * multiplier + i;
                let w = &w[out * taps..][..taps];
                let grad = &grad[(n * s.out_c + out) * s.out_plane()..][..s.out_plane()];
                rows.put_gradient(&mut gradient, grad);
                if need_w {
                    rows.dots(&mut dw[out * taps..][..taps], &gradient[rows.reach..], &image);
                }
                if dx.is_none() {
                    continue;
                }
                if i == 0 {
                    Rows::correlate(&mut sum, &gradient, &rows.back_offsets, w);
                } else {
                    Rows::correlate(&mut part, &gradient, &rows.back_offsets, w);
                    sum.iter_mut().zip(&part).for_each(|(a, b)| *a += b);
                }
            }
            if let Some(dx) = dx.as_deref_mut() {
                rows.take_input(&sum, &mut dx[(at * s.in_c + channel) * s.in_plane()..][..s.in_plane()]);
            }
        }
    }
    dw
}

/// Where the pixels of a plane lie in its bordered copy.
struct Rows {
    shape: ConvShape,
    /// Values from one row of the bordered plane to the next.
    pitch: usize,
    /// Each tap's distance from the first.
    offsets: Vec<usize>,
    /// The last tap's.
    reach: usize,
    /// Results at stride 1, as one row.
    results: usize,
    /// The first pixel inside the border, and one after the last.
    inside: (usize, usize),
    /// From a place in the input's gradient to the gradient of the result that a tap carries there, seen from the first
    /// pixel inside.
    back_offsets: Vec<usize>,
}

impl Rows {
    fn new(s: &ConvShape) -> Self {
        let (padding, dilation) = (s.cfg.padding, s.cfg.dilation);
        let pitch = s.in_w + 2 * padding;
        let tap = |t: usize| t / s.k_w * dilation * pitch + t % s.k_w * dilation;
        let offsets: Vec<usize> = (0..s.taps()).map(tap).collect();
        let reach = tap(s.taps() - 1);
        let first = padding * pitch + padding;
        Self {
            shape: *s,
            pitch,
            results: (s.in_h + 2 * padding) * pitch - reach,
            inside: (first, first + (s.in_h - 1) * pitch + s.in_w),
            back_offsets: offsets.iter().map(|offset| reach + first - offset).collect(),
            offsets,
            reach,
        }
    }

    fn input_buffer(&self) -> Vec<f32> {
        vec![0.0; self.reach + self.results + STEP]
    }

    fn result_buffer(&self) -> Vec<f32> {
        vec![0.0; self.results + STEP]
    }

    /// A gradient of the results with room for every tap on both sides.
    fn gradient_buffer(&self) -> Vec<f32> {
        vec![0.0; self.results + 2 * self.reach + STEP]
    }

    fn put_input(&self, buffer: &mut [f32], plane: &[f32]) {
        for (y, row) in plane.chunks_exact(self.shape.in_w).enumerate() {
            buffer[self.inside.0 + y * self.pitch..][..row.len()].copy_from_slice(row);
        }
    }

    fn take_input(&self, buffer: &[f32], plane: &mut [f32]) {
        for (y, row) in plane.chunks_exact_mut(self.shape.in_w).enumerate() {
            row.copy_from_slice(&buffer[y * self.pitch..][..row.len()]);
        }
    }

    fn take_result(&self, buffer: &[f32], plane: &mut [f32]) {
        let stride = self.shape.cfg.stride;
        for (y, row) in plane.chunks_exact_mut(self.shape.out_w).enumerate() {
            let from = &buffer[y * stride * self.pitch..];
            match stride {
                1 => row.copy_from_slice(&from[..row.len()]),
                _ => row.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
            }
        }
    }

    fn put_gradient(&self, buffer: &mut [f32], plane: &[f32]) {
        let stride = self.shape.cfg.stride;
        for (y, row) in plane.chunks_exact(self.shape.out_w).enumerate() {
            let to = &mut buffer[self.reach + y * stride * self.pitch..];
            match stride {
                1 => to[..row.len()].copy_from_slice(row),
                _ => to.iter_mut().step_by(stride).zip(row).for_each(|(to, from)| *to = *from),
            }
        }
    }

    /// `to`\[i\] = Σ weight · `from`\[i + offset\] for all of `to` but its last [`STEP`] values.
    fn correlate(to: &mut [f32], from: &[f32], offsets: &[usize], weights: &[f32]) {
        let count = to.len() - STEP;
        let furthest = offsets.iter().max().map_or(0, |&offset| offset);
        assert!(
            furthest + count + STEP <= from.len() && offsets.len() <= weights.len(),
            "buffers do not fit"
        );
        // SAFETY: values are read up to the furthest offset and written up to the end of the last, possibly cut, step,
        // which the buffers hold.
        unsafe { correlate(Isa::detect(), to.as_mut_ptr(), from.as_ptr(), offsets, weights, count) };
    }

    /// Adds Σ `gradient`\[i\] · `image`\[i + offset\] over all results to each tap's sum.
    fn dots(&self, sums: &mut [f32], gradient: &[f32], image: &[f32]) {
        assert!(self.results + LANES <= gradient.len() && self.reach + self.results + LANES <= image.len());
        for (sums, offsets) in sums.chunks_mut(TOGETHER).zip(self.offsets.chunks(TOGETHER)) {
            let mut three = [0; TOGETHER];
            three[..offsets.len()].copy_from_slice(offsets);
            let mut lanes = [0f32; TOGETHER * LANES];
            // SAFETY: the buffers hold the results, the taps' reach and the cut vector at the end, which is zero in the
            // gradient.
            unsafe {
                dots(
                    Isa::detect(),
                    lanes.as_mut_ptr(),
                    gradient.as_ptr(),
                    image.as_ptr(),
                    &three,
                    self.results,
                );
            }
            for (sum, lanes) in sums.iter_mut().zip(lanes.chunks(LANES)) {
                *sum += lanes.iter().sum::<f32>();
            }
        }
    }
}

on_isa! {
    /// # Safety
    /// `to` must be good for `count` values rounded up to whole steps, `from` for as many behind each offset.
    unsafe fn correlate(
        to: *mut f32,
        from: *const f32,
        offsets: &[usize],
        weights: &[f32],
        count: usize,
    ) = correlate_lanes;
}

#[inline(always)]
unsafe fn correlate_lanes<S: Lanes>(
    to: *mut f32,
    from: *const f32,
    offsets: &[usize],
    weights: &[f32],
    count: usize,
) {
    // SAFETY: as the caller promises.
    unsafe {
        for i in (0..count).step_by(STEP) {
            let (mut a, mut b) = (S::splat(0.0), S::splat(0.0));
            for (&offset, &weight) in offsets.iter().zip(weights) {
                let (w, from) = (S::splat(weight), from.add(i + offset));
                a = S::mul_add(w, S::load(from), a);
                b = S::mul_add(w, S::load(from.add(LANES)), b);
            }
            S::store(to.add(i), a);
            S::store(to.add(i + LANES), b);
        }
    }
}

on_isa! {
    /// # Safety
    /// `lanes` must be good for a vector a tap, `gradient` for `count` values rounded up to whole vectors, `image` for as
    /// many behind each offset.
    unsafe fn dots(
        lanes: *mut f32,
        gradient: *const f32,
        image: *const f32,
        offsets: &[usize; TOGETHER],
        count: usize,
    ) = dot_lanes;
}

#[inline(always)]
unsafe fn dot_lanes<S: Lanes>(
    lanes: *mut f32,
    gradient: *const f32,
    image: *const f32,
    offsets: &[usize; TOGETHER],
    count: usize,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [S::splat(0.0); TOGETHER];
        for i in (0..count).step_by(LANES) {
            let g = S::load(gradient.add(i));
            for (sum, &offset) in sums.iter_mut().zip(offsets) {
                *sum = S::mul_add(g, S::load(image.add(i + offset)), *sum);
            }
        }
        for (t, sum) in sums.into_iter().enumerate() {
            S::store(lanes.add(t * LANES), sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conv2dConfig;

    #[test]
    fn bordered_planes_hold_every_tap_of_every_result() {
        for (side, kernel, stride, padding, dilation) in
            [(1, 1, 1, 0, 1), (5, 3, 1, 1, 1), (7, 3, 2, 1, 1), (6, 5, 1, 4, 2), (9, 2, 3, 0, 3)]
        {
            let cfg = Conv2dConfig { stride, padding, dilation, groups: 2 };
            let s = ConvShape::new(&[1, 2, side, side + 1], &[2, 1, kernel, kernel], cfg).unwrap();
            let rows = Rows::new(&s);
            let last = ((s.out_h - 1) * rows.pitch + s.out_w - 1) * stride;
            assert!(last < rows.results, "{s:?}");
            assert!(rows.offsets.iter().all(|o| last + o < rows.input_buffer().len()), "{s:?}");
            // The gradient of the result at 0 reaches the pixel at `offset`, if that lies inside.
            for (&offset, &back) in rows.offsets.iter().zip(&rows.back_offsets) {
                assert_eq!(rows.inside.0 + rows.reach, back + offset, "{s:?}");
            }
        }
    }
}
