//! N-pairs: each anchor finds its positive among all others' (Sohn 2016, NeurIPS).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::pairs::nothing;
use super::{Loss, cross_entropy, normalize_rows};

/// Settings of [`Npairs`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NpairsConfig {
    /// Weight of the mean squared norm of the embeddings; the default is the Paddle original's.
    pub reg_lambda: f64,
    /// Normalise embeddings and multiply their cosines by `scale`, which the original does not.
    pub normalize: bool,
    /// The inverse temperature of the normalised form; without `normalize` it has no effect.
    pub scale: f64,
}

impl Default for NpairsConfig {
    fn default() -> Self {
        Self { reg_lambda: 0.01, normalize: false, scale: 20.0 }
    }
}

/// Cross-entropy of the products of each class's first row (the anchor) with every class's second row (the
/// positive), its own being the label, plus `λ / 2` times the mean squared norm of all rows. Embeddings are taken
/// as they are, **not** normalised, and one direction only, as in the Paddle original, whose batches are two
/// images per class side by side. With `normalize` the products are `scale · cos`, which is NT-Xent (Chen et al. 2020,
/// arXiv 2002.05709) in one direction between classes, and there is no penalty.
///
/// As nothing bounds the products, a row's gradient is as long as the other rows are: once a step makes embeddings
/// longer, the next is longer still, and a penalty of `λ = 0.01` does not hold them. Rates that suit losses over
/// normalised embeddings are too high here; a tenth of them is a place to begin (the Paddle original takes 1e-4).
/// Straight from long features of other data it collapses at any rate worth taking; `normalize` does not.
///
/// Classes with one row give no anchor and no positive; without any pair the batch costs nothing.
#[derive(Debug)]
pub struct Npairs {
    config: NpairsConfig,
}

impl Npairs {
    /// It has no parameters.
    pub fn new(config: NpairsConfig) -> Self {
        Self { config }
    }
}

/// The first and the second row of each class that has two, in the order of the first.
fn pairs(labels: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let firsts = (0..labels.len()).filter(|&i| !labels[..i].contains(&labels[i]));
    let pair = |i: usize| Some((i as u32, (i + 1..labels.len()).find(|&j| labels[j] == labels[i])? as u32));
    firsts.filter_map(pair).unzip()
}

impl Loss for Npairs {
    fn forward(&self, embeddings: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let (anchors, positives) = pairs(labels);
        if anchors.is_empty() {
            return nothing(embeddings);
        }
        let own: Vec<u32> = (0..anchors.len() as u32).collect();
        let products = |embeddings: &Tensor| -> Result<Tensor> {
            let rows = |rows: Vec<u32>| embeddings.index_select(&Tensor::new(rows, embeddings.device())?, 0);
            rows(anchors)?.matmul(&rows(positives)?.t()?)
        };
        if self.config.normalize {
            let cosines = products(&normalize_rows(embeddings)?)?;
            return cross_entropy(&(cosines * self.config.scale)?, &own, 0.0);
        }
        let products = products(embeddings)?;
        let norms = embeddings.sqr()?.sum(1)?.mean_all()?;
        cross_entropy(&products, &own, 0.0)? + (norms * (0.5 * self.config.reg_lambda))?
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::loss::check::{
        assert_close, assert_literal, assert_nothing, cross_entropy_row, dot, embeddings, unit, value,
    };

    const LABELS: [u32; 8] = [5, 5, 1, 1, 2, 2, 0, 0];

    fn build() -> Npairs {
        Npairs::new(NpairsConfig::default())
    }

    // import numpy as np
    // x = np.sin(np.arange(32)**2 + .5).reshape(8, 4); s = x[0::2] @ x[1::2].T
    // print(np.mean(np.log(np.exp(s).sum(1)) - np.diag(s)) + .5 * .01 * (x**2).sum(1).mean())
    #[test]
    fn the_value_is_paddles_formula() {
        assert_close(value(&build(), &embeddings(8, 4), &LABELS), 1.221_707_6, 1e-4);
    }

    #[test]
    fn value_and_gradient_are_those_of_the_literal_loop() {
        assert_literal(&build(), &embeddings(8, 4), &LABELS, &[], &|inputs| {
            let x = &inputs[0];
            let (mut total, mut norms) = (0.0, 0.0);
            for a in 0..4 {
                let products: Vec<f64> = (0..4).map(|p| dot(&x[2 * a], &x[2 * p + 1])).collect();
                total += cross_entropy_row(&products, a) / 4.0;
            }
            for row in x {
                norms += dot(row, row) / 8.0;
            }
            total + 0.5 * 0.01 * norms
        });
    }

    fn normalized() -> Npairs {
        Npairs::new(NpairsConfig { normalize: true, ..NpairsConfig::default() })
    }

    // import numpy as np
    // x = np.sin(np.arange(32)**2 + .5).reshape(8, 4); x /= np.linalg.norm(x, axis=1, keepdims=True)
    // s = 20 * x[0::2] @ x[1::2].T; print(np.mean(np.log(np.exp(s).sum(1)) - np.diag(s)))
    #[test]
    fn the_normalised_value_is_the_formulas() {
        assert_close(value(&normalized(), &embeddings(8, 4), &LABELS), 6.142_225, 1e-4);
    }

    #[test]
    fn the_normalised_value_and_gradient_are_those_of_the_literal_loop() {
        assert_literal(&normalized(), &embeddings(8, 4), &LABELS, &[], &|inputs| {
            let x = unit(&inputs[0]);
            let row = |a: usize| (0..4).map(|p| 20.0 * dot(&x[2 * a], &x[2 * p + 1])).collect::<Vec<_>>();
            (0..4).map(|a| cross_entropy_row(&row(a), a) / 4.0).sum()
        });
    }

    #[test]
    fn normalised_length_does_not_matter() {
        let x = embeddings(8, 4);
        let longer = (&x * 30.0).unwrap();
        assert_close(value(&normalized(), &longer, &LABELS), value(&normalized(), &x, &LABELS), 1e-5);
    }

    // import numpy as np, torch
    // x = torch.tensor(np.sin(np.arange(32)**2 + .5).reshape(8, 4), requires_grad=True)
    // for _ in range(3):
    //     s = x[0::2] @ x[1::2].T
    //     l = torch.nn.functional.cross_entropy(s, torch.arange(4)) + .5 * .01 * (x**2).sum(1).mean()
    //     print(l.item()); x = (x - torch.autograd.grad(l, x)[0]).detach().requires_grad_()
    // print(x.norm().item())
    #[test]
    fn three_steps_of_rate_one_are_pytorchs() {
        let var = Var::from_tensor(&embeddings(8, 4)).unwrap();
        for wanted in [1.221_707_6, 0.665_583_6, 0.420_233_8] {
            let loss = build().forward(var.as_tensor(), &LABELS).unwrap();
            assert_close(loss.to_scalar().unwrap(), wanted, 1e-5);
            let grads = loss.backward().unwrap();
            var.set(&(var.as_detached_tensor() - grads.get(&var).unwrap()).unwrap()).unwrap();
        }
        let norm = var.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar().unwrap();
        assert_close(norm, 4.560_121, 1e-5);
    }

    #[test]
    fn a_class_with_one_row_gives_no_pair() {
        assert_eq!(pairs(&[3, 1, 3, 2, 1, 3]), (vec![0, 1], vec![2, 4]));
        assert_nothing(&build(), 3, 4, &[1, 2, 3]);
    }
}
