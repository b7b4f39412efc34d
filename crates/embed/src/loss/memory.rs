//! Cross-batch memory (XBM: Wang et al. 2020, arXiv 1912.06798).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

use super::pairs::{PairLoss, Pairs};

/// The embeddings of the last batches, as more rows for a pair loss to compare a batch with.
///
/// A batch enters first, then each of its rows is compared with every remembered row but itself; gradients reach the
/// batch alone. As pytorch-metric-learning's `CrossBatchMemory`.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossBatchMemory {
    size: usize,
    dim: usize,
    /// Row by row, at most `size`; the oldest is at `next` once it is full.
    rows: Vec<f32>,
    labels: Vec<u32>,
    next: usize,
}

impl CrossBatchMemory {
    /// An empty memory of `size` embeddings of `dim` values.
    pub fn new(size: usize, dim: usize) -> Self {
        Self { size, dim, rows: Vec::new(), labels: Vec::new(), next: 0 }
    }

    /// The loss of a batch against the memory, which it has entered.
    ///
    /// # Errors
    /// If the batch is larger than the memory.
    pub fn forward(&mut self, loss: &dyn PairLoss, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let (n, dim) = embeddings.dims2()?;
        if n > self.size || dim != self.dim {
            candle_core::bail!("{n} embeddings of {dim} for a memory of {} of {}", self.size, self.dim)
        }
        let values: Vec<f32> = embeddings.detach().flatten_all()?.to_vec1()?;
        let mut own = Vec::with_capacity(n);
        for (row, &label) in values.chunks(dim).zip(labels) {
            own.push(self.next);
            if self.labels.len() < self.size {
                self.rows.extend(row);
                self.labels.push(label);
            } else {
                self.rows[self.next * dim..][..dim].copy_from_slice(row);
                self.labels[self.next] = label;
            }
            self.next = (self.next + 1) % self.size;
        }
        let others = Tensor::from_slice(&self.rows, (self.labels.len(), dim), embeddings.device())?;
        loss.over(&Pairs::against(embeddings, labels, &others, &self.labels, &own)?)
    }

    /// What is remembered, by names to save it under.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let rows = Tensor::from_slice(&self.rows, (self.labels.len(), self.dim), &Device::Cpu)?;
        let labels = Tensor::from_slice(&self.labels, self.labels.len(), &Device::Cpu)?;
        let next = Tensor::new(&[self.next as u32], &Device::Cpu)?;
        let named = [("rows", rows), ("labels", labels), ("next", next)];
        // A safetensors file has no place for tensors without values.
        let kept = named.into_iter().filter(|(_, t)| t.elem_count() > 0);
        Ok(kept.map(|(name, t)| (name.to_owned(), t)).collect())
    }

    /// Goes on from what was saved.
    pub fn restore(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<()> {
        let (Some(rows), Some(labels), Some(next)) =
            (saved.get("rows"), saved.get("labels"), saved.get("next"))
        else {
            return Ok(());
        };
        self.rows = rows.flatten_all()?.to_vec1()?;
        self.labels = labels.to_dtype(DType::U32)?.to_vec1()?;
        self.next = next.to_dtype(DType::U32)?.to_vec1::<u32>()?[0] as usize;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::check::{assert_close, embeddings, numbers};
    use crate::loss::{Contrastive, ContrastiveConfig, Loss as _, Triplet, TripletConfig};
    use crate::miner::Miner;

    const LABELS: [u32; 8] = [0, 0, 1, 1, 2, 2, 0, 3];

    fn later() -> Tensor {
        Tensor::from_vec(numbers(32, 1.5), (8, 4), &Device::Cpu).unwrap()
    }

    // import torch, numpy as np
    // from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
    // num = lambda n, s: torch.tensor(np.sin(np.arange(n)**2 + s), dtype=torch.float32)
    // y = torch.tensor([0, 0, 1, 1, 2, 2, 0, 3]); loss = CrossBatchMemory(ContrastiveLoss(), 4, memory_size=12)
    // print(loss(num(32, .5).reshape(8, 4), y), loss(num(32, 1.5).reshape(8, 4), y))
    #[test]
    fn two_batches_cost_what_pytorch_metric_learning_says() {
        let loss = Contrastive::new(ContrastiveConfig::default());
        let mut memory = CrossBatchMemory::new(12, 4);
        for (x, wanted) in [(embeddings(8, 4), 1.557_047_5), (later(), 1.476_344_3)] {
            // Saved and loaded in between.
            let saved = memory.state().unwrap().into_iter().collect();
            memory = CrossBatchMemory::new(12, 4);
            memory.restore(&saved).unwrap();
            let found = memory.forward(&loss, &x, &LABELS).unwrap().to_scalar().unwrap();
            assert_close(found, wanted, 1e-4);
        }
        assert_eq!((memory.labels.len(), memory.next), (12, 4));
    }

    // from pytorch_metric_learning.distances import LpDistance; from pytorch_metric_learning.losses import TripletMarginLoss
    // from pytorch_metric_learning.reducers import MeanReducer
    // inner = TripletMarginLoss(.3, distance=LpDistance(power=2), reducer=MeanReducer())
    // loss = CrossBatchMemory(inner, 4, memory_size=12); print(loss(num(32, .5).reshape(8, 4), y), loss(…1.5…, y))
    #[test]
    fn triplets_with_the_memory_cost_what_pytorch_metric_learning_says() {
        let loss = Triplet::new(TripletConfig { margin: 0.3, miner: Miner::BatchAll });
        let mut memory = CrossBatchMemory::new(12, 4);
        for (x, wanted) in [(embeddings(8, 4), 0.353_484_48), (later(), 0.642_997_56)] {
            let found = memory.forward(&loss, &x, &LABELS).unwrap().to_scalar().unwrap();
            assert_close(found, wanted, 1e-4);
        }
        assert!(loss.as_pair_loss().is_some());
        assert!(Triplet::new(TripletConfig { margin: 0.3, miner: Miner::Layout }).as_pair_loss().is_none());
    }

    #[test]
    fn a_batch_larger_than_the_memory_is_an_error() {
        let loss = Contrastive::new(ContrastiveConfig::default());
        let mut memory = CrossBatchMemory::new(4, 4);
        let error = memory.forward(&loss, &later(), &LABELS).unwrap_err().to_string();
        assert!(error.contains('8') && error.contains('4'), "{error}");
    }
}
