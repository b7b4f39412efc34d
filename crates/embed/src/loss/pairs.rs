//! What losses over pairs of rows share: which rows are compared, and sums over some of them.

use candle_core::{DType, Result, Tensor};

use super::{Loss, normalize_rows};

/// A loss over pairs of rows: each anchor against each of the others, which may be the anchors themselves or
/// remembered embeddings of earlier batches ([`CrossBatchMemory`](crate::loss::CrossBatchMemory)).
pub trait PairLoss: std::fmt::Debug {
    /// The scalar to minimise.
    fn over(&self, pairs: &Pairs) -> Result<Tensor>;

    /// Whether remembered embeddings may be among the others. Not where the order of a batch's rows has a meaning.
    fn remembers(&self) -> bool {
        true
    }
}

impl<P: PairLoss> Loss for P {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        self.over(&Pairs::within(embeddings, labels)?)
    }

    fn as_pair_loss(&self) -> Option<&dyn PairLoss> {
        self.remembers().then_some(self)
    }
}

/// `n` anchors, `m` others, and which of the `n × m` pairs are of one class. A row is never its own pair.
#[derive(Debug)]
pub struct Pairs {
    anchors: Tensor,
    others: Tensor,
    /// `(n, m)`: one where the pair is of one class, else zero.
    pub(crate) positive: Tensor,
    /// `(n, m)`: one where the pair is of two classes, else zero.
    pub(crate) negative: Tensor,
}

impl Pairs {
    /// Every row of a batch against every other: embeddings `(n, dim)`, not normalised, and their classes.
    pub fn within(embeddings: &Tensor, labels: &[u32]) -> Result<Self> {
        let own: Vec<usize> = (0..labels.len()).collect();
        Self::against(embeddings, labels, embeddings, labels, &own)
    }

    /// Every anchor against every one of `others (m, dim)`, of which number `own[i]` is anchor `i` itself.
    pub fn against(
        anchors: &Tensor,
        labels: &[u32],
        others: &Tensor,
        other_labels: &[u32],
        own: &[usize],
    ) -> Result<Self> {
        let (n, m) = (labels.len(), other_labels.len());
        let (mut positive, mut negative) = (vec![0f32; n * m], vec![0f32; n * m]);
        for (i, label) in labels.iter().enumerate() {
            for (j, other) in other_labels.iter().enumerate() {
                let mask = if label == other { &mut positive } else { &mut negative };
                mask[i * m + j] = 1.0;
            }
            positive[i * m + own[i]] = 0.0;
        }
        let mask = |values| Tensor::from_vec(values, (n, m), anchors.device());
        Ok(Self {
            anchors: anchors.clone(),
            others: others.clone(),
            positive: mask(positive)?,
            negative: mask(negative)?,
        })
    }

    /// Values of an embedding.
    pub fn dim(&self) -> Result<usize> {
        self.anchors.dim(1)
    }

    /// `(n, m)` cosines.
    pub fn cosines(&self) -> Result<Tensor> {
        normalize_rows(&self.anchors)?.matmul(&normalize_rows(&self.others)?.t()?)
    }

    /// `(n, m)` squared distances between the embeddings as they are.
    pub fn squared_distances(&self) -> Result<Tensor> {
        let (a, b) = (self.anchors.sqr()?.sum_keepdim(1)?, self.others.sqr()?.sum_keepdim(1)?);
        let product = self.anchors.matmul(&self.others.t()?)?;
        (product * -2.0)?.broadcast_add(&a)?.broadcast_add(&b.t()?)
    }

    /// A zero that still is a function of the anchors, so that a step goes on with a zero gradient.
    pub fn nothing(&self) -> Result<Tensor> {
        nothing(&self.anchors)
    }
}

/// Zero, with a zero gradient for `embeddings`.
pub(crate) fn nothing(embeddings: &Tensor) -> Result<Tensor> {
    embeddings.sum_all()? * 0.0
}

/// Row by row `ln Σ exp(x)` over the places where `mask` is one, with `plus_one` `ln(1 + Σ exp(x))`: `(n, m)` →
/// `(n)`. A row without such a place gives zero, with a zero gradient.
pub(crate) fn masked_log_sum_exp(x: &Tensor, mask: &Tensor, plus_one: bool) -> Result<Tensor> {
    let any = mask.max_keepdim(1)?;
    let x = ((x * mask)? + ((mask - 1.0)? * 1e9)?)?;
    let top = x.detach().max_keepdim(1)?;
    let top = if plus_one { top.relu()? } else { top };
    let sum = x.broadcast_sub(&top)?.exp()?.sum_keepdim(1)?;
    let sum = if plus_one { (sum + top.neg()?.exp()?)? } else { sum };
    ((sum.log()? + top)? * any)?.squeeze(1)
}

/// `ln(1 + exp(x))`, without overflow.
pub(crate) fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}

/// Mean of the values above zero; zero if there are none.
pub(crate) fn mean_above_zero(x: &Tensor) -> Result<Tensor> {
    let count = x.detach().gt(0f32)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
    x.relu()?.sum_all()? / f64::from(count.max(1.0))
}

/// Mean of the values where `mask` is one, zero if it is nowhere.
pub(crate) fn masked_mean(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let count = mask.sum_all()?.to_scalar::<f32>()?;
    (x * mask)?.sum_all()? / f64::from(count.max(1.0))
}

/// One where a row of `mask (n, m)` has a one: `(n)`.
pub(crate) fn rows_with_any(mask: &Tensor) -> Result<Tensor> {
    mask.max(1)
}
