//! A run of an integer layer: codes of the input first, then the weights over them.

use std::cell::RefCell;
use std::ops::Range;

use super::Integer;
use crate::frozen::direct::TASKS_A_THREAD;
use crate::frozen::layer::{Conv, IntWeights};
use crate::frozen::shared::Shared;
use crate::frozen::team::Team;
use crate::int_tile::{IntTile, MAX_PIXELS, max_blocks, max_pixels, pack, run};
use crate::simd::LANES;

/// Where the codes and scales of some spots lie.
#[derive(Clone, Copy)]
struct Packed {
    codes: *mut i16,
    scales: *mut [f32; MAX_PIXELS],
}

impl Integer {
    /// Values of scratch memory for a run.
    pub(in crate::frozen) fn scratch(&self) -> usize {
        if self.shared { self.spots.len() * (self.spot_codes() / 2 + MAX_PIXELS) } else { 0 }
    }

    /// # Safety
    /// As for the direct layer; `scratch` must be good for what `scratch()` asks for.
    pub(in crate::frozen) unsafe fn run(
        &self,
        team: &Team<'_, '_>,
        conv: &Conv,
        (x, y, residual): (Shared, Shared, Shared),
        scratch: Shared,
    ) {
        thread_local! {
            /// Codes of a task, kept from one to the next.
            static CODES: RefCell<Vec<i16>> = const { RefCell::new(Vec::new()) };
        }
        let weights = conv.packed_integer();
        if self.shared {
            let scales = self.spots.len() * self.spot_codes() / 2;
            let packed = |first: usize| Packed {
                codes: scratch.at(first * self.spot_codes() / 2).cast(),
                scales: scratch.at(scales + first * MAX_PIXELS).cast(),
            };
            let parts = (TASKS_A_THREAD * rayon::current_num_threads()).min(self.spots.len());
            team.for_each(parts, |part| {
                let cut = |part: usize| self.spots.len() * part / parts;
                // SAFETY: each task writes the codes and scales of its own spots.
                unsafe { self.pack(cut(part)..cut(part + 1), x, packed(cut(part))) };
            });
            team.for_each(self.tasks.len(), |task| {
                let (spots, out_blocks) = self.tasks[task].clone();
                // SAFETY: tasks cover disjoint rectangles of (pixels, output blocks), so no two write the same values.
                unsafe {
                    let packed = packed(spots.start);
                    self.multiply(conv, weights, spots, out_blocks, packed, (y, residual));
                };
            });
        } else {
            team.for_each(self.tasks.len(), |task| {
                let (spots, out_blocks) = self.tasks[task].clone();
                CODES.with_borrow_mut(|codes| {
                    codes.resize(codes.len().max(spots.len() * self.spot_codes()), 0);
                    let mut scales = vec![[0.0; MAX_PIXELS]; spots.len()];
                    let packed = Packed { codes: codes.as_mut_ptr(), scales: scales.as_mut_ptr() };
                    // SAFETY: as above; the codes are this thread's own.
                    unsafe {
                        self.pack(spots.clone(), x, packed);
                        self.multiply(conv, weights, spots, out_blocks, packed, (y, residual));
                    };
                });
            });
        }
    }

    fn spot_codes(&self) -> usize {
        max_pixels(self.path) * self.entries.len() * LANES
    }

    /// # Safety
    /// As for `run`; `to` must have room for the codes and scales of these spots, and nobody else touch it.
    unsafe fn pack(&self, spots: Range<usize>, x: Shared, to: Packed) {
        let in_image = self.input.plane() * self.input.planes();
        for (i, spot) in self.spots[spots].iter().enumerate() {
            let pixels = &self.in_offsets[spot.first..spot.first + spot.pixels];
            let image = x.at(spot.image * in_image);
            // SAFETY: the windows lie inside the images' maps, and a spot's codes have room for the widest tile.
            unsafe {
                let codes = to.codes.add(i * self.spot_codes());
                *to.scales.add(i) = pack(self.path, image, &self.entries, pixels, codes);
            }
        }
    }

    /// # Safety
    /// As for `run`; `packed` must be of these spots, and nobody else write this rectangle at the same time.
    unsafe fn multiply(
        &self,
        conv: &Conv,
        weights: &IntWeights,
        spots: Range<usize>,
        out_blocks: Range<usize>,
        packed: Packed,
        (y, residual): (Shared, Shared),
    ) {
        let out_image = self.output.plane() * self.output.planes();
        let residual_plane = self.residual.map_or(0, |m| m.plane());
        let residual_image = self.residual.map_or(0, |m| m.plane() * m.planes());
        let (low, high) = conv.activation.limits();
        let pairs = self.entries.len() * LANES / 2;
        let spots = &self.spots[spots];
        let mut block = out_blocks.start;
        while block < out_blocks.end {
            let together = max_blocks(self.path).min(out_blocks.end - block);
            let block_weights = &weights.pairs[block * pairs..(block + together) * pairs];
            let following = max_blocks(self.path).min(out_blocks.end - block - together);
            for (i, spot) in spots.iter().enumerate() {
                // The first tiles fetch the weights of the blocks that follow.
                let ahead = if i < following { together + i } else { 0 };
                let tile = IntTile {
                    packed: packed.codes.wrapping_add(i * self.spot_codes()),
                    pairs,
                    weights: block_weights.as_ptr(),
                    weight_block: pairs,
                    ahead: block_weights.as_ptr().wrapping_add(ahead * pairs),
                    scales: packed.scales.wrapping_add(i).cast(),
                    channel_scale: weights.scales[block..block + together].as_ptr().cast(),
                    bias: conv.bias[block..block + together].as_ptr().cast(),
                    out: y.at(spot.image * out_image + block * self.output.plane()),
                    out_block: self.output.plane(),
                    out_offsets: self.out_offsets[spot.first..].as_ptr(),
                    residual: residual.at(spot.image * residual_image + block * residual_plane),
                    residual_block: residual_plane,
                    residual_offsets: self
                        .residual_offsets
                        .get(spot.first..)
                        .map_or(std::ptr::null(), <[u32]>::as_ptr),
                    low,
                    high,
                };
                // SAFETY: offsets, weights and bias were laid out for these maps; the caller answers for the buffers.
                unsafe { run(self.path, spot.pixels, together, &tile) };
            }
            block += together;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::frozen::agreement::map_forward;
    use crate::frozen::{Builder, Precision};
    use crate::reference::{noise, values};
    use crate::{Conv2dConfig, frozen::ConvLayer};

    /// One thread makes codes where it multiplies them; several make them beforehand, because the weights are cut.
    #[test]
    fn codes_made_beforehand_give_the_same_bits() {
        let (x, w) = (noise(&[2, 520, 5, 5], 1), noise(&[400, 520, 1, 1], 2));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut net = Builder::new(520).unwrap().precision(Precision::Int16);
                let input = net.input();
                let y = net.conv(input, &ConvLayer::new(&w, Conv2dConfig::default())).unwrap();
                values(&map_forward(net, y, &x).0)
            })
        };
        let alone = on(1);
        assert!([2, 3, 7].into_iter().all(|threads| on(threads) == alone));
    }
}
