//! From NCHW pixels to the internal layout, and back.

use rayon::prelude::*;

use super::layer::Line;
use super::map::Map;
use super::shared::Shared;
use super::team::Team;
use crate::simd::LANES;

/// Writes `n` images (n, c, h, w) inside the borders of `y`.
///
/// # Safety
/// `y` must be good for `n` images of the map, and this call's alone.
///
/// # Panics
/// If `pixels` is shorter than `n` images.
pub(super) unsafe fn load(team: &Team<'_, '_>, pixels: &[f32], n: usize, y: Shared, map: Map) {
    let (h, w, planes) = (map.height, map.width, map.planes());
    assert!(pixels.len() >= n * map.channels * h * w, "the caller checks the number of pixels");
    team.for_each(n * planes, |index| {
        let (image, plane) = (index / planes, index % planes);
        // SAFETY: the plane lies inside the buffer and every task has planes of its own.
        let to = unsafe { std::slice::from_raw_parts_mut(y.at(index * map.plane()), map.plane()) };
        if map.planar {
            let from = &pixels[(image * map.channels + plane) * h * w..][..h * w];
            for (line, from) in from.chunks(w).enumerate() {
                to[map.offset(line, 0)..][..w].copy_from_slice(from);
            }
            return;
        }
        for lane in 0..LANES {
            let channel = plane * LANES + lane;
            for line in 0..h {
                let to = to[map.offset(line, 0)..].iter_mut().skip(lane).step_by(LANES).take(w);
                if channel < map.channels {
                    let from = &pixels[((image * map.channels + channel) * h + line) * w..][..w];
                    to.zip(from).for_each(|(t, f)| *t = *f);
                } else {
                    to.for_each(|t| *t = 0.0);
                }
            }
        }
    });
}

/// Writes `n` images of a blocked map as NCHW pixels.
///
/// # Panics
/// If either buffer is shorter than `n` images.
pub(super) fn unload(from: &[Line], n: usize, map: Map, pixels: &mut [f32]) {
    let (h, w) = (map.height, map.width);
    assert!(
        !map.planar && from.len() * LANES >= n * map.plane() * map.planes(),
        "the caller sizes the buffer"
    );
    let pixels = &mut pixels[..n * map.channels * h * w];
    pixels.par_chunks_mut(map.channels * h * w).enumerate().for_each(|(image, pixels)| {
        pixels.par_chunks_mut(LANES * h * w).enumerate().for_each(|(block, pixels)| {
            let from = &from[(image * map.planes() + block) * map.plane() / LANES..];
            for (lane, plane) in pixels.chunks_mut(h * w).enumerate() {
                for (line, row) in plane.chunks_mut(w).enumerate() {
                    let from = &from[map.offset(line, 0) / LANES..][..w];
                    row.iter_mut().zip(from).for_each(|(to, from)| *to = from.0[lane]);
                }
            }
        });
    });
}
