//! A query in the form that codes are scored with, whole rows or in two parts.

use half::slice::HalfFloatSliceExt;

use crate::codes::aligned_matrix::Rows;
use crate::codes::kernel::{self, LINE, prefetch};
use crate::codes::quantize::{CodeView, Matrix, STORED_LIMIT, quantize};
use crate::hnsw::first_share::FirstShare;
use crate::hnsw::search::Scored;

/// Step of an f16 number in relation to its size, at most.
const F16_STEP: f32 = 1.0 / 1024.0;
/// Cache lines from which on a row is worth scoring in two parts.
const CUT_FROM: usize = 4;
/// Eighths of a row's lines that are the first part.
const FIRST_EIGHTHS: usize = 3;

impl<'a> CodeView<'a> {
    /// A query ready for these codes.
    pub(crate) fn query(&self, vector: &[f32]) -> Query<'a> {
        let mut query = self.blank_query();
        match query.view.matrix {
            Matrix::F32(_) | Matrix::F16(_) => query.floats.all_mut()[..self.dim].copy_from_slice(vector),
            Matrix::I8 { .. } => {
                let limit = kernel::best().i8_limit;
                query.scale = quantize(vector, limit, &mut query.bytes.all_mut()[..self.dim]);
                query.sum_up();
            }
        }
        query
    }

    /// A query to be filled by [`Query::set_node`].
    pub(crate) fn blank_query(&self) -> Query<'a> {
        let stride = self.stride();
        let bytes_a_number = match self.matrix {
            Matrix::F32(_) => 4,
            Matrix::F16(_) => 2,
            Matrix::I8 { .. } => 1,
        };
        let (floats, bytes) = match self.matrix {
            Matrix::F32(_) | Matrix::F16(_) => (Rows::with_rows(stride * 4, 1), Rows::new(0)),
            Matrix::I8 { .. } => (Rows::new(0), Rows::with_rows(stride, 1)),
        };
        let lines = stride * bytes_a_number / LINE;
        let cut = (lines >= CUT_FROM).then(|| lines * FIRST_EIGHTHS / 8 * (LINE / bytes_a_number));
        Query {
            view: *self,
            stride,
            cut,
            nodes: self.nodes() as u32,
            node: None,
            floats,
            bytes,
            scale: 1.0,
            offset: [0; 2],
        }
    }
}

/// A query in the form its codes are scored with.
pub(crate) struct Query<'a> {
    view: CodeView<'a>,
    stride: usize,
    cut: Option<usize>,
    nodes: u32,
    /// The stored f32 row that is the query, in place of `floats`.
    node: Option<u32>,
    floats: Rows,
    bytes: Rows,
    scale: f32,
    /// What the 128 added to the codes of rows add to the sums over the first part and over the rest.
    offset: [i32; 2],
}

/// Numbers of the rows: where they begin, how many, and what is to be taken off their sums.
#[derive(Clone, Copy)]
struct Part {
    from: usize,
    len: usize,
    offset: i32,
}

impl Query<'_> {
    /// A query of the same codes to be filled by [`Self::set_node`].
    pub(crate) fn blank(&self) -> Query<'_> {
        self.view.blank_query()
    }

    /// The length of the query, by its codes.
    pub(crate) fn norm(&self) -> f32 {
        let squared: f32 = match self.view.matrix {
            Matrix::I8 { .. } => {
                let sum: i32 = self.bytes.all::<i8>().iter().map(|&code| i32::from(code).pow(2)).sum();
                self.scale * self.scale * sum as f32
            }
            Matrix::F32(_) | Matrix::F16(_) => self.numbers().iter().map(|x| x * x).sum(),
        };
        squared.sqrt()
    }

    /// Makes a stored vector the query, by its codes.
    pub(crate) fn set_node(&mut self, node: u32) {
        let range = node as usize * self.stride..(node as usize + 1) * self.stride;
        match self.view.matrix {
            Matrix::F32(_) => {
                assert!(node < self.nodes, "a node has no codes");
                self.node = Some(node);
            }
            Matrix::F16(rows) => {
                bytemuck::cast_slice::<u16, half::f16>(&rows[range])
                    .convert_to_f32_slice(self.floats.all_mut());
            }
            Matrix::I8 { rows, scales } => {
                let codes: &mut [i8] = self.bytes.all_mut();
                let halved = kernel::best().i8_limit < STORED_LIMIT;
                let middle = if halved { 64 } else { 128 };
                for (code, &byte) in codes.iter_mut().zip(&rows[range]) {
                    let positive = if halved { ((u16::from(byte) + 1) >> 1) as u8 } else { byte };
                    *code = positive.wrapping_sub(middle) as i8;
                }
                self.scale = scales[node as usize] * if halved { 2.0 } else { 1.0 };
                self.sum_up();
            }
        }
    }

    /// Standard deviation of a score by codes from the score by vectors, for unit vectors whose codes are rounded
    /// independently of them; `nodes` are those scored.
    pub(crate) fn deviation(&self, nodes: &[Scored]) -> f32 {
        // Rounding to steps of s is off by s / √12 in the mean square.
        let uniform = 12f32.sqrt().recip();
        match self.view.matrix {
            // What summing in another order changes.
            Matrix::F32(_) => 4.0 * f32::EPSILON,
            Matrix::F16(_) => {
                let largest = self.floats.all::<f32>().iter().fold(0.0f32, |max, x| max.max(x.abs()));
                2.0 * F16_STEP * uniform * largest + 4.0 * f32::EPSILON
            }
            Matrix::I8 { scales, .. } => {
                let largest = nodes.iter().map(|s| scales[s.node as usize]).fold(0.0, f32::max);
                uniform * largest.hypot(self.scale)
            }
        }
    }

    /// Finds the offsets of the codes that are there now.
    fn sum_up(&mut self) {
        let sum = |codes: &[i8]| 128 * codes.iter().map(|&c| i32::from(c)).sum::<i32>();
        let (first, rest) = self.bytes.all().split_at(self.cut.unwrap_or(0));
        self.offset = [sum(first), sum(rest)];
    }

    /// Where rows are cut in two, in numbers; `None` if they are too short for it.
    pub(crate) fn cut(&self) -> Option<usize> {
        self.cut
    }

    /// The share that the numbers before [`Self::cut`] have in the query's squared length; `None` if rows are not cut.
    pub(crate) fn first_share(&self) -> Option<FirstShare> {
        let (cut, dim) = (self.cut?, self.view.dim);
        Some(match self.view.matrix {
            Matrix::I8 { .. } => {
                let codes = self.bytes.all::<i8>().iter();
                FirstShare::of(codes.map(|&code| self.scale * f32::from(code)), cut, dim)
            }
            Matrix::F32(_) | Matrix::F16(_) => FirstShare::of(self.numbers().iter().copied(), cut, dim),
        })
    }

    /// The query's numbers, if they are not bytes.
    #[inline]
    fn numbers(&self) -> &[f32] {
        match (self.view.matrix, self.node) {
            (Matrix::F32(rows), Some(node)) => &rows[node as usize * self.stride..][..self.stride],
            _ => self.floats.all(),
        }
    }

    /// Scores of nodes, one for each. Panics for a node that is not there.
    #[inline]
    pub(crate) fn scores(&self, nodes: &[u32], scores: &mut Vec<f32>) {
        scores.clear();
        scores.resize(nodes.len(), 0.0);
        let offset = self.offset[0] + self.offset[1];
        self.part(Part { from: 0, len: self.stride, offset }, nodes, scores);
    }

    /// What the numbers before [`Self::cut`] give to the scores of nodes. Panics for a node that is not there.
    #[inline]
    pub(crate) fn first_scores(&self, cut: usize, nodes: &[u32], scores: &mut Vec<f32>) {
        scores.clear();
        scores.resize(nodes.len(), 0.0);
        self.part(Part { from: 0, len: cut, offset: self.offset[0] }, nodes, scores);
    }

    /// The whole scores of nodes, given those of the first parts.
    #[inline]
    pub(crate) fn add_rest(&self, cut: usize, nodes: &[u32], first: &[f32], scores: &mut Vec<f32>) {
        scores.clear();
        scores.resize(nodes.len(), 0.0);
        self.part(Part { from: cut, len: self.stride - cut, offset: self.offset[1] }, nodes, scores);
        scores.iter_mut().zip(first).for_each(|(score, first)| *score += first);
    }

    #[inline]
    fn part(&self, part: Part, nodes: &[u32], scores: &mut [f32]) {
        // Everything the kernels trust is checked here, once for all rows.
        assert!(nodes.iter().all(|&n| n < self.nodes), "a node has no codes");
        assert!(part.from + part.len <= self.stride && nodes.len() == scores.len());
        let (kernels, stride, Part { from, len, .. }) = (kernel::best(), self.stride, part);
        match self.view.matrix {
            Matrix::F32(rows) => {
                let (query, rows) =
                    (self.numbers().as_ptr().wrapping_add(from), rows.as_ptr().wrapping_add(from));
                // SAFETY: nodes are rows and the part lies within them (above), the query is a padded row, `best` fits
                // the processor.
                unsafe { (kernels.f32)(query, rows, stride, len, nodes, scores) }
            }
            Matrix::F16(rows) => {
                let query = self.floats.all::<f32>().as_ptr().wrapping_add(from);
                // SAFETY: as above.
                unsafe { (kernels.f16)(query, rows.as_ptr().wrapping_add(from), stride, len, nodes, scores) }
            }
            Matrix::I8 { rows, scales } => {
                let sums: &mut [i32] = bytemuck::cast_slice_mut(scores);
                let query = self.bytes.all::<i8>().as_ptr().wrapping_add(from);
                // SAFETY: as above.
                unsafe { (kernels.i8)(query, rows.as_ptr().wrapping_add(from), stride, len, nodes, sums) }
                for (score, &node) in scores.iter_mut().zip(nodes) {
                    let sum = score.to_bits() as i32 - part.offset;
                    *score = self.scale * scales[node as usize] * sum as f32;
                }
            }
        }
    }

    /// Asks for what a row's score is multiplied with.
    #[inline(always)]
    pub(crate) fn prefetch_scale(&self, node: u32) {
        if let Matrix::I8 { scales, .. } = self.view.matrix {
            prefetch(scales.as_ptr().wrapping_add(node as usize), 1);
        }
    }

    /// Asks for a row, or its first part if it is cut, ahead of its use.
    #[inline(always)]
    pub(crate) fn prefetch(&self, node: u32) {
        self.prefetch_part(node, 0, self.cut.unwrap_or(self.stride));
    }

    /// Asks for what follows the first part of a row that is cut.
    #[inline(always)]
    pub(crate) fn prefetch_rest(&self, node: u32) {
        if let Some(cut) = self.cut {
            self.prefetch_part(node, cut, self.stride - cut);
        }
    }

    #[inline(always)]
    fn prefetch_part(&self, node: u32, from: usize, numbers: usize) {
        let (at, first) = (node as usize * self.stride + from, kernel::best().float_first);
        match self.view.matrix {
            Matrix::F32(rows) => prefetch(rows.as_ptr().wrapping_add(at), first.min(numbers * 4)),
            Matrix::F16(rows) => prefetch(rows.as_ptr().wrapping_add(at), first.min(numbers * 2)),
            Matrix::I8 { rows, .. } => prefetch(rows.as_ptr().wrapping_add(at), numbers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::quantize::CodeBuffer;
    use crate::config::Codes;
    use rand::{Rng, SeedableRng};

    fn unit(rng: &mut impl Rng, dim: usize) -> Vec<f32> {
        let v: Vec<f32> = (0..dim).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.into_iter().map(|x| x / norm).collect()
    }

    #[test]
    fn codes_score_like_the_vectors_they_stand_for() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for dim in [1, 2, 16, 63, 64, 65, 512, 4096] {
            let vectors: Vec<Vec<f32>> = (0..9).map(|_| unit(&mut rng, dim)).collect();
            let query = unit(&mut rng, dim);
            for (codes, tolerance) in [(Codes::F32, 1e-5), (Codes::F16, 2e-3), (Codes::I8, 2e-2)] {
                let mut buffer = CodeBuffer::new(dim, codes);
                vectors.iter().for_each(|v| buffer.push(v));
                assert_eq!(buffer.view().nodes(), 9);
                let mut scores = vec![];
                buffer.view().query(&query).scores(&[8, 0, 3], &mut scores);
                for (&node, score) in [8usize, 0, 3].iter().zip(&scores) {
                    let want: f32 = vectors[node].iter().zip(&query).map(|(a, b)| a * b).sum();
                    assert!((score - want).abs() < tolerance, "{codes:?} dim {dim}: {score} for {want}");
                }
            }
        }
    }

    #[test]
    fn a_stored_vector_as_query_scores_itself_highest() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        for codes in [Codes::F32, Codes::F16, Codes::I8] {
            let mut buffer = CodeBuffer::new(100, codes);
            (0..20).for_each(|_| buffer.push(&unit(&mut rng, 100)));
            let mut query = buffer.view().blank_query();
            let mut scores = vec![];
            for node in 0..20u32 {
                query.set_node(node);
                query.scores(&(0..20).collect::<Vec<_>>(), &mut scores);
                assert!((scores[node as usize] - 1.0).abs() < 0.02);
                assert!(scores.iter().enumerate().all(|(i, &s)| s < 0.9 || i == node as usize));
            }
        }
    }

    #[test]
    fn the_parts_of_a_row_add_up() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        for (dim, codes) in [(256, Codes::F32), (300, Codes::F16), (1000, Codes::I8)] {
            let mut buffer = CodeBuffer::new(dim, codes);
            (0..30).for_each(|_| buffer.push(&unit(&mut rng, dim)));
            let (mut whole, mut first, mut scores) = (vec![], vec![], vec![]);
            let nodes: Vec<u32> = (0..30).rev().collect();
            let (query, mut stored) =
                (buffer.view().query(&unit(&mut rng, dim)), buffer.view().blank_query());
            stored.set_node(7);
            for query in [query, stored] {
                let cut = query.cut().expect("long rows");
                query.scores(&nodes, &mut whole);
                query.first_scores(cut, &nodes, &mut first);
                query.add_rest(cut, &nodes, &first, &mut scores);
                for (whole, sum) in whole.iter().zip(&scores) {
                    assert!((whole - sum).abs() < 1e-5, "{codes:?}");
                }
                assert!(first.iter().zip(&scores).any(|(first, sum)| (first - sum).abs() > 1e-2));
            }
        }
        assert_eq!(CodeView::f32(16, &[0.0; 16]).blank_query().cut(), None);
    }
}
