//! An index made from another one: the same items with better vectors.

use std::path::Path;

use semblance_index::{Index, IndexConfig, IndexError, IndexWriter, Manifest, NewItem, Progress};

use crate::answer::Matrix;
use crate::answer::augment::{AugmentConfig, augmented};
use crate::error::{QueryError, Result};
use crate::evaluate::OwnItems;
use crate::pictures::seal;
use crate::whitening::{self, Whitening};

/// Attribute of a derived index: the folder of the one it was made from.
pub const DERIVED_FROM: &str = "derived_from";
/// Attribute of a derived index: how its vectors were augmented.
pub const AUGMENTED: &str = "augmented";
/// Items written at a time.
const BATCH: usize = 1024;

/// What is done to the vectors. By default nothing, which is an error to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeriveConfig {
    /// Whiten them, to so many numbers.
    pub whiten: Option<usize>,
    /// Draw each towards its neighbours, after whitening.
    pub augment: Option<AugmentConfig>,
    /// Replace an index that the folder holds, once the derived one is finished.
    pub replace: bool,
}

/// Makes a new index in the folder `dir` from `source`. Its attributes say how, so that queries and items added later are
/// transformed alike. What an interrupted call with the same source left in the folder is replaced.
///
/// # Errors
/// A source that is itself derived or is to be replaced, nothing to do, more directions than the vectors span, a folder
/// that holds another index, and failures of the indexes.
pub fn derive(
    source: &Index,
    dir: &Path,
    config: &DeriveConfig,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Manifest> {
    let manifest = source.manifest();
    let from = &manifest.config;
    if from.attributes.contains_key(DERIVED_FROM) {
        return Err(QueryError::AlreadyDerived { dir: source.dir().to_owned() });
    }
    if config.whiten.is_none() && config.augment.is_none() {
        return Err(QueryError::NothingToDerive);
    }
    if is_same_folder(source.dir(), dir) {
        return Err(QueryError::DerivedOntoItself { dir: source.dir().to_owned() });
    }
    let own = OwnItems::of(source)?;
    let mut derived = IndexConfig { ..from.clone() };
    let origin = std::path::absolute(source.dir()).unwrap_or_else(|_| source.dir().to_owned());
    derived.attributes.insert(DERIVED_FROM.to_owned(), origin.display().to_string());
    let mut vectors = own.vectors;
    if let Some(outputs) = config.whiten {
        let whitening = Whitening::learn(&vectors, from.dim, outputs)?;
        vectors = whitening.apply(&vectors);
        derived.dim = outputs;
        derived.model = whitening.fingerprint(&from.model);
        derived.attributes.insert(whitening::ATTRIBUTE.to_owned(), whitening.to_text());
    }
    if let Some(augment) = &config.augment {
        let matrix = Matrix::new(vectors, derived.dim, own.ids, own.classes)?;
        vectors = augmented(&matrix, augment)?;
        let told = format!("{} neighbours, alpha {}", augment.neighbours, augment.alpha);
        derived.attributes.insert(AUGMENTED.to_owned(), told);
    }
    // Where this user cannot keep a key, the derived index is as unsealed as any other that is built.
    let _ = seal::carry_over(&mut derived.attributes, source.dir(), dir);
    let writer = begin(dir, &derived, config.replace)?;
    let items: Vec<NewItem> = source
        .items()?
        .into_iter()
        .map(|item| NewItem {
            key: item.key,
            class: item.class,
            super_class: item.super_class,
            metadata: item.metadata,
        })
        .collect();
    for (items, rows) in items.chunks(BATCH).zip(vectors.chunks(BATCH * derived.dim)) {
        writer.upsert(items, rows)?;
    }
    let manifest = writer.finish(progress)?;
    writer.take_place()?;
    Ok(manifest)
}

/// Begins the derived index, in place of what an interrupted call for it left.
fn begin(dir: &Path, derived: &IndexConfig, replace: bool) -> Result<IndexWriter> {
    let begun = if replace { IndexWriter::replace(dir, derived) } else { IndexWriter::create(dir, derived) };
    match begun {
        Err(IndexError::AlreadyExists { finished: false, .. }) if is_left_over(dir, derived)? => {
            Ok(IndexWriter::replace(dir, derived)?)
        }
        begun => Ok(begun?),
    }
}

/// Whether the unfinished index in a folder was being made from the same source.
fn is_left_over(dir: &Path, derived: &IndexConfig) -> Result<bool> {
    let left = IndexWriter::open(dir)?;
    Ok(left.config().attributes.get(DERIVED_FROM) == derived.attributes.get(DERIVED_FROM))
}

fn is_same_folder(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
