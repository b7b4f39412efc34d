//! What can go wrong in building, searching and measuring, with the culprit named.

use std::path::PathBuf;

use semblance_embed::EmbedError;
use semblance_embed::dataset::{Dataset, DatasetError};
use semblance_embed::extract::Failure;
use semblance_embed::transform::ImageError;
use semblance_index::IndexError;

/// `Result` with this crate's error.
pub type Result<T, E = QueryError> = std::result::Result<T, E>;

/// An error of the engine. Messages say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A K of zero, or none at all.
    #[error("K must be at least 1")]
    ZeroK,
    /// Nothing to search in.
    #[error("the gallery {gallery} holds no item")]
    EmptyGallery {
        /// The gallery's name.
        gallery: String,
    },
    /// Nothing to search with.
    #[error("{queries} holds no query")]
    NoQueries {
        /// The query set's name.
        queries: String,
    },
    /// Vectors, classes and ids of the queries do not belong together.
    #[error("{queries} queries of {dim} dimensions need {} numbers, got {numbers} (own ids: {ids:?})", queries * dim)]
    QueryShape {
        /// Queries by the number of classes.
        queries: usize,
        /// The index's dimension.
        dim: usize,
        /// Numbers given.
        numbers: usize,
        /// Ids given, if any.
        ids: Option<usize>,
    },
    /// Not one picture of a catalogue could be read.
    #[error("none of the {pictures} pictures of {data} could be read; the first: {first}")]
    NothingReadable {
        /// The catalogue.
        data: String,
        /// Pictures it lists.
        pictures: usize,
        /// The first one's file and fault.
        first: String,
    },
    /// The model an index was built with cannot be opened any more.
    #[error(
        "the model of the index at {}, {model}, cannot be opened: name the place where it is now",
        dir.display()
    )]
    ModelOfIndex {
        /// Folder of the index.
        dir: PathBuf,
        /// The model's name in the index.
        model: String,
        /// Why not.
        source: Box<EmbedError>,
    },
    /// An index that names something else than a file or folder as its model.
    #[error(
        "the model of the index at {}, {model}, is an empty file or no regular file: name the place where the model is",
        dir.display()
    )]
    ModelIsNoFile {
        /// Folder of the index.
        dir: PathBuf,
        /// The model's name in the index.
        model: String,
    },
    /// An index that does not say by what name its model was opened.
    #[error("the index at {} does not record where its model is: name the model", dir.display())]
    NoModelRecorded {
        /// Folder of the index.
        dir: PathBuf,
    },
    /// The folder of a catalogue's pictures cannot be opened.
    #[error("{}, the folder of the pictures, cannot be opened: {source}", path.display())]
    PictureFolder {
        /// The folder as it was named.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder that holds none of an index's pictures.
    #[error(
        "none of the index's {looked_for} pictures lies below {} (the first would be {}): name the folder that its keys are \
         relative to",
        root.display(), root.join(first).display()
    )]
    NoPictureBelow {
        /// The folder.
        root: PathBuf,
        /// Pictures looked for.
        looked_for: usize,
        /// The first item's key.
        first: String,
    },
    /// Vectors could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of metadata that cannot be understood.
    #[error("{}{}: {what}", path.display(), if *line > 0 { format!(", line {line}") } else { String::new() })]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 for the file as a whole.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// A file of metadata of which no row belongs to a picture.
    #[error(
        "{}: none of its {rows} rows belongs to a picture: the first is for {example:?}, but keys of this catalogue are like \
         {key_example:?}", path.display()
    )]
    MetadataUnmatched {
        /// The file.
        path: PathBuf,
        /// Its rows.
        rows: usize,
        /// The key of the first row.
        example: String,
        /// A key that the catalogue has.
        key_example: String,
    },
    /// A table that cannot be read.
    #[error(transparent)]
    Table(#[from] DatasetError),
    /// The place for new files is taken.
    #[error("{} is not empty: choose a new or an empty folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A new file's name is taken.
    #[error("{} exists already: choose another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A transform of vectors that cannot be learned or read.
    #[error("whitening: {reason}")]
    Whitening {
        /// What is wrong.
        reason: String,
    },
    /// More directions asked for than the vectors have.
    #[error(
        "whitening to {asked} numbers: the gallery's vectors span {spanned} directions, ask for 1 to {spanned}"
    )]
    TooFewDirections {
        /// Directions asked for.
        asked: usize,
        /// Directions there are.
        spanned: usize,
    },
    /// An index that was made from another is no source for a third.
    #[error("the index at {} is derived itself: derive from the one it was made from", dir.display())]
    AlreadyDerived {
        /// Its folder.
        dir: PathBuf,
    },
    /// A derived index in the place of its source.
    #[error("the index at {} cannot be replaced by one made from it: choose another name", dir.display())]
    DerivedOntoItself {
        /// Its folder.
        dir: PathBuf,
    },
    /// Deriving without saying what.
    #[error("nothing to derive: ask for whitening or augmentation")]
    NothingToDerive,
    /// Photographs that cancel each other out.
    #[error("the photographs have no common direction: search with each by itself")]
    NothingInCommon,
    /// A page or chart could not be made: a fault of this program.
    #[error("cannot render {what}: {reason}")]
    Render {
        /// The page or chart.
        what: String,
        /// What the renderer said.
        reason: String,
    },
    /// A file that is not an evaluation report.
    #[error("{} is no report of an evaluation: {reason}", path.display())]
    ReadReport {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two reports that cannot be compared.
    #[error(transparent)]
    Compare(#[from] crate::study::compare::CompareError),
    /// A box that is not within the photograph.
    #[error(transparent)]
    Crop(#[from] crate::answer::CropError),
    /// A picture could not be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The model failed.
    #[error(transparent)]
    Embed(Box<EmbedError>),
    /// The index failed, or was asked something it cannot do.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<EmbedError> for QueryError {
    fn from(error: EmbedError) -> Self {
        Self::Embed(Box::new(error))
    }
}

impl QueryError {
    pub(crate) fn nothing_readable(dataset: &Dataset, failures: &[Failure]) -> Self {
        let first = failures.first().map(|failure| format!("{}: {}", failure.path, failure.reason));
        let data = dataset.name.clone();
        Self::NothingReadable { data, pictures: dataset.len(), first: first.unwrap_or_default() }
    }
}
