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
    let (stop, mut losses) = (AtomicBool::new(false), Vec::new());
    let job = TrainJob { data, run: folder, resume, stop: &stop };
    let summary = train(embedder, &settings(), &job, None, &mut |event| {
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
