//! The operations once more as literal loops in f64, for the tests.

use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Conv2dConfig, MaxPool2dConfig};

/// Uniform values in −1 … 1.
pub(crate) fn noise(dims: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn tensor(values: Vec<f64>, dims: &[usize]) -> Tensor {
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Every element within `tolerance` times the greatest magnitude of the expected values (at least 1).
pub(crate) fn assert_close(got: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(got.dims(), expected.dims(), "{what}: shape");
    let (got, expected) = (values(got), values(expected));
    let scale = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{what}: element {i} is {g}, expected {e}");
    }
}

/// Compares back-propagated gradients of the scalar `f` with central differences.
pub(crate) fn assert_finite_differences(inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = f(&tensors).backward().unwrap();
    let step = 1e-2;
    for (which, var) in vars.iter().enumerate() {
        let gradient = values(grads.get(var).unwrap());
        let start: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
        let scale = gradient.iter().fold(1f64, |m, v| m.max(v.abs()));
        for (i, &slope) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut at = start.clone();
                at[i] += by;
                let mut moved: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
                moved[which] = Tensor::from_vec(at, inputs[which].dims(), &Device::Cpu).unwrap();
                values(&f(&moved))[0]
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            assert!(
                (difference - slope).abs() < 2e-2 * scale,
                "input {which} element {i}: gradient {slope}, difference {difference}"
            );
        }
    }
}

/// Calls `f(output index, input index, weight index)` for every product that a convolution adds up.
fn for_each_product(
    x: &[usize],
    w: &[usize],
    y: &[usize],
    cfg: Conv2dConfig,
    mut f: impl FnMut(usize, usize, usize),
) {
    let (in_g, out_g) = (w[1], w[0] / cfg.groups);
    for n in 0..y[0] {
        for o in 0..y[1] {
            for oy in 0..y[2] {
                for ox in 0..y[3] {
                    for i in 0..in_g {
                        for ky in 0..w[2] {
                            for kx in 0..w[3] {
                                let iy =
                                    (oy * cfg.stride + ky * cfg.dilation) as isize - cfg.padding as isize;
                                let ix =
                                    (ox * cfg.stride + kx * cfg.dilation) as isize - cfg.padding as isize;
                                if iy < 0 || ix < 0 || iy >= x[2] as isize || ix >= x[3] as isize {
                                    continue;
                                }
                                let channel = o / out_g * in_g + i;
                                let at_x = ((n * x[1] + channel) * x[2] + iy as usize) * x[3] + ix as usize;
                                let at_y = ((n * y[1] + o) * y[2] + oy) * y[3] + ox;
                                f(at_y, at_x, ((o * in_g + i) * w[2] + ky) * w[3] + kx);
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(crate) fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, cfg: Conv2dConfig) -> Tensor {
    let (xd, wd) = (x.dims(), w.dims());
    let side = |s: usize, k: usize| (s + 2 * cfg.padding - cfg.dilation * (k - 1) - 1) / cfg.stride + 1;
    let dims = [xd[0], wd[0], side(xd[2], wd[2]), side(xd[3], wd[3])];
    let plane = dims[2] * dims[3];
    let mut y = vec![0f64; dims.iter().product()];
    if let Some(b) = b {
        let b = values(b);
        y.iter_mut().enumerate().for_each(|(i, y)| *y = b[i / plane % dims[1]]);
    }
    let (xv, wv) = (values(x), values(w));
    for_each_product(xd, wd, &dims, cfg, |at_y, at_x, at_w| y[at_y] += xv[at_x] * wv[at_w]);
    tensor(y, &dims)
}

/// Gradients to input, weight and bias.
pub(crate) fn conv2d_gradients(
    x: &Tensor,
    w: &Tensor,
    g: &Tensor,
    cfg: Conv2dConfig,
) -> (Tensor, Tensor, Tensor) {
    let (xv, wv, gv) = (values(x), values(w), values(g));
    let (mut dx, mut dw, mut db) = (vec![0f64; xv.len()], vec![0f64; wv.len()], vec![0f64; w.dims()[0]]);
    for_each_product(x.dims(), w.dims(), g.dims(), cfg, |at_y, at_x, at_w| {
        dx[at_x] += gv[at_y] * wv[at_w];
        dw[at_w] += gv[at_y] * xv[at_x];
    });
    let plane = g.dims()[2] * g.dims()[3];
    gv.iter().enumerate().for_each(|(i, g)| db[i / plane % w.dims()[0]] += g);
    (tensor(dx, x.dims()), tensor(dw, w.dims()), tensor(db, &[w.dims()[0]]))
}

/// Result, and the gradient to the input for the gradient `g` of the result.
pub(crate) fn max_pool2d(x: &Tensor, g: &Tensor, cfg: MaxPool2dConfig) -> (Tensor, Tensor) {
    let (xd, yd) = (x.dims(), g.dims());
    let (xv, gv) = (values(x), values(g));
    let (mut y, mut dx) = (vec![f64::NEG_INFINITY; gv.len()], vec![0f64; xv.len()]);
    for plane in 0..xd[0] * xd[1] {
        for oy in 0..yd[2] {
            for ox in 0..yd[3] {
                let at_y = (plane * yd[2] + oy) * yd[3] + ox;
                let mut best = None;
                for ky in 0..cfg.kernel {
                    for kx in 0..cfg.kernel {
                        let iy = (oy * cfg.stride + ky) as isize - cfg.padding as isize;
                        let ix = (ox * cfg.stride + kx) as isize - cfg.padding as isize;
                        if iy < 0 || ix < 0 || iy >= xd[2] as isize || ix >= xd[3] as isize {
                            continue;
                        }
                        let at_x = (plane * xd[2] + iy as usize) * xd[3] + ix as usize;
                        if xv[at_x] > y[at_y] {
                            y[at_y] = xv[at_x];
                            best = Some(at_x);
                        }
                    }
                }
                dx[best.unwrap()] += gv[at_y];
            }
        }
    }
    (tensor(y, yd), tensor(dx, xd))
}

pub(crate) struct BatchNorm {
    pub(crate) y: Tensor,
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    pub(crate) dx: Tensor,
    pub(crate) dgamma: Tensor,
    pub(crate) dbeta: Tensor,
}

pub(crate) fn batch_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, g: &Tensor, eps: f64) -> BatchNorm {
    let d = x.dims();
    let (xv, gv, gamma, beta) = (values(x), values(g), values(gamma), values(beta));
    let (c, plane) = (d[1], d[2] * d[3]);
    let m = (d[0] * plane) as f64;
    let (mut y, mut dx) = (vec![0f64; xv.len()], vec![0f64; xv.len()]);
    let (mut mean, mut variance, mut dgamma, mut dbeta) =
        (vec![0f64; c], vec![0f64; c], vec![0f64; c], vec![0f64; c]);
    for k in 0..c {
        let at: Vec<usize> = (0..xv.len()).filter(|i| i / plane % c == k).collect();
        mean[k] = at.iter().map(|&i| xv[i]).sum::<f64>() / m;
        variance[k] = at.iter().map(|&i| (xv[i] - mean[k]).powi(2)).sum::<f64>() / m;
        let scale = 1.0 / (variance[k] + eps).sqrt();
        for &i in &at {
            let normed = (xv[i] - mean[k]) * scale;
            y[i] = gamma[k] * normed + beta[k];
            dgamma[k] += gv[i] * normed;
            dbeta[k] += gv[i];
        }
        for &i in &at {
            let normed = (xv[i] - mean[k]) * scale;
            dx[i] = gamma[k] * scale * (gv[i] - dbeta[k] / m - normed * dgamma[k] / m);
        }
    }
    BatchNorm {
        y: tensor(y, d),
        mean: tensor(mean, &[c]),
        variance: tensor(variance, &[c]),
        dx: tensor(dx, d),
        dgamma: tensor(dgamma, &[c]),
        dbeta: tensor(dbeta, &[c]),
    }
}
