//! Weights and images that a line of Python makes again, for tests against other implementations.

use candle_core::{Device, Tensor};

use crate::params::ParamStore;

/// Value `j` of tensor `k`, in the order of names, is `((31 k + 17 j) mod 101 / 101 − 0.5) · 0.4`; scales have 1 added.
pub(super) fn fill(store: &ParamStore) {
    for (k, (name, param)) in store.entries("").into_iter().enumerate() {
        let more = if param.var.rank() == 1 && name.ends_with("weight") { 1.0 } else { 0.0 };
        let value = |j: usize| (((k * 31 + j * 17) % 101) as f32 / 101.0 - 0.5) * 0.4 + more;
        let values = (0..param.var.elem_count()).map(value).collect();
        param.var.set(&Tensor::from_vec(values, param.var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
}

/// Two images.
pub(super) fn images(h: usize, w: usize) -> Tensor {
    let values = (0..2 * 3 * h * w).map(|i| ((i * 7919) % 255) as f32 / 127.0 - 1.0).collect();
    Tensor::from_vec(values, (2, 3, h, w), &Device::Cpu).unwrap()
}

/// Within 1e-5 of the greatest value.
pub(super) fn close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    let scale = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(wanted).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst < 1e-5 * scale, "{worst} of {scale}: {found:?} {wanted:?}");
}
