//! Apache Parquet: one file with vectors and items, one row per item.
//!
//! Columns written: `id`, `key`, `class`, `super_class`, `metadata` (a JSON object as text) and `vector`, a list of
//! floats. Read are files of any program with `key` and `vector`; columns of other names become metadata.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::{Field, Row};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value};

use super::{BATCH, Store, bad};
use crate::error::{IndexError, Result};
use crate::item::{Item, NewItem};

const SCHEMA: &str = "message items {
    optional int64 id (INTEGER(64,false));
    required binary key (STRING);
    optional binary class (STRING);
    optional binary super_class (STRING);
    optional binary metadata (STRING);
    required group vector (LIST) { repeated group list { required float element; } }
}";
/// Bytes of vectors per row group.
const GROUP: usize = 16 << 20;

/// Rows on their way into a row group, by column.
#[derive(Default)]
struct Group {
    ids: Vec<Option<i64>>,
    keys: Vec<ByteArray>,
    texts: [Vec<Option<ByteArray>>; 3],
    vectors: Vec<f32>,
}

/// A file being written, a row at a time.
pub(super) struct Writer {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    group: Group,
    dim: usize,
    group_rows: usize,
}

impl Writer {
    pub(super) fn create(path: &Path, dim: usize) -> Result<Self> {
        let failed = |e: ParquetError| write_error(path, e);
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(failed)?);
        let element = ColumnPath::new(["vector", "list", "element"].map(String::from).to_vec());
        // Digits of vectors do not repeat: neither a dictionary nor compression makes them smaller.
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_column_dictionary_enabled(element.clone(), false)
            .set_column_compression(element, Compression::UNCOMPRESSED)
            .build();
        let file = File::create(path).map_err(|e| IndexError::io(path, e))?;
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(failed)?;
        let group_rows = (GROUP / (4 * dim)).clamp(256, 65_536);
        Ok(Self { path: path.into(), writer, group: Group::default(), dim, group_rows })
    }

    pub(super) fn write(&mut self, item: &Item, with_id: bool, vector: &[f32]) -> Result<()> {
        let group = &mut self.group;
        group.ids.push(with_id.then_some(item.id as i64));
        group.keys.push(item.key.as_str().into());
        let metadata = (!item.metadata.is_empty())
            .then(|| serde_json::to_string(&item.metadata).expect("metadata is plain data"));
        let texts = [item.class.as_deref(), item.super_class.as_deref(), metadata.as_deref()];
        for (column, text) in group.texts.iter_mut().zip(texts) {
            column.push(text.map(Into::into));
        }
        group.vectors.extend_from_slice(vector);
        if group.keys.len() == self.group_rows { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        group.write(&mut self.writer, self.dim).map_err(|e| write_error(&self.path, e))
    }

    /// Writes what is left and the footer, and syncs the file.
    pub(super) fn finish(mut self) -> Result<()> {
        if !self.group.keys.is_empty() {
            self.write_group()?;
        }
        let file = self.writer.into_inner().map_err(|e| write_error(&self.path, e))?;
        file.sync_all().map_err(|e| IndexError::io(&self.path, e))
    }
}

impl Group {
    fn write(self, writer: &mut SerializedFileWriter<File>, dim: usize) -> Result<(), ParquetError> {
        let mut group = writer.next_row_group()?;
        let present: Vec<i16> = self.ids.iter().map(|id| i16::from(id.is_some())).collect();
        let ids: Vec<i64> = self.ids.into_iter().flatten().collect();
        column::<Int64Type>(&mut group, &ids, Some(&present), None)?;
        column::<ByteArrayType>(&mut group, &self.keys, None, None)?;
        for texts in self.texts {
            let present: Vec<i16> = texts.iter().map(|t| i16::from(t.is_some())).collect();
            let texts: Vec<ByteArray> = texts.into_iter().flatten().collect();
            column::<ByteArrayType>(&mut group, &texts, Some(&present), None)?;
        }
        // Level 0 begins a list, level 1 goes on with it.
        let repeated: Vec<i16> = (0..self.vectors.len()).map(|i| i16::from(i % dim != 0)).collect();
        let present = vec![1; self.vectors.len()];
        column::<FloatType>(&mut group, &self.vectors, Some(&present), Some(&repeated))?;
        group.close().map(drop)
    }
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    present: Option<&[i16]>,
    repeated: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has as many columns as are written");
    column.typed::<T>().write_batch(values, present, repeated)?;
    column.close()
}

fn write_error(path: &Path, error: ParquetError) -> IndexError {
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => IndexError::io(path, *source),
            Err(source) => IndexError::io(path, std::io::Error::other(source)),
        },
        other => IndexError::io(path, std::io::Error::other(other)),
    }
}

/// Runs work on a file that may be damaged: the library panics on some kinds of damage.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let damaged = |_| Err(bad(path, "it is damaged".into()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(damaged)
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|e| IndexError::reading(path, e))?;
    guarded(path, || {
        SerializedFileReader::new(file).map_err(|e| bad(path, format!("it cannot be read as Parquet: {e}")))
    })
}

/// Number of rows, and the dimension of the vectors: that of the first row, if there is one.
pub(super) fn shape(path: &Path) -> Result<(u64, Option<usize>)> {
    let reader = open(path)?;
    let total = reader.metadata().file_metadata().num_rows().max(0) as u64;
    let dim = rows(&reader, path)?.next().transpose()?.map(|(_, vector)| vector.len());
    Ok((total, dim))
}

/// Calls `each` with the rows, so many at a time; returns how many there are.
pub(super) fn read(path: &Path, dim: usize, each: &mut Store<'_>) -> Result<u64> {
    let reader = open(path)?;
    let (mut items, mut vectors, mut done) = (vec![], vec![], 0);
    let mut rows = rows(&reader, path)?.peekable();
    while let Some(row) = rows.next() {
        let (item, vector) = row?;
        done += 1;
        if vector.len() != dim {
            let what = format!("row {done}: its vector has {} numbers, expected {dim}", vector.len());
            return Err(bad(path, what));
        }
        items.push(item);
        vectors.extend(vector);
        if items.len() == BATCH || rows.peek().is_none() {
            each(&items, &vectors)?;
            items.clear();
            vectors.clear();
        }
    }
    Ok(done)
}

type Rows<'a> = Box<dyn Iterator<Item = Result<(NewItem, Vec<f32>)>> + 'a>;

fn rows<'a>(reader: &'a SerializedFileReader<File>, path: &'a Path) -> Result<Rows<'a>> {
    let mut rows = guarded(path, || {
        reader.get_row_iter(None).map_err(|e| bad(path, format!("its columns cannot be read: {e}")))
    })?;
    let (mut number, mut broken) = (0u64, false);
    Ok(Box::new(std::iter::from_fn(move || {
        if broken {
            return None;
        }
        number += 1;
        let row =
            guarded(path, || rows.next().transpose().map_err(|e| bad(path, format!("row {number}: {e}"))));
        broken = row.is_err();
        let row = row.transpose()?;
        Some(row.and_then(|row| item(row).map_err(|what| bad(path, format!("row {number}: {what}")))))
    })))
}

fn item(row: Row) -> Result<(NewItem, Vec<f32>), String> {
    let (mut item, mut key, mut vector) = (NewItem::default(), None, None);
    let mut others = Map::new();
    for (name, field) in row.into_columns() {
        match (name.as_str(), field) {
            ("id", _) => {} // ids are assigned by the index
            ("vector", field) => vector = Some(floats(&field)?),
            ("key", field) => key = text(field, "key")?,
            ("class", field) => item.class = text(field, "class")?,
            ("super_class", field) => item.super_class = text(field, "super_class")?,
            ("metadata", Field::Str(json)) => {
                item.metadata = serde_json::from_str(&json).map_err(|e| format!("its metadata: {e}"))?;
            }
            (_, Field::Null) => {}
            (_, field) => drop(others.insert(name, value(&field))),
        }
    }
    item.key = key.ok_or("it has no text in a column \"key\"")?;
    item.metadata.extend(others);
    Ok((item, vector.ok_or("the file has no column \"vector\"")?))
}

fn text(field: Field, name: &str) -> Result<Option<String>, String> {
    match field {
        Field::Null => Ok(None),
        Field::Str(text) => Ok(Some(text)),
        Field::Bytes(bytes) => String::from_utf8(bytes.data().to_vec())
            .map(Some)
            .map_err(|_| format!("its {name:?} is not text")),
        // Classes are often numbers.
        number @ (Field::Byte(_) | Field::Short(_) | Field::Int(_) | Field::Long(_) | Field::ULong(_)) => {
            Ok(Some(value(&number).to_string()))
        }
        other => Err(format!("its {name:?} is {other}, not text")),
    }
}

fn floats(field: &Field) -> Result<Vec<f32>, String> {
    let Field::ListInternal(list) = field else {
        return Err("its \"vector\" is no list of floats".into());
    };
    let float = |element: &Field| match *element {
        Field::Float(x) => Ok(x),
        Field::Double(x) => Ok(x as f32),
        Field::Float16(x) => Ok(x.to_f32()),
        _ => Err("its \"vector\" is no list of floats".into()),
    };
    list.elements().iter().map(float).collect()
}

/// A field as JSON; what JSON has no type for, such as a date, as text.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => (*x).into(),
        Field::Byte(x) => (*x).into(),
        Field::Short(x) => (*x).into(),
        Field::Int(x) => (*x).into(),
        Field::Long(x) => (*x).into(),
        Field::UByte(x) => (*x).into(),
        Field::UShort(x) => (*x).into(),
        Field::UInt(x) => (*x).into(),
        Field::ULong(x) => (*x).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(x) => x.as_str().into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Group(row) => {
            row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
        }
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    /// A table as other programs write it: rows of a vector `(c, s)` and columns of other names and types.
    fn foreign(path: &Path, rows: usize) {
        let schema = "message schema {
            optional int32 year; optional double price; optional boolean sold; optional int32 class;
            required binary key (UTF8);
            optional group vector (LIST) { repeated group list { optional double item; } }
        }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer =
            SerializedFileWriter::new(File::create(path).unwrap(), schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let present: Vec<i16> = (0..rows).map(|i| i16::from(i % 2 == 0)).collect();
        let half = rows.div_ceil(2);
        column::<parquet::data_type::Int32Type>(&mut group, &vec![1999; half], Some(&present), None).unwrap();
        column::<parquet::data_type::DoubleType>(&mut group, &vec![2.5; half], Some(&present), None).unwrap();
        column::<parquet::data_type::BoolType>(&mut group, &vec![true; half], Some(&present), None).unwrap();
        column::<parquet::data_type::Int32Type>(&mut group, &vec![7; half], Some(&present), None).unwrap();
        let keys: Vec<ByteArray> = (0..rows).map(|i| format!("k{i}").as_str().into()).collect();
        column::<ByteArrayType>(&mut group, &keys, None, None).unwrap();
        let numbers: Vec<f64> = (0..rows).flat_map(|i| [(i as f64).cos(), (i as f64).sin()]).collect();
        let repeated: Vec<i16> = (0..2 * rows).map(|i| (i % 2) as i16).collect();
        column::<parquet::data_type::DoubleType>(
            &mut group,
            &numbers,
            Some(&vec![3; 2 * rows]),
            Some(&repeated),
        )
        .unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    fn items(path: &Path) -> Result<Vec<NewItem>> {
        let mut found = vec![];
        let dim = shape(path)?.1.unwrap_or(2);
        read(path, dim, &mut |items, _| {
            found.extend_from_slice(items);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn tables_of_other_programs_are_read_and_their_columns_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.parquet");
        foreign(&path, 5);
        assert_eq!(shape(&path).unwrap(), (5, Some(2)));
        let found = items(&path).unwrap();
        assert_eq!(found.len(), 5);
        let whole = found[2].clone();
        assert_eq!((whole.key.as_str(), whole.class.as_deref()), ("k2", Some("7")));
        assert_eq!(
            Value::Object(whole.metadata),
            serde_json::json!({"year": 1999, "price": 2.5, "sold": true})
        );
        let bare = &found[1];
        assert!(bare.class.is_none() && bare.metadata.is_empty());
    }

    #[test]
    fn damaged_tables_are_errors_and_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.parquet");
        foreign(&path, 20);
        let good = std::fs::read(&path).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut refused = 0;
        for i in 0..400 {
            let mut bad = good.clone();
            let at = rng.random_range(0..bad.len());
            match i % 4 {
                0 => bad.truncate(at),
                _ => bad[at] ^= 1 << rng.random_range(0..8),
            }
            std::fs::write(&path, bad).unwrap();
            refused += usize::from(items(&path).is_err());
        }
        assert!(refused > 200, "{refused}");
        let text = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            items(&path).unwrap_err().to_string()
        };
        assert!(text(b"PAR1").contains("cannot be read as Parquet"));
    }
}
