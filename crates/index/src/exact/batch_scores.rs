//! Scores of a block of queries with blocks of rows by matrix products, and how far they can be from the kernels'.

use std::ops::Range;

use crate::codes::kernel::{self, PANEL, dot_f32};
use crate::exact::fixed_point::{EPSILON, FixedPoint};

/// Queries from which on coding the rows in 16 bits takes less than it saves.
const PAIRS_FROM: usize = 32;

/// The way the products of one block of queries are computed.
pub(crate) enum Products<'a> {
    /// In 16-bit fixed point.
    Pairs(Box<FixedPoint>),
    /// In f32.
    Floats(Floats<'a>),
}

/// Queries, the rows at hand, the norm of the longest row so far, and scores at work.
pub(crate) struct Floats<'a> {
    stride: usize,
    queries: &'a [f32],
    rows: &'a [f32],
    longest: f32,
    scores: Vec<f32>,
}

impl<'a> Products<'a> {
    /// The quicker way on this processor for these padded queries, `stride` numbers each, and so many rows at a time, a
    /// multiple of [`kernel::PANEL`].
    pub(crate) fn new(queries: &'a [f32], stride: usize, rows: usize) -> Self {
        match kernel::best().pairs {
            Some(pairs) if queries.len() / stride >= PAIRS_FROM => {
                Self::Pairs(Box::new(FixedPoint::new(pairs, queries, stride, rows)))
            }
            _ => Self::floats(queries, stride),
        }
    }

    fn floats(queries: &'a [f32], stride: usize) -> Self {
        Self::Floats(Floats { stride, queries, rows: &[], longest: 0.0, scores: Vec::new() })
    }

    /// Takes the padded rows that queries are to be compared with next.
    pub(crate) fn load(&mut self, rows: &'a [f32], stride: usize) {
        match self {
            Self::Pairs(fixed) => fixed.load(rows, stride),
            Self::Floats(floats) => {
                floats.rows = rows;
                floats.longest = rows.chunks_exact(stride).map(norm).fold(floats.longest, f32::max);
            }
        }
    }

    /// Compares some of the queries, the first of them a multiple of [`kernel::TILE`], with the rows loaded last: calls
    /// `reached` with a query, the first of [`PANEL`] rows, a bit for each of them whose score is no less than the
    /// query's bar, and their scores.
    pub(crate) fn compare(
        &mut self,
        queries: Range<usize>,
        bars: &[f32],
        mut reached: impl FnMut(usize, usize, u32, &[f32]),
    ) {
        match self {
            Self::Pairs(fixed) => fixed.compare(queries, bars, reached),
            Self::Floats(Floats { stride, queries: all, rows, scores, .. }) => {
                let count = rows.len() / *stride;
                scores.resize(queries.len() * count, 0.0);
                multiply(&all[queries.start * *stride..queries.end * *stride], rows, *stride, scores);
                for (query, scores) in queries.zip(scores.chunks_exact(count)) {
                    for (at, scores) in scores.chunks_exact(PANEL).enumerate() {
                        let bit = |reach, lane: usize| reach | u32::from(scores[lane] >= bars[query]) << lane;
                        let reach = (0..PANEL).fold(0, bit);
                        if reach != 0 {
                            reached(query, at * PANEL, reach, scores);
                        }
                    }
                }
            }
        }
    }

    /// Largest difference between the scores so far of a query (the `at`-th) and those of the f32 kernels.
    pub(crate) fn error(&self, at: usize, query: &[f32]) -> f32 {
        match self {
            Self::Pairs(fixed) => fixed.error(at),
            // Two sums of so many products, in whatever order (Higham 2002, section 3.1).
            Self::Floats(floats) => (2 * query.len() + 64) as f32 * EPSILON * norm(query) * floats.longest,
        }
    }
}

fn norm(row: &[f32]) -> f32 {
    dot_f32(row, row).sqrt()
}

/// queries · rowsᵀ.
fn multiply(queries: &[f32], rows: &[f32], stride: usize, scores: &mut [f32]) {
    let (n, count) = (rows.len() / stride, queries.len() / stride);
    assert!(queries.len() == count * stride && rows.len() == n * stride && scores.len() == count * n);
    // Column-major product of (n × stride) and (stride × count): each query's scores lie side by side.
    // SAFETY: the three matrices have the asserted sizes, their strides describe them, and scores are borrowed alone.
    unsafe {
        gemm::gemm(
            n,
            count,
            stride,
            scores.as_mut_ptr(),
            n as isize,
            1,
            false,
            rows.as_ptr(),
            1,
            stride as isize,
            queries.as_ptr(),
            stride as isize,
            1,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::kernel::{TILE, available};
    use proptest::prelude::*;

    /// Rows of many kinds: of one large number, of tiny ones, of none but zeros.
    fn row() -> impl Strategy<Value = Vec<f32>> {
        let small = proptest::collection::vec(-1.0f32..1.0, 48);
        let kinds = (small, 0u8..5, 0usize..48, -12i32..12);
        kinds.prop_map(|(mut row, kind, at, power)| {
            match kind {
                0 => row.iter_mut().for_each(|x| *x *= 1e-3),
                1 => row.fill(0.0),
                _ => return row.iter().map(|x| x * 2f32.powi(power)).collect(),
            }
            row[at] = 2f32.powi(power);
            row
        })
    }

    proptest! {
        #[test]
        fn scores_are_as_near_to_the_kernels_as_they_say(
            rows in proptest::collection::vec(row(), 2 * PANEL),
            queries in proptest::collection::vec(row(), 1..20),
        ) {
            let (rows, flat) = (rows.concat(), queries.concat());
            let pairs = available().into_iter().filter_map(|set| set.pairs);
            let ways = pairs.map(|p| Products::Pairs(Box::new(FixedPoint::new(p, &flat, 48, 2 * PANEL))));
            for mut products in ways.chain([Products::floats(&flat, 48)]) {
                let mut scores = vec![f32::NAN; 2 * PANEL * queries.len()];
                products.load(&rows, 48);
                let half = queries.len() / 2 / TILE * TILE;
                let parts = [0..half, half..queries.len()];
                for part in parts.clone() {
                    products.compare(part, &vec![f32::NEG_INFINITY; queries.len()], |query, row, reach, found| {
                        assert_eq!(reach, 0xffff);
                        scores[query * 2 * PANEL + row..][..PANEL].copy_from_slice(found);
                    });
                }
                // A bar is reached by the scores that are no lower.
                let bars: Vec<f32> = scores.chunks(2 * PANEL).map(|scores| scores[7]).collect();
                let mut reached = vec![false; scores.len()];
                for part in parts {
                    products.compare(part, &bars, |query, row, reach, _| {
                        let places = reached[query * 2 * PANEL + row..][..PANEL].iter_mut();
                        places.enumerate().for_each(|(lane, place)| *place = reach >> lane & 1 == 1);
                    });
                }
                let wanted = scores.iter().enumerate().map(|(at, score)| *score >= bars[at / (2 * PANEL)]);
                prop_assert!(reached.into_iter().eq(wanted));
                for (at, (query, scores)) in queries.iter().zip(scores.chunks(2 * PANEL)).enumerate() {
                    let error = products.error(at, query);
                    for (row, score) in rows.chunks(48).zip(scores) {
                        let exact: f64 = query.iter().zip(row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                        prop_assert!((score - dot_f32(query, row)).abs() <= error, "{score} for {exact}, ± {error}");
                        prop_assert!((f64::from(*score) - exact).abs() <= f64::from(error));
                    }
                }
            }
        }
    }
}
