//! Weight files of others: safetensors and PyTorch's, in torchvision's, timm's and Hugging Face's names.

mod assign;
pub(crate) mod kind;
mod number;
mod pickle;
mod pytorch;
mod safetensors;
mod strided;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

pub(crate) use self::assign::assign;
pub use self::assign::{Mismatch, NotFinite};
use crate::backbone::Arch;
use crate::error::{EmbedError, Result, io_at};
use crate::names;
use crate::params::ParamStore;

/// The tensors of a weight file by their own names, on the CPU.
#[derive(Debug)]
pub struct WeightFile {
    /// The file they came from.
    pub path: PathBuf,
    /// The tensors: floats as `f32`, integers as `i64`.
    pub tensors: BTreeMap<String, Tensor>,
    /// Tensors in a form that is not read, such as quantised ones, and in which.
    pub unreadable: BTreeMap<String, String>,
    /// The architecture, where the file itself or its name says so.
    pub arch: Option<Arch>,
}

/// What a file holds.
#[derive(Debug, Default)]
struct Contents {
    tensors: BTreeMap<String, Tensor>,
    /// Tensors that are not read, and why.
    unreadable: BTreeMap<String, String>,
    /// The architecture that the file names.
    arch: Option<String>,
}

impl WeightFile {
    /// Reads a `.safetensors` file, or a PyTorch file (`.pth`, `.pt`, `.bin`) of any version of tensors by name, also
    /// below the keys `state_dict`, `model` or `model_state_dict` or within a module saved whole. Which one it is, its
    /// content tells. Nothing in a PyTorch file is executed.
    ///
    /// # Errors
    /// [`EmbedError::Io`] if the file cannot be opened, [`EmbedError::WeightFile`] if it is damaged or of
    /// another kind.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(io_at(path))?;
        let contents = read_bytes(&bytes);
        let contents = contents.map_err(|reason| EmbedError::WeightFile { path: path.to_owned(), reason })?;
        let from_name = path.file_stem().and_then(|stem| stem.to_str());
        // torchvision's files are named like `resnet50-11ad3fa6.pth`.
        let from_name = from_name.and_then(|stem| stem.split('-').next()?.parse().ok());
        let said = contents.arch.and_then(|arch| arch.parse().ok());
        let Contents { tensors, unreadable, .. } = contents;
        Ok(Self { path: path.to_owned(), tensors, unreadable, arch: said.or(from_name) })
    }

    /// Copies the backbone's tensors into `store` below `prefix` (such as `backbone.`), in any of
    /// the names that `names` knows, and returns the names left over: classifiers and the like.
    ///
    /// # Errors
    /// [`EmbedError::Weights`] with every missing and misshapen tensor, [`EmbedError::NotFinite`] if tensors hold NaN or
    /// infinity; then nothing was changed.
    pub fn load_backbone(&self, arch: Arch, store: &ParamStore, prefix: &str) -> Result<Vec<String>> {
        let ours = |name: &str| store.get(&format!("{prefix}{name}"));
        let known = |name: &str| ours(name).is_some();
        let (mut given, mut unexpected) = names::arrange(arch, &self.tensors, &known)?;
        for (name, tensor) in &mut given {
            if let Some(param) = ours(name) {
                *tensor = names::fitted(tensor.clone(), param.var.dims())?;
            }
        }
        let mut mismatch = assign(store, prefix, &given)?;
        for (theirs, reason) in &self.unreadable {
            match names::place(arch, theirs, &known) {
                Some(place) if given.contains_key(&place.name) => {}
                Some(place) => {
                    mismatch.missing.retain(|name| *name != place.name);
                    mismatch.unreadable.push((theirs.clone(), reason.clone()));
                }
                None => unexpected.push(theirs.clone()),
            }
        }
        mismatch.unexpected = unexpected;
        mismatch.leftover(&self.path, &arch.to_string())
    }
}

/// Reads the bytes of a weight file, or says what they are instead.
fn read_bytes(bytes: &[u8]) -> Result<Contents, String> {
    if kind::looks_like_safetensors(bytes) {
        return safetensors::read(bytes);
    }
    if kind::is_pickle(bytes) && pytorch::is_stream(bytes) {
        return pytorch::read_stream(bytes);
    }
    match kind::describe(bytes) {
        Some(kind) => Err(format!("{kind}. Weights are safetensors or PyTorch files")),
        None if bytes.starts_with(b"PK") => pytorch::read_archive(bytes),
        None => Err("it is neither a safetensors nor a PyTorch file".to_owned()),
    }
}

/// Why candle refuses bytes that should be safetensors.
pub(crate) fn refusal(bytes: &[u8], error: &candle_core::Error) -> String {
    match kind::looks_like_safetensors(bytes) {
        true => safetensors::read(bytes).err().unwrap_or_else(|| error.to_string()),
        false => kind::describe(bytes).unwrap_or_else(|| error.to_string()),
    }
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
