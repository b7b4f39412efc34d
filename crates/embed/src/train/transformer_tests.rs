//! Whole runs of a vision transformer and a ConvNeXt with every head.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

use super::*;
use crate::backbone::Arch;
use crate::checkpoint::ModelConfig;
use crate::dataset::DatasetConfig;
use crate::embedder::{DeviceKind, ModelSource};
use crate::head::{HeadActivation, HeadConfig, Pool};
use crate::optimizer::{Algorithm, OptimizerConfig};
use crate::schedule::Schedule;
use crate::transform::TrainTransform;

/// Three classes of four pictures, each class of its own colour.
fn pictures(dir: &Path) -> Dataset {
    for class in 0..3usize {
        let folder = dir.join(format!("data/class{class}"));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..4u32 {
            let mut colour = [40 + 20 * i as u8; 3];
            colour[class] = 250;
            let picture =
                RgbImage::from_fn(36, 36, |x, y| if (x + y) % 7 < 5 { Rgb(colour) } else { Rgb([9; 3]) });
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    Dataset::open(&DatasetConfig::new(dir.join("data"))).unwrap()
}

fn embedder(arch: Arch, head: &HeadConfig, pool: Pool) -> Embedder {
    let mut config = ModelConfig { pool: Some(pool), ..ModelConfig::new(arch, head.clone()) };
    (config.transform.resize, config.transform.crop) = (32, 32);
    Embedder::untrained(config, 7, DeviceKind::Cpu).unwrap()
}

fn settings() -> TrainConfig {
    TrainConfig {
        batch: 6,
        steps: Some(4),
        schedule: Schedule { lr: 1e-3, warmup: 0, ..Schedule::default() },
        optimizer: OptimizerConfig {
            algorithm: Algorithm::AdamW,
            weight_decay: 0.05,
            decay_vectors: false,
            ..OptimizerConfig::default()
        },
        average: 0.5,
        freeze_backbone: Freeze::First(1),
        augment: TrainTransform { size: 32, scale: (0.7, 1.0), ..TrainTransform::default() },
        validate_every: 100,
        save_every: 2,
        seed: 3,
        threads: 1,
        ..TrainConfig::default()
    }
}

/// Trains, stopping after `stop_after` steps; returns the losses.
fn run(embedder: &mut Embedder, data: &Dataset, folder: &Path, resume: bool, stop_after: usize) -> Vec<f32> {
    run_with(&settings(), embedder, data, folder, resume, stop_after)
}

fn run_with(
    settings: &TrainConfig,
    embedder: &mut Embedder,
    data: &Dataset,
    folder: &Path,
    resume: bool,
    stop_after: usize,
) -> Vec<f32> {
    let (stop, mut losses) = (AtomicBool::new(false), Vec::new());
    let job = TrainJob { data, run: folder, resume, stop: &stop };
    let summary = train(embedder, settings, &job, None, &mut |event| {
        if let TrainEvent::Stepped { step, loss, .. } = event {
            losses.push(loss);
            stop.store(step >= stop_after, Ordering::Relaxed);
        }
    });
    summary.unwrap();
    losses
}

#[test]
fn each_head_trains_is_resumed_exactly_and_comes_back_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = pictures(dir.path());
    let mlp = HeadConfig::Mlp { dim: 8, hidden: vec![16], activation: HeadActivation::Gelu };
    for (i, (head, pool)) in [
        (HeadConfig::LayerNorm { dim: Some(8) }, Pool::ClassToken),
        (HeadConfig::BatchNorm { dim: None }, Pool::Gem { p: 3.0 }),
        (mlp, Pool::ClassAndMean),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = |name: &str| -> PathBuf { dir.path().join(format!("{name}{i}")) };
        let new = || embedder(Arch::VitTiny16, &head, pool);
        let mut whole = new();
        let before = whole.fingerprint().to_owned();
        let losses = run(&mut whole, &data, &folder("whole"), false, usize::MAX);
        assert!(losses.len() == 4 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
        assert_ne!(before, whole.fingerprint());
        let first = run(&mut new(), &data, &folder("parts"), false, 2);
        let mut rest = new();
        let second = run(&mut rest, &data, &folder("parts"), true, usize::MAX);
        assert_eq!([first, second].concat(), losses, "{head:?} {pool}");
        assert_eq!(rest.fingerprint(), whole.fingerprint(), "{head:?} {pool}");
        let last = folder("parts").join("last");
        let opened = Embedder::open(&ModelSource::new(last.to_str().unwrap())).unwrap();
        assert_eq!((opened.fingerprint(), opened.config()), (whole.fingerprint(), whole.config()));
    }
}

fn values(embedder: &Embedder, name: &str) -> Vec<f32> {
    embedder.store().get(name).unwrap().var.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn one_step_changes_every_parameter_and_every_running_statistic() {
    let dir = tempfile::tempdir().unwrap();
    let data = pictures(dir.path());
    let mlp = |activation| HeadConfig::Mlp { dim: 8, hidden: vec![16, 12], activation };
    // Without decay, so that only a gradient can change anything.
    let optimizer =
        OptimizerConfig { algorithm: Algorithm::Adam, weight_decay: 0.0, ..OptimizerConfig::default() };
    let schedule = Schedule { lr: 1e-2, warmup: 0, ..Schedule::default() };
    let config =
        TrainConfig { optimizer, schedule, average: 0.0, freeze_backbone: Freeze::None, ..settings() };
    for (i, (arch, pool, head)) in [
        (Arch::VitTiny16, Pool::ClassToken, HeadConfig::Pooled),
        (Arch::VitTiny16, Pool::ClassAndMean, mlp(HeadActivation::Relu)),
        (Arch::ConvNextTiny, Pool::Average, mlp(HeadActivation::Gelu)),
        (Arch::ResNet10Tiny, Pool::Max, HeadConfig::LayerNorm { dim: None }),
        (Arch::ResNet10Tiny, Pool::Gem { p: 3.0 }, HeadConfig::LayerNorm { dim: Some(8) }),
        (Arch::ResNet10Tiny, Pool::Average, HeadConfig::BatchNorm { dim: None }),
        (Arch::ResNet10Tiny, Pool::Average, HeadConfig::BatchNorm { dim: Some(8) }),
        (Arch::ResNet10Tiny, Pool::Average, HeadConfig::Linear { dim: 8 }),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut trained, before) = (embedder(arch, &head, pool), embedder(arch, &head, pool));
        run_with(&config, &mut trained, &data, &dir.path().join(format!("run{i}")), false, 1);
        for (name, _) in before.store().entries("") {
            let (now, was) = (values(&trained, &name), values(&before, &name));
            // The neck's shift is no parameter: it stays 0.
            let stays = matches!(head, HeadConfig::BatchNorm { .. }) && name == "head.norm.bias";
            assert_eq!(now == was, stays, "{arch} {pool} {head:?}: {name}");
        }
    }
}

#[test]
fn freezing_norms_holds_the_statistics_of_batch_norms_and_leaves_layer_norms_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = pictures(dir.path());
    let at = |freeze_norms| TrainConfig { freeze_norms, average: 0.0, ..settings() };
    let neck = HeadConfig::BatchNorm { dim: Some(8) };
    // Frozen throughout, and for the first two of four steps: after two, after four.
    for (i, (freeze, steps, moved)) in
        [(Freeze::All, 4, false), (Freeze::First(2), 2, false), (Freeze::First(2), 4, true)]
            .into_iter()
            .enumerate()
    {
        let mut model = embedder(Arch::VitTiny16, &neck, Pool::ClassToken);
        let scale = values(&model, "head.norm.weight");
        run_with(&at(freeze), &mut model, &data, &dir.path().join(format!("neck{i}")), false, steps);
        for (statistic, start) in [("running_mean", 0.0), ("running_var", 1.0)] {
            let now = values(&model, &format!("head.norm.{statistic}"));
            assert_eq!(now.iter().any(|v| *v != start), moved, "{freeze} after {steps}: {statistic} {now:?}");
        }
        assert_ne!(values(&model, "head.norm.weight"), scale, "what is learned is learned all the same");
    }
    let norm = HeadConfig::LayerNorm { dim: Some(8) };
    let [without, with] = [Freeze::None, Freeze::All].map(|freeze| {
        let mut model = embedder(Arch::VitTiny16, &norm, Pool::ClassToken);
        run_with(&at(freeze), &mut model, &data, &dir.path().join(format!("layer-{freeze}")), false, 2);
        model.fingerprint().to_owned()
    });
    assert_eq!(with, without, "layer norms keep no statistics");
}

#[test]
fn a_size_that_does_not_divide_into_patches_is_refused_before_the_run_has_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = pictures(dir.path());
    let mut embedder = embedder(Arch::VitTiny16, &HeadConfig::Pooled, Pool::ClassToken);
    let mut config = settings();
    config.augment.size = 40;
    let folder = dir.path().join("run");
    let stop = AtomicBool::new(false);
    let job = TrainJob { data: &data, run: &folder, resume: false, stop: &stop };
    let error = train(&mut embedder, &config, &job, None, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("train_size") && error.contains("40") && error.contains("48"), "{error}");
    assert!(!folder.exists());
}
