//! What is searched and what is searched with.

use std::collections::HashMap;

use semblance_index::{Index, VectorIndex};

use crate::error::Result;

/// A searchable set and the classes of its items.
pub struct Gallery<'a> {
    pub(super) index: &'a dyn VectorIndex,
    pub(super) name: String,
    pub(super) model: String,
    class_of: HashMap<u64, u32>,
    numbers: HashMap<String, u32>,
    /// Items of each class.
    sizes: Vec<usize>,
}

/// The vectors to search with.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// What the report calls this set.
    pub name: &'a str,
    /// n × dim unit vectors, row after row.
    pub vectors: &'a [f32],
    /// The class of each query, if it has one.
    pub classes: &'a [Option<String>],
    /// Leave-one-out: the id each query has in the gallery. `None`: the queries are not of the gallery.
    pub own_ids: Option<&'a [u64]>,
}

impl<'a> Gallery<'a> {
    /// `items` gives id and class of the index's items; an item that is missing here counts as unlabelled. `name` and
    /// `model` (a fingerprint) go into the report as they are.
    pub fn new<C: AsRef<str>>(
        index: &'a dyn VectorIndex,
        items: impl IntoIterator<Item = (u64, Option<C>)>,
        name: impl Into<String>,
        model: impl Into<String>,
    ) -> Self {
        let (mut class_of, mut numbers, mut sizes) = (HashMap::new(), HashMap::new(), Vec::new());
        for (id, class) in items {
            let Some(class) = class else { continue };
            let number = match numbers.get(class.as_ref()) {
                Some(number) => *number,
                None => {
                    let number = sizes.len() as u32;
                    numbers.insert(class.as_ref().to_owned(), number);
                    sizes.push(0);
                    number
                }
            };
            sizes[number as usize] += 1;
            class_of.insert(id, number);
        }
        Self { index, name: name.into(), model: model.into(), class_of, numbers, sizes }
    }

    /// The items of an index on disk, under the name `name`.
    ///
    /// # Errors
    /// Failures of the index.
    pub fn of_index(index: &'a Index, name: impl Into<String>) -> Result<Self> {
        let items = index.items()?.into_iter().map(|item| (item.id, item.class));
        Ok(Self::new(index, items, name, &index.manifest().config.model))
    }

    /// The same items, searched otherwise.
    pub fn searched_by(self, index: &'a dyn VectorIndex) -> Self {
        Self { index, ..self }
    }

    /// What is searched.
    pub fn index(&self) -> &'a dyn VectorIndex {
        self.index
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.sizes.len()
    }

    /// Items without a class.
    pub fn unlabelled(&self) -> usize {
        self.index.len().saturating_sub(self.class_of.len())
    }

    /// The number of an item's class.
    pub(super) fn class_of(&self, id: u64) -> Option<u32> {
        self.class_of.get(&id).copied()
    }

    /// The number of a class and how many items it has, if the gallery has it.
    pub(super) fn class(&self, name: &str) -> Option<(u32, usize)> {
        self.numbers.get(name).map(|&number| (number, self.sizes[number as usize]))
    }
}

/// The items of an index as queries against itself.
#[derive(Debug, Default)]
pub struct OwnItems {
    /// Their vectors, row after row.
    pub vectors: Vec<f32>,
    /// Their classes.
    pub classes: Vec<Option<String>>,
    /// Their ids.
    pub ids: Vec<u64>,
}

impl OwnItems {
    /// Reads them all.
    ///
    /// # Errors
    /// Failures of the index.
    pub fn of(index: &Index) -> Result<Self> {
        let mut own = Self::default();
        own.vectors.reserve(index.len() * index.dim());
        index.for_each(|item, vector| {
            own.vectors.extend_from_slice(vector);
            own.classes.push(item.class);
            own.ids.push(item.id);
            Ok(())
        })?;
        Ok(own)
    }

    /// Them as queries: each against all others.
    pub fn queries<'a>(&'a self, name: &'a str) -> Queries<'a> {
        Queries { name, vectors: &self.vectors, classes: &self.classes, own_ids: Some(&self.ids) }
    }
}
