//! Conditions that are allowed but can meet no item: unknown fields, and values of a kind that the field never has.

use std::fmt;

use strsim::damerau_levenshtein;

use super::matcher::{Matcher, Node, Test};
use super::value_kinds::Kinds;
use super::{Columns, Field, Filter};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::reader::Index;
use crate::segment::snapshot::Segment;

/// Most warnings about one filter.
const MOST: usize = 8;
/// Most names given as a help.
const NAMES: usize = 8;
/// Longest name that is compared with others, in bytes.
const COMPARED: usize = 64;
/// Metadata of names that begin with this is the program's own.
const OWN: &str = "semblance:";

/// Why a condition can meet no item of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterWarning {
    /// No item has the field.
    UnknownField {
        /// Its name as the filter has it.
        field: String,
        /// Fields of similar names, the most similar first.
        nearest: Vec<String>,
        /// Some of the fields that there are, if none has a similar name.
        known: Vec<String>,
    },
    /// The field has no value of the kind that the condition compares with.
    OtherKind {
        /// Name of the field as the filter has it.
        field: String,
        /// What the condition compares with.
        given: String,
        /// What the field has.
        found: String,
    },
}

impl fmt::Display for FilterWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>();
        match self {
            Self::UnknownField { field, nearest, known } => {
                write!(f, "no item has the field {field:?}")?;
                match (nearest.as_slice(), known.as_slice()) {
                    ([], []) => Ok(()),
                    ([], known) => write!(f, "; fields are {}", list(known).join(", ")),
                    (nearest, _) => write!(f, "; did you mean {}?", list(nearest).join(" or ")),
                }
            }
            Self::OtherKind { field, given, found } => {
                write!(f, "the filter compares {field:?} with {given}, but its values are {found}")
            }
        }
    }
}

impl Index {
    /// Why conditions of the filter can meet no item, at most eight reasons. Reads the metadata of all items if no
    /// filter was applied to this state of the index before.
    ///
    /// # Errors
    /// A filter that is not valid, and failures of reading.
    pub fn filter_warnings(&self, filter: &Filter) -> Result<Vec<FilterWarning>> {
        filter.validate()?;
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let fields = Fields::of(self)?;
        let (Matcher(root), mut warnings) = (filter.matcher(), Vec::new());
        fields.check(&root, &mut warnings);
        Ok(warnings)
    }
}

/// Fields of the published items by column, and of those written since one by one.
struct Fields {
    state: std::sync::Arc<crate::segment::state::State>,
}

impl Fields {
    fn of(index: &Index) -> Result<Self> {
        let state = index.state();
        let read = |segment: &Segment| segment.reader.columns(&Cancel::default()).map(drop);
        state.snapshot.segments.iter().try_for_each(read)?;
        Ok(Self { state })
    }

    fn columns(&self) -> impl Iterator<Item = &Columns> {
        let segments = self.state.snapshot.segments.iter();
        segments.filter_map(|segment| segment.reader.columns(&Cancel::default()).ok())
    }

    fn check(&self, node: &Node<'_>, warnings: &mut Vec<FilterWarning>) {
        match node {
            Node::Not(inner) => self.check(inner, warnings),
            Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|node| self.check(node, warnings)),
            Node::One(field, test) if warnings.len() < MOST => {
                let warning = self.warning(*field, test);
                warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
            }
            Node::One(..) => {}
        }
    }

    fn warning(&self, field: Field<'_>, test: &Test<'_>) -> Option<FilterWarning> {
        let Some(kinds) = self.kinds(field) else {
            let (nearest, known) = self.help(field.name());
            return Some(FilterWarning::UnknownField { field: field.name().to_owned(), nearest, known });
        };
        let wanted = match test {
            Test::Exists => return None,
            Test::Within(bounds) => bounds.any().map(Kinds::of).unwrap_or_default(),
            Test::OneOf(values) => values.iter().fold(Kinds::default(), |kinds, v| kinds.and(Kinds::of(v))),
        };
        if wanted.is_empty() || kinds.is_empty() || kinds.meets(wanted) {
            return None;
        }
        let (field, given, found) = (field.name().to_owned(), wanted.words(), kinds.words());
        Some(FilterWarning::OtherKind { field, given, found })
    }

    /// Kinds of a field's values; `None` if no item has it.
    fn kinds(&self, field: Field<'_>) -> Option<Kinds> {
        let text = || Some(Kinds::of(&"".into()));
        let published = |name: &str| {
            let kinds = self.columns().filter_map(|columns| columns.kinds(name));
            kinds.fold(None, |all: Option<Kinds>, kinds| Some(all.unwrap_or_default().and(kinds)))
        };
        match field {
            Field::Key => text(),
            Field::Id => Some(Kinds::of(&0.into())),
            Field::Class if self.recent().any(|item| item.class.is_some()) => text(),
            Field::Class => published("class"),
            Field::SuperClass if self.recent().any(|item| item.super_class.is_some()) => text(),
            Field::SuperClass => published("super_class"),
            Field::Metadata(name) => {
                let recent = self.recent().filter_map(|item| item.metadata.get(name));
                let recent = recent
                    .fold(None, |kinds: Option<Kinds>, value| Some(kinds.unwrap_or_default().with(value)));
                match (published(&format!("metadata.{name}")), recent) {
                    (Some(a), Some(b)) => Some(a.and(b)),
                    (a, b) => a.or(b),
                }
            }
        }
    }

    fn recent(&self) -> impl Iterator<Item = &crate::item::Item> {
        self.state.delta.items().map(|(item, _)| item)
    }

    /// Fields of similar names; if there is none, some of all.
    fn help(&self, wanted: &str) -> (Vec<String>, Vec<String>) {
        let published = self.columns().flat_map(Columns::names);
        let published = published.map(|name| name.strip_prefix("metadata.").unwrap_or(name));
        let recent = self.recent().flat_map(|item| item.metadata.keys().map(String::as_str));
        let mut names: Vec<&str> = published.chain(recent).chain(["key", "id"]).collect();
        names.retain(|name| !name.starts_with(OWN) && !name.is_empty());
        names.sort_unstable();
        names.dedup();
        let lower = wanted.to_lowercase();
        let mut similar: Vec<(usize, &str)> = names
            .iter()
            .filter(|name| name.len().max(wanted.len()) <= COMPARED)
            .map(|name| (damerau_levenshtein(&lower, &name.to_lowercase()), *name))
            .filter(|(distance, name)| *distance <= (name.len().min(wanted.len()) / 3).max(1))
            .collect();
        similar.sort_unstable();
        let nearest: Vec<String> = similar.into_iter().take(3).map(|(_, name)| name.to_owned()).collect();
        let shown = if nearest.is_empty() { NAMES } else { 0 };
        let known = names.into_iter().filter(|name| name.len() <= COMPARED).take(shown);
        (nearest, known.map(str::to_owned).collect())
    }
}

impl<'a> Field<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Key => "key",
            Self::Id => "id",
            Self::Class => "class",
            Self::SuperClass => "super_class",
            Self::Metadata(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Filter;
    use crate::IndexConfig;
    use crate::IndexWriter;
    use crate::NewItem;

    fn item(key: &str, metadata: serde_json::Value) -> NewItem {
        NewItem { metadata: metadata.as_object().unwrap().clone(), ..NewItem::new(key) }
    }

    #[test]
    fn fields_that_no_item_has_and_values_of_another_kind_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let writer = IndexWriter::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        let items = [
            item("a", json!({"price": 20, "brand": "Acme", "semblance:photo": "x", "none": null})),
            item("b", json!({"colours": ["red", 5]})),
        ];
        writer.upsert(&items, &[1.0, 0.0, 0.0, 1.0]).unwrap();
        writer.finish(&|_| {}).unwrap();
        let index = writer.reader().unwrap();
        let told = |text: &str| {
            let warnings = index.filter_warnings(&text.parse::<Filter>().unwrap()).unwrap();
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for fine in
            ["price < 30", "brand = Acme", "colours = red", "colours = 5", "key = a", "id = 7", "none"]
        {
            assert_eq!(told(fine), [""; 0], "{fine}");
        }
        assert_eq!(told("prise < 30"), [r#"no item has the field "prise"; did you mean "price"?"#]);
        assert_eq!(told("Price = 30"), [r#"no item has the field "Price"; did you mean "price"?"#]);
        assert_eq!(
            told("not weight"),
            [
                r#"no item has the field "weight"; fields are "brand", "colours", "id", "key", "none", "price""#
            ]
        );
        assert_eq!(told("class = shoe").len(), 1);
        assert_eq!(
            told("price = cheap"),
            [r#"the filter compares "price" with text, but its values are numbers"#]
        );
        assert_eq!(told("brand > 5").len(), 1);
        // What was written since the publication counts.
        writer.upsert(&[item("c", json!({"weight": "light", "price": "?"}))], &[0.6, 0.8]).unwrap();
        assert_eq!(told("not weight"), [""; 0]);
        assert_eq!(told("price = cheap"), [""; 0]);
        let many = (0..100).map(|i| Filter::eq(format!("f{i}"), 1)).collect();
        assert_eq!(index.filter_warnings(&Filter::Or(many)).unwrap().len(), super::MOST);
    }
}
