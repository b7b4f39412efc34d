//! `semblance train`: learn an embedder from labelled photographs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::HumanDuration;
use semblance_embed::Embedder;
use semblance_embed::checkpoint::LearnedFrom;
use semblance_embed::dataset::Dataset;
use semblance_embed::loss::LossConfig;
use semblance_embed::optimizer::{Algorithm, OptimizerConfig};
use semblance_embed::schedule::{Schedule, Shape};
use semblance_embed::train::{
    Holdout, Protocol, Score, TrainConfig, TrainEvent, TrainJob, TrainSummary, train,
};
use semblance_embed::transform::{Distortion, TrainTransform};
use semblance_query::Validation;

use crate::allocator;
use crate::curves;
use crate::exit::Exit;
use crate::inputs;
use crate::loss_args::{LossArgs, LossName};
use crate::printer::Printer;
use crate::start;
use crate::train_args::{AugmentArgs, OptimizerArgs, OptimizerName, ScheduleName, TrainArgs};

pub(crate) fn run(args: &TrainArgs, printer: Printer) -> anyhow::Result<Exit> {
    allocator::keep_freed_memory();
    let dataset = inputs::dataset(&args.data, printer)?;
    inputs::refuse_left_out(&dataset, args.strict)?;
    let left_out = dataset.left_out.clone();
    let (learn, validation) = split(args, dataset, printer)?;
    let mut embedder = start::embedder(args, printer)?;
    start::remark_on(&embedder, &learn, printer);
    embedder.set_learned_from(inputs::is_drawn(&learn).then_some(LearnedFrom::DrawnPictures));
    let config = config(args, &embedder, printer)?;
    let stop = stop_on_ctrl_c()?;
    let job = TrainJob { data: &learn, run: &args.out, resume: args.resume, stop: &stop };
    let summary = fit(&mut embedder, &config, &job, (validation.as_ref(), args.strict), printer)?;
    // The models are there; a picture that fails is no reason to fail.
    match curves::draw(&args.out) {
        Ok(Some(path)) => printer.note(format_args!("the curves are in {}", path.display())),
        Ok(None) => {}
        Err(error) => printer.warn(format_args!("{error:#}")),
    }
    let mut result = serde_json::to_value(&summary)?;
    result["left_out"] = serde_json::to_value(left_out)?;
    printer.result(&result, |_| text(&summary, &args.out))?;
    Ok(if summary.stopped { Exit::Interrupted } else { Exit::Done })
}

/// Steps after which the remaining time is estimated.
const ETA_AFTER: usize = 5;

/// Trains with a progress bar on stderr. If it is strict, the first photograph that cannot be read ends the run with an
/// error, after its state is saved.
pub(crate) fn fit(
    embedder: &mut Embedder,
    config: &TrainConfig,
    job: &TrainJob<'_>,
    (validation, strict): (Option<&Validation>, bool),
    printer: Printer,
) -> anyhow::Result<TrainSummary> {
    let mut refused = None;
    let bar = printer.bar("training", 0);
    let (mut steps, mut done, mut first) = (0, 0, None);
    let mut show = |event: TrainEvent| match event {
        TrainEvent::Planned(plan) => {
            (steps, done) = (plan.steps, plan.done);
            bar.set(plan.done, plan.steps);
            bar.line(format!(
                "{} photographs of {} classes, {} steps of {}, {} values to learn (at least {} MiB with their \
                 gradients and what the optimiser remembers)",
                plan.images,
                plan.classes,
                plan.steps,
                plan.batch,
                plan.parameters,
                plan.bytes.div_ceil(1 << 20)
            ));
        }
        TrainEvent::Stepped { step, loss, lr, images_per_second } => {
            bar.set(step, steps);
            let began = *first.get_or_insert((step, Instant::now()));
            if step == done + ETA_AFTER && steps > step {
                let each = began.1.elapsed().as_secs_f64() / (step - began.0).max(1) as f64;
                let left = HumanDuration(Duration::from_secs_f64(each * (steps - step) as f64));
                bar.line(format!("{each:.2} s a step, about {left} to go"));
            }
            bar.say(format!("loss {loss:.3} lr {lr:.1e} {images_per_second:.0}/s"));
        }
        TrainEvent::Validated { step, score, best } => {
            bar.line(format!(
                "step {step}: Recall@1 {:.4}, MAP@R {:.4}{}",
                score.recall_at_1,
                score.map_at_r,
                if best { ", kept as the best so far" } else { "" }
            ));
        }
        TrainEvent::Skipped { reason } if strict => {
            job.stop.store(true, Ordering::Relaxed);
            refused.get_or_insert(reason);
        }
        TrainEvent::Skipped { reason } => bar.line(format!("skipped {reason}")),
    };
    let mut measure = validation.map(|validation| {
        |embedder: &Embedder| -> Result<Score, Box<dyn std::error::Error + Send + Sync>> {
            Ok(validation.score(embedder)?)
        }
    });
    let validate = measure.as_mut().map(|measure| measure as &mut semblance_embed::train::Validate<'_>);
    let summary = train(embedder, config, job, validate, &mut show)?;
    match refused {
        Some(reason) => bail!("{reason} (--strict)"),
        None => Ok(summary),
    }
}

/// What is learned from and what is judged by.
fn split(
    args: &TrainArgs,
    dataset: Dataset,
    printer: Printer,
) -> anyhow::Result<(Dataset, Option<Validation>)> {
    let extract = semblance_embed::extract::ExtractConfig {
        threads: printer.threads.map_or(0, usize::from),
        strict: args.strict,
        ..Default::default()
    };
    if let Some(path) = &args.validation.valid {
        let queries = inputs::dataset_at(path, &args.data.layout, printer)?;
        let gallery = args.validation.valid_against_train.then(|| dataset.clone());
        let given = Holdout { protocol: Protocol::Classes, learn: dataset, queries, gallery };
        judges(&given, path)?;
        let Holdout { learn, queries, gallery, .. } = given;
        return Ok((learn, Some(Validation { queries, gallery, extract })));
    }
    if args.validation.holdout == 0.0 {
        return Ok((dataset, None));
    }
    let held = Holdout::new(&dataset, args.validation.holdout, args.seed);
    let (queries, classes) = (held.queries.len(), held.queries.classes().len());
    match held.protocol {
        Protocol::Classes => {
            printer.note(format_args!("held out: {classes} classes with {queries} photographs, for validation"));
        }
        Protocol::Photographs => printer.note(format_args!(
            "held out: {queries} photographs of {classes} classes, for validation; there are too few classes to hold out \
             whole ones, so Recall@1 here does not say how products that were never seen are found"
        )),
        Protocol::Nothing => {
            printer.warn(format_args!(
                "{} has too few photographs to judge a model by ({} of {} classes): nothing is held out, and the last model \
                 is kept. Give photographs to judge by with --valid",
                dataset.name,
                dataset.len(),
                dataset.classes().len()
            ));
            return Ok((held.learn, None));
        }
    }
    Ok((held.learn, Some(Validation { queries: held.queries, gallery: held.gallery, extract })))
}

/// Refuses photographs to judge by that tell no two models apart.
fn judges(given: &Holdout, path: &Path) -> anyhow::Result<()> {
    let searched = given.gallery.as_ref().unwrap_or(&given.queries);
    if searched.classes().len() < 2 {
        bail!(
            "--valid {}: what is searched is all of one class, so that Recall@1 is 1 whatever the model; give photographs of \
             several classes",
            path.display()
        );
    }
    if given.queries_with_a_match() == 0 {
        bail!(
            "--valid {}: no photograph has another of its class to be found, so that Recall@1 is 0 whatever the model; give \
             at least two of a class{}",
            path.display(),
            if given.gallery.is_some() { " that is trained on" } else { ", or --valid-against-train" }
        );
    }
    Ok(())
}

fn config(args: &TrainArgs, embedder: &Embedder, printer: Printer) -> anyhow::Result<TrainConfig> {
    let default = TrainConfig::default();
    let OptimizerArgs { batch, per_class, super_classes, accumulate, chunk, epochs, steps, .. } =
        args.optimizer;
    let OptimizerArgs { memory, memory_start, average, freeze_backbone, freeze_norms, .. } = args.optimizer;
    Ok(TrainConfig {
        loss: loss(&args.loss)?,
        batch: batch.unwrap_or(default.batch),
        per_class: per_class.unwrap_or(default.per_class),
        super_classes: super_classes.unwrap_or(default.super_classes),
        accumulate: accumulate.unwrap_or(default.accumulate),
        chunk: chunk.unwrap_or(default.chunk),
        memory: memory.unwrap_or(default.memory),
        memory_start: memory_start.unwrap_or(default.memory_start),
        average: average.unwrap_or(default.average),
        freeze_backbone: freeze_backbone.unwrap_or(default.freeze_backbone),
        freeze_norms: freeze_norms.unwrap_or(default.freeze_norms),
        epochs: epochs.unwrap_or(default.epochs),
        steps,
        schedule: schedule(&args.optimizer),
        optimizer: optimizer(&args.optimizer),
        augment: augment(args, embedder),
        progressive_size: args.augment.progressive_size.clone(),
        explode_factor: args.optimizer.explode_factor.unwrap_or(default.explode_factor),
        explode_steps: args.optimizer.explode_steps.unwrap_or(default.explode_steps),
        validate_every: args.validation.validate_every.unwrap_or(default.validate_every),
        save_every: args.validation.save_every.unwrap_or(default.save_every),
        keep: args.validation.keep.unwrap_or(default.keep),
        patience: args.validation.patience.unwrap_or(default.patience),
        seed: args.seed,
        threads: printer.threads.map_or(0, usize::from),
    })
}

/// The flags given, read as the settings of the loss, which knows its own.
fn loss(args: &LossArgs) -> anyhow::Result<LossConfig> {
    let given = serde_json::to_value(args)?;
    let name = given["name"].clone();
    let normalizes = matches!(args.loss, LossName::Softmax | LossName::Eml | LossName::Npairs);
    if normalizes && args.scale.is_some() && args.normalize != Some(true) {
        anyhow::bail!(
            "--scale has no effect with --loss {} unless --normalize is set",
            name.as_str().unwrap_or_default()
        );
    }
    serde_json::from_value(given)
        .with_context(|| format!("the settings do not fit --loss {}", name.as_str().unwrap_or_default()))
}

fn schedule(args: &OptimizerArgs) -> Schedule {
    let default = Schedule::default();
    let shape = match args.lr_schedule {
        ScheduleName::Cosine => Shape::Cosine,
        ScheduleName::Constant => Shape::Constant,
        ScheduleName::Linear => Shape::Linear,
        ScheduleName::OneCycle => Shape::OneCycle { rise: args.lr_rise },
        ScheduleName::Piecewise => Shape::Piecewise { steps: args.lr_steps.clone(), factor: args.lr_factor },
    };
    Schedule { lr: args.lr.unwrap_or(default.lr), warmup: args.warmup.unwrap_or(default.warmup), shape }
}

fn optimizer(args: &OptimizerArgs) -> OptimizerConfig {
    let default = OptimizerConfig::default();
    OptimizerConfig {
        algorithm: match args.optimizer {
            OptimizerName::Sgd => Algorithm::Sgd,
            OptimizerName::Adam => Algorithm::Adam,
            OptimizerName::Adamw => Algorithm::AdamW,
        },
        momentum: args.momentum.unwrap_or(default.momentum),
        nesterov: args.nesterov.unwrap_or(default.nesterov),
        beta1: args.beta1.unwrap_or(default.beta1),
        beta2: args.beta2.unwrap_or(default.beta2),
        epsilon: args.adam_epsilon.unwrap_or(default.epsilon),
        weight_decay: args.weight_decay.unwrap_or(default.weight_decay),
        decay_vectors: !args.no_decay_vectors.unwrap_or(!default.decay_vectors),
        head_lr: args.head_lr.unwrap_or(default.head_lr),
        loss_lr: args.loss_lr.unwrap_or(default.loss_lr),
        clip_norm: args.clip_norm.unwrap_or(default.clip_norm),
    }
}

fn augment(args: &TrainArgs, embedder: &Embedder) -> TrainTransform {
    let default = TrainTransform::matching(embedder.transform());
    let args = &args.augment;
    TrainTransform {
        size: args.progressive_size.last().copied().or(args.train_size).unwrap_or(default.size),
        scale: (args.crop_min.unwrap_or(default.scale.0), args.crop_max.unwrap_or(default.scale.1)),
        ratio: (args.ratio_min.unwrap_or(default.ratio.0), args.ratio_max.unwrap_or(default.ratio.1)),
        flip: args.flip.unwrap_or(default.flip),
        distortion: distortion(args),
        ..default
    }
}

fn distortion(args: &AugmentArgs) -> Distortion {
    let default = Distortion::default();
    let range = |low: Option<f32>, high: Option<f32>, default: (f32, f32)| {
        (low.unwrap_or(default.0), high.unwrap_or(default.1))
    };
    Distortion {
        rotate: args.rotate.unwrap_or(default.rotate),
        brightness: args.brightness.unwrap_or(default.brightness),
        contrast: args.contrast.unwrap_or(default.contrast),
        saturation: args.saturation.unwrap_or(default.saturation),
        hue: args.hue.unwrap_or(default.hue),
        grayscale: args.grayscale.unwrap_or(default.grayscale),
        blur: args.blur.unwrap_or(default.blur),
        blur_sigma: range(args.blur_min, args.blur_max, default.blur_sigma),
        erase: args.erase.unwrap_or(default.erase),
        erase_area: range(args.erase_min, args.erase_max, default.erase_area),
    }
}

/// A flag that Ctrl-C sets; the second Ctrl-C ends the program at once.
fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(stop)
}

fn text(summary: &TrainSummary, run: &Path) -> String {
    let mut out = format!(
        "{} after {} steps; the model is in {}\n",
        match (summary.stopped, summary.early) {
            (true, _) => "stopped and saved",
            (_, true) => "ended early, as validations no longer got better,",
            _ => "trained",
        },
        summary.steps,
        summary.model.display()
    );
    match (summary.recall_before, summary.best) {
        (Some(_), Some((0, best))) if summary.steps > 0 => out.push_str(&format!(
            "No validation was better than the one before the first step (Recall@1 {best:.4}): {} is the model that the run \
             began with, {} the trained one. A lower learning rate or other settings may help\n",
            summary.model.display(),
            run.join("last").display()
        )),
        (Some(before), Some((step, best))) => {
            out.push_str(&format!(
                "Recall@1 on held-out photographs: {before:.4} before, {best:.4} best (step {step})\n"
            ));
            if before >= 1.0 && best >= 1.0 {
                out.push_str(
                    "It was 1 from the start, so it does not say what training brought; the model was chosen by MAP@R. Give \
                     more or harder photographs with --valid\n",
                );
            }
        }
        _ => out.push_str("Nothing was held out, so nothing says how good it is; it is the last model of the run\n"),
    }
    if summary.skipped > 0 {
        out.push_str(&format!("{} times a photograph could not be read and was left out\n", summary.skipped));
    }
    if summary.stopped {
        out.push_str("go on with the same command and --resume\n");
    }
    out
}
