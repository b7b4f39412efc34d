//! The catalogue beside an index: pictures that are not the index's to open, pictures that were moved, and checks where nothing
//! can be written.

mod foreign;
mod moved;
#[cfg(unix)]
mod unwritable;
