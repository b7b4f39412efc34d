//! The numbers the graph is walked with: f32, f16, or one byte with a scale for each vector.
//!
//! A vector x is kept as cᵢ = round(xᵢ / s) with s = max |xᵢ| / 127, so that x·q ≈ s·t·Σ cᵢ dᵢ for a query with scale t
//! and codes d. The bytes hold cᵢ + 128: Σ (cᵢ + 128) dᵢ − 128 Σ dᵢ is the sum wanted, and its second part is known
//! once for a query. Some processors multiply quicker with smaller codes in the query: then they are half as large, and
//! its scale twice.

use half::slice::HalfFloatSliceExt;

use crate::config::Codes;
use crate::kernel::{self, padded, prefetch, prefetch_floats};
use crate::rows::Rows;

/// Largest size of the codes that are stored.
const STORED_LIMIT: i8 = 127;
/// Dimension from which on f32 vectors are linked by their halves.
const HALVES_FROM: usize = 64;
/// 1.5 · 2²³: a number near it has no digits behind the point.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// A matrix of codes, borrowed from memory or a mapped file.
#[derive(Clone, Copy)]
pub(crate) struct CodeView<'a> {
    dim: usize,
    matrix: Matrix<'a>,
}

#[derive(Clone, Copy)]
enum Matrix<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    I8 { rows: &'a [u8], scales: &'a [f32] },
}

impl<'a> CodeView<'a> {
    pub(crate) fn f32(dim: usize, rows: &'a [f32]) -> Self {
        Self { dim, matrix: Matrix::F32(rows) }
    }

    pub(crate) fn f16(dim: usize, rows: &'a [u16]) -> Self {
        Self { dim, matrix: Matrix::F16(rows) }
    }

    pub(crate) fn i8(dim: usize, rows: &'a [u8], scales: &'a [f32]) -> Self {
        Self { dim, matrix: Matrix::I8 { rows, scales } }
    }

    /// Numbers a padded row.
    fn stride(&self) -> usize {
        match self.matrix {
            Matrix::F32(_) => padded::<f32>(self.dim),
            Matrix::F16(_) => padded::<u16>(self.dim),
            Matrix::I8 { .. } => padded::<u8>(self.dim),
        }
    }

    pub(crate) fn nodes(&self) -> usize {
        match self.matrix {
            Matrix::F32(rows) => rows.len() / self.stride(),
            Matrix::F16(rows) => rows.len() / self.stride(),
            Matrix::I8 { rows, scales } => (rows.len() / self.stride()).min(scales.len()),
        }
    }

    /// A query ready for these codes.
    pub(crate) fn query(&self, vector: &[f32]) -> Query<'a> {
        let mut query = self.blank_query();
        match query.view.matrix {
            Matrix::F32(_) | Matrix::F16(_) => query.floats.all_mut()[..self.dim].copy_from_slice(vector),
            Matrix::I8 { .. } => {
                let codes: &mut [i8] = query.bytes.all_mut();
                query.scale = quantize(vector, kernel::best().i8_limit, |at, code| codes[at] = code);
                query.offset = 128 * codes.iter().map(|&c| i32::from(c)).sum::<i32>();
            }
        }
        query
    }

    /// A query to be filled by [`Query::set_node`].
    pub(crate) fn blank_query(&self) -> Query<'a> {
        let stride = self.stride();
        let (floats, bytes) = match self.matrix {
            Matrix::F32(_) | Matrix::F16(_) => (Rows::with_rows(stride * 4, 1), Rows::new(0)),
            Matrix::I8 { .. } => (Rows::new(0), Rows::with_rows(stride, 1)),
        };
        Query {
            view: *self,
            stride,
            nodes: self.nodes() as u32,
            node: None,
            floats,
            bytes,
            scale: 1.0,
            offset: 0,
        }
    }
}

/// A query in the form its codes are scored with.
pub(crate) struct Query<'a> {
    view: CodeView<'a>,
    stride: usize,
    nodes: u32,
    /// The stored f32 row that is the query, in place of `floats`.
    node: Option<u32>,
    floats: Rows,
    bytes: Rows,
    scale: f32,
    offset: i32,
}

impl Query<'_> {
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
                // Sums of what is added to make the codes positive are taken off at the end: plain loops over bytes.
                let (mut sum, middle) = (0u32, if halved { 64 } else { 128 });
                for (code, &byte) in codes.iter_mut().zip(&rows[range]) {
                    let positive = if halved { ((u16::from(byte) + 1) >> 1) as u8 } else { byte };
                    *code = positive.wrapping_sub(middle) as i8;
                    sum += u32::from(positive);
                }
                let sum = sum as i32 - i32::from(middle) * self.stride as i32;
                self.scale = scales[node as usize] * if halved { 2.0 } else { 1.0 };
                self.offset = 128 * sum;
            }
        }
    }

    /// Scores of nodes, one for each. Panics for a node that is not there.
    #[inline]
    pub(crate) fn scores(&self, nodes: &[u32], scores: &mut Vec<f32>) {
        // Everything the kernels trust is checked here, once for all rows.
        assert!(nodes.iter().all(|&n| n < self.nodes), "a node has no codes");
        scores.clear();
        scores.resize(nodes.len(), 0.0);
        let kernels = kernel::best();
        match self.view.matrix {
            Matrix::F32(rows) => {
                let query: &[f32] = match self.node {
                    Some(node) => &rows[node as usize * self.stride..][..self.stride],
                    None => self.floats.all(),
                };
                // SAFETY: nodes are rows (above), the query is a padded row, `best` fits the processor.
                unsafe { (kernels.f32)(query.as_ptr(), rows.as_ptr(), self.stride, nodes, scores) }
            }
            Matrix::F16(rows) => {
                // SAFETY: as above.
                unsafe {
                    (kernels.f16)(
                        self.floats.all::<f32>().as_ptr(),
                        rows.as_ptr(),
                        self.stride,
                        nodes,
                        scores,
                    )
                }
            }
            Matrix::I8 { rows, scales } => {
                let sums: &mut [i32] = bytemuck::cast_slice_mut(scores);
                // SAFETY: as above.
                unsafe {
                    (kernels.i8)(self.bytes.all::<i8>().as_ptr(), rows.as_ptr(), self.stride, nodes, sums)
                }
                for (score, &node) in scores.iter_mut().zip(nodes) {
                    let sum = score.to_bits() as i32 - self.offset;
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

    /// Asks for a row ahead of its use.
    #[inline(always)]
    pub(crate) fn prefetch(&self, node: u32) {
        let at = node as usize * self.stride;
        match self.view.matrix {
            Matrix::F32(rows) => prefetch_floats(&rows[at..at + self.stride]),
            Matrix::F16(rows) => prefetch_floats(&rows[at..at + self.stride]),
            Matrix::I8 { rows, .. } => prefetch(rows.as_ptr().wrapping_add(at), self.stride),
        }
    }
}

/// Codes being made, in memory.
pub(crate) struct CodeBuffer {
    dim: usize,
    codes: Codes,
    rows: Rows,
    scales: Vec<f32>,
    line: Vec<u8>,
}

impl CodeBuffer {
    /// No codes yet. `codes` is one of the kinds with a width: `F32`, `F16` or `I8`.
    pub(crate) fn new(dim: usize, codes: Codes) -> Self {
        let bytes = row_bytes(dim, codes);
        Self { dim, codes, rows: Rows::new(bytes), scales: Vec::new(), line: vec![128; bytes] }
    }

    pub(crate) fn reserve(&mut self, nodes: usize) {
        self.rows.reserve(nodes);
        self.scales.reserve(nodes);
    }

    /// Adds a vector.
    pub(crate) fn push(&mut self, vector: &[f32]) {
        match self.codes {
            Codes::F32 => self.rows.push(vector),
            Codes::F16 => {
                self.rows.push(&<Vec<half::f16> as half::vec::HalfFloatVecExt>::from_f32_slice(vector));
            }
            Codes::I8 | Codes::Auto => {
                self.scales
                    .push(quantize(vector, STORED_LIMIT, |at, code| self.line[at] = code as u8 ^ 0x80));
                self.rows.push(&self.line);
            }
        }
    }

    /// Adds a row that another buffer or a file holds.
    pub(crate) fn push_raw(&mut self, row: &[u8], scale: Option<f32>) {
        self.rows.push(row);
        self.scales.extend(scale);
    }

    pub(crate) fn view(&self) -> CodeView<'_> {
        match self.codes {
            Codes::F32 => CodeView::f32(self.dim, self.rows.all()),
            Codes::F16 => CodeView::f16(self.dim, self.rows.all()),
            Codes::I8 | Codes::Auto => CodeView::i8(self.dim, self.rows.all(), &self.scales),
        }
    }

    /// Bytes of a node's row.
    pub(crate) fn row(&self, node: u32) -> &[u8] {
        let bytes = row_bytes(self.dim, self.codes);
        &self.rows.all::<u8>()[node as usize * bytes..(node as usize + 1) * bytes]
    }

    /// Scales of the nodes; empty but for `I8`.
    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }
}

/// The codes a graph is built over that is searched with `codes`. Building reads each vector thousands of times and is
/// done as quickly as memory hands them over: from f32, half the digits are enough to find who is near to whom.
pub(crate) fn built_over(codes: Codes, dim: usize) -> Codes {
    match codes.resolve(dim) {
        Codes::F32 if dim >= HALVES_FROM && kernel::best().has_f16 => Codes::F16,
        codes => codes,
    }
}

/// Bytes of a padded row of codes.
pub(crate) fn row_bytes(dim: usize, codes: Codes) -> usize {
    match codes {
        Codes::F32 => padded::<f32>(dim) * 4,
        Codes::F16 => padded::<u16>(dim) * 2,
        Codes::I8 | Codes::Auto => padded::<u8>(dim),
    }
}

/// Hands over the codes of a vector, none larger than `limit`, and returns its scale.
fn quantize(vector: &[f32], limit: i8, mut put: impl FnMut(usize, i8)) -> f32 {
    let largest = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let limit = f32::from(limit);
    let scale = largest / limit;
    let factor = if largest > 0.0 { limit / largest } else { 0.0 };
    for (at, x) in vector.iter().enumerate() {
        // Adding this rounds to an integer, which then stands in the low bits: quicker than asking for it.
        put(at, (x * factor + ROUND).to_bits() as i8);
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
