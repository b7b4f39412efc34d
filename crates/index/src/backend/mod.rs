//! The traits through which callers search, whatever holds the vectors.

pub(crate) mod vector_index;
