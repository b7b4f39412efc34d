//! The optimiser against PyTorch's numbers.

use candle_core::Device;

use super::*;
use crate::params::Init;

fn gradients(store: &ParamStore, loss: &Tensor) -> Gradients {
    Gradients::collect(store, &loss.backward().unwrap()).unwrap()
}

/// Steps on `Σ (w_i - i)² / 2` from `w = 2`, with the optimiser saved and loaded before each step if asked.
fn steps(config: OptimizerConfig, count: usize, reload: bool) -> Vec<f32> {
    let store = ParamStore::new(0, &Device::Cpu);
    let w = store.root().parameter("w", (1, 3), Init::Const(2.0)).unwrap();
    let mut optimizer = Optimizer::new(config);
    for _ in 0..count {
        if reload {
            let saved = optimizer.state().unwrap().into_iter().collect();
            optimizer = Optimizer::new(config);
            optimizer.restore(&saved, &store).unwrap();
        }
        let target = Tensor::new(&[[0f32, 1., 2.]], &Device::Cpu).unwrap();
        let loss = ((w.as_tensor() - target).unwrap().sqr().unwrap().sum_all().unwrap() * 0.5).unwrap();
        optimizer.step(&store, &gradients(&store, &loss), 0.1).unwrap();
    }
    w.flatten_all().unwrap().to_vec1().unwrap()
}

fn settings() -> [OptimizerConfig; 4] {
    let sgd = OptimizerConfig { weight_decay: 0.01, ..OptimizerConfig::default() };
    [
        sgd,
        OptimizerConfig { nesterov: true, ..sgd },
        OptimizerConfig { algorithm: Algorithm::Adam, ..sgd },
        OptimizerConfig { algorithm: Algorithm::AdamW, ..sgd },
    ]
}

// import torch
// O = torch.optim
// for make in (lambda p: O.SGD(p, lr=.1, momentum=.9, weight_decay=.01),
//              lambda p: O.SGD(p, lr=.1, momentum=.9, weight_decay=.01, nesterov=True),
//              lambda p: O.Adam(p, lr=.1, weight_decay=.01), lambda p: O.AdamW(p, lr=.1, weight_decay=.01)):
//     w = torch.full((1, 3), 2., requires_grad=True); o = make([w])
//     for _ in range(5):
//         o.zero_grad(); ((w - torch.tensor([[0., 1., 2.]]))**2).sum().mul(.5).backward(); o.step()
//     print(w.flatten().tolist())
const REFERENCE: [[f32; 3]; 4] = [
    [-0.07363, 0.952919, 1.979469],
    [-0.221581, 0.878212, 1.978004],
    [1.502956, 1.50784, 2.025945],
    [1.494046, 1.499219, 1.940503],
];

#[test]
fn five_steps_are_pytorchs() {
    for (config, wanted) in settings().into_iter().zip(REFERENCE) {
        for (found, wanted) in steps(config, 5, false).into_iter().zip(wanted) {
            assert!((found - wanted).abs() < 2e-6, "{config:?}: {found}, wanted {wanted}");
        }
    }
}

#[test]
fn an_optimiser_saved_and_loaded_goes_on_as_if_never_stopped() {
    for config in settings() {
        assert_eq!(steps(config, 5, true), steps(config, 5, false), "{config:?}");
    }
}

#[test]
fn clipping_bounds_the_first_step() {
    let config =
        OptimizerConfig { clip_norm: 0.5, momentum: 0.0, weight_decay: 0.0, ..OptimizerConfig::default() };
    let store = ParamStore::new(0, &Device::Cpu);
    let w = store.root().parameter("w", 2, Init::Const(0.0)).unwrap();
    let loss = (w.as_tensor() * Tensor::new(&[3f32, 4.], &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
    let norm = Optimizer::new(config).step(&store, &gradients(&store, &loss), 1.0).unwrap();
    assert_eq!(norm, 5.0);
    let moved: Vec<f32> = w.to_vec1().unwrap();
    assert!((moved[0] + 0.3).abs() < 1e-6 && (moved[1] + 0.4).abs() < 1e-6, "{moved:?}");
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let store = ParamStore::new(0, &Device::Cpu);
    let w = store.root().parameter("w", 2, Init::Const(1.0)).unwrap();
    let loss = (w.as_tensor() * f64::INFINITY).unwrap().sum_all().unwrap();
    let norm = Optimizer::new(OptimizerConfig::default());
    let norm = { norm }.step(&store, &gradients(&store, &loss), 0.1).unwrap();
    assert!(!norm.is_finite());
    assert_eq!(w.to_vec1::<f32>().unwrap(), [1.0, 1.0]);
}

#[test]
fn vectors_are_spared_the_decay_if_asked_and_groups_have_their_own_rates() {
    for algorithm in [Algorithm::Sgd, Algorithm::AdamW] {
        let config = OptimizerConfig {
            algorithm,
            weight_decay: 1.0,
            decay_vectors: false,
            loss_lr: 3.0,
            head_lr: 2.0,
            ..OptimizerConfig::default()
        };
        let store = ParamStore::new(0, &Device::Cpu);
        let place = |name: &str| store.root().at(name).parameter("bias", 1, Init::Const(1.0)).unwrap();
        let all = ["backbone", "head", "loss"].map(place);
        let sum =
            all.iter().fold(Tensor::new(&[0f32], &Device::Cpu).unwrap(), |s, v| (s + v.as_tensor()).unwrap());
        let grads = gradients(&store, &sum.sum_all().unwrap());
        Optimizer::new(config).step(&store, &grads, 0.1).unwrap();
        for (var, wanted) in all.iter().zip([0.9, 0.8, 0.7]) {
            let found = var.to_vec1::<f32>().unwrap()[0];
            assert!((found - wanted).abs() < 1e-6, "{algorithm:?}: {found}, wanted {wanted}");
        }
    }
}
