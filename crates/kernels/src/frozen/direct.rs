//! Convolution as register tiles straight from the feature map: all but depthwise and Winograd layers.

use std::ops::Range;

use super::layer::{Conv, Line, blocks};
use super::map::Map;
use super::shared::Shared;
use super::team::Team;
use crate::simd::{Isa, LANES};
use crate::tile::{ANYWHERE, Tile, TileFn, max_pixels, paired, split, tile_fn};

/// Bytes of input that a task may hold in the second-level cache beside the weights.
const INPUT_SHARE: usize = 384 << 10;
/// Tasks a thread, so that none waits long for the last.
pub(super) const TASKS_A_THREAD: usize = 4;

/// The most pixels of a tile whose places are kept in registers, one each.
const PLACES: usize = 6;

/// One register tile's place in the output plane.
#[derive(Clone, Copy)]
struct Spot {
    /// From the input plane's start.
    input: usize,
    /// First pixel, in reading order of the output, and how many there are.
    pixel: usize,
    pixels: usize,
    single: TileFn,
    pair: Option<TileFn>,
}

/// A convolution laid out for one image size.
pub(super) struct Direct {
    entries: Vec<u32>,
    run: usize,
    pixel_stride: usize,
    spots: Vec<Spot>,
    /// Where the pixels of the output have their windows, if tiles go on from row to row; otherwise empty.
    in_offsets: Vec<u32>,
    out_offsets: Vec<u32>,
    residual_offsets: Vec<u32>,
    input: Map,
    output: Map,
    residual: Option<Map>,
    /// The pixels of a plane are one row, so that a tile's successor begins where it ends.
    one_row: bool,
    /// (images' spots, output blocks) of each task.
    tasks: Vec<(Range<usize>, Range<usize>)>,
}

impl Direct {
    pub(super) fn new(
        isa: Isa,
        conv: &Conv,
        n: usize,
        input: Map,
        output: Map,
        residual: Option<Map>,
    ) -> Self {
        let (stride, padding, dilation) = (conv.cfg.stride, conv.cfg.padding, conv.cfg.dilation);
        let (row, pixel, plane) = (input.row(), input.pixel(), input.plane());
        let step = dilation * pixel;
        let mut entries = Vec::new();
        let (in_planes, run) = if input.planar {
            (conv.in_c, if dilation == 1 { conv.k_w } else { 1 })
        } else {
            (conv.in_count(), LANES)
        };
        for p in 0..in_planes {
            for ky in 0..conv.k_h {
                for kx in (0..conv.k_w).step_by(if input.planar { run } else { 1 }) {
                    entries.push((p * plane + ky * dilation * row + kx * step) as u32);
                }
            }
        }
        // The pixels of an unbordered map are one long row to a 1×1 convolution.
        let one_row = conv.taps() == 1 && stride == 1 && padding == 0 && input.border == 0;
        let pixels = output.height * output.width;
        // Short rows leave registers empty at their ends.
        let across = !one_row
            && !input.planar
            && max_pixels(isa) <= PLACES
            && split(isa, pixels).len() < output.height * split(isa, output.width).len();
        let (rows, columns) = if one_row || across { (1, pixels) } else { (output.height, output.width) };
        let start = (input.border - padding) * (row + pixel);
        let pixel_stride = if across { ANYWHERE } else { stride * pixel };
        let in_offsets = if across {
            let place = |i: usize| i / output.width * stride * row + i % output.width * stride * pixel;
            (0..pixels).map(|i| place(i) as u32).collect()
        } else {
            Vec::new()
        };
        let mut spots = Vec::new();
        for y in 0..rows {
            let mut x = 0;
            for pixels in split(isa, columns) {
                let single = tile_fn(isa, pixels, 1, pixel_stride).expect("`split` gives compiled sizes");
                let pair = if paired(isa) && conv.cfg.groups == 1 {
                    tile_fn(isa, pixels, 2, pixel_stride)
                } else {
                    None
                };
                let input = if across { start } else { start + y * stride * row + x * pixel_stride };
                spots.push(Spot { input, pixel: y * columns + x, pixels, single, pair });
                x += pixels;
            }
        }
        let sums = entries.len() * run;
        let input_bytes = input.plane() * input.planes() * 4;
        let tasks = partition(
            n * spots.len(),
            blocks(conv.out_c),
            input_bytes.div_ceil(spots.len()),
            sums * LANES * 4,
        );
        Self {
            entries,
            run,
            pixel_stride,
            spots,
            in_offsets,
            out_offsets: output.offsets(),
            residual_offsets: residual.map(|r| r.offsets()).unwrap_or_default(),
            input,
            output,
            residual,
            one_row,
            tasks,
        }
    }

    /// # Safety
    /// `x`, `y` and `residual` (unless null) must be good for `n` images of the maps that the plan was made for, by
    /// this thread and its team alone, and `y` not overlap `x`. It may be the same as `residual` if the maps are.
    pub(super) unsafe fn run(
        &self,
        team: &Team<'_, '_>,
        conv: &Conv,
        x: Shared,
        y: Shared,
        residual: Shared,
    ) {
        let packed = if self.input.planar { conv.packed_planar() } else { conv.packed_blocked() };
        team.for_each(self.tasks.len(), |task| {
            let (spots, out_blocks) = &self.tasks[task];
            // SAFETY: tasks cover disjoint rectangles of (pixels, output blocks), so no two write the same values.
            unsafe { self.task(conv, packed, spots.clone(), out_blocks.clone(), (x, y, residual)) }
        });
    }

    /// # Safety
    /// As for `run`; nobody else may write this rectangle at the same time.
    unsafe fn task(
        &self,
        conv: &Conv,
        packed: &[Line],
        spots: Range<usize>,
        out_blocks: Range<usize>,
        (x, y, residual): (Shared, Shared, Shared),
    ) {
        let sums = self.entries.len() * self.run;
        let (in_image, out_image) =
            (self.input.plane() * self.input.planes(), self.output.plane() * self.output.planes());
        let residual_plane = self.residual.map_or(0, |m| m.plane());
        let residual_image = self.residual.map_or(0, |m| m.plane() * m.planes());
        let (low, high) = conv.activation.limits();
        let mut block = out_blocks.start;
        while block < out_blocks.end {
            let together = if self.spots[0].pair.is_some() && block + 1 < out_blocks.end { 2 } else { 1 };
            let first_plane = if self.input.planar { 0 } else { conv.in_first(block) * self.input.plane() };
            let mut image = spots.start / self.spots.len();
            let mut at = spots.start % self.spots.len();
            for _ in spots.clone() {
                let spot = &self.spots[at];
                let tile = Tile {
                    input: x.at(image * in_image + first_plane + spot.input),
                    entries: self.entries.as_ptr(),
                    entry_count: self.entries.len(),
                    run: self.run,
                    pixel_stride: self.pixel_stride,
                    in_offsets: self.in_offsets.get(spot.pixel..).map_or(std::ptr::null(), <[u32]>::as_ptr),
                    // Later blocks find the input in the cache.
                    ahead: if self.one_row && block == out_blocks.start { spot.pixels * LANES } else { 0 },
                    weights: packed[block * sums..(block + together) * sums].as_ptr().cast(),
                    weight_block: sums * LANES,
                    bias: conv.bias[block..block + together].as_ptr().cast(),
                    out: y.at(image * out_image + block * self.output.plane()),
                    out_block: self.output.plane(),
                    out_offsets: self.out_offsets[spot.pixel..].as_ptr(),
                    residual: residual.at(image * residual_image + block * residual_plane),
                    residual_block: residual_plane,
                    residual_offsets: self
                        .residual_offsets
                        .get(spot.pixel..)
                        .map_or(std::ptr::null(), <[u32]>::as_ptr),
                    low,
                    high,
                };
                let run = if together == 2 { spot.pair.unwrap_or(spot.single) } else { spot.single };
                // SAFETY: offsets, weights and bias were laid out for these maps; the caller answers for the buffers.
                unsafe { run(&tile) };
                at += 1;
                if at == self.spots.len() {
                    (image, at) = (image + 1, 0);
                }
            }
            block += together;
        }
    }
}

/// Bytes of weights that arrive from the third-level cache or memory in one cycle, for all threads together.
pub(super) const STREAM: f64 = 6.0;

/// An estimate of the processor cycles of a direct convolution: a vector multiply-add a cycle at 85 % of the peak,
/// and the weights streamed once.
pub(super) fn direct_cycles(conv: &Conv, n: usize, output: Map, threads: usize) -> f64 {
    let (inp, out) = (blocks(conv.in_c) as f64, blocks(conv.out_c) as f64);
    let taps = conv.taps() as f64;
    let products = (n * output.height * output.width) as f64 * taps * inp * out * LANES as f64 / 0.85;
    products / threads as f64 + taps * inp * out * (LANES * LANES * 4) as f64 / STREAM
}

/// Divides `spots` × `out_blocks` into rectangles: pieces of input that stay in a core's cache while all weights
/// pass by and, where those are too few for the threads, pieces of the weights.
pub(super) fn partition(
    spots: usize,
    out_blocks: usize,
    spot_bytes: usize,
    block_bytes: usize,
) -> Vec<(Range<usize>, Range<usize>)> {
    let threads = rayon::current_num_threads();
    let wanted = if threads == 1 { 1 } else { TASKS_A_THREAD * threads };
    let mut pieces = (spots * spot_bytes).div_ceil(INPUT_SHARE).clamp(1, spots);
    let pairs = out_blocks.div_ceil(2);
    let mut columns = wanted.div_ceil(pieces).min(pairs);
    if out_blocks * block_bytes <= INPUT_SHARE || pieces * columns < wanted {
        // The weights stay in every core's cache: dividing the pixels costs nothing.
        if out_blocks * block_bytes <= INPUT_SHARE {
            columns = 1;
        }
        pieces = pieces.max(wanted.div_ceil(columns)).min(spots);
    }
    let cut = |total: usize, parts: usize, i: usize| total * i / parts;
    let mut tasks = Vec::with_capacity(pieces * columns);
    for c in 0..columns {
        let columns = cut(pairs, columns, c) * 2..(cut(pairs, columns, c + 1) * 2).min(out_blocks);
        for p in 0..pieces {
            tasks.push((cut(spots, pieces, p)..cut(spots, pieces, p + 1), columns.clone()));
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_cover_every_cell_once() {
        for spots in [1, 2, 7, 100, 1000] {
            for out_blocks in [1, 2, 3, 32, 129] {
                for bytes in [64, 30_000, 5_000_000] {
                    let mut seen = vec![0; spots * out_blocks];
                    for (s, b) in partition(spots, out_blocks, bytes, bytes) {
                        s.for_each(|s| b.clone().for_each(|b| seen[s * out_blocks + b] += 1));
                    }
                    assert!(seen.iter().all(|&c| c == 1), "{spots} {out_blocks} {bytes}");
                }
            }
        }
    }
}
