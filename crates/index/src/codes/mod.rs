//! Vector encodings: f32, f16 and 8-bit codes, scoring a query against them, and rescoring by the vectors; bits of signs
//! that tell which rows are worth scoring.

pub(crate) mod aligned_matrix;
pub(crate) mod coded_query;
pub(crate) mod huge_pages;
pub(crate) mod kernel;
pub(crate) mod precision;
pub(crate) mod quantize;
pub(crate) mod rescore;
pub(crate) mod sign_bits;
