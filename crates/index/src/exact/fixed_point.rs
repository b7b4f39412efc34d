//! Vectors as 16-bit fixed-point numbers, and what is lost by it: scores of many pairs at less than the price of f32,
//! each with a bound on its error, so that an exact search needs f32 for the few rows near the border only.
//!
//! x is kept as codes cᵢ = round(xᵢ / s), x̂ = s·c. For a query q with codes d and step t, ⟨q, x⟩ is s·t·Σ cᵢ dᵢ up to
//! |⟨q, x⟩ − ⟨q̂, x̂⟩| ≤ ‖q − q̂‖·‖x̂‖ + ‖q‖·‖x − x̂‖ (Cauchy and Schwarz). The step is chosen so that ‖c‖ stays below
//! [`LENGTH`]: then no sum over any of the places leaves 32 bits, for the same reason.

use std::ops::Range;

use crate::codes::aligned_matrix::Rows;
use crate::codes::kernel::{PANEL, Pairs, TILE, padded};
use crate::codes::quantize::ROUND;

/// Largest norm of a vector's codes before rounding, which adds no more than √65,536 / 2: 46,128² < 2³¹.
const LENGTH: f32 = 46_000.0;
/// Largest code.
const LARGEST: f32 = 32_767.0;
/// Relative error of one f32 operation.
pub(crate) const EPSILON: f32 = f32::EPSILON / 2.0;

/// How vectors were coded: of several, the largest values.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Coded {
    /// What one unit of a code stands for.
    pub(crate) step: f32,
    /// Norm of the vector.
    pub(crate) norm: f32,
    /// Norm of what coding lost.
    pub(crate) lost: f32,
}

impl Coded {
    /// Largest difference between a query's score by codes and by the f32 kernels, if `self` is the query's coding and
    /// no row is longer or lost more than `rows` says. `stride`: numbers per row.
    pub(crate) fn error(&self, rows: &Coded, stride: usize) -> f32 {
        // The kernels sum in at least 16 lanes; converting and scaling a sum of codes rounds three times.
        let rounding = (stride / 8 + 32) as f32 * EPSILON * self.norm * rows.norm;
        let lost = self.lost * (rows.norm + rows.lost) + self.norm * rows.lost;
        (lost + rounding) * 1.001
    }
}

/// Largest size and norm of a row.
#[inline(always)]
pub(crate) fn extent(row: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut largest, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
    for numbers in row.chunks_exact(LANES) {
        for lane in 0..LANES {
            let x = numbers[lane];
            largest[lane] = if x.abs() > largest[lane] { x.abs() } else { largest[lane] };
            squares[lane] += x * x;
        }
    }
    (largest.into_iter().fold(0.0, f32::max), squares.iter().sum::<f32>().sqrt())
}

/// Smallest step a vector of this size can be coded with.
fn step(largest: f32, norm: f32) -> f32 {
    (norm / LENGTH).max(largest / LARGEST)
}

/// Codes a padded row; returns the norm of what is lost.
#[inline(always)]
pub(crate) fn encode(row: &[f32], step: f32, codes: &mut [i16]) -> f32 {
    const LANES: usize = 16;
    let factor = if step > 0.0 { 1.0 / step } else { 0.0 };
    let mut squares = [0.0f32; LANES];
    for (numbers, codes) in row.chunks_exact(LANES).zip(codes.chunks_exact_mut(LANES)) {
        for lane in 0..LANES {
            let rounded = numbers[lane] * factor + ROUND;
            codes[lane] = rounded.to_bits() as i16;
            let lost = numbers[lane] - (rounded - ROUND) * step;
            squares[lane] += lost * lost;
        }
    }
    squares.iter().sum::<f32>().sqrt()
}

/// A bound on what was lost, given what was computed of it.
fn bound(lost: f32, norm: f32) -> f32 {
    lost * 1.01 + 4.0 * EPSILON * norm
}

/// Queries in fixed point, and the rows they are compared with.
pub(crate) struct FixedPoint {
    pairs: Pairs,
    /// Codes a row.
    width: usize,
    /// Codes of the queries, by tiles of [`TILE`] as rows are by panels; the last is filled up with zeros.
    tiles: Rows,
    queries: Vec<Coded>,
    /// Codes of [`PANEL`] rows, one after the other.
    lines: Rows,
    /// Codes of all rows at hand, by panels and in them pair by pair: of each row its first two, of each its next two, …
    panels: Rows,
    /// What one unit of the codes of each panel stands for.
    steps: Vec<f32>,
    rows: Coded,
}

impl FixedPoint {
    /// Codes padded queries, `stride` numbers each, to be compared with so many rows at a time, for a processor that has
    /// the instructions of `pairs`.
    pub(crate) fn new(pairs: Pairs, queries: &[f32], stride: usize, rows: usize) -> Self {
        assert!(rows.is_multiple_of(PANEL));
        let width = padded::<i16>(stride);
        let mut tiles = Rows::with_rows(width * 2 * TILE, (queries.len() / stride).div_ceil(TILE));
        let (mut line, mut coded) = (Rows::with_rows(width * 2, 1), Vec::new());
        let places = tiles.all_mut::<[i16; 2]>().chunks_exact_mut(width / 2 * TILE);
        for (queries, tile) in queries.chunks(TILE * stride).zip(places) {
            for (at, query) in queries.chunks_exact(stride).enumerate() {
                let codes = line.all_mut::<i16>();
                // SAFETY: the processor has what `pairs` needs.
                let (largest, norm) = unsafe { (pairs.extent)(query) };
                let step = step(largest, norm);
                // SAFETY: as above.
                let lost = unsafe { (pairs.encode)(query, step, codes) };
                coded.push(Coded { step, norm, lost: bound(lost, norm) });
                for (places, pair) in tile.chunks_exact_mut(TILE).zip(codes.chunks_exact(2)) {
                    places[at] = [pair[0], pair[1]];
                }
            }
        }
        Self {
            pairs,
            width,
            tiles,
            queries: coded,
            lines: Rows::with_rows(width * 2, PANEL),
            panels: Rows::with_rows(width * 2, rows),
            steps: vec![0.0; rows / PANEL],
            rows: Coded::default(),
        }
    }

    /// Codes the rows, padded, that queries are to be compared with next.
    pub(crate) fn load(&mut self, rows: &[f32], stride: usize) {
        let (mut norm, mut lost) = (0.0f32, 0.0f32);
        assert!(rows.len() == self.steps.len() * PANEL * stride && padded::<i16>(stride) == self.width);
        let panels = self.panels.all_mut::<i16>().chunks_exact_mut(PANEL * self.width);
        for ((rows, panel), panel_step) in rows.chunks_exact(PANEL * stride).zip(panels).zip(&mut self.steps)
        {
            let (mut largest, mut longest) = (0.0f32, 0.0f32);
            for row in rows.chunks_exact(stride) {
                // SAFETY: the processor has what `pairs` needs.
                let (a, b) = unsafe { (self.pairs.extent)(row) };
                (largest, longest) = (largest.max(a), longest.max(b));
            }
            *panel_step = step(largest, longest);
            let lines = self.lines.all_mut::<i16>();
            for (row, codes) in rows.chunks_exact(stride).zip(lines.chunks_exact_mut(self.width)) {
                // SAFETY: as above.
                lost = lost.max(unsafe { (self.pairs.encode)(row, *panel_step, codes) });
            }
            // SAFETY: as above.
            unsafe { (self.pairs.interleave)(lines, panel) };
            norm = norm.max(longest);
        }
        self.rows.norm = self.rows.norm.max(norm);
        self.rows.lost = self.rows.lost.max(bound(lost, norm));
    }

    /// Compares some queries, the first of them a multiple of [`TILE`], with the rows loaded last: calls `reached` with a
    /// query, the first of [`PANEL`] rows, a bit for each of them whose score is no less than the query's bar, and their
    /// scores.
    pub(crate) fn compare(
        &self,
        queries: Range<usize>,
        bars: &[f32],
        mut reached: impl FnMut(usize, usize, u32, &[f32]),
    ) {
        assert!(queries.start.is_multiple_of(TILE) && bars.len() >= queries.end);
        let tile = TILE * self.width;
        let mut scores = [[0.0; PANEL]; TILE];
        for (at, (panel, step)) in
            self.panels.all::<i16>().chunks_exact(PANEL * self.width).zip(&self.steps).enumerate()
        {
            let tiles = self.tiles.all::<i16>()[queries.start * self.width..].chunks_exact(tile);
            for (first, tile) in queries.clone().step_by(TILE).zip(tiles) {
                let count = TILE.min(queries.end - first);
                // No score reaches the bar of a query that is not there.
                let (mut scales, mut tile_bars) = ([0.0; TILE], [f32::INFINITY; TILE]);
                scales
                    .iter_mut()
                    .zip(&self.queries[first..])
                    .for_each(|(scale, query)| *scale = query.step * step);
                tile_bars[..count].copy_from_slice(&bars[first..first + count]);
                // SAFETY: panel and tile have rows of `width` codes. No sum of products of codes leaves 32 bits (see
                // above). The processor has what `pairs` needs.
                let reach = unsafe {
                    (self.pairs.products)(
                        panel.as_ptr(),
                        tile.as_ptr(),
                        self.width,
                        &scales,
                        &tile_bars,
                        &mut scores,
                    )
                };
                for (query, (reach, scores)) in reach.into_iter().zip(&scores).enumerate() {
                    if reach != 0 {
                        reached(first + query, at * PANEL, reach, scores);
                    }
                }
            }
        }
    }

    /// Largest difference of a query's scores so far from those of the f32 kernels.
    pub(crate) fn error(&self, query: usize) -> f32 {
        self.queries[query].error(&self.rows, self.width)
    }
}
