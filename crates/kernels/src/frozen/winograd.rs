//! 3×3 convolution with stride 1 by Winograd's minimal filtering F(4×4, 3×3): Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2015).
//!
//! A 4×4 piece of the result costs 36 products a channel instead of 144: the 6×6 piece of input under it and the
//! weights are transformed, multiplied frequency by frequency (36 matrix products over the channels, by register
//! tiles), and the sums transformed back.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::direct::STREAM;
use super::layer::{Conv, Line, blocks};
use super::map::Map;
use super::shared::Shared;
use crate::simd::{Isa, LANES, Lanes, on_isa, vectorized};
use crate::tile::{Tile, TileFn, paired, split, tile_fn};

/// Side of a piece of the result.
pub(super) const OUT: usize = 4;
/// Side of the piece of input under it.
const IN: usize = 6;
/// Values of a transformed piece.
pub(super) const FREQUENCIES: usize = IN * IN;
/// Bytes of transformed pieces that a thread may keep in its second-level cache.
const CHUNK_SHARE: usize = 640 << 10;

vectorized! {
    /// The transformed weights G g Gᵀ of sixteen output channels and one input channel: [tap][output channel] to
    /// [frequency][output channel].
    pub(super) fn transform_weights(g: &[[f32; LANES]; 9]) -> [[f32; LANES]; FREQUENCIES] {
        let mut half = [[[0f32; LANES]; 3]; IN];
        for j in 0..3 {
            for lane in 0..LANES {
                let t = weight_line([g[j][lane], g[3 + j][lane], g[6 + j][lane]]);
                for i in 0..IN {
                    half[i][j][lane] = t[i];
                }
            }
        }
        let mut all = [[0f32; LANES]; FREQUENCIES];
        for i in 0..IN {
            for lane in 0..LANES {
                let t = weight_line([half[i][0][lane], half[i][1][lane], half[i][2][lane]]);
                for j in 0..IN {
                    all[i * IN + j][lane] = t[j];
                }
            }
        }
        all
    }
}

/// G times three values.
#[inline(always)]
fn weight_line(g: [f32; 3]) -> [f32; IN] {
    let (even, far) = ((g[0] + g[2]) / 6.0, g[0] / 24.0 + g[2] / 6.0);
    [g[0] / 4.0, -even - g[1] / 6.0, g[1] / 6.0 - even, far + g[1] / 12.0, far - g[1] / 12.0, g[2]]
}

/// A 3×3 layer laid out for one image size.
pub(super) struct Winograd {
    isa: Isa,
    input: Map,
    output: Map,
    residual: Option<Map>,
    padding: usize,
    pieces_y: usize,
    pieces_x: usize,
    /// Pieces of all images together.
    pieces: usize,
    /// Pieces that go through all three stages together.
    chunk: usize,
    /// Threads share the work inside a chunk, one chunk after the other, instead of taking a chunk each.
    shared: bool,
    ramp: Vec<u32>,
}

impl Winograd {
    pub(super) fn new(
        isa: Isa,
        conv: &Conv,
        n: usize,
        input: Map,
        output: Map,
        residual: Option<Map>,
    ) -> Self {
        let (pieces_y, pieces_x) = (output.height.div_ceil(OUT), output.width.div_ceil(OUT));
        let pieces = n * pieces_y * pieces_x;
        let threads = rayon::current_num_threads();
        let planes = blocks(conv.in_c) + blocks(conv.out_c);
        let fitting = (CHUNK_SHARE / (FREQUENCIES * planes * LANES * 4)).max(1);
        // A chunk reads all transformed weights: it should be worth it.
        let own = fitting.max(14).min(pieces);
        let shared = threads > 1 && pieces.div_ceil(own) < 4 * threads;
        let chunk = if shared { pieces.min(1024) } else { own };
        let ramp = (0..chunk as u32).map(|p| p * LANES as u32).collect();
        let padding = conv.cfg.padding;
        Self { isa, input, output, residual, padding, pieces_y, pieces_x, pieces, chunk, shared, ramp }
    }

    /// An estimate of the processor cycles that the layer takes on `threads` threads; see [`direct_cycles`](super::direct::direct_cycles).
    pub(super) fn cycles(conv: &Conv, n: usize, output: Map, threads: usize) -> f64 {
        let pieces = (n * output.height.div_ceil(OUT) * output.width.div_ceil(OUT)) as f64;
        let (inp, out) = (blocks(conv.in_c) as f64, blocks(conv.out_c) as f64);
        let products = FREQUENCIES as f64 * pieces * inp * out * LANES as f64 / 0.8;
        let transforms = pieces * (inp + out) * 250.0;
        let weights = FREQUENCIES as f64 * inp * out * (LANES * LANES * 4) as f64;
        (products + transforms) / threads as f64 + weights / STREAM
    }

    /// Values of scratch memory for a run: (one buffer, number of buffers).
    pub(super) fn scratch(&self, conv: &Conv) -> (usize, usize) {
        let buffer = self.v_len(conv) + self.m_len(conv);
        (buffer, if self.shared { 1 } else { rayon::current_num_threads() })
    }

    /// From one frequency to the next. The extra line keeps the 36 places of a piece out of each other's cache sets.
    fn v_frequency(&self, conv: &Conv) -> usize {
        (blocks(conv.in_c) * self.chunk + 1) * LANES
    }

    fn m_frequency(&self, conv: &Conv) -> usize {
        (blocks(conv.out_c) * self.chunk + 1) * LANES
    }

    fn v_len(&self, conv: &Conv) -> usize {
        FREQUENCIES * self.v_frequency(conv)
    }

    fn m_len(&self, conv: &Conv) -> usize {
        FREQUENCIES * self.m_frequency(conv)
    }

    /// # Safety
    /// As for the direct layer; `scratch` must be good for what `scratch()` asks for.
    pub(super) unsafe fn run(&self, conv: &Conv, x: Shared, y: Shared, residual: Shared, scratch: Shared) {
        let packed = conv.packed_winograd();
        let chunks = self.pieces.div_ceil(self.chunk);
        let range = |c: usize| c * self.chunk..((c + 1) * self.chunk).min(self.pieces);
        let (in_blocks, out_blocks) = (blocks(conv.in_c), blocks(conv.out_c));
        let m_at = self.v_len(conv);
        if self.shared {
            let threads = rayon::current_num_threads();
            let parts = |total: usize, parts: usize, i: usize| total * i / parts..total * (i + 1) / parts;
            for c in 0..chunks {
                let pieces = range(c);
                // Few blocks: cut the pieces too, so that every thread has its share.
                let cuts = (4 * threads).div_ceil(in_blocks).min(pieces.len());
                let sub = |i: usize, cuts: usize| {
                    let part = parts(pieces.len(), cuts, i);
                    pieces.start + part.start..pieces.start + part.end
                };
                (0..in_blocks * cuts).into_par_iter().for_each(|task| {
                    let (block, part) = (task / cuts, task % cuts);
                    // SAFETY: each task transforms its own block and pieces; the caller answers for the buffers.
                    unsafe {
                        self.scatter(conv, sub(part, cuts), pieces.start, block..block + 1, x, scratch.get())
                    };
                });
                let pairs = out_blocks.div_ceil(2);
                (0..FREQUENCIES * pairs).into_par_iter().with_min_len(2).for_each(|task| {
                    let (f, pair) = (task / pairs, task % pairs);
                    let columns = pair * 2..(pair * 2 + 2).min(out_blocks);
                    // SAFETY: each task multiplies its own frequency and output blocks.
                    unsafe {
                        self.multiply(conv, packed, pieces.len(), f, columns, scratch.get(), scratch.at(m_at))
                    };
                });
                let cuts = (4 * threads).div_ceil(out_blocks).min(pieces.len());
                (0..out_blocks * cuts).into_par_iter().for_each(|task| {
                    let (block, part) = (task / cuts, task % cuts);
                    let m = scratch.at(m_at);
                    // SAFETY: each task writes its own block and pieces of the result.
                    unsafe {
                        self.gather(conv, sub(part, cuts), pieces.start, block..block + 1, m, y, residual)
                    };
                });
            }
        } else {
            let (buffer, count) = self.scratch(conv);
            let next = AtomicUsize::new(0);
            (0..count).into_par_iter().with_max_len(1).for_each(|own| {
                let v = scratch.at(own * buffer);
                let m = scratch.at(own * buffer + m_at);
                loop {
                    let c = next.fetch_add(1, Ordering::Relaxed);
                    if c >= chunks {
                        break;
                    }
                    let pieces = range(c);
                    // SAFETY: the scratch buffer is this task's own, and chunks write different pieces of the result.
                    unsafe {
                        self.scatter(conv, pieces.clone(), pieces.start, 0..in_blocks, x, v);
                        for f in 0..FREQUENCIES {
                            self.multiply(conv, packed, pieces.len(), f, 0..out_blocks, v, m);
                        }
                        self.gather(conv, pieces.clone(), pieces.start, 0..out_blocks, m, y, residual);
                    }
                }
            });
        }
    }

    /// Transforms pieces of input into `v`: [frequency][in block][piece of the chunk][16].
    ///
    /// # Safety
    /// As for `run`; nobody else may touch these blocks and pieces of `v`.
    unsafe fn scatter(
        &self,
        conv: &Conv,
        pieces: Range<usize>,
        first: usize,
        in_blocks: Range<usize>,
        x: Shared,
        v: *mut f32,
    ) {
        let (plane, image_len) = (self.input.plane(), self.input.plane() * self.input.planes());
        for block in in_blocks {
            for piece in pieces.clone() {
                let (image, py, px) = self.place(piece);
                // SAFETY: the caller answers for the buffers; the offsets stay inside them by construction.
                unsafe {
                    let plane = x.get().add(image * image_len + block * plane + self.input.offset(0, 0));
                    let to = v.add((block * self.chunk + piece - first) * LANES);
                    let (y0, x0) = (
                        (py * OUT) as isize - self.padding as isize,
                        (px * OUT) as isize - self.padding as isize,
                    );
                    let extent = (self.input.height as isize, self.input.width as isize);
                    transform_input(
                        self.isa,
                        plane,
                        self.input.row(),
                        (y0, x0),
                        extent,
                        to,
                        self.v_frequency(conv),
                    );
                }
            }
        }
    }

    /// Multiplies one frequency of `v` with its weights into `m`: [frequency][out block][piece of the chunk][16].
    ///
    /// # Safety
    /// As for `run`; nobody else may touch this frequency and these blocks of `m`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply(
        &self,
        conv: &Conv,
        packed: &[Line],
        pieces: usize,
        f: usize,
        out_blocks: Range<usize>,
        v: *mut f32,
        m: *mut f32,
    ) {
        static ZEROS: [Line; 2] = [Line([0.0; LANES]); 2];
        let (in_blocks, all_out) = (blocks(conv.in_c), blocks(conv.out_c));
        let entries: Vec<u32> = (0..in_blocks).map(|b| (b * self.chunk * LANES) as u32).collect();
        let sums = in_blocks * LANES;
        let tiles: Vec<(usize, TileFn, TileFn)> = split(self.isa, pieces)
            .into_iter()
            .map(|p| {
                let single = tile_fn(self.isa, p, 1, LANES).expect("`split` gives compiled sizes");
                (p, single, tile_fn(self.isa, p, 2, LANES).unwrap_or(single))
            })
            .collect();
        let mut block = out_blocks.start;
        while block < out_blocks.end {
            let together = if paired(self.isa) && block + 1 < out_blocks.end { 2 } else { 1 };
            let at = (f * all_out + block) * sums;
            let mut piece = 0;
            for &(pixels, single, pair) in &tiles {
                let tile = Tile {
                    input: v.wrapping_add(f * self.v_frequency(conv) + piece * LANES),
                    entries: entries.as_ptr(),
                    entry_count: entries.len(),
                    run: LANES,
                    pixel_stride: LANES,
                    ahead: 0,
                    weights: packed[at..at + together * sums].as_ptr().cast(),
                    weight_block: sums * LANES,
                    bias: ZEROS.as_ptr().cast(),
                    out: m.wrapping_add(f * self.m_frequency(conv) + (block * self.chunk + piece) * LANES),
                    out_block: self.chunk * LANES,
                    out_offsets: self.ramp.as_ptr(),
                    residual: std::ptr::null(),
                    residual_block: 0,
                    residual_offsets: std::ptr::null(),
                    low: f32::NEG_INFINITY,
                    high: f32::INFINITY,
                };
                // SAFETY: `v` and `m` are good for all pieces, frequencies and blocks; the ramp for a chunk's pieces.
                unsafe { if together == 2 { pair(&tile) } else { single(&tile) } };
                piece += pixels;
            }
            block += together;
        }
    }

    /// Transforms sums back, with bias, residual and activation, into the result.
    ///
    /// # Safety
    /// As for `run`; nobody else may write these blocks and pieces of `y`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn gather(
        &self,
        conv: &Conv,
        pieces: Range<usize>,
        first: usize,
        out_blocks: Range<usize>,
        m: *mut f32,
        y: Shared,
        residual: Shared,
    ) {
        let image_len = self.output.plane() * self.output.planes();
        for block in out_blocks {
            for piece in pieces.clone() {
                let (image, py, px) = self.place(piece);
                let at = self.output.offset(py * OUT, px * OUT);
                let (residual, residual_row) = match self.residual {
                    Some(map) => {
                        let at = map.offset(py * OUT, px * OUT);
                        (
                            residual.at(image * map.plane() * map.planes() + block * map.plane() + at),
                            map.row(),
                        )
                    }
                    None => (std::ptr::null_mut(), 0),
                };
                let shape =
                    ((self.output.height - py * OUT).min(OUT), (self.output.width - px * OUT).min(OUT));
                let out = Piece {
                    sums: m.wrapping_add((block * self.chunk + piece - first) * LANES),
                    frequency: self.m_frequency(conv),
                    bias: conv.bias[block..].as_ptr().cast(),
                    out: y.at(image * image_len + block * self.output.plane() + at),
                    row: self.output.row(),
                    residual,
                    residual_row,
                    limits: conv.activation.limits(),
                };
                // SAFETY: the piece lies inside the maps by construction; the caller answers for the buffers.
                unsafe { transform_output(self.isa, &out, shape) };
            }
        }
    }

    /// Image, row and column of a piece.
    fn place(&self, piece: usize) -> (usize, usize, usize) {
        let (image, rest) =
            (piece / (self.pieces_y * self.pieces_x), piece % (self.pieces_y * self.pieces_x));
        (image, rest / self.pieces_x, rest % self.pieces_x)
    }
}

on_isa! {
    /// Bᵀ d B of the 6×6 piece of a plane that starts at (y0, x0), which may lie partly outside the plane, where
    /// there are zeros. `plane` points to the first pixel inside the border.
    unsafe fn transform_input(
        plane: *const f32, row: usize, start: (isize, isize), extent: (isize, isize), to: *mut f32, frequency: usize,
    ) = transform_input_lanes;
}

#[inline(always)]
unsafe fn transform_input_lanes<S: Lanes>(
    plane: *const f32,
    row: usize,
    (y0, x0): (isize, isize),
    (height, width): (isize, isize),
    to: *mut f32,
    frequency: usize,
) {
    let inside = y0 >= 0 && x0 >= 0 && y0 + IN as isize <= height && x0 + IN as isize <= width;
    // SAFETY: pixels are read only where they are inside the plane; the caller answers for `to`.
    unsafe {
        let from = plane.wrapping_offset(y0 * row as isize + x0 * LANES as isize);
        let mut half = [[S::splat(0.0); IN]; IN];
        for column in 0..IN {
            let mut d = [S::splat(0.0); IN];
            for (line, d) in d.iter_mut().enumerate() {
                let (y, x) = (y0 + line as isize, x0 + column as isize);
                if inside || (y >= 0 && y < height && x >= 0 && x < width) {
                    *d = S::load(from.wrapping_add(line * row + column * LANES));
                }
            }
            let t = input_line::<S>(d);
            for (half, t) in half.iter_mut().zip(t) {
                half[column] = t;
            }
        }
        for (line, half) in half.into_iter().enumerate() {
            for (column, v) in input_line::<S>(half).into_iter().enumerate() {
                S::store(to.add((line * IN + column) * frequency), v);
            }
        }
    }
}

/// Bᵀ times six values.
#[inline(always)]
unsafe fn input_line<S: Lanes>(d: [S::V; IN]) -> [S::V; IN] {
    // SAFETY: arithmetic only; the caller vouches for the instructions.
    unsafe {
        let (two, four, five) = (S::splat(2.0), S::splat(4.0), S::splat(-5.0));
        let minus_four = S::splat(-4.0);
        let even = S::mul_add(minus_four, d[2], d[4]);
        let odd = S::mul_add(minus_four, d[1], d[3]);
        let far_even = S::sub(d[4], d[2]);
        let far_odd = S::mul(two, S::sub(d[3], d[1]));
        [
            S::mul_add(four, d[0], S::mul_add(five, d[2], d[4])),
            S::add(even, odd),
            S::sub(even, odd),
            S::add(far_even, far_odd),
            S::sub(far_even, far_odd),
            S::mul_add(four, d[1], S::mul_add(five, d[3], d[5])),
        ]
    }
}

/// Where one piece of the result comes from and goes to.
pub(crate) struct Piece {
    sums: *const f32,
    frequency: usize,
    bias: *const f32,
    out: *mut f32,
    row: usize,
    residual: *const f32,
    residual_row: usize,
    limits: (f32, f32),
}

on_isa! {
    /// Aᵀ m A of one piece, with bias, residual and limits; only `shape` rows and columns of it are stored.
    unsafe fn transform_output(piece: &Piece, shape: (usize, usize)) = transform_output_lanes;
}

#[inline(always)]
unsafe fn transform_output_lanes<S: Lanes>(p: &Piece, (rows, columns): (usize, usize)) {
    // SAFETY: the caller answers for the pointers; only `rows` × `columns` pixels are touched.
    unsafe {
        let mut half = [[S::splat(0.0); IN]; OUT];
        for column in 0..IN {
            let mut m = [S::splat(0.0); IN];
            for (line, m) in m.iter_mut().enumerate() {
                *m = S::load(p.sums.add((line * IN + column) * p.frequency));
            }
            let t = output_line::<S>(m);
            for (half, t) in half.iter_mut().zip(t) {
                half[column] = t;
            }
        }
        let bias = S::load(p.bias);
        let (low, high) = (S::splat(p.limits.0), S::splat(p.limits.1));
        for (line, half) in half.into_iter().enumerate().take(rows) {
            for (column, v) in output_line::<S>(half).into_iter().enumerate().take(columns) {
                let mut v = S::add(v, bias);
                if !p.residual.is_null() {
                    v = S::add(v, S::load(p.residual.add(line * p.residual_row + column * LANES)));
                }
                v = S::min(high, S::max(low, v));
                S::store(p.out.add(line * p.row + column * LANES), v);
            }
        }
    }
}

/// Aᵀ times six values.
#[inline(always)]
unsafe fn output_line<S: Lanes>(m: [S::V; IN]) -> [S::V; OUT] {
    // SAFETY: arithmetic only; the caller vouches for the instructions.
    unsafe {
        let (sum, difference) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (far_sum, far_difference) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(m[0], S::add(sum, far_sum)),
            S::mul_add(S::splat(2.0), far_difference, difference),
            S::mul_add(S::splat(4.0), far_sum, sum),
            S::add(m[5], S::mul_add(S::splat(8.0), far_difference, difference)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_transformed_as_the_matrix_says() {
        const G: [[f64; 3]; IN] = [
            [1. / 4., 0., 0.],
            [-1. / 6., -1. / 6., -1. / 6.],
            [-1. / 6., 1. / 6., -1. / 6.],
            [1. / 24., 1. / 12., 1. / 6.],
            [1. / 24., -1. / 12., 1. / 6.],
            [0., 0., 1.],
        ];
        let g: [[f32; LANES]; 9] =
            std::array::from_fn(|tap| std::array::from_fn(|lane| ((tap * 31 + lane * 17) as f32).sin()));
        let transformed = transform_weights(&g);
        for lane in 0..LANES {
            for f in 0..FREQUENCIES {
                let mut sum = 0f64;
                for (k, row) in (0..9).map(|tap| (tap, f64::from(g[tap][lane]))) {
                    sum += G[f / IN][k / 3] * row * G[f % IN][k % 3];
                }
                assert!((f64::from(transformed[f][lane]) - sum).abs() < 1e-6, "{f} {lane}");
            }
        }
    }
}
