//! 3×3 convolution with stride 1 by Winograd's minimal filtering F(4×4, 3×3): Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks" (2015).
//!
//! A 4×4 piece of the result costs 36 products per channel instead of 144: the 6×6 piece of input under it and the
//! weights are transformed, multiplied frequency by frequency (36 matrix products over the channels, by register
//! tiles), and the sums transformed back. The products may be of integer codes.

mod codes;
mod transform;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::direct::STREAM;
use super::integer::SPEED_UP;
use super::layer::{Conv, IntWeights, Line, blocks};
use super::map::Map;
use super::precision::Precision;
use super::shared::Shared;
use super::team::Team;
use crate::simd::{Isa, LANES};
use crate::tile::{Tile, TileFn, paired, split, tile_fn};
pub(super) use transform::{FREQUENCIES, OUT, transform_weights};
use transform::{Piece, transform_input, transform_output};

/// Bytes of transformed pieces that a thread may keep in its second-level cache.
const CHUNK_SHARE: usize = 640 << 10;

/// Processor cycles of making codes of sixteen values.
const PACK: f64 = 5.0;

/// Transformed weights.
#[derive(Clone, Copy)]
enum Weights<'a> {
    Floats(&'a [Line]),
    Codes(&'a IntWeights),
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
    precision: Precision,
}

impl Winograd {
    pub(super) fn new(
        (isa, precision): (Isa, Precision),
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
        let chunks = pieces.div_ceil(own);
        let weights =
            FREQUENCIES * blocks(conv.in_c) * blocks(conv.out_c) * LANES * LANES * precision.bytes();
        // Few chunks are uneven shares, and each reads all weights again.
        let few = if weights <= CHUNK_SHARE { 2 * threads } else { 4 * threads };
        let shared = threads > 1 && chunks < few;
        let chunk = if shared {
            pieces.min(1024)
        } else if chunks < 4 * threads {
            pieces.div_ceil(chunks.next_multiple_of(threads))
        } else {
            own
        };
        let ramp = (0..chunk as u32).map(|p| p * LANES as u32).collect();
        Self {
            isa,
            input,
            output,
            residual,
            padding: conv.cfg.padding,
            pieces_y,
            pieces_x,
            pieces,
            chunk,
            shared,
            ramp,
            precision,
        }
    }

    /// An estimate of the processor cycles that the layer takes on `threads` threads; see [`direct_cycles`](super::direct::direct_cycles).
    pub(super) fn cycles(conv: &Conv, precision: Precision, n: usize, output: Map, threads: usize) -> f64 {
        let pieces = (n * output.height.div_ceil(OUT) * output.width.div_ceil(OUT)) as f64;
        let (inp, out) = (blocks(conv.in_c) as f64, blocks(conv.out_c) as f64);
        let products = FREQUENCIES as f64 * pieces * inp * out * LANES as f64 / 0.8;
        let transforms = pieces * (inp + out) * 250.0;
        let weights = FREQUENCIES as f64 * inp * out * (LANES * LANES * 4) as f64;
        let (products, weights) = match precision {
            Precision::F32 => (products, weights),
            Precision::Int16 => {
                (products / SPEED_UP + FREQUENCIES as f64 * pieces * inp * PACK, weights / 2.0)
            }
        };
        (products + transforms) / threads as f64 + weights / STREAM
    }

    /// Whether the products are of integers.
    pub(super) fn precision(&self) -> Precision {
        self.precision
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
    pub(super) unsafe fn run(
        &self,
        team: &Team<'_, '_>,
        conv: &Conv,
        (x, y, residual): (Shared, Shared, Shared),
        scratch: Shared,
    ) {
        let weights = match self.precision {
            Precision::F32 => Weights::Floats(conv.packed_winograd()),
            Precision::Int16 => Weights::Codes(conv.packed_winograd_integer()),
        };
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
                team.for_each(in_blocks * cuts, |task| {
                    let (block, part) = (task / cuts, task % cuts);
                    // SAFETY: each task transforms its own block and pieces; the caller answers for the buffers.
                    unsafe {
                        self.scatter(conv, sub(part, cuts), pieces.start, block..block + 1, x, scratch.get())
                    };
                });
                let pairs = out_blocks.div_ceil(2);
                let cuts = match self.precision {
                    Precision::F32 => pairs,
                    // Each task makes all the codes.
                    Precision::Int16 => (4 * threads).div_ceil(FREQUENCIES).min(pairs),
                };
                team.for_each(FREQUENCIES * cuts, |task| {
                    let (f, columns) = (task / cuts, parts(pairs, cuts, task % cuts));
                    let columns = columns.start * 2..(columns.end * 2).min(out_blocks);
                    let (v, m) = (scratch.get(), scratch.at(m_at));
                    // SAFETY: each task multiplies its own frequency and output blocks.
                    unsafe { self.multiply(conv, weights, pieces.len(), f, columns, (v, m)) };
                });
                let cuts = (4 * threads).div_ceil(out_blocks).min(pieces.len());
                team.for_each(out_blocks * cuts, |task| {
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
            team.for_each(count, |own| {
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
                            self.multiply(conv, weights, pieces.len(), f, 0..out_blocks, (v, m));
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
    unsafe fn multiply(
        &self,
        conv: &Conv,
        weights: Weights<'_>,
        pieces: usize,
        f: usize,
        out_blocks: Range<usize>,
        (v, m): (*mut f32, *mut f32),
    ) {
        let packed = match weights {
            Weights::Floats(packed) => packed,
            Weights::Codes(weights) => {
                // SAFETY: passed on.
                return unsafe { self.multiply_codes(conv, weights, pieces, f, out_blocks, (v, m)) };
            }
        };
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
                    in_offsets: std::ptr::null(),
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
