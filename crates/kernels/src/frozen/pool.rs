//! Pooling on the blocked layout.

use super::map::Map;
use super::shared::Shared;
use super::team::Team;
use crate::max_pool::PoolShape;
use crate::simd::{Isa, LANES, Lanes, on_isa};

/// # Safety
/// `x` and `y` must be good for `n` images of their maps and not overlap.
pub(super) unsafe fn max_pool(
    team: &Team<'_, '_>,
    isa: Isa,
    shape: &PoolShape,
    n: usize,
    (x, input): (Shared, Map),
    (y, output): (Shared, Map),
) {
    team.for_each(n * output.planes(), |index| {
        for line in 0..output.height {
            let rows = shape.window(line, input.height);
            let from = x.at(index * input.plane() + input.offset(rows.start, 0));
            let to = y.at(index * output.plane() + output.offset(line, 0));
            // SAFETY: windows are clipped to the plane; every task writes planes of its own.
            unsafe { max_row(isa, shape, from, (rows.len(), input.row()), to) };
        }
    });
}

on_isa! {
    /// One row of windows; `rows` is the number of input rows from `from` on and the distance between them.
    unsafe fn max_row(shape: &PoolShape, from: *const f32, rows: (usize, usize), to: *mut f32) = max_row_lanes;
}

#[inline(always)]
unsafe fn max_row_lanes<S: Lanes>(
    shape: &PoolShape,
    from: *const f32,
    (rows, row): (usize, usize),
    to: *mut f32,
) {
    for column in 0..shape.out_w {
        let window = shape.window(column, shape.in_w);
        // SAFETY: the window is clipped to the plane.
        unsafe {
            let mut best = S::splat(f32::NEG_INFINITY);
            for line in 0..rows {
                for x in window.clone() {
                    best = S::max(best, S::load(from.add(line * row + x * LANES)));
                }
            }
            S::store(to.add(column * LANES), best);
        }
    }
}

/// The mean of every channel of `n` images into `to` (n × channels).
///
/// # Safety
/// `x` must be good for `n` images of its map.
pub(super) unsafe fn global_avg_pool(
    team: &Team<'_, '_>,
    isa: Isa,
    (x, input): (Shared, Map),
    to: &mut [f32],
) {
    let (planes, images) = (input.planes(), to.len() / input.channels);
    let to = Shared::new(to.as_mut_ptr());
    team.for_each(images * planes, |index| {
        let (image, block) = (index / planes, index % planes);
        let mut mean = [0f32; LANES];
        let from = x.at(index * input.plane() + input.offset(0, 0));
        let channels = LANES.min(input.channels - block * LANES);
        // SAFETY: the rows lie inside the plane; every task has channels of an image of its own.
        unsafe {
            mean_plane(isa, from, (input.height, input.width, input.row()), &mut mean);
            let to = to.at(image * input.channels + block * LANES);
            to.copy_from_nonoverlapping(mean.as_ptr(), channels);
        }
    });
}

on_isa! {
    /// The mean over (height, width) pixels, rows `shape.2` apart.
    unsafe fn mean_plane(from: *const f32, shape: (usize, usize, usize), mean: &mut [f32; LANES]) = mean_plane_lanes;
}

#[inline(always)]
unsafe fn mean_plane_lanes<S: Lanes>(
    from: *const f32,
    (height, width, row): (usize, usize, usize),
    mean: &mut [f32; LANES],
) {
    // SAFETY: the caller answers for the rows.
    unsafe {
        let mut sum = S::splat(0.0);
        for y in 0..height {
            let mut line = S::splat(0.0);
            for x in 0..width {
                line = S::add(line, S::load(from.add(y * row + x * LANES)));
            }
            sum = S::add(sum, line);
        }
        S::store(mean.as_mut_ptr(), S::mul(sum, S::splat(1.0 / (height * width) as f32)));
    }
}
