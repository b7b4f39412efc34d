//! The format of PyTorch before version 1.6: pickles of a magic number, a version, the machine, what was saved and the
//! storages' keys, then each storage with its length.

use std::collections::HashMap;
use std::ops::Range;

use super::super::pickle::{Pickle, Value};
use super::tensor_ref;

/// What the first pickle holds.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The only version there has been.
const VERSION: i128 = 1001;

/// A file whose pickles are read.
pub(super) struct Stream<'a> {
    bytes: &'a [u8],
    /// What was saved.
    pub(super) pickle: Pickle,
    /// Where each storage's numbers lie.
    storages: HashMap<String, Range<usize>>,
}

/// Whether a file begins with the magic number.
pub(in crate::weights) fn is_stream(bytes: &[u8]) -> bool {
    // The whole pickle of the number takes some 15 bytes.
    let start = &bytes[..bytes.len().min(64)];
    Pickle::read(start).is_ok_and(|pickle| *pickle.get(pickle.root) == Value::Int(MAGIC))
}

impl<'a> Stream<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let mut at = 0;
        let mut next = || -> Result<Pickle, String> {
            let pickle = Pickle::read(&bytes[at..])?;
            at += pickle.length;
            Ok(pickle)
        };
        let (_magic, version, _machine) = (next()?, next()?, next()?);
        if *version.get(version.root) != Value::Int(VERSION) {
            return Err(
                "it is of an unknown version of PyTorch's old format; save it again with a newer one"
                    .to_owned(),
            );
        }
        let (pickle, keys) = (next()?, next()?);
        let widths = widths(&pickle);
        let keys = keys.sequence(keys.root).into_iter().flatten().map(|key| keys.text(*key));
        let mut storages = HashMap::new();
        for key in keys {
            let key = key.ok_or("one of its storages has no name")?;
            let cut = || format!("storage {key} is cut short; download or copy the file again");
            let count = bytes.get(at..at + 8).ok_or_else(cut)?;
            let count = u64::from_le_bytes(count.try_into().map_err(|_| cut())?);
            let width = widths.get(key).ok_or_else(|| format!("nothing says what storage {key} holds"))?;
            let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(*width));
            let end = length.and_then(|length| length.checked_add(at + 8)).filter(|end| *end <= bytes.len());
            let end = end.ok_or_else(cut)?;
            storages.insert(key.to_owned(), at + 8..end);
            at = end;
        }
        Ok(Self { bytes, pickle, storages })
    }

    /// The bytes of a storage.
    pub(super) fn storage(&self, key: &str) -> Result<&'a [u8], String> {
        let range = self.storages.get(key).ok_or_else(|| format!("the file has no storage {key}"))?;
        Ok(&self.bytes[range.clone()])
    }
}

/// Bytes of a number of each storage that a pickle names.
fn widths(pickle: &Pickle) -> HashMap<String, usize> {
    let storages = pickle.refs().filter_map(|at| tensor_ref::storage(pickle, at));
    storages.filter_map(|storage| Some((storage.key.to_owned(), storage.width()?))).collect()
}
