//! JPEG.

mod reduced;

pub(super) use reduced::jpeg as reduced;
