//! What every loss's test needs: fixed inputs, literal loops in f64 and finite differences.

use candle_core::{Device, Tensor, Var};

use super::Loss;

/// Small numbers without pattern, the same everywhere: `sin(i² + shift)`.
pub(crate) fn numbers(count: usize, shift: f64) -> Vec<f32> {
    (0..count).map(|i| ((i * i) as f64 + shift).sin() as f32).collect()
}

pub(crate) fn embeddings(n: usize, dim: usize) -> Tensor {
    Tensor::from_vec(numbers(n * dim, 0.5), (n, dim), &Device::Cpu).unwrap()
}

pub(crate) fn value(loss: &dyn Loss, x: &Tensor, labels: &[u32]) -> f32 {
    loss.forward(x, labels).unwrap().to_scalar().unwrap()
}

pub(crate) fn assert_close(found: f32, wanted: f32, tolerance: f32) {
    let scale = wanted.abs().max(1.0);
    assert!((found - wanted).abs() <= tolerance * scale, "found {found}, wanted {wanted}");
}

/// Compares the gradient with respect to the embeddings with central differences.
pub(crate) fn assert_gradient(loss: &dyn Loss, x: &Tensor, labels: &[u32]) {
    let var = Var::from_tensor(x).unwrap();
    let grads = loss.forward(var.as_tensor(), labels).unwrap().backward().unwrap();
    let grad: Vec<f32> = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let step = 2e-3f32;
    for i in 0..values.len() {
        let moved = |by: f32| {
            let mut values = values.clone();
            values[i] += by;
            value(loss, &Tensor::from_vec(values, x.shape(), &Device::Cpu).unwrap(), labels)
        };
        let numeric = (moved(step) - moved(-step)) / (2.0 * step);
        assert!((grad[i] - numeric).abs() < 4e-3 * numeric.abs().max(1.0), "{i}: {} {numeric}", grad[i]);
    }
}

/// A matrix, row by row.
type Rows = Vec<Vec<f64>>;

/// Insists that the value of `loss`, and its gradients for the embeddings and its own `parameters`, are those of
/// `literal`: a loop in f64 over the embeddings and the parameters, each given row by row, differentiated by
/// central differences. Values within 1e-4, gradients within 1e-3, of numbers above one relatively.
pub(crate) fn assert_literal(
    loss: &dyn Loss,
    x: &Tensor,
    labels: &[u32],
    parameters: &[&Var],
    literal: &dyn Fn(&[Rows]) -> f64,
) {
    let var = Var::from_tensor(x).unwrap();
    let found = loss.forward(var.as_tensor(), labels).unwrap();
    let vars: Vec<&Var> = std::iter::once(&var).chain(parameters.iter().copied()).collect();
    let rows = |v: &&Var| -> Vec<Vec<f64>> {
        let rows: Vec<Vec<f32>> = v.as_detached_tensor().to_vec2().unwrap();
        rows.iter().map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect()
    };
    let mut inputs: Vec<_> = vars.iter().map(rows).collect();
    assert_close(found.to_scalar().unwrap(), literal(&inputs) as f32, 1e-4);
    let grads = found.backward().unwrap();
    for (which, var) in vars.iter().enumerate() {
        let grad: Vec<Vec<f32>> = grads.get(var).expect("a gradient").to_vec2().unwrap();
        for (i, row) in grad.iter().enumerate() {
            for (j, &found) in row.iter().enumerate() {
                let (at, step) = (inputs[which][i][j], 1e-5);
                let mut moved = |by: f64| {
                    inputs[which][i][j] = at + by;
                    let value = literal(&inputs);
                    inputs[which][i][j] = at;
                    value
                };
                let numeric = (moved(step) - moved(-step)) / (2.0 * step);
                let wrong = (f64::from(found) - numeric).abs();
                assert!(
                    wrong <= 1e-3 * numeric.abs().max(1.0),
                    "input {which} at {i}, {j}: {found}, wanted {numeric}"
                );
            }
        }
    }
}

/// Insists on a loss of zero with a zero gradient.
pub(crate) fn assert_nothing(loss: &dyn Loss, n: usize, dim: usize, labels: &[u32]) {
    let var = Var::from_tensor(&embeddings(n, dim)).unwrap();
    let found = loss.forward(var.as_tensor(), labels).unwrap();
    assert!(found.to_scalar::<f32>().unwrap().abs() < 1e-6, "{found}");
    let grads = found.backward().unwrap();
    if let Some(grad) = grads.get(&var) {
        let grad: Vec<f32> = grad.flatten_all().unwrap().to_vec1().unwrap();
        assert!(grad.iter().all(|g| g.abs() < 1e-6), "{grad:?}");
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Sum of the squared differences.
pub(crate) fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The rows, each of length one.
pub(crate) fn unit(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    rows.iter().map(|row| row.iter().map(|v| v / dot(row, row).sqrt()).collect()).collect()
}

/// Cosines of every row of the one with every row of the other.
pub(crate) fn cosines(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (a, b) = (unit(a), unit(b));
    a.iter().map(|a| b.iter().map(|b| dot(a, b)).collect()).collect()
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// `-ln softmax(logits)` at the label.
pub(crate) fn cross_entropy_row(logits: &[f64], label: usize) -> f64 {
    logits.iter().map(|z| z.exp()).sum::<f64>().ln() - logits[label]
}

/// `1 / (1 + exp(-x))`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The other rows of row `i`'s class, and the rows of other classes.
pub(crate) fn split(labels: &[u32], i: usize) -> (Vec<usize>, Vec<usize>) {
    let others = (0..labels.len()).filter(|&j| j != i);
    others.partition(|&j| labels[j] == labels[i])
}
