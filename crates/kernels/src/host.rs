//! Reading candle tensors as plain slices.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

use crate::KernelError;

/// This crate's own kernels take the tensor; anything else goes to candle's operations.
pub(crate) fn takes_own_kernels(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32)
}

/// The values of a storage that a custom operation was given.
pub(crate) fn slice<'a>(
    op: &'static str,
    what: &'static str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<&'a [f32]> {
    let error = KernelError::NotHostF32 { op, what };
    let CpuStorage::F32(values) = storage else { return Err(error.into()) };
    let Some((start, end)) = layout.contiguous_offsets() else { return Err(error.into()) };
    Ok(&values[start..end])
}

/// Calls `f` with the values of a tensor, in row-major order (copied only if they do not lie so).
pub(crate) fn with_values<R>(
    op: &'static str,
    what: &'static str,
    tensor: &Tensor,
    f: impl FnOnce(&[f32]) -> Result<R>,
) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(slice(op, what, cpu, layout)?),
        _ => Err(KernelError::NotHostF32 { op, what }.into()),
    }
}
