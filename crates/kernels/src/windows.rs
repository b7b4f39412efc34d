//! Convolution as matrix products around windows laid out as columns.
//!
//! Where planes are small, the columns of several images stand side by side: a product reads and writes a whole weight,
//! which a few dozen pixels would not be worth.

use std::ops::Range;

use rayon::prelude::*;

use crate::conv_shape::ConvShape;
use crate::im2col::{col2im, im2col};
use crate::product::{View, product};

/// Columns that make a product worth its weight.
const COLUMNS: usize = 256;

/// `images` images, and one group of channels of them, as three matrices: weight (out × taps), windows
/// (taps × pixels), result (out × pixels).
struct Group<'a> {
    s: &'a ConvShape,
    images: usize,
    weight: View,
    columns: View,
    result: View,
}

impl<'a> Group<'a> {
    fn new(s: &'a ConvShape, images: usize) -> Self {
        let pixels = images * s.out_plane();
        Self {
            s,
            images,
            weight: View::row_major(s.out_c_group(), s.taps()),
            columns: View::row_major(s.taps(), pixels),
            result: View::row_major(s.out_c_group(), pixels),
        }
    }

    /// The windows of the images from the start of `x` on: `x` itself where that is the same matrix.
    fn windows<'b>(&self, x: &'b [f32], group: usize, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let s = self.s;
        let group_x = s.in_c_group() * s.in_plane();
        if s.is_pointwise() && self.images == 1 {
            return &x[group * group_x..][..group_x];
        }
        buffer.resize(self.columns.rows * self.columns.cols, 0.0);
        for image in 0..self.images {
            let x = &x[image * s.in_c * s.in_plane() + group * group_x..][..group_x];
            im2col(s, x, buffer, (self.columns.cols, image * s.out_plane()));
        }
        buffer
    }

    /// The channels of a result's group in images from the start of `y` on, side by side: `y` itself for a single one.
    fn gathered<'b>(&self, y: &'b [f32], group: usize, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let (plane, group_y) = (self.s.out_plane(), self.s.out_c_group() * self.s.out_plane());
        if self.images == 1 {
            return &y[group * group_y..][..group_y];
        }
        buffer.resize(self.result.rows * self.result.cols, 0.0);
        for (channel, row) in buffer.chunks_mut(self.result.cols).enumerate() {
            for (image, to) in row.chunks_mut(plane).enumerate() {
                let from = image * self.s.out_c * plane + group * group_y + channel * plane;
                to.copy_from_slice(&y[from..][..plane]);
            }
        }
        buffer
    }

    /// The way back of [`Group::gathered`].
    fn scatter(&self, buffer: &[f32], group: usize, y: &mut [f32]) {
        let (plane, group_y) = (self.s.out_plane(), self.s.out_c_group() * self.s.out_plane());
        for (channel, row) in buffer.chunks(self.result.cols).enumerate() {
            for (image, from) in row.chunks(plane).enumerate() {
                let to = image * self.s.out_c * plane + group * group_y + channel * plane;
                y[to..][..plane].copy_from_slice(from);
            }
        }
    }
}

/// How many images' windows stand side by side, out of `images` that a thread may take together.
fn together(s: &ConvShape, images: usize) -> usize {
    COLUMNS.div_ceil(s.out_plane()).clamp(1, images.max(1))
}

/// The result (n, out, h', w') of convolving `x` with `w`.
pub(crate) fn forward(s: &ConvShape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let mut y = vec![0f32; s.y_len()];
    let (image_x, image_y) = (s.in_c * s.in_plane(), s.out_c * s.out_plane());
    let group_w = s.out_c_group() * s.taps();
    let threads = rayon::current_num_threads();
    // Few, large products share the threads inside each; many small ones are spread over them.
    let spread = s.n >= threads;
    let images = together(s, s.n.div_ceil(threads));
    let run = |first: usize, y: &mut [f32], (columns, result): &mut (Vec<f32>, Vec<f32>)| {
        let pack = Group::new(s, y.len() / image_y);
        for group in 0..s.cfg.groups {
            let w = (&w[group * group_w..][..group_w], pack.weight);
            let columns = (pack.windows(&x[first * image_x..], group, columns), pack.columns);
            if pack.images == 1 {
                let y = &mut y[group * pack.result.rows * pack.result.cols..];
                product((y, pack.result), w, columns, false, !spread);
            } else {
                result.resize(pack.result.rows * pack.result.cols, 0.0);
                product((result, pack.result), w, columns, false, !spread);
                pack.scatter(result, group, y);
            }
        }
    };
    let packs = y.chunks_mut(images * image_y);
    if spread {
        let packs: Vec<_> = packs.enumerate().collect();
        packs.into_par_iter().for_each_init(Default::default, |room, (i, y)| run(i * images, y, room));
    } else {
        let mut room = Default::default();
        packs.enumerate().for_each(|(i, y)| run(i * images, y, &mut room));
    }
    y
}

/// Writes the gradient to the input of some images into `dx`, which is zero, and returns that to the weight, which is
/// empty unless `need_w`.
pub(crate) fn gradients(
    s: &ConvShape,
    (x, w, grad): (&[f32], &[f32], &[f32]),
    images: Range<usize>,
    mut dx: Option<&mut [f32]>,
    need_w: bool,
) -> Vec<f32> {
    let parallel = s.n < rayon::current_num_threads();
    let (image_x, image_y) = (s.in_c * s.in_plane(), s.out_c * s.out_plane());
    let (group_x, group_w) = (s.in_c_group() * s.in_plane(), s.out_c_group() * s.taps());
    let mut dw = vec![0f32; if need_w { s.w_len() } else { 0 }];
    let (mut columns, mut result) = (Vec::new(), Vec::new());
    let step = together(s, images.len());
    for first in images.clone().step_by(step) {
        let pack = Group::new(s, step.min(images.end - first));
        for group in 0..s.cfg.groups {
            let grad = (pack.gathered(&grad[first * image_y..], group, &mut result), pack.result);
            if need_w {
                let windows = pack.windows(&x[first * image_x..], group, &mut columns);
                let dw = (&mut dw[group * group_w..][..group_w], pack.weight);
                product(dw, grad, (windows, pack.columns.transposed()), true, parallel);
            }
            let Some(dx) = dx.as_deref_mut() else { continue };
            let dx = &mut dx[(first - images.start) * image_x..];
            let w = (&w[group * group_w..][..group_w], pack.weight.transposed());
            if s.is_pointwise() && pack.images == 1 {
                product((&mut dx[group * group_x..][..group_x], pack.columns), w, grad, false, parallel);
            } else {
                columns.resize(pack.columns.rows * pack.columns.cols, 0.0);
                product((&mut columns, pack.columns), w, grad, false, parallel);
                for image in 0..pack.images {
                    let dx = &mut dx[image * image_x + group * group_x..][..group_x];
                    col2im(s, &columns, (pack.columns.cols, image * s.out_plane()), dx);
                }
            }
        }
    }
    dw
}
