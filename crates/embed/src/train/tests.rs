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
use crate::loss::{ArcMarginConfig, LossConfig, SoftmaxConfig, TripletConfig};
use crate::miner::Miner;
use crate::schedule::Schedule;
use crate::transform::TrainTransform;

/// Four classes of six pictures: stripes of a class's own width and direction, in random colours.
fn pictures() -> (TempDir, Dataset) {
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

fn tiny() -> Embedder {
    let mut config = ModelConfig::new(Arch::ResNet10Tiny, HeadConfig::Linear { dim: 16 });
    (config.transform.resize, config.transform.crop) = (36, 32);
    Embedder::untrained(config, 7, DeviceKind::Cpu).unwrap()
}

fn settings(loss: LossConfig, steps: usize) -> TrainConfig {
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
        Ok(1.0 - measured)
    };
    let summary = train(&mut embedder, config, &job, Some(&mut validate), &mut |event| {
        if let TrainEvent::Stepped { step, loss, .. } = event {
            losses.push(loss);
            stop.fetch_or(step >= stop_after, Ordering::Relaxed);
        }
    })?;
    Ok(Outcome { summary, losses, fingerprint: embedder.fingerprint().to_owned() })
}

fn arcmargin() -> LossConfig {
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
    ];
    for (i, loss) in losses.into_iter().enumerate() {
        let mut config = settings(loss.clone(), 24);
        config.per_class = if matches!(loss, LossConfig::Triplet(_)) { 3 } else { 0 };
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
