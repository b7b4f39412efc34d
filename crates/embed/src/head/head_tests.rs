//! Tests of the heads.

use candle_core::{Device, Tensor};

use super::*;
use crate::onnx::interpreter;
use crate::params::{Kind, ParamStore};

fn configs() -> Vec<(HeadConfig, usize)> {
    let mlp = |activation| HeadConfig::Mlp { dim: 3, hidden: vec![7, 5], activation };
    vec![
        (HeadConfig::Pooled, 6),
        (HeadConfig::Linear { dim: 4 }, 4),
        (HeadConfig::LayerNorm { dim: None }, 6),
        (HeadConfig::LayerNorm { dim: Some(4) }, 4),
        (HeadConfig::BatchNorm { dim: None }, 6),
        (HeadConfig::BatchNorm { dim: Some(4) }, 4),
        (mlp(HeadActivation::Relu), 3),
        (mlp(HeadActivation::Gelu), 3),
    ]
}

#[test]
fn configurations_come_back_and_old_ones_still_load() {
    for (config, _) in configs() {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<HeadConfig>(&text).unwrap(), config, "{text}");
        config.check().unwrap();
    }
    for (old, config) in [
        (r#"{"kind":"pooled"}"#, HeadConfig::Pooled),
        (r#"{"kind":"linear","dim":24}"#, HeadConfig::Linear { dim: 24 }),
    ] {
        assert_eq!(serde_json::from_str::<HeadConfig>(old).unwrap(), config);
        assert_eq!(serde_json::to_string(&config).unwrap(), old, "fingerprints are made of it");
    }
    assert!(serde_json::from_str::<HeadConfig>(r#"{"kind":"linear","dim":4,"hidden":[2]}"#).is_err());
}

#[test]
fn every_head_has_its_size_and_every_parameter_a_gradient() {
    for (config, dim) in configs() {
        for pool in [Pool::Average, Pool::Max, Pool::Gem { p: 2.5 }] {
            let store = ParamStore::new(1, &Device::Cpu);
            let head = Head::new(&config, pool, 6, &store.root()).unwrap();
            assert_eq!(head.dim(), dim);
            let map = Tensor::rand(0f32, 1.0, (4, 6, 3, 2), &Device::Cpu).unwrap();
            let pooled = head.pool(&Features::Map(map), true).unwrap();
            let y = head.embed(&pooled, true).unwrap();
            assert_eq!(y.dims(), [4, dim]);
            if store.parameter_count("") == 0 {
                continue;
            }
            let grads = y.powf(3.0).unwrap().sum_all().unwrap().backward().unwrap();
            for (name, param) in store.entries("") {
                let found = grads.get(&param.var).is_some();
                assert!(found || param.kind == Kind::Buffer, "{config:?} {pool}: {name}");
            }
        }
    }
}

#[test]
fn every_head_on_every_pooling_is_written_down_as_it_computes() {
    let gem = Pool::Gem { p: 2.5 };
    for (config, dim) in configs() {
        for pool in [Pool::Average, Pool::Max, gem, Pool::ClassToken, Pool::ClassAndMean] {
            let x = Tensor::randn(0f32, 1.0, (3, 5, 6), &Device::Cpu).unwrap();
            let mut inputs = vec![Features::Tokens(x)];
            if !matches!(pool, Pool::ClassToken | Pool::ClassAndMean) {
                inputs.push(Features::Map(Tensor::randn(0f32, 1.0, (3, 6, 3, 2), &Device::Cpu).unwrap()));
            }
            for features in inputs {
                let store = ParamStore::new(1, &Device::Cpu);
                let head = Head::new(&config, pool, 6, &store.root()).unwrap();
                for (_, param) in store.entries("") {
                    // Nothing as it starts, powers and variances above 0.
                    let values = Tensor::rand(0.5f32, 1.5, param.var.shape(), &Device::Cpu).unwrap();
                    param.var.set(&values).unwrap();
                }
                let wanted = head.embed(&head.pool(&features, false).unwrap(), false).unwrap();
                let (x, named): (_, fn(Edge) -> Features<Edge>) = match &features {
                    Features::Map(x) => (x, Features::Map),
                    Features::Tokens(x) => (x, Features::Tokens),
                };
                let found = interpreter::run(1, x, |graph, x| {
                    let pooled = head.emit_pool(graph, &named(x))?;
                    head.emit(graph, pooled)
                });
                let worst = interpreter::difference(&found, &wanted);
                let scale = wanted.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                // Layer norms of nearly equal values magnify rounding.
                assert!(worst < 1e-4 * scale.max(1.0), "{config:?} {pool} to {dim}: {worst} of {scale}");
            }
        }
    }
}

// x = (torch.arange(12.) * 7 % 5).reshape(4, 3); b = torch.nn.BatchNorm1d(3); b.train(); b(x); b.eval(); b(x)[0]
#[test]
fn the_batch_norm_neck_is_batch_norm_without_a_shift() {
    let store = ParamStore::new(1, &Device::Cpu);
    let head = Head::new(&HeadConfig::BatchNorm { dim: None }, Pool::Average, 3, &store.root()).unwrap();
    let x: Vec<f32> = (0..12).map(|i| (i * 7 % 5) as f32).collect();
    let x = Tensor::from_vec(x, (4, 3), &Device::Cpu).unwrap();
    head.embed(&x, true).unwrap();
    let found: Vec<f32> = head.embed(&x, false).unwrap().get(0).unwrap().to_vec1().unwrap();
    let wanted = [-0.1452362, 1.625995, 3.503904];
    assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    assert_eq!(store.get("norm.bias").unwrap().kind, Kind::Buffer);
    assert_eq!(store.parameter_count(""), 3);
}

#[test]
fn impossible_sizes_are_refused_by_name() {
    let mlp = |hidden| HeadConfig::Mlp { dim: 4, hidden, activation: HeadActivation::Relu };
    for (config, key) in [
        (HeadConfig::Linear { dim: 0 }, "embedding_dim"),
        (HeadConfig::BatchNorm { dim: Some(0) }, "embedding_dim"),
        (mlp(vec![]), "hidden"),
        (mlp(vec![3, 0]), "hidden"),
    ] {
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    }
}
