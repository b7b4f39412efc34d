//! Codes: which of them a set of vectors needs.

pub(crate) mod precision;
