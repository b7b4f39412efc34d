//! What tensors are called elsewhere: one file per family, from each project's names to ours.
//!
//! Ours are torchvision's for residual networks and MobileNetV2, timm's for all others.

mod clip;
mod convnext;
mod mobilenet;
mod resnet;
mod vit;

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use crate::backbone::{Arch, Family};

/// Where a tensor of a file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Our name.
    pub(crate) name: String,
    /// What of our tensor it is.
    pub(crate) part: Part,
}

/// What a file's tensor is of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it, dimensions of size one aside.
    Whole,
    /// All of it, with rows and columns exchanged.
    Transposed,
    /// One of three parts that lie one behind the other: query, key, value.
    Third(usize),
}

impl Place {
    fn whole(name: String) -> Self {
        Self { name, part: Part::Whole }
    }
}

/// What other programs put before the names of a network that is part of something: wrappers, tasks, towers.
const WRAPPERS: [&str; 13] = [
    "module",
    "model",
    "backbone",
    "encoder",
    "visual",
    "trunk",
    "resnet",
    "vit",
    "dinov2",
    "convnext",
    "network",
    "net",
    "_orig_mod",
];

/// Where a tensor called `name` belongs in a network that knows the names that `known` says yes to.
pub(crate) fn place(arch: Arch, name: &str, known: &dyn Fn(&str) -> bool) -> Option<Place> {
    let mut bare = name;
    loop {
        let theirs = match arch.family() {
            Family::ResNet => resnet::place(bare),
            Family::MobileNetV2 => mobilenet::place(bare),
            Family::ConvNext => convnext::place(bare),
            Family::Vit | Family::DinoV2 => vit::place(bare),
            Family::Clip => clip::place(bare),
        };
        let found = [Some(Place::whole(bare.to_owned())), theirs].into_iter().flatten();
        if let Some(place) = found.into_iter().find(|place| known(&place.name)) {
            return Some(place);
        }
        let (first, rest) = bare.split_once('.')?;
        if !WRAPPERS.contains(&first) {
            return None;
        }
        bare = rest;
    }
}

/// The tensors of a file by our names, and the names of those that belong nowhere.
pub(crate) fn arrange(
    arch: Arch,
    file: &BTreeMap<String, Tensor>,
    known: &dyn Fn(&str) -> bool,
) -> Result<(BTreeMap<String, Tensor>, Vec<String>)> {
    let (mut whole, mut thirds) = (BTreeMap::new(), BTreeMap::<String, [Option<Tensor>; 3]>::new());
    let mut unexpected = Vec::new();
    for (theirs, tensor) in file {
        match place(arch, theirs, known) {
            Some(Place { name, part: Part::Whole }) => drop(whole.insert(name, tensor.clone())),
            Some(Place { name, part: Part::Transposed }) if tensor.rank() == 2 => {
                whole.insert(name, tensor.t()?.contiguous()?);
            }
            Some(Place { name, part: Part::Third(which) }) => {
                thirds.entry(name).or_default()[which] = Some(tensor.clone());
            }
            Some(_) => unexpected.push(theirs.clone()),
            None if theirs.ends_with("num_batches_tracked") => {}
            None => unexpected.push(theirs.clone()),
        }
    }
    for (name, parts) in thirds {
        // Where a part is missing, the whole is.
        if let [Some(query), Some(key), Some(value)] = parts {
            whole.insert(name, Tensor::cat(&[query, key, value], 0)?);
        }
    }
    Ok((whole, unexpected))
}

/// `tensor` in the shape `wanted`, where dimensions of size one are all that differs.
pub(crate) fn fitted(tensor: Tensor, wanted: &[usize]) -> Result<Tensor> {
    let sides = |dims: &[usize]| -> Vec<usize> { dims.iter().copied().filter(|side| *side != 1).collect() };
    let same = tensor.dims() != wanted && sides(tensor.dims()) == sides(wanted);
    if same { tensor.reshape(wanted) } else { Ok(tensor) }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
