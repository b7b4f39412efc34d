//! Conditions that are allowed but can meet no item, or fewer than it seems: unknown fields, values of a kind that the
//! field never has or not always, and metadata behind an item's own field of the same name.

use serde_json::Value;
use strsim::damerau_levenshtein;

use super::matcher::{Matcher, Node, Test};
use super::value_kinds::Kinds;
use super::{Columns, Field, Filter, FilterWarning};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::item::Item;
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

impl Index {
    /// Why conditions of the filter can meet no item, or pass over items because of the kind of their values; at most
    /// eight reasons. Reads the metadata of all items if no
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
        if let Some(metadata) = self.shadowed(field, test) {
            return Some(FilterWarning::Shadowed { field: field.name().to_owned(), metadata });
        }
        let Some(kinds) = self.kinds(field) else {
            let (nearest, known) = self.help(field.name());
            return Some(FilterWarning::UnknownField { field: field.name().to_owned(), nearest, known });
        };
        let wanted = match test {
            Test::Exists => return None,
            Test::Within(bounds) => bounds.any().map(Kinds::of).unwrap_or_default(),
            Test::OneOf(values) => values.iter().fold(Kinds::default(), |kinds, v| kinds.and(Kinds::of(v))),
        };
        if wanted.is_empty() || kinds.is_empty() {
            return None;
        }
        if kinds.meets(wanted) {
            return match (field, test) {
                (Field::Metadata(name), Test::Within(_)) if !kinds.within(wanted) => {
                    self.passed_over(name, wanted)
                }
                _ => None,
            };
        }
        let (field, given, found) = (field.name().to_owned(), wanted.words(), kinds.words());
        Some(FilterWarning::OtherKind { field, given, found })
    }

    /// Values of metadata that are of none of the kinds.
    fn passed_over(&self, name: &str, wanted: Kinds) -> Option<FilterWarning> {
        let column = format!("metadata.{name}");
        let (mut values, mut skipped, mut example) = (0, 0, None);
        let mut count = |value: &Value, times: usize| {
            let kinds = Kinds::default().with(value);
            values += if kinds.is_empty() { 0 } else { times };
            if times > 0 && !kinds.is_empty() && !kinds.meets(wanted) {
                skipped += times;
                example.get_or_insert_with(|| shortened(value));
            }
        };
        for (segment, hidden) in self.state.snapshot.segments.iter().zip(&self.state.hidden) {
            if let Ok(columns) = segment.reader.columns(&Cancel::default()) {
                columns.tally(&column, |row| !hidden.contains(row), &mut count);
            }
        }
        self.recent().filter_map(|item| item.metadata.get(name)).for_each(|value| count(value, 1));
        let (field, given) = (name.to_owned(), wanted.words());
        Some(FilterWarning::PassedOver { field, given, skipped, values, example: example? })
    }

    /// The name of the metadata that a condition on an item's own field may mean: its values meet the condition, and the
    /// item's own do not.
    fn shadowed(&self, field: Field<'_>, test: &Test<'_>) -> Option<String> {
        let name = field.name();
        if matches!(field, Field::Metadata(_) | Field::Key) {
            return None;
        }
        let metadata = format!("metadata.{name}");
        let meant = self.columns().any(|columns| columns.has(&metadata, test))
            || self.recent().filter_map(|item| item.metadata.get(name)).any(|value| test.accepts(value));
        let own = |item: &Item| match field {
            Field::Id => test.accepts(&item.id.into()),
            Field::Class => item.class.as_deref().is_some_and(|class| test.accepts(&class.into())),
            _ => item.super_class.as_deref().is_some_and(|class| test.accepts(&class.into())),
        };
        let met = || match field {
            Field::Id => {
                let mut segments = self.state.snapshot.segments.iter();
                segments.any(|s| s.reader.items().ids().iter().any(|id| test.accepts(&(*id).into())))
            }
            _ => self.columns().any(|columns| columns.has(name, test)),
        };
        (meant && !self.recent().any(own) && !met()).then_some(metadata)
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

    fn recent(&self) -> impl Iterator<Item = &Item> {
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

/// A value as text, of long ones the beginning.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(COMPARED) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
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

    #[test]
    fn values_that_a_range_passes_over_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let writer = IndexWriter::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        let prices = [json!(20), json!("1.234,50"), json!(null), json!([1, "x"]), json!("1,5")];
        let items: Vec<_> =
            (0..).zip(prices).map(|(i, p)| item(&format!("{i}"), json!({"price": p}))).collect();
        writer.upsert(&items, &[0.6, 0.8].repeat(5)).unwrap();
        writer.finish(&|_| {}).unwrap();
        let index = writer.reader().unwrap();
        let told = |text: &str| {
            let warnings = index.filter_warnings(&text.parse::<Filter>().unwrap()).unwrap();
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let passed = |skipped: usize, values: usize, example: &str| {
            format!(
                "the filter compares \"price\" with numbers and passes over {skipped} of its {values} values that are \
                 none, such as {example}"
            )
        };
        assert_eq!(told("price > 100"), [passed(2, 4, "\"1,5\"")]);
        assert_eq!(told("not price > 100"), [passed(2, 4, "\"1,5\"")]);
        assert_eq!(told("price = 20"), [""; 0], "an equality says what it is equal to");
        // What was deleted or written since the publication counts as it is now.
        writer.delete_keys(&["4"]).unwrap();
        writer
            .upsert(
                &[item("6", json!({"price": true})), item("7", json!({"price": 7}))],
                &[0.6, 0.8, 1.0, 0.0],
            )
            .unwrap();
        assert_eq!(told("price > 100"), [passed(2, 5, "\"1.234,50\"")]);
        writer.delete_keys(&["1", "6"]).unwrap();
        assert_eq!(told("price > 100"), [""; 0]);
    }

    #[test]
    fn metadata_behind_a_field_of_the_item_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let writer = IndexWriter::create(dir.path(), &IndexConfig::new(2, "m")).unwrap();
        writer.upsert(&[item("other", json!({}))], &[0.0, 1.0]).unwrap();
        writer.finish(&|_| {}).unwrap();
        let mut shoe = item("a", json!({"class": "OTHER", "id": "A-7", "super_class": "wear"}));
        shoe.class = Some("shoe".into());
        for published in [false, true] {
            writer.upsert(std::slice::from_ref(&shoe), &[1.0, 0.0]).unwrap();
            if published {
                writer.finish(&|_| {}).unwrap();
            }
            let index = writer.reader().unwrap();
            let told = |text: &str| {
                let warnings = index.filter_warnings(&text.parse::<Filter>().unwrap()).unwrap();
                warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            for (filter, meant) in [
                ("class = OTHER", "metadata.class"),
                ("id = A-7", "metadata.id"),
                ("super_class = wear", "metadata.super_class"),
            ] {
                let told = told(filter);
                assert!(
                    told.len() == 1 && told[0].contains(&format!("write {meant:?}")),
                    "{filter}: {told:?}"
                );
            }
            for filter in ["class = shoe", "metadata.class = OTHER", "metadata.id = A-7"] {
                assert_eq!(told(filter), [""; 0], "{filter}");
                assert_eq!(
                    index.count(&filter.parse().unwrap(), &crate::Cancel::default()).unwrap(),
                    1,
                    "{filter}"
                );
            }
            assert_eq!(index.count(&Filter::eq("class", "OTHER"), &crate::Cancel::default()).unwrap(), 0);
        }
    }
}
