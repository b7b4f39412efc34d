//! Whole runs on a handful of drawn pictures.

use std::path::PathBuf;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

use super::*;
use crate::backbone::Arch;
use crate::checkpoint::ModelConfig;
use crate::dataset::DatasetConfig;
use crate::embedder::{DeviceKind, ModelSource};
use crate::head::HeadConfig;
use crate::loss::{
    ArcMarginConfig, ContrastiveConfig, LossConfig, NpairsConfig, ProxyNcaConfig, SmoothApConfig,
    SoftTripleConfig, SoftmaxConfig, SupConConfig, TripletConfig,
};
use crate::miner::Miner;
use crate::optimizer::{Algorithm, OptimizerConfig};
use crate::schedule::{Schedule, Shape};
use crate::transform::TrainTransform;

/// Four classes of six pictures: stripes of a class's own width and direction, in random colours.
pub(super) fn pictures() -> (TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    for class in 0..4u32 {
        let folder = dir.path().join(format!("data/class{class}"));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..6u32 {
            let tint = (class * 97 + i * 61) % 200;
            let picture = RgbImage::from_fn(40, 40, |x, y| {
                let along = if class % 2 == 0 { x } else { y } + i;
                let on = (along / (2 + 3 * (class / 2))) % 2 == 0;
                if on { Rgb([tint as u8, 200, 90]) } else { Rgb([255 - tint as u8, 30, 40]) }
            });
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    let data = Dataset::open(&DatasetConfig::new(dir.path().join("data"))).unwrap();
    (dir, data)
}

pub(super) fn tiny() -> Embedder {
    let mut config = ModelConfig::new(Arch::ResNet10Tiny, HeadConfig::Linear { dim: 16 });
    (config.transform.resize, config.transform.crop) = (36, 32);
    Embedder::untrained(config, 7, DeviceKind::Cpu).unwrap()
}

pub(super) fn settings(loss: LossConfig, steps: usize) -> TrainConfig {
    TrainConfig {
        loss,
        batch: 12,
        steps: Some(steps),
        schedule: Schedule { lr: 0.05, warmup: 2, ..Schedule::default() },
        augment: TrainTransform { size: 32, scale: (0.7, 1.0), ..TrainTransform::default() },
        validate_every: 4,
        save_every: 3,
        seed: 11,
        threads: 1,
        ..TrainConfig::default()
    }
}

struct Outcome {
    summary: TrainSummary,
    losses: Vec<f32>,
    fingerprint: String,
}

/// Trains until `stop_after` steps are done, validating by a made-up measure that falls with the step.
fn run(
    data: &Dataset,
    folder: PathBuf,
    config: &TrainConfig,
    resume: bool,
    stop_after: usize,
) -> Result<Outcome> {
    let (mut embedder, stop, mut losses) = (tiny(), AtomicBool::new(false), Vec::new());
    let job = TrainJob { data, run: &folder, resume, stop: &stop };
    let mut measured = 0.0;
    let mut validate = |_: &Embedder| {
        measured += 0.1;
        Ok(Score { recall_at_1: 1.0 - measured, map_at_r: 0.0 })
    };
    let summary = train(&mut embedder, config, &job, Some(&mut validate), &mut |event| {
        if let TrainEvent::Stepped { step, loss, .. } = event {
            losses.push(loss);
            stop.fetch_or(step >= stop_after, Ordering::Relaxed);
        }
    })?;
    Ok(Outcome { summary, losses, fingerprint: embedder.fingerprint().to_owned() })
}

pub(super) fn arcmargin() -> LossConfig {
    LossConfig::Arcmargin(ArcMarginConfig { scale: 16.0, ..ArcMarginConfig::default() })
}

#[test]
fn every_loss_falls() {
    let (dir, data) = pictures();
    let triplet = |miner| LossConfig::Triplet(TripletConfig { margin: 0.3, miner });
    let losses = [
        LossConfig::Softmax(SoftmaxConfig::default()),
        arcmargin(),
        triplet(Miner::BatchAll),
        triplet(Miner::Layout),
        triplet(Miner::DistanceWeighted),
        LossConfig::Supcon(SupConConfig::default()),
        LossConfig::ProxyNca(ProxyNcaConfig::default()),
        LossConfig::SoftTriple(SoftTripleConfig { centers: 2, ..SoftTripleConfig::default() }),
        LossConfig::SmoothAp(SmoothApConfig { temperature: 0.05 }),
        LossConfig::Npairs(NpairsConfig::default()),
    ];
    for (i, loss) in losses.into_iter().enumerate() {
        let mut config = settings(loss.clone(), 24);
        config.per_class = if matches!(loss, LossConfig::Triplet(_)) { 3 } else { 0 };
        if matches!(loss, LossConfig::Npairs(_)) {
            // Two of each of the four classes; a rate of 0.05 lets raw embeddings grow without end.
            (config.batch, config.schedule.lr) = (8, 0.005);
        }
        let outcome = run(&data, dir.path().join(format!("run{i}")), &config, false, usize::MAX).unwrap();
        let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
        let (first, last) = (mean(&outcome.losses[..6]), mean(&outcome.losses[18..]));
        assert!(last < 0.8 * first, "{}: from {first} to {last}", loss.name());
    }
}

#[test]
fn a_run_stopped_and_resumed_ends_as_one_never_stopped() {
    let (dir, data) = pictures();
    let config = settings(arcmargin(), 10);
    let whole = run(&data, dir.path().join("whole"), &config, false, usize::MAX).unwrap();
    assert!(!whole.summary.stopped && whole.summary.steps == 10);
    let folder = dir.path().join("parts");
    let first = run(&data, folder.clone(), &config, false, 4).unwrap();
    assert!(first.summary.stopped && first.summary.steps == 4);
    let rest = run(&data, folder.clone(), &config, true, usize::MAX).unwrap();
    assert_eq!(rest.fingerprint, whole.fingerprint);
    assert_eq!([first.losses, rest.losses].concat(), whole.losses);
    let log = std::fs::read_to_string(folder.join("train.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("\"loss\"")).count(), 10);
}

/// One setting after another that a run has to remember something for.
fn remembering() -> Vec<(&'static str, TrainConfig)> {
    let contrastive = LossConfig::Contrastive(ContrastiveConfig::default());
    let plain = settings(arcmargin(), 7);
    let algorithm = |algorithm| OptimizerConfig { algorithm, loss_lr: 10.0, ..OptimizerConfig::default() };
    let shape = |shape| Schedule { lr: 0.01, warmup: 0, shape };
    vec![
        ("adam", TrainConfig { optimizer: algorithm(Algorithm::Adam), ..plain.clone() }),
        (
            "adamw, one cycle",
            TrainConfig {
                optimizer: algorithm(Algorithm::AdamW),
                schedule: shape(Shape::OneCycle { rise: 0.3 }),
                ..plain.clone()
            },
        ),
        ("average", TrainConfig { average: 0.8, schedule: shape(Shape::Linear), ..plain.clone() }),
        ("accumulate", TrainConfig { accumulate: 2, batch: 6, ..plain.clone() }),
        ("memory", TrainConfig { memory: 30, memory_start: 1, ..settings(contrastive.clone(), 7) }),
        (
            "triplets with a memory, growing photographs",
            TrainConfig {
                memory: 30,
                progressive_size: vec![16, 24, 32],
                accumulate: 2,
                per_class: 3,
                ..settings(LossConfig::Triplet(TripletConfig::default()), 7)
            },
        ),
        ("chunk", TrainConfig { chunk: 5, ..settings(contrastive, 7) }),
        (
            "freeze",
            TrainConfig {
                freeze_backbone: Freeze::First(2),
                freeze_norms: Freeze::First(5),
                ..plain.clone()
            },
        ),
        (
            "proxies, clipped",
            TrainConfig {
                loss: LossConfig::ProxyNca(ProxyNcaConfig::default()),
                optimizer: OptimizerConfig { clip_norm: 0.5, ..algorithm(Algorithm::Sgd) },
                ..plain
            },
        ),
    ]
}

#[test]
fn whatever_a_run_remembers_it_goes_on_as_if_never_stopped() {
    let (dir, data) = pictures();
    for (i, (name, config)) in remembering().into_iter().enumerate() {
        let folder = |part: &str| dir.path().join(format!("{i}-{part}"));
        let whole = run(&data, folder("whole"), &config, false, usize::MAX).unwrap();
        let first = run(&data, folder("parts"), &config, false, 1 + i % 5).unwrap();
        let rest = run(&data, folder("parts"), &config, true, usize::MAX).unwrap();
        assert_eq!([first.losses, rest.losses].concat(), whole.losses, "{name}");
        assert_eq!(rest.fingerprint, whole.fingerprint, "{name}");
        let last = Embedder::open(&ModelSource::new(folder("parts").join("last").to_str().unwrap())).unwrap();
        assert_eq!(last.fingerprint(), whole.fingerprint, "{name}");
    }
}

#[test]
fn chunks_give_the_gradient_of_the_whole_batch() {
    let (dir, data) = pictures();
    let contrastive = LossConfig::Contrastive(ContrastiveConfig::default());
    let whole = TrainConfig { freeze_norms: Freeze::All, ..settings(contrastive, 4) };
    let chunks = TrainConfig { chunk: 5, ..whole.clone() };
    let whole = run(&data, dir.path().join("whole"), &whole, false, usize::MAX).unwrap();
    let chunks = run(&data, dir.path().join("chunks"), &chunks, false, usize::MAX).unwrap();
    for (a, b) in whole.losses.iter().zip(&chunks.losses) {
        assert!((a - b).abs() < 1e-3 * a.abs().max(1.0), "{:?} {:?}", whole.losses, chunks.losses);
    }
}

#[test]
fn a_frozen_backbone_stays_and_the_head_learns() {
    let (dir, data) = pictures();
    let folder = dir.path().join("run");
    let config = TrainConfig { freeze_backbone: Freeze::All, ..settings(arcmargin(), 3) };
    run(&data, folder.clone(), &config, false, usize::MAX).unwrap();
    let last = Embedder::open(&ModelSource::new(folder.join("last").to_str().unwrap())).unwrap();
    let moved = |prefix: &str| {
        last.store().entries(prefix).iter().any(|(name, param)| {
            let before = tiny().store().get(name).unwrap().var.flatten_all().unwrap();
            let after = param.var.flatten_all().unwrap();
            before.to_vec1::<f32>().unwrap() != after.to_vec1::<f32>().unwrap()
        })
    };
    assert!(!moved("backbone.") && moved("head."));
}

#[test]
fn patience_ends_a_run_and_old_models_go() {
    let (dir, data) = pictures();
    let folder = dir.path().join("run");
    // The made-up measure only falls: before the first step it is best, and after steps 4 and 8 worse.
    let config = TrainConfig { patience: 2, keep: 2, save_every: 2, ..settings(arcmargin(), 40) };
    let outcome = run(&data, folder.clone(), &config, false, usize::MAX).unwrap();
    assert!(outcome.summary.early && !outcome.summary.stopped);
    assert_eq!(outcome.summary.steps, 8);
    let kept = |step: usize| folder.join(format!("step-{step:06}")).exists();
    assert_eq!([2, 4, 6, 8].map(kept), [false, false, true, true]);
}

#[test]
fn photographs_grow_over_the_run() {
    let (dir, data) = pictures();
    let plain = settings(arcmargin(), 6);
    let growing = TrainConfig { progressive_size: vec![16, 24, 32], ..plain.clone() };
    let sizes: Vec<usize> = {
        let sampler = Sampler::new(&growing.sampler_config(), &data, 0).unwrap();
        let config = LoaderConfig { sizes: growing.sizes(6), ..LoaderConfig::default() };
        let transform = Transform::Train(growing.augment.clone());
        let batches = Loader::new(Arc::new(data.clone()), sampler, transform, &config).unwrap().take(7);
        batches.map(|batch| (batch.pixels.len() / batch.indices.len() / 3).isqrt()).collect()
    };
    assert_eq!(sizes, [16, 16, 24, 24, 32, 32, 32]);
    let losses = |name: &str, config: &TrainConfig| {
        run(&data, dir.path().join(name), config, false, usize::MAX).unwrap().losses
    };
    assert_ne!(losses("plain", &plain), losses("growing", &growing));
}

#[test]
fn a_run_that_explodes_is_stopped_while_its_loss_is_finite_and_the_last_good_state_stays() {
    let (dir, data) = pictures();
    // A rate that rises a thousandfold after the first 20 steps.
    let shape = Shape::Piecewise { steps: vec![24], factor: 1000.0 };
    let schedule = Schedule { lr: 0.02, warmup: 0, shape };
    let exploding = TrainConfig {
        schedule,
        explode_factor: 4.0,
        explode_steps: 3,
        save_every: 1,
        ..settings(LossConfig::Softmax(SoftmaxConfig::default()), 60)
    };
    let folder = dir.path().join("run");
    let error = run(&data, folder.clone(), &exploding, false, usize::MAX).err().unwrap();
    let EmbedError::Exploded { step, value, median, .. } = error else { panic!("{error}") };
    assert!(value.is_finite() && value > 4.0 * median && step > 24, "{error}");
    let text = error.to_string();
    assert!(text.contains("learning rate") && text.contains("clipping") && text.contains("last"), "{text}");
    let state: serde_json::Value = checkpoint_state(&folder);
    assert_eq!(state["step"], step - 3, "the steps that were over are not saved");
    // It is the state before the explosion: the same run that goes no further.
    let short = TrainConfig { steps: Some(60), explode_factor: 0.0, ..exploding };
    let calm = run(&data, dir.path().join("calm"), &short, false, step - 3).unwrap();
    let last = Embedder::open(&ModelSource::new(folder.join("last").to_str().unwrap())).unwrap();
    assert_eq!(last.fingerprint(), calm.fingerprint);
}

fn checkpoint_state(folder: &Path) -> serde_json::Value {
    crate::checkpoint::read_json(&folder.join("last/state.json")).unwrap()
}

#[test]
fn a_memory_needs_a_loss_over_pairs() {
    let (dir, data) = pictures();
    let config = TrainConfig { memory: 100, ..settings(arcmargin(), 3) };
    let error = run(&data, dir.path().join("run"), &config, false, 9).err().unwrap().to_string();
    assert!(error.starts_with("memory") && error.contains("contrastive"), "{error}");
}

#[test]
fn a_batch_larger_than_the_data_is_refused() {
    let (dir, data) = pictures();
    for (loss, needle) in [(arcmargin(), "24"), (LossConfig::Supcon(SupConConfig::default()), "classes")] {
        let config = TrainConfig { batch: 48, ..settings(loss, 3) };
        let error = run(&data, dir.path().join("run"), &config, false, 9).err().unwrap().to_string();
        assert!(error.contains(needle), "{error}");
        assert!(!dir.path().join("run").exists(), "nothing is written");
    }
}

#[test]
fn the_best_model_is_kept_and_opens() {
    let (dir, data) = pictures();
    let folder = dir.path().join("run");
    let outcome = run(&data, folder.clone(), &settings(arcmargin(), 8), false, usize::MAX).unwrap();
    // The made-up measure only falls, so the untrained model stays the best.
    assert_eq!(outcome.summary.best.map(|(step, _)| step), Some(0));
    assert_eq!(outcome.summary.recall_before, Some(0.9));
    let open = |name: &str| Embedder::open(&ModelSource::new(folder.join(name).to_str().unwrap())).unwrap();
    assert_eq!(open("best").fingerprint(), tiny().fingerprint());
    assert_eq!(open("last").fingerprint(), outcome.fingerprint);
}

#[test]
fn another_run_is_not_resumed_and_a_finished_one_not_overwritten() {
    let (dir, data) = pictures();
    let folder = dir.path().join("run");
    let config = settings(arcmargin(), 3);
    let nothing = run(&data, folder.clone(), &config, true, usize::MAX).err().unwrap().to_string();
    assert!(nothing.contains("no run to resume"), "{nothing}");
    run(&data, folder.clone(), &config, false, usize::MAX).unwrap();
    let again = run(&data, folder.clone(), &config, false, usize::MAX).err().unwrap().to_string();
    assert!(again.contains("holds a run already"), "{again}");
    let other = TrainConfig { batch: 8, ..config.clone() };
    let other = run(&data, folder.clone(), &other, true, usize::MAX).err().unwrap().to_string();
    assert!(other.contains("settings batch"), "{other}");
    let fewer = data.filter(|sample| !sample.path.ends_with("5.png"));
    let fewer = run(&fewer, folder, &config, true, usize::MAX).err().unwrap().to_string();
    assert!(fewer.contains("photographs"), "{fewer}");
}

#[test]
fn a_loss_that_runs_away_stops_the_run_and_leaves_the_last_good_state() {
    let (dir, data) = pictures();
    let folder = dir.path().join("run");
    let mut config = settings(LossConfig::Softmax(SoftmaxConfig::default()), 40);
    config.schedule = Schedule { lr: 1e30, warmup: 0, ..Schedule::default() };
    config.save_every = 1;
    let error = run(&data, folder.clone(), &config, false, usize::MAX).err().unwrap();
    assert!(matches!(error, EmbedError::Diverged { .. }), "{error}");
    assert!(Embedder::open(&ModelSource::new(folder.join("best").to_str().unwrap())).is_ok());
}

#[test]
fn a_broken_photograph_is_named_and_the_run_goes_on() {
    let (dir, data) = pictures();
    std::fs::write(dir.path().join("data/class1/2.png"), b"not a picture").unwrap();
    let (mut embedder, stop, mut reasons) = (tiny(), AtomicBool::new(false), Vec::new());
    let folder = dir.path().join("run");
    let job = TrainJob { data: &data, run: &folder, resume: false, stop: &stop };
    let summary = train(&mut embedder, &settings(arcmargin(), 4), &job, None, &mut |event| {
        if let TrainEvent::Skipped { reason } = event {
            reasons.push(reason);
        }
    });
    let summary = summary.unwrap();
    assert_eq!((summary.steps, summary.skipped), (4, reasons.len()));
    assert!(!reasons.is_empty() && reasons[0].contains("2.png"), "{reasons:?}");
    assert_eq!(summary.model, folder.join("last"));
}

#[test]
fn one_class_is_too_few() {
    let (dir, data) = pictures();
    let one = data.filter(|sample| sample.class.as_deref() == Some("class0"));
    let error =
        run(&one, dir.path().join("run"), &settings(arcmargin(), 3), false, 9).err().unwrap().to_string();
    assert!(error.contains("at least two classes"), "{error}");
}
