//! Depthwise convolution on the blocked layout: sixteen channels at a time, every tap a vector product.

use super::layer::Conv;
use super::map::Map;
use super::shared::Shared;
use super::team::Team;
use crate::simd::{Isa, LANES, Lanes, on_isa};

/// A depthwise layer laid out for one image size.
pub(super) struct Depthwise {
    isa: Isa,
    n: usize,
    input: Map,
    output: Map,
    residual: Option<Map>,
    taps: Vec<u32>,
}

impl Depthwise {
    pub(super) fn new(
        isa: Isa,
        conv: &Conv,
        n: usize,
        input: Map,
        output: Map,
        residual: Option<Map>,
    ) -> Self {
        let step = conv.cfg.dilation;
        let row =
            |ky: usize| (0..conv.k_w).map(move |kx| (ky * step * input.row() + kx * step * LANES) as u32);
        let taps = (0..conv.k_h).flat_map(row).collect();
        Self { isa, n, input, output, residual, taps }
    }

    /// # Safety
    /// As for the direct layer.
    pub(super) unsafe fn run(
        &self,
        team: &Team<'_, '_>,
        conv: &Conv,
        x: Shared,
        y: Shared,
        residual: Shared,
    ) {
        let packed = conv.packed_depthwise();
        let (input, output) = (self.input, self.output);
        let start = (input.border - conv.cfg.padding) * (input.row() + LANES);
        // Planes of every image; input and output have the same blocks.
        team.for_each(self.n * output.planes(), |index| {
            let block = index % output.planes();
            for line in 0..output.height {
                let residual = self.residual.map_or(std::ptr::null_mut(), |map| {
                    residual.at(index * map.plane() + map.offset(line, 0))
                });
                let row = Row {
                    input: x.at(index * input.plane() + start + line * conv.cfg.stride * input.row()),
                    taps: &self.taps,
                    pixel_stride: conv.cfg.stride * LANES,
                    weights: packed[block * self.taps.len()..][..self.taps.len()].as_ptr().cast(),
                    bias: conv.bias[block..].as_ptr().cast(),
                    out: y.at(index * output.plane() + output.offset(line, 0)),
                    residual,
                    pixels: output.width,
                    limits: conv.activation.limits(),
                };
                // SAFETY: the row and its taps lie inside the bordered maps; planes are written by one task each.
                unsafe { depthwise_row(self.isa, &row) };
            }
        });
    }
}

/// One row of one block's result.
pub(crate) struct Row<'a> {
    input: *const f32,
    taps: &'a [u32],
    pixel_stride: usize,
    weights: *const f32,
    bias: *const f32,
    out: *mut f32,
    residual: *const f32,
    pixels: usize,
    limits: (f32, f32),
}

on_isa! {
    /// Computes a row of a depthwise convolution.
    unsafe fn depthwise_row(row: &Row<'_>) = depthwise_row_lanes;
}

#[inline(always)]
unsafe fn depthwise_row_lanes<S: Lanes>(row: &Row<'_>) {
    // SAFETY: the caller answers for the row.
    unsafe {
        let mut at = 0;
        if row.pixel_stride == LANES {
            while at + 7 <= row.pixels {
                pixels::<S, 7, LANES>(row, at);
                at += 7;
            }
            while at + 4 <= row.pixels {
                pixels::<S, 4, LANES>(row, at);
                at += 4;
            }
        } else {
            while at + 7 <= row.pixels {
                pixels::<S, 7, 0>(row, at);
                at += 7;
            }
            while at + 4 <= row.pixels {
                pixels::<S, 4, 0>(row, at);
                at += 4;
            }
        }
        while at < row.pixels {
            pixels::<S, 1, 0>(row, at);
            at += 1;
        }
    }
}

#[inline(always)]
unsafe fn pixels<S: Lanes, const P: usize, const STRIDE: usize>(row: &Row<'_>, at: usize) {
    let stride = if STRIDE == 0 { row.pixel_stride } else { STRIDE };
    // SAFETY: the caller answers for the row, and keeps `at + P` within it.
    unsafe {
        let mut sums = [S::load(row.bias); P];
        let from = row.input.add(at * stride);
        for (tap, &offset) in row.taps.iter().enumerate() {
            let w = S::load(row.weights.add(tap * LANES));
            for (p, sum) in sums.iter_mut().enumerate() {
                *sum = S::mul_add(S::load(from.add(offset as usize + p * stride)), w, *sum);
            }
        }
        let (low, high) = (S::splat(row.limits.0), S::splat(row.limits.1));
        for (p, sum) in sums.into_iter().enumerate() {
            let mut v = sum;
            if !row.residual.is_null() {
                v = S::add(v, S::load(row.residual.add((at + p) * LANES)));
            }
            S::store(row.out.add((at + p) * LANES), S::min(high, S::max(low, v)));
        }
    }
}
