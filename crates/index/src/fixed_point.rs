//! Vectors as 16-bit fixed-point numbers, and what is lost by it: scores of many pairs at less than the price of f32,
//! each with a bound on its error, so that an exact search needs f32 for the few rows near the border only.
//!
//! x is kept as codes cᵢ = round(xᵢ / s), x̂ = s·c. For a query q with codes d and step t, ⟨q, x⟩ is s·t·Σ cᵢ dᵢ up to
//! |⟨q, x⟩ − ⟨q̂, x̂⟩| ≤ ‖q − q̂‖·‖x̂‖ + ‖q‖·‖x − x̂‖ (Cauchy and Schwarz). The step is chosen so that ‖c‖ stays below
//! [`LENGTH`]: then no sum over any of the places leaves 32 bits, for the same reason.

use crate::kernel::{PANEL, Pairs, padded};
use crate::rows::Rows;

/// Largest norm of a vector's codes before rounding, which adds no more than √65,536 / 2: 46,128² < 2³¹.
const LENGTH: f32 = 46_000.0;
/// Largest code.
const LARGEST: f32 = 32_767.0;
/// Added and taken away, it rounds to an integer, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;
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
    /// no row is longer or lost more than `rows` says. `stride`: numbers a row.
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

/// Queries in fixed point, and room for the rows they are compared with.
pub(crate) struct FixedPoint {
    pairs: Pairs,
    /// Codes a row.
    width: usize,
    codes: Rows,
    queries: Vec<Coded>,
    scales: Vec<f32>,
    /// Codes of [`PANEL`] rows one after the other, and pair by pair: of each row its first two, of each its next two, …
    lines: Rows,
    panel: Rows,
    rows: Coded,
}

impl FixedPoint {
    /// Codes padded queries, `stride` numbers each, for a processor that has the instructions of `pairs`.
    pub(crate) fn new(pairs: Pairs, queries: &[f32], stride: usize) -> Self {
        let width = padded::<i16>(stride);
        let mut codes = Rows::with_rows(width * 2, queries.len() / stride);
        let code = |(query, codes): (&[f32], &mut [i16])| {
            // SAFETY: the processor has what `pairs` needs.
            let (largest, norm) = unsafe { (pairs.extent)(query) };
            let step = step(largest, norm);
            // SAFETY: as above.
            let lost = unsafe { (pairs.encode)(query, step, codes) };
            Coded { step, norm, lost: bound(lost, norm) }
        };
        let coded = queries.chunks_exact(stride).zip(codes.all_mut().chunks_exact_mut(width)).map(code);
        let queries: Vec<Coded> = coded.collect();
        Self {
            pairs,
            width,
            codes,
            scales: vec![0.0; queries.len()],
            queries,
            lines: Rows::with_rows(width * 2, PANEL),
            panel: Rows::with_rows(width * 2, PANEL),
            rows: Coded::default(),
        }
    }

    /// Scores of all queries with padded rows, a multiple of [`PANEL`] of them: `scores` holds a row for each query.
    pub(crate) fn scores(&mut self, rows: &[f32], stride: usize, scores: &mut [f32]) {
        let (count, width) = (rows.len() / stride, self.width);
        assert!(count.is_multiple_of(PANEL) && scores.len() == count * self.queries.len());
        assert!(padded::<i16>(stride) == width);
        for (panel, rows) in rows.chunks_exact(PANEL * stride).enumerate() {
            let step = self.pack(rows, stride);
            for (scale, query) in self.scales.iter_mut().zip(&self.queries) {
                *scale = query.step * step;
            }
            let (codes, pairs) = (self.codes.all::<i16>(), self.panel.all::<i16>());
            assert!(codes.len() == self.scales.len() * width && pairs.len() == PANEL * width);
            let place = &mut scores[panel * PANEL..];
            // SAFETY: `codes` are as many rows of `width` codes as there are scales, `pairs` is a panel of that width;
            // each query's scores begin `count` places after those of the query before, and `PANEL` places are there.
            // No sum of products of codes leaves 32 bits (see above). The processor has what `pairs` needs.
            unsafe {
                (self.pairs.products)(
                    pairs.as_ptr(),
                    codes.as_ptr(),
                    width,
                    &self.scales,
                    place.as_mut_ptr(),
                    count,
                );
            }
        }
    }

    /// Fills the panel with the codes of [`PANEL`] rows; returns their step.
    fn pack(&mut self, rows: &[f32], stride: usize) -> f32 {
        let (mut largest, mut norm) = (0.0f32, 0.0f32);
        for row in rows.chunks_exact(stride) {
            // SAFETY: the processor has what `pairs` needs.
            let (a, b) = unsafe { (self.pairs.extent)(row) };
            (largest, norm) = (largest.max(a), norm.max(b));
        }
        let step = step(largest, norm);
        let mut lost = 0.0f32;
        let lines = self.lines.all_mut::<i16>();
        for (row, codes) in rows.chunks_exact(stride).zip(lines.chunks_exact_mut(self.width)) {
            // SAFETY: as above.
            lost = lost.max(unsafe { (self.pairs.encode)(row, step, codes) });
        }
        // SAFETY: as above.
        unsafe { (self.pairs.interleave)(lines, self.panel.all_mut()) };
        self.rows.norm = self.rows.norm.max(norm);
        self.rows.lost = self.rows.lost.max(bound(lost, norm));
        step
    }

    /// Largest difference of a query's scores so far from those of the f32 kernels.
    pub(crate) fn error(&self, query: usize) -> f32 {
        self.queries[query].error(&self.rows, self.width)
    }
}
