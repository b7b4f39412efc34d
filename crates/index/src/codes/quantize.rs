//! The vector encoding used during graph search: f32, f16, or one byte per value with a scale per vector.
//!
//! A vector x is kept as cᵢ = round(xᵢ / s) with s = max |xᵢ| / 127, so that x·q ≈ s·t·Σ cᵢ dᵢ for a query with scale t
//! and codes d. The bytes hold cᵢ + 128: Σ (cᵢ + 128) dᵢ − 128 Σ dᵢ is the sum wanted, and its second part is known
//! once for a query. Some processors multiply quicker with smaller codes in the query: then they are half as large, and
//! its scale twice.

use half::slice::HalfFloatSliceExt;

use crate::codes::aligned_matrix::Rows;
use crate::codes::kernel::{self, padded};
use crate::config::Codes;

/// Largest size of the codes that are stored.
pub(crate) const STORED_LIMIT: i8 = 127;
/// Dimension from which on f32 vectors are linked by their halves.
const HALVES_FROM: usize = 64;
/// 1.5 · 2²³: a number near it has no digits behind the point.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// A matrix of codes, borrowed from memory or a mapped file.
#[derive(Clone, Copy)]
pub(crate) struct CodeView<'a> {
    pub(crate) dim: usize,
    pub(crate) matrix: Matrix<'a>,
}

/// Rows of numbers, padded to whole cache lines.
#[derive(Clone, Copy)]
pub(crate) enum Matrix<'a> {
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
    pub(crate) fn stride(&self) -> usize {
        match self.matrix {
            Matrix::F32(_) => padded::<f32>(self.dim),
            Matrix::F16(_) => padded::<u16>(self.dim),
            Matrix::I8 { .. } => padded::<u8>(self.dim),
        }
    }

    /// Writes the `dim` numbers that a node's codes stand for.
    pub(crate) fn decode(&self, node: u32, vector: &mut [f32]) {
        let (from, dim) = (node as usize * self.stride(), self.dim);
        match self.matrix {
            Matrix::F32(rows) => vector.copy_from_slice(&rows[from..from + dim]),
            Matrix::F16(rows) => {
                bytemuck::cast_slice::<u16, half::f16>(&rows[from..from + dim]).convert_to_f32_slice(vector)
            }
            Matrix::I8 { rows, scales } => {
                let scale = scales[node as usize];
                let number = |&byte: &u8| f32::from(i16::from(byte) - 128) * scale;
                vector.iter_mut().zip(&rows[from..from + dim]).for_each(|(x, byte)| *x = number(byte));
            }
        }
    }

    pub(crate) fn nodes(&self) -> usize {
        match self.matrix {
            Matrix::F32(rows) => rows.len() / self.stride(),
            Matrix::F16(rows) => rows.len() / self.stride(),
            Matrix::I8 { rows, scales } => (rows.len() / self.stride()).min(scales.len()),
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
                let line: &mut [i8] = bytemuck::cast_slice_mut(&mut self.line[..vector.len()]);
                self.scales.push(quantize(vector, STORED_LIMIT, line));
                line.iter_mut().for_each(|code| *code ^= i8::MIN);
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

/// Writes the codes of a vector, none larger than `limit`, and returns its scale.
pub(crate) fn quantize(vector: &[f32], limit: i8, codes: &mut [i8]) -> f32 {
    const LANES: usize = 16;
    // Side by side: one after the other each comparison would wait for the last.
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = vector.as_chunks::<LANES>();
    let larger = |lane: &mut f32, x: &f32| *lane = if x.abs() > *lane { x.abs() } else { *lane };
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| larger(lane, x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| larger(lane, x));
    let largest = lanes.into_iter().fold(0.0, f32::max);
    let limit = f32::from(limit);
    let factor = if largest > 0.0 { limit / largest } else { 0.0 };
    for (code, x) in codes.iter_mut().zip(vector) {
        // Adding this rounds to an integer, which then stands in the low bits: quicker than asking for it.
        *code = (x * factor + ROUND).to_bits() as i8;
    }
    largest / limit
}
