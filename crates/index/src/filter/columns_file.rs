//! Columns as a file, written with the segment whose items they describe.
//!
//! Layout: the codes of each column, aligned · the dictionaries as JSON · eight words (magic, rows, where the JSON starts,
//! its length).

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::columns::{Column, Columns, MISSING};
use crate::error::{IndexError, Result};
use crate::segment::block_file::{BlockFile, BlockWriter};
use crate::segment::manifest::{FileEntry, FileRole};

const MAGIC: u64 = u64::from_le_bytes(*b"SEMCOLS1");
const HEADER_WORDS: usize = 8;

/// One column of the file.
#[derive(Serialize, Deserialize)]
struct Dictionary {
    field: String,
    /// Byte of the file at which the codes start.
    codes_at: u64,
    numbers: usize,
    strings: usize,
    values: Vec<Value>,
}

impl Columns {
    /// Writes the columns, synced.
    pub(crate) fn write(&self, path: &Path) -> Result<FileEntry> {
        let mut file = BlockWriter::create(path)?;
        let mut fields: Vec<(&String, &Column)> = self.fields.iter().collect();
        fields.sort_by_key(|(field, _)| *field);
        let mut dictionaries = Vec::with_capacity(fields.len());
        for (field, column) in fields {
            dictionaries.push(Dictionary {
                field: field.clone(),
                codes_at: file.position(),
                numbers: column.numbers,
                strings: column.strings,
                values: column.values.clone(),
            });
            file.write_pod(&column.codes)?;
            file.align()?;
        }
        let json = serde_json::to_vec(&dictionaries).expect("JSON values can be written");
        let json_at = file.position();
        file.write(&json)?;
        file.align()?;
        file.write_pod(&[MAGIC, self.len as u64, json_at, json.len() as u64, 0, 0, 0, 0])?;
        file.finish(FileRole::Columns)
    }

    /// Reads the columns of a table with so many rows.
    pub(crate) fn open(file: &BlockFile, rows: usize) -> Result<Self> {
        file.check_all()?;
        let bad = |what: &str| IndexError::damaged(file.path(), what);
        let header_at = file.len().checked_sub(HEADER_WORDS * 8).ok_or_else(|| bad("it is too short"))?;
        let header = file.slice::<u64>(header_at, HEADER_WORDS)?;
        if header[0] != MAGIC || header[1] != rows as u64 {
            return Err(bad("its header is not right"));
        }
        let json: &[u8] = file.slice(header[2] as usize, header[3] as usize)?;
        let dictionaries: Vec<Dictionary> = serde_json::from_slice(json).map_err(|e| bad(&e.to_string()))?;
        let mut fields = HashMap::with_capacity(dictionaries.len());
        for Dictionary { field, codes_at, numbers, strings, values } in dictionaries {
            let codes: &[u32] = file.slice(codes_at as usize, rows)?;
            let is_known = |&code: &u32| code == MISSING || (code as usize) < values.len();
            if numbers.saturating_add(strings) > values.len() || !codes.iter().all(is_known) {
                return Err(bad("a value is out of range"));
            }
            fields.insert(field, Column { values, numbers, strings, codes: codes.to_vec() });
        }
        Ok(Self { len: rows, fields })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::filter::ColumnsBuilder;
    use crate::item::NewItem;

    #[test]
    fn values_come_back_to_the_last_bit_and_other_lengths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = ColumnsBuilder::default();
        let values =
            [json!(0.1 + 0.2), json!(5e-324), json!(1.7976931348623157e308), json!(u64::MAX), json!("a")];
        for (id, value) in values.iter().enumerate() {
            let mut item = NewItem::new("k");
            item.metadata.insert("x".into(), value.clone());
            builder.push(item.with_id(id as u64));
        }
        builder.push(NewItem::new("none").with_id(9));
        let columns = builder.finish();
        let entry = columns.write(&dir.path().join("columns")).unwrap();
        let file = BlockFile::open(dir.path(), &entry).unwrap();
        let read = Columns::open(&file, 6).unwrap();
        let (written, read) = (&columns.fields["metadata.x"], &read.fields["metadata.x"]);
        assert_eq!((&written.values, &written.codes), (&read.values, &read.codes));
        assert_eq!((read.numbers, read.strings, read.codes[5]), (4, 1, MISSING));
        assert!(Columns::open(&file, 5).is_err() && Columns::open(&file, 7).is_err());
    }
}
