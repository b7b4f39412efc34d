//! Tensors of a file into the network they belong to: all of them, or none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use candle_core::{DType, Storage, Tensor};

use crate::error::{EmbedError, Result};
use crate::params::ParamStore;

/// Tensors a network needs that a file does not have as it needs them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Tensors the network has and the file lacks.
    pub missing: Vec<String>,
    /// Tensors whose shape differs: name, shape in the file, shape in the network.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors the file has in a form that is not read, and which.
    pub unreadable: Vec<(String, String)>,
    /// Tensors the file has and the network does not know.
    pub unexpected: Vec<String>,
    /// Tensors that hold NaN or infinity: name, how many of its values, how many it has.
    pub not_finite: Vec<(String, usize, usize)>,
}

impl Mismatch {
    /// Whether the network can have all its tensors from the file, which may hold others.
    fn fits(&self) -> bool {
        let Self { missing, misshapen, unreadable, not_finite, .. } = self;
        missing.is_empty() && misshapen.is_empty() && unreadable.is_empty() && not_finite.is_empty()
    }

    /// An error unless the network got all its tensors; the names of those that the file has beside them.
    ///
    /// # Errors
    /// [`EmbedError::NotFinite`] if NaN or infinity is all that is wrong, [`EmbedError::Weights`] otherwise.
    pub(crate) fn leftover(self, path: &Path, arch: &str) -> Result<Vec<String>> {
        if self.fits() {
            return Ok(self.unexpected);
        }
        let fits = Self { not_finite: Vec::new(), ..self.clone() }.fits();
        if fits {
            return Err(EmbedError::NotFinite { path: path.to_owned(), tensors: NotFinite(self.not_finite) });
        }
        Err(EmbedError::Weights { path: path.to_owned(), arch: arch.to_owned(), mismatch: Box::new(self) })
    }

    /// As [`leftover`](Self::leftover), where the file must have nothing else either.
    pub(crate) fn none_left(self, path: &Path, arch: &str) -> Result<()> {
        if self.fits() && !self.unexpected.is_empty() {
            return Err(EmbedError::Weights {
                path: path.to_owned(),
                arch: arch.to_owned(),
                mismatch: Box::new(self),
            });
        }
        self.leftover(path, arch).map(drop)
    }
}

/// The first of a list, and how many more there are.
fn list(items: &[String]) -> String {
    match items.len() {
        0 => "none".to_owned(),
        1..=8 => items.join(", "),
        more => format!("{} and {} more", items[..8].join(", "), more - 8),
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misshapen = self.misshapen.iter();
        let misshapen = misshapen.map(|(n, file, net)| format!("{n} is {file:?} but should be {net:?}"));
        let misshapen: Vec<_> = misshapen.collect();
        write!(f, "missing: {}; ", list(&self.missing))?;
        if !self.unreadable.is_empty() {
            let unreadable = self.unreadable.iter().map(|(name, reason)| format!("{name} ({reason})"));
            write!(f, "not readable: {}; ", list(&unreadable.collect::<Vec<_>>()))?;
        }
        write!(f, "misshapen: {}; unexpected: {}", list(&misshapen), list(&self.unexpected))
    }
}

/// Tensors that hold NaN or infinity: name, how many of its values, how many it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFinite(pub Vec<(String, usize, usize)>);

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensors = self.0.iter().map(|(name, bad, all)| format!("{name} ({bad} of {all} values)"));
        f.write_str(&list(&tensors.collect::<Vec<_>>()))
    }
}

/// Sets every tensor of `store` below `prefix` from `given`, which names them without the prefix; all of them
/// or, where one is missing, misshapen, of integers or not finite, none.
pub(crate) fn assign(store: &ParamStore, prefix: &str, given: &BTreeMap<String, Tensor>) -> Result<Mismatch> {
    let mut mismatch = Mismatch::default();
    let entries = store.entries(prefix);
    for (name, param) in &entries {
        let bare = &name[prefix.len()..];
        match given.get(bare) {
            None => mismatch.missing.push(bare.to_owned()),
            Some(t) if t.dims() != param.var.dims() => {
                mismatch.misshapen.push((bare.to_owned(), t.dims().to_vec(), param.var.dims().to_vec()));
            }
            Some(t) if !t.dtype().is_float() => {
                let reason = "it holds integers where floats are wanted, as quantised networks do";
                mismatch.unreadable.push((bare.to_owned(), reason.to_owned()));
            }
            Some(t) => match count_not_finite(t)? {
                0 => {}
                bad => mismatch.not_finite.push((bare.to_owned(), bad, t.elem_count())),
            },
        }
    }
    let known = |name: &&String| entries.iter().any(|(n, _)| n[prefix.len()..] == ***name);
    mismatch.unexpected = given.keys().filter(|name| !known(name)).cloned().collect();
    if mismatch.fits() {
        for (name, param) in &entries {
            let tensor = &given[&name[prefix.len()..]];
            param.var.set(&tensor.to_dtype(DType::F32)?.to_device(store.device())?)?;
        }
    }
    Ok(mismatch)
}

/// Values that are NaN or infinite as `f32`.
fn count_not_finite(tensor: &Tensor) -> Result<usize> {
    let tensor = tensor.to_dtype(DType::F32)?;
    let count = |values: &[f32]| values.iter().filter(|value| !value.is_finite()).count();
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
        return Ok(count(&storage.as_slice::<f32>()?[from..to]));
    }
    drop(storage);
    Ok(count(&tensor.flatten_all()?.to_vec1()?))
}
