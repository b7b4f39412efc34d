//! What can go wrong, with the numbers that say so and what to do about it.

use std::path::{Path, PathBuf};

/// Result of every fallible operation of this crate.
pub type Result<T, E = IndexError> = std::result::Result<T, E>;

/// An error of the index. The message names the culprit and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    // ---- the index as a whole -------------------------------------------------------------------------------
    /// The folder holds no index.
    #[error("no index at {}: build one first", dir.display())]
    Missing {
        /// Folder that was asked for.
        dir: PathBuf,
    },
    /// Building began and never finished.
    #[error(
        "the index at {} is unfinished (its manifest is missing): resume its building, or compact it to make searchable what it holds",
        dir.display()
    )]
    Unfinished {
        /// Folder of the index.
        dir: PathBuf,
    },
    /// A new index was to be created where one is.
    #[error(
        "{} already holds {} index: choose another place, or ask for it to be {}",
        dir.display(),
        if *finished { "a finished" } else { "an unfinished" },
        if *finished { "replaced" } else { "finished or replaced" }
    )]
    AlreadyExists {
        /// Folder of the index.
        dir: PathBuf,
        /// Whether its manifest is there.
        finished: bool,
    },
    /// The folder holds other files than an index.
    #[error("{} is not empty and holds no index: choose an empty or a new folder", dir.display())]
    NotAnIndex {
        /// Folder that was asked for.
        dir: PathBuf,
    },
    /// Written by a program that uses another format.
    #[error(
        "the index at {} has format version {found}, this program reads versions {oldest} to {newest}: use the program that wrote it to \
         export the index, then import it here",
        dir.display()
    )]
    FormatVersion {
        /// Folder of the index.
        dir: PathBuf,
        /// Version found there.
        found: u32,
        /// Oldest version this program reads.
        oldest: u32,
        /// Newest version this program reads, the one it writes.
        newest: u32,
    },
    /// The vectors were made by another model than the one that wants to search them.
    #[error(
        "the index at {} was built with model {index}, the given model is {given}: search with the model of the index, or build a new index",
        dir.display()
    )]
    WrongModel {
        /// Folder of the index.
        dir: PathBuf,
        /// Fingerprint kept in the manifest.
        index: String,
        /// Fingerprint of the model at hand.
        given: String,
    },
    /// The published files are there and the store is not.
    #[error(
        "the store of the index at {} is gone. Nothing can be written; what is published can be searched: export it, and import that \
         into a new index",
        dir.display()
    )]
    StoreMissing {
        /// Folder of the index.
        dir: PathBuf,
    },
    /// The folder of an open index is there no more, or another index lies in its place.
    #[error(
        "the folder of the index at {} was moved, removed or replaced while it was open. Nothing is written: put it back, or \
         open the index again where it is now",
        dir.display()
    )]
    Moved {
        /// Folder that the index was opened in.
        dir: PathBuf,
    },
    /// An index that cannot be replaced by another in one step.
    #[error(
        "the index at {} cannot be replaced: {why}. It stays as it is: build the new one under another name, or remove this one first",
        dir.display()
    )]
    CannotReplace {
        /// Folder of the index.
        dir: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Another writer is at work.
    #[error("the index at {} is being written by {holder}: wait till it ends (reading goes on meanwhile)", dir.display())]
    Locked {
        /// Folder of the index.
        dir: PathBuf,
        /// Who holds the lock, as far as known.
        holder: String,
    },
    /// A derived file is damaged; the store can restore it.
    #[error("{} is damaged ({what}): compact the index to restore it from the store", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What was noticed.
        what: String,
    },
    /// The store itself, the truth, is damaged.
    #[error("the store at {} is damaged ({what}): verify the index to see what is left, and export or rebuild it", path.display())]
    StoreDamaged {
        /// Folder of the store.
        path: PathBuf,
        /// What was noticed.
        what: String,
    },

    /// The store lost writes that are published, or is an older copy.
    #[error(
        "the store of the index at {} ends with write {stored}, but write {published} is published: it lost writes, or is an older copy. \
         Nothing is written. The published items are whole: export them, and import them into a new index",
        dir.display()
    )]
    StoreOlder {
        /// Folder of the index.
        dir: PathBuf,
        /// Number of the last write in the store.
        stored: u64,
        /// Number of the last write that is published.
        published: u64,
    },

    /// The store does not hold items that are published and that nobody deleted.
    #[error(
        "the store of the index at {} lost items: of {checked} published items looked for it lacks {missing}. Nothing is written. \
         The published items are whole: export them, and import them into a new index",
        dir.display()
    )]
    StoreIncomplete {
        /// Folder of the index.
        dir: PathBuf,
        /// Published items that were looked for.
        checked: u64,
        /// Those that are not in the store.
        missing: u64,
    },

    // ---- vectors, parameters and filters ----------------------------------------------------------------------
    /// A vector of another length than the index's.
    #[error("expected vectors of dimension {expected}, received {received}")]
    WrongDimension {
        /// Dimension of the index.
        expected: usize,
        /// Dimension received.
        received: usize,
    },
    /// The number of floats is not rows × dimension.
    #[error("{rows} vectors of dimension {dim} are {} numbers, received {received}", rows * dim)]
    WrongLength {
        /// Vectors announced.
        rows: usize,
        /// Dimension of the index.
        dim: usize,
        /// Numbers received.
        received: usize,
    },
    /// NaN or infinity in a vector.
    #[error("vector {row} has {value} at position {position}: vectors must be finite")]
    NotFinite {
        /// Which vector of the call.
        row: usize,
        /// Where in it.
        position: usize,
        /// The value.
        value: f32,
    },
    /// All zeros have no direction.
    #[error("vector {row} is zero: it has no direction to compare")]
    ZeroVector {
        /// Which vector of the call.
        row: usize,
    },
    /// A vector not of length one.
    #[error("vector {row} has norm {norm}, not 1: normalise vectors before they enter the index")]
    NotUnit {
        /// Which vector of the call.
        row: usize,
        /// Its Euclidean norm.
        norm: f32,
    },
    /// No neighbour at all was asked for.
    #[error("k is 0: ask for at least one neighbour")]
    ZeroK,
    /// The index has no such item.
    #[error("the index has no item with id {id}")]
    UnknownId {
        /// The id.
        id: u64,
    },
    /// A parameter out of its range.
    #[error("{name} = {value} is out of range: {expected}")]
    Parameter {
        /// Name of the parameter.
        name: &'static str,
        /// Value received.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The caller asked the search to stop.
    #[error("the search was cancelled")]
    Cancelled,
    /// A filter that cannot be understood or applied.
    #[error("the filter is not valid: {what}")]
    Filter {
        /// What is wrong with it.
        what: String,
    },
    /// An item that cannot be stored.
    #[error("item {key:?} cannot be stored: {what}")]
    Item {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file to be imported is not what it should be.
    #[error("{} cannot be imported: {what}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    // ---- the machine ------------------------------------------------------------------------------------------
    /// The disk is full.
    #[error("no space left on the disk while writing {}: free some and repeat, the index is as it was", path.display())]
    DiskFull {
        /// File being written.
        path: PathBuf,
    },
    /// Less room on the disk than writing is known to need.
    #[error(
        "the disk of {} has {} MB left and {} are needed: free some and repeat, the index is as it was",
        path.display(), free >> 20, needed.div_ceil(1 << 20)
    )]
    LittleRoom {
        /// Folder on that disk.
        path: PathBuf,
        /// Bytes left.
        free: u64,
        /// Bytes that must be.
        needed: u64,
    },
    /// The folder cannot be written.
    #[error("{} cannot be written: check its permissions and that the file system is not read-only", path.display())]
    ReadOnly {
        /// File or folder that refused.
        path: PathBuf,
    },
    /// A file or folder that this user may not read.
    #[error("{} cannot be read: this user has no permission to; change its permissions, or use an account that may", path.display())]
    Unreadable {
        /// File or folder that refused.
        path: PathBuf,
    },
    /// Any other failure of the file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A write failed, and it is not known whether it was kept.
    #[error("the write failed and may have been kept all the same: look before you repeat it ({source})")]
    Uncertain {
        /// What failed.
        source: Box<IndexError>,
    },
    /// Writes that were not durable yet are gone.
    #[error(
        "the disk of {} failed, and writes that were not durable yet are lost: repeat those since the last publication",
        dir.display()
    )]
    Lost {
        /// Folder of the index.
        dir: PathBuf,
    },
    /// A failure within the store.
    #[error("the store at {} failed: {what}", path.display())]
    Store {
        /// Folder of the store.
        path: PathBuf,
        /// What it said.
        what: String,
    },
}

impl IndexError {
    /// Names the file in an error of the file system, and tells a full disk and missing permissions apart.
    pub(crate) fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.as_ref().to_path_buf();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::DiskFull { path }
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::Io { path, source },
        }
    }

    /// As [`Self::io`], of a file that was only to be read.
    pub(crate) fn reading(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::PermissionDenied => Self::Unreadable { path: path.as_ref().to_path_buf() },
            _ => Self::io(path, source),
        }
    }

    pub(crate) fn damaged(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// True if the derived files are at fault and the store can restore them.
    pub fn is_rebuildable(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_read_only_folder_are_told_apart() {
        let full = IndexError::io("a/b", std::io::Error::from_raw_os_error(28));
        assert!(matches!(full, IndexError::DiskFull { .. }), "{full}");
        let denied = IndexError::io("a/b", std::io::Error::from_raw_os_error(13));
        assert!(matches!(denied, IndexError::ReadOnly { .. }), "{denied}");
        assert!(denied.to_string().starts_with("a/b cannot be written"));
        let unreadable = IndexError::reading("a/b", std::io::Error::from_raw_os_error(13));
        assert!(unreadable.to_string().starts_with("a/b cannot be read"), "{unreadable}");
    }
}
