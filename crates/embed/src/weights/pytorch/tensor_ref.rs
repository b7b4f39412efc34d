//! Tensors as pickles describe them: a call that rebuilds a view of a storage.

use super::super::number::Number;
use super::super::pickle::{Pickle, Ref, Value};
use super::super::strided::View;

/// A tensor whose numbers lie in a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRef {
    /// Key of the storage.
    pub(super) key: String,
    /// Type of its numbers.
    pub(super) number: Number,
    /// Its place in the storage.
    pub(super) view: View,
}

/// What a value is, if it is a tensor at all.
pub(super) enum Found {
    Tensor(TensorRef),
    /// A tensor of a kind that is not read, and which.
    Unreadable(String),
}

/// A storage as a pickle names it.
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    /// The class that says what its numbers are.
    pub(super) class: &'a str,
    /// Where the part begins that is meant, in numbers; files before version 1.6 name parts.
    pub(super) offset: usize,
}

impl Storage<'_> {
    /// Bytes of one of its numbers.
    pub(super) fn width(&self) -> Option<usize> {
        match self.class {
            "UntypedStorage" | "QInt8Storage" | "QUInt8Storage" => Some(1),
            "QInt32Storage" => Some(4),
            "ComplexFloatStorage" => Some(8),
            "ComplexDoubleStorage" => Some(16),
            other => Number::of_pytorch(other).map(Number::width),
        }
    }
}

/// The storage that a persistent value stands for.
pub(super) fn storage(pickle: &Pickle, at: Ref) -> Option<Storage<'_>> {
    let Value::Persistent(id) = pickle.get(at) else { return None };
    let [kind, class, key, _location, _count, part @ ..] = pickle.sequence(*id)? else { return None };
    if pickle.text(*kind) != Some("storage") {
        return None;
    }
    let (_, class) = pickle.global(*class)?;
    let part = part.first().and_then(|part| pickle.sequence(*part));
    let offset = part.and_then(|part| pickle.index(*part.get(1)?)).unwrap_or(0);
    Some(Storage { key: pickle.text(*key)?, class, offset })
}

/// The tensor that a value is.
pub(super) fn find(pickle: &Pickle, mut at: Ref) -> Option<Found> {
    // Parameters and subclasses wrap a tensor, and hardly ever more than once.
    for _ in 0..8 {
        let (call, (module, name)) = pickle.call(at)?;
        let args = pickle.sequence(call.args)?;
        at = match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                return Some(rebuilt(pickle, args).unwrap_or_else(Found::Unreadable));
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | ("torch.nn.parameter", "Parameter" | "Buffer") => *args.first()?,
            ("torch._tensor", "_rebuild_from_type_v2") => {
                let [function, _class, args, ..] = args else { return None };
                return from_type(pickle, *function, *args);
            }
            (module, "_reconstruct") if module.starts_with("numpy") => {
                return Some(Found::Unreadable("it is a NumPy array".to_owned()));
            }
            (module, name) if module.starts_with("torch") && name.starts_with("_rebuild_") => {
                let kind = name.trim_start_matches("_rebuild_");
                return Some(Found::Unreadable(format!("it is of a kind that is not read ({kind})")));
            }
            _ => return None,
        };
    }
    None
}

/// A tensor of a subclass, rebuilt by a function and its arguments.
fn from_type(pickle: &Pickle, function: Ref, args: Ref) -> Option<Found> {
    let args = pickle.sequence(args)?;
    match pickle.global(function)? {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
            Some(rebuilt(pickle, args).unwrap_or_else(Found::Unreadable))
        }
        (_, name) => Some(Found::Unreadable(format!("it is of a kind that is not read ({name})"))),
    }
}

/// From storage, offset, shape, strides, and in the third version the type of the numbers in the seventh place.
fn rebuilt(pickle: &Pickle, args: &[Ref]) -> Result<Found, String> {
    let odd = || "its description is not one of PyTorch's".to_owned();
    let [stored, offset, shape, strides, rest @ ..] = args else { return Err(odd()) };
    let stored = storage(pickle, *stored).ok_or_else(odd)?;
    let sides = |at: Ref| -> Option<Vec<usize>> {
        // Shapes may be calls of torch.Size with a tuple.
        let at = match pickle.call(at) {
            Some((call, ("torch", "Size"))) => *pickle.sequence(call.args)?.first()?,
            _ => at,
        };
        pickle.sequence(at)?.iter().map(|side| pickle.index(*side)).collect()
    };
    // A storage without a type is used by the third version.
    let kind = rest.get(2).and_then(|dtype| pickle.global(*dtype)).map_or(stored.class, |(_, name)| name);
    let number = match Number::of_pytorch(kind) {
        None if kind == "UntypedStorage" => Number::U8,
        known => known.ok_or_else(|| format!("its numbers are of a type that is not read ({kind})"))?,
    };
    let offset = pickle.index(*offset).and_then(|at| at.checked_add(stored.offset)).ok_or_else(odd)?;
    let view =
        View { offset, shape: sides(*shape).ok_or_else(odd)?, strides: sides(*strides).ok_or_else(odd)? };
    Ok(Found::Tensor(TensorRef { key: stored.key.to_owned(), number, view }))
}
