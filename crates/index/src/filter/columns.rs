//! Metadata by field instead of by item, so that a filter looks at numbers and not at records.
//!
//! A column has a dictionary of its distinct values, sorted: numbers, then strings, then everything else. A condition
//! becomes one run of the dictionary, found by bisection, plus those of the rest that meet it one by one.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;
use serde_json::Value;

use super::Field;
use super::matcher::{Bounds, Node, Test};
use super::value_kinds::Kinds;
use super::value_order::{compare, equal};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::item::Item;
use crate::segment::item_table::ItemTable;

/// Code of a row without a value.
pub(super) const MISSING: u32 = u32::MAX;
/// Records decoded at a time.
const PART: usize = 16_384;

/// One bit per row.
pub(crate) type Bits = Vec<u64>;

/// Metadata of all items of a table, by field.
pub(crate) struct Columns {
    pub(super) len: usize,
    pub(super) fields: HashMap<String, Column>,
}

/// The values of one field.
#[derive(Default)]
pub(super) struct Column {
    /// The distinct values: numbers, then strings, both in order, then everything else.
    pub(super) values: Vec<Value>,
    pub(super) numbers: usize,
    pub(super) strings: usize,
    /// Place in `values` of each row's value, or [`MISSING`].
    pub(super) codes: Vec<u32>,
}

/// Collects the columns of a table, item by item.
#[derive(Default)]
pub(crate) struct ColumnsBuilder {
    len: usize,
    fields: HashMap<String, Building>,
}

impl ColumnsBuilder {
    /// Adds the item of the next row.
    pub(crate) fn push(&mut self, item: Item) {
        let row = self.len;
        self.len += 1;
        let classes = [("class", item.class), ("super_class", item.super_class)];
        let classes = classes.into_iter().filter_map(|(name, c)| Some((name.to_string(), Value::String(c?))));
        let metadata = item.metadata.into_iter().map(|(name, v)| (format!("metadata.{name}"), v));
        for (name, value) in classes.chain(metadata) {
            self.fields.entry(name).or_default().put(row, value);
        }
    }

    pub(crate) fn finish(self) -> Columns {
        let len = self.len;
        Columns { len, fields: self.fields.into_iter().map(|(name, b)| (name, b.finish(len))).collect() }
    }
}

impl Columns {
    /// Reads every record once.
    pub(crate) fn read(items: &ItemTable, cancel: &Cancel) -> Result<Self> {
        let (len, mut builder) = (items.len(), ColumnsBuilder::default());
        for start in (0..len).step_by(PART) {
            cancel.check()?;
            let part = (start..len.min(start + PART)).into_par_iter().map(|row| items.item(row as u32));
            part.collect::<Result<Vec<Item>>>()?.into_iter().for_each(|item| builder.push(item));
        }
        Ok(builder.finish())
    }

    /// Rows whose items meet the filter. Looks at `cancel` between conditions, and within those that read records.
    pub(crate) fn matching(&self, filter: &Node<'_>, items: &ItemTable, cancel: &Cancel) -> Result<Bits> {
        let combine = |nodes: &[Node<'_>], start: u64, op: fn(&mut u64, u64)| {
            nodes.iter().try_fold(self.all(start), |mut bits, node| {
                let other = self.matching(node, items, cancel)?;
                bits.iter_mut().zip(other).for_each(|(a, b)| op(a, b));
                Ok(bits)
            })
        };
        cancel.check()?;
        match filter {
            Node::Not(inner) => {
                let mut bits = self.matching(inner, items, cancel)?;
                bits.iter_mut().zip(self.all(u64::MAX)).for_each(|(a, all)| *a = !*a & all);
                Ok(bits)
            }
            Node::And(nodes) => combine(nodes, u64::MAX, |a, b| *a &= b),
            Node::Or(nodes) => combine(nodes, 0, |a, b| *a |= b),
            Node::One(Field::Key, test) => self.by_key(test, items, cancel),
            Node::One(Field::Id, test) => Ok(self.by_id(test, items)),
            Node::One(Field::Class, test) => Ok(self.by_column("class", test)),
            Node::One(Field::SuperClass, test) => Ok(self.by_column("super_class", test)),
            Node::One(Field::Metadata(name), test) => Ok(self.by_column(&format!("metadata.{name}"), test)),
        }
    }

    /// Kinds of a field's values; `None` if no item has it.
    pub(crate) fn kinds(&self, name: &str) -> Option<Kinds> {
        let column = self.fields.get(name)?;
        Some(column.values.iter().fold(Kinds::default(), |kinds, value| kinds.with(value)))
    }

    /// Calls `count` with each value of a field and the number of rows that have it, of those that are `live`.
    pub(crate) fn tally(&self, name: &str, live: impl Fn(u32) -> bool, count: &mut dyn FnMut(&Value, usize)) {
        let Some(column) = self.fields.get(name) else { return };
        let mut rows = vec![0; column.values.len()];
        for (row, code) in (0..).zip(&column.codes) {
            if *code != MISSING && live(row) {
                rows[*code as usize] += 1;
            }
        }
        column.values.iter().zip(rows).for_each(|(value, rows)| count(value, rows));
    }

    /// Whether a value of a field passes a test.
    pub(crate) fn has(&self, name: &str, test: &Test<'_>) -> bool {
        self.fields.get(name).is_some_and(|column| column.values.iter().any(|value| test.accepts(value)))
    }

    /// Names of all fields, with `metadata.` before those of metadata.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    fn by_column(&self, name: &str, test: &Test<'_>) -> Bits {
        let Some(column) = self.fields.get(name) else { return self.all(0) };
        let (run, others) = column.accepted(test);
        let (low, width) = (run.start as u32, run.len() as u32);
        if others.is_empty() {
            // `MISSING` is in no run: it is beyond every dictionary.
            return self.rows(|row| column.codes[row].wrapping_sub(low) < width);
        }
        self.rows(|row| {
            let code = column.codes[row];
            code.wrapping_sub(low) < width || others.binary_search(&code).is_ok()
        })
    }

    fn by_id(&self, test: &Test<'_>, items: &ItemTable) -> Bits {
        let Test::OneOf(wanted) = test else {
            return self.rows(|row| test.accepts(&Value::from(items.ids()[row])));
        };
        // Notations of a float that is a whole number are ids, too.
        let ids = wanted.iter().filter_map(|value| {
            let float = value.as_f64().filter(|float| (0.0..2f64.powi(64)).contains(float));
            let id = value.as_u64().or(float.map(|float| float as u64))?;
            equal(value, &Value::from(id)).then_some(id)
        });
        let mut bits = self.all(0);
        ids.filter_map(|id| items.row(id)).for_each(|row| bits[row as usize / 64] |= 1 << (row % 64));
        bits
    }

    fn by_key(&self, test: &Test<'_>, items: &ItemTable, cancel: &Cancel) -> Result<Bits> {
        let Test::OneOf(wanted) = test else {
            // Bounds on keys are rare: the records are read.
            let word = |word: usize| {
                cancel.check()?;
                (word * 64..self.len.min(word * 64 + 64)).try_fold(0u64, |bits, row| {
                    let accepted = test.accepts(&Value::String(items.item(row as u32)?.key));
                    Ok(bits | u64::from(accepted) << (row % 64))
                })
            };
            return (0..self.len.div_ceil(64)).into_par_iter().map(word).collect();
        };
        let mut bits = self.all(0);
        for key in wanted.iter().filter_map(|value| value.as_str()) {
            if let Some(row) = items.find(key, |_| true)? {
                bits[row as usize / 64] |= 1 << (row % 64);
            }
        }
        Ok(bits)
    }

    fn all(&self, word: u64) -> Bits {
        let mut bits = vec![word; self.len.div_ceil(64)];
        if let (Some(last), 1..) = (bits.last_mut(), self.len % 64) {
            *last &= (1 << (self.len % 64)) - 1;
        }
        bits
    }

    fn rows(&self, accept: impl Fn(usize) -> bool + Sync) -> Bits {
        let word = |word: usize| {
            (word * 64..self.len.min(word * 64 + 64))
                .fold(0u64, |bits, row| bits | u64::from(accept(row)) << (row % 64))
        };
        if self.len < 1 << 17 {
            return (0..self.len.div_ceil(64)).map(word).collect();
        }
        (0..self.len.div_ceil(64)).into_par_iter().with_min_len(512).map(word).collect()
    }
}

impl Column {
    /// Dictionary places that pass a test: a run among the numbers or strings, and others, ascending.
    fn accepted(&self, test: &Test<'_>) -> (Range<usize>, Vec<u32>) {
        let (mut run, mut others) = (0..0, Vec::new());
        match test {
            Test::Within(bounds) => run = self.within(bounds),
            Test::Exists => run = 0..self.numbers + self.strings,
            Test::OneOf(wanted) => wanted.iter().for_each(|value| self.find(value, &mut others)),
        }
        let rest = self.numbers + self.strings..self.values.len();
        others.extend(rest.filter(|&at| test.accepts(&self.values[at])).map(|at| at as u32));
        others.sort_unstable();
        (run, others)
    }

    fn within(&self, bounds: &Bounds<'_>) -> Range<usize> {
        let section =
            if bounds.any().is_some_and(Value::is_string) { self.strings() } else { self.numbers() };
        let first = |not_before: &dyn Fn(&Value) -> bool| {
            section.start + self.values[section.clone()].partition_point(not_before)
        };
        let at_least = bounds.gte.map(|bound| first(&|v| compare(v, bound).is_lt()));
        let above = bounds.gt.map(|bound| first(&|v| compare(v, bound).is_le()));
        let below = bounds.lt.map(|bound| first(&|v| compare(v, bound).is_lt()));
        let at_most = bounds.lte.map(|bound| first(&|v| compare(v, bound).is_le()));
        let low = at_least.into_iter().chain(above).max().unwrap_or(section.start);
        let high = below.into_iter().chain(at_most).min().unwrap_or(section.end);
        low..high.max(low)
    }

    fn numbers(&self) -> Range<usize> {
        0..self.numbers
    }

    fn strings(&self) -> Range<usize> {
        self.numbers..self.numbers + self.strings
    }

    /// Adds the places of a number or string: one number can stand there in several notations.
    fn find(&self, value: &Value, places: &mut Vec<u32>) {
        let section = match value {
            Value::Number(_) => self.numbers(),
            Value::String(_) => self.strings(),
            _ => return,
        };
        let values = &self.values[section.clone()];
        let first = values.partition_point(|v| compare(v, value).is_lt());
        let same = values[first..].iter().take_while(|v| equal(v, value)).count();
        places.extend((section.start + first..section.start + first + same).map(|at| at as u32));
    }
}

#[derive(Default)]
struct Building {
    place: HashMap<String, u32>,
    values: Vec<Value>,
    codes: Vec<u32>,
}

impl Building {
    fn put(&mut self, row: usize, value: Value) {
        let next = self.values.len() as u32;
        let code = *self.place.entry(value.to_string()).or_insert(next);
        if code == next {
            self.values.push(value);
        }
        self.codes.resize(row, MISSING);
        self.codes.push(code);
    }

    fn finish(mut self, len: usize) -> Column {
        self.codes.resize(len, MISSING);
        let kind = |v: &Value| match v {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            _ => 2,
        };
        let mut order: Vec<u32> = (0..self.values.len() as u32).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (&self.values[a as usize], &self.values[b as usize]);
            kind(a).cmp(&kind(b)).then_with(|| compare(a, b))
        });
        let mut renamed = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, &old)| renamed[old as usize] = new as u32);
        self.codes.iter_mut().filter(|c| **c != MISSING).for_each(|code| *code = renamed[*code as usize]);
        let values: Vec<Value> =
            order.iter().map(|&old| std::mem::take(&mut self.values[old as usize])).collect();
        let count = |which: i32| values.iter().filter(|v| kind(v) == which).count();
        Column { numbers: count(0), strings: count(1), values, codes: self.codes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Filter;
    use crate::item::NewItem;
    use crate::segment::block_file::BlockFile;
    use crate::segment::item_table::ItemTableBuilder;
    use crate::store::codec::encode_item;
    use proptest::prelude::*;
    use serde_json::json;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            (-3i64..4).prop_map(Value::from),
            prop_oneof![
                Just(json!(1.0)),
                Just(json!(-0.5)),
                Just(json!(2.5)),
                Just(json!(18446744073709551615u64)),
                Just(json!(18446744073709551616.0)),
                Just(json!(9007199254740992.0)),
                Just(json!(9007199254740993u64)),
                Just(json!(9007199254740994i64))
            ],
            "[a-c]{0,2}".prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            Just(json!(["a", 1])),
            Just(json!({"x": 1})),
        ]
    }

    fn leaf() -> impl Strategy<Value = Filter> {
        let field =
            prop_oneof![Just("x"), Just("y"), Just("class"), Just("key"), Just("id"), Just("super_class")];
        let number = || proptest::option::of(-4i64..5);
        prop_oneof![
            (field.clone(), value()).prop_map(|(f, v)| Filter::eq(f, v)),
            (field.clone(), proptest::collection::vec(value(), 0..3)).prop_map(|(f, v)| Filter::any_of(f, v)),
            (field.clone(), number(), number(), -4i64..5).prop_map(|(f, gt, lte, lt)| Filter::Range {
                field: f.into(),
                gt: gt.map(Value::from),
                gte: None,
                lt: Some(lt.into()),
                lte: lte.map(Value::from),
            }),
            (field.clone(), "[a-c]{1,2}").prop_map(|(f, s)| Filter::Range {
                field: f.into(),
                gte: Some(s.into()),
                gt: None,
                lt: None,
                lte: None,
            }),
            field.prop_map(|f| Filter::Exists { field: f.into() }),
        ]
    }

    fn filter() -> impl Strategy<Value = Filter> {
        leaf().prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(Filter::not),
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
                proptest::collection::vec(inner, 0..3).prop_map(Filter::Or),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn columns_say_what_records_say(
            rows in proptest::collection::vec((proptest::option::of(value()), proptest::option::of(value()), proptest::option::of("[a-c]{1,2}")), 0..90),
            filters in proptest::collection::vec(filter(), 8),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut table = ItemTableBuilder::create(&dir.path().join("items")).unwrap();
            let mut items = vec![];
            for (i, (x, y, class)) in rows.into_iter().enumerate() {
                let mut item = NewItem { class, ..NewItem::new(format!("{}{i}", ["a", "b", "c"][i % 3])) };
                item.metadata.extend([("x".to_string(), x), ("y".to_string(), y)].into_iter().filter_map(|(k, v)| Some((k, v?))));
                table.push(i as u64 * 2, &encode_item(&item)).unwrap();
                items.push(item.with_id(i as u64 * 2));
            }
            let table = ItemTable::open(dir.path(), &table.finish(&vec![0; items.len()], 1).unwrap()).unwrap();
            let read = Columns::read(&table, &Cancel::default()).unwrap();
            let file = read.write(&dir.path().join("columns")).unwrap();
            let stored = Columns::open(&BlockFile::open(dir.path(), &file).unwrap(), items.len()).unwrap();
            for (filter, columns) in filters.iter().flat_map(|f| [(f, &read), (f, &stored)]) {
                let bits = columns.matching(&filter.matcher().0, &table, &Cancel::default()).unwrap();
                for (row, item) in items.iter().enumerate() {
                    prop_assert_eq!(bits[row / 64] >> (row % 64) & 1 == 1, filter.matches(item), "{:?} {:?}", filter, item);
                }
                prop_assert!(bits.iter().map(|b| b.count_ones() as usize).sum::<usize>() <= items.len());
            }
        }
    }
}
