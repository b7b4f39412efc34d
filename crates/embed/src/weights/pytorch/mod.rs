//! PyTorch's files: zip archives since version 1.6, and the stream of pickles before.

mod archive;
mod state_dict;
mod stream;
mod tensor_ref;

use std::collections::BTreeMap;

use self::state_dict::StateDict;
use self::tensor_ref::TensorRef;
use super::Contents;
use super::pickle::{Pickle, Value};

pub(super) use stream::is_stream;

/// Numbers that views may hold beyond four times those of their storages: a file cannot make more of itself.
const VIEWS: usize = 1 << 24;

/// Whether an archive is one of PyTorch's.
pub(super) fn is_archive<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(archive::is_pickle)
}

/// Reads a zip archive.
pub(super) fn read_archive(bytes: &[u8]) -> Result<Contents, String> {
    let mut archive = archive::Archive::open(bytes)?;
    let pickle = Pickle::read(&archive.pickle()?)?;
    let found = StateDict::find(&pickle)?;
    contents(found, &mut |key| archive.storage(key))
}

/// Reads a file from before version 1.6.
pub(super) fn read_stream(bytes: &[u8]) -> Result<Contents, String> {
    let stream = stream::Stream::open(bytes)?;
    let found = StateDict::find(&stream.pickle)?;
    contents(found, &mut |key| stream.storage(key).map(<[u8]>::to_vec))
}

/// What a pickle that is no checkpoint holds, in a few words.
pub(super) fn describe_pickle(bytes: &[u8]) -> Option<String> {
    let pickle = Pickle::read(bytes).ok()?;
    Some(match pickle.get(pickle.root) {
        Value::Dict(entries) => {
            let names = entries.iter().filter_map(|(key, _)| pickle.text(*key)).take(4);
            let names: Vec<String> = names.map(|name| name.chars().take(40).collect()).collect();
            format!("a dictionary of {} entries ({})", entries.len(), names.join(", "))
        }
        Value::Call(call) => {
            let (module, name) = pickle.global(call.callee)?;
            format!("an object of {}", format!("{module}.{name}").chars().take(80).collect::<String>())
        }
        Value::Tuple(items) | Value::List(items) => format!("a list of {} values", items.len()),
        _ => "a value".to_owned(),
    })
}

/// The tensors of a state dictionary, whose storages `read` gives by key. Each storage is read once, and let go after the
/// last tensor that lies in it.
fn contents(
    found: StateDict,
    read: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
) -> Result<Contents, String> {
    let StateDict { tensors, mut unreadable, arch } = found;
    let mut by_storage = BTreeMap::<String, Vec<(String, TensorRef)>>::new();
    for (name, tensor) in tensors {
        by_storage.entry(tensor.key.clone()).or_default().push((name, tensor));
    }
    let (mut tensors, mut held, mut made) = (BTreeMap::new(), 0usize, 0usize);
    for (key, parts) in by_storage {
        let storage = read(&key).map_err(|reason| format!("tensor {}: {reason}", parts[0].0))?;
        held = held.saturating_add(storage.len());
        for (name, TensorRef { number, view, .. }) in parts {
            let failed = |reason: String| format!("tensor {name}: {reason}");
            let count = view.checked_count(storage.len() / number.width()).map_err(failed)?;
            made = made.saturating_add(count.saturating_mul(number.width()));
            if made > held.saturating_mul(4).saturating_add(VIEWS) {
                return Err(failed(
                    "the tensors before and it take more than four times the file's numbers".to_owned(),
                ));
            }
            let tensor = number.tensor(&view.gather(&storage, number.width()), &view.shape);
            tensors.insert(name.clone(), tensor.map_err(|error| failed(error.to_string()))?);
        }
    }
    unreadable.retain(|name, _| !tensors.contains_key(name));
    Ok(Contents { tensors, unreadable, arch })
}

#[cfg(test)]
#[path = "pytorch_tests.rs"]
mod tests;
