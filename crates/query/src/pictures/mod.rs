//! The pictures that an index names: the one place that opens them, for searches, pages, reports and the server alike.
//!
//! Keys and attributes of an index are data that may come from anywhere, so nothing is opened because an index says so:
//!
//! - [`PictureFolder`] opens regular files below one folder, which neither `..`, an absolute path nor a symbolic link leaves;
//! - [`CataloguePictures`] opens the pictures of an index's items: those of its catalogue and those that were uploaded;
//! - [`seal`](mod@seal) tells whether this user recorded the catalogue's folder for the index where it lies now. Otherwise the
//!   caller must name the folder;
//! - [`PagePictures`] are the pictures that one page may show;
//! - [`move_root`](fn@move_root) records another folder for a catalogue that was moved.

mod catalogue;
mod folder;
mod move_root;
mod owner_key;
mod page;
pub mod seal;

pub use catalogue::{CataloguePictures, CatalogueRoot, Survey, is_upload_name, upload_name};
pub use folder::{NoPicture, Picture, PictureFolder};
pub use move_root::{MovedRoot, move_root};
pub use page::PagePictures;
pub use seal::SealError;
