//! `semblance train`: learn an embedder from labelled photographs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use semblance_embed::dataset::Dataset;
use semblance_embed::head::HeadConfig;
use semblance_embed::loss::{ArcMarginConfig, LossConfig, SoftmaxConfig, TripletConfig};
use semblance_embed::miner::Miner;
use semblance_embed::optimizer::SgdConfig;
use semblance_embed::schedule::{Schedule, Shape};
use semblance_embed::train::{TrainConfig, TrainEvent, TrainJob, TrainSummary, train};
use semblance_embed::transform::TrainTransform;
use semblance_embed::{Embedder, ModelSource};
use semblance_query::Validation;

use crate::args::ModelArgs;
use crate::exit::Exit;
use crate::inputs;
use crate::printer::Printer;
use crate::train_args::{LossArgs, LossName, MinerName, OptimizerArgs, ScheduleName, TrainArgs};

pub(crate) fn run(args: &TrainArgs, printer: Printer) -> anyhow::Result<Exit> {
    let dataset = inputs::dataset(&args.data, printer)?;
    let (learn, validation) = split(args, dataset, printer)?;
    let mut embedder = Embedder::open(&model(args)?)?;
    let config = config(args, &embedder, printer);
    let stop = stop_on_ctrl_c()?;
    let job = TrainJob { data: &learn, run: &args.out, resume: args.resume, stop: &stop };
    let summary = fit(&mut embedder, &config, &job, validation.as_ref(), printer)?;
    printer.result(&summary, text)?;
    Ok(if summary.stopped { Exit::Interrupted } else { Exit::Done })
}

/// Trains with a progress bar on stderr.
pub(crate) fn fit(
    embedder: &mut Embedder,
    config: &TrainConfig,
    job: &TrainJob<'_>,
    validation: Option<&Validation>,
    printer: Printer,
) -> anyhow::Result<TrainSummary> {
    let bar = printer.bar("training", 0);
    let mut steps = 0;
    let mut show = |event: TrainEvent| match event {
        TrainEvent::Planned(plan) => {
            steps = plan.steps;
            bar.set(plan.done, plan.steps);
            bar.line(format!(
                "{} photographs of {} classes, {} steps of {}, {} values to learn",
                plan.images, plan.classes, plan.steps, plan.batch, plan.parameters
            ));
        }
        TrainEvent::Stepped { step, loss, lr, images_per_second } => {
            bar.set(step, steps);
            bar.say(format!("loss {loss:.3} lr {lr:.1e} {images_per_second:.0}/s"));
        }
        TrainEvent::Validated { step, recall_at_1, best } => {
            bar.line(format!(
                "step {step}: Recall@1 {recall_at_1:.4}{}",
                if best { ", the best so far" } else { "" }
            ));
        }
        TrainEvent::Skipped { reason } => bar.line(format!("skipped {reason}")),
    };
    let mut measure = validation.map(|validation| {
        |embedder: &Embedder| -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
            Ok(validation.recall_at_1(embedder)?)
        }
    });
    let validate = measure.as_mut().map(|measure| measure as &mut semblance_embed::train::Validate<'_>);
    Ok(train(embedder, config, job, validate, &mut show)?)
}

/// What is learned from and what is judged by.
fn split(
    args: &TrainArgs,
    dataset: Dataset,
    printer: Printer,
) -> anyhow::Result<(Dataset, Option<Validation>)> {
    let extract = semblance_embed::extract::ExtractConfig {
        threads: printer.threads.map_or(0, usize::from),
        ..Default::default()
    };
    if let Some(path) = &args.validation.valid {
        let queries = inputs::dataset_at(path, &args.data.layout, printer)?;
        let gallery = args.validation.valid_against_train.then(|| dataset.clone());
        return Ok((dataset, Some(Validation { queries, gallery, extract })));
    }
    if args.validation.holdout == 0.0 {
        return Ok((dataset, None));
    }
    let (queries, learn) = dataset.class_split(args.validation.holdout, args.seed);
    if queries.is_empty() {
        bail!(
            "{} has too few classes to hold out {} of them: give --valid, or --holdout 0",
            dataset.name,
            args.validation.holdout
        );
    }
    Ok((learn, Some(Validation { queries, gallery: None, extract })))
}

fn model(args: &TrainArgs) -> anyhow::Result<ModelSource> {
    let start = match (&args.model.model, args.model.arch) {
        (None, Some(arch)) => ModelArgs { model: Some(format!("random:{arch}")), ..args.model.clone() },
        _ => args.model.clone(),
    };
    let source = inputs::model(&start).context(
        "no model to start from: give weights with --model, or begin from random ones with --arch",
    )?;
    let head = args.embedding_dim.map_or(HeadConfig::Pooled, |dim| HeadConfig::Linear { dim });
    Ok(ModelSource { head, seed: args.seed, ..source })
}

fn config(args: &TrainArgs, embedder: &Embedder, printer: Printer) -> TrainConfig {
    let default = TrainConfig::default();
    let OptimizerArgs { batch, per_class, epochs, steps, .. } = args.optimizer;
    TrainConfig {
        loss: loss(&args.loss),
        batch: batch.unwrap_or(default.batch),
        per_class: per_class.unwrap_or(default.per_class),
        epochs: epochs.unwrap_or(default.epochs),
        steps,
        schedule: schedule(&args.optimizer),
        optimizer: optimizer(&args.optimizer),
        augment: augment(args, embedder),
        validate_every: args.validation.validate_every.unwrap_or(default.validate_every),
        save_every: args.validation.save_every.unwrap_or(default.save_every),
        seed: args.seed,
        threads: printer.threads.map_or(0, usize::from),
    }
}

fn loss(args: &LossArgs) -> LossConfig {
    match args.loss {
        LossName::Softmax => {
            let default = SoftmaxConfig::default();
            LossConfig::Softmax(SoftmaxConfig {
                normalize: args.normalize,
                scale: args.scale.unwrap_or(default.scale),
                label_smoothing: args.label_smoothing.unwrap_or(default.label_smoothing),
            })
        }
        LossName::Arcmargin => {
            let default = ArcMarginConfig::default();
            LossConfig::Arcmargin(ArcMarginConfig {
                scale: args.scale.unwrap_or(default.scale),
                margin: args.margin.unwrap_or(default.margin),
                easy_margin: args.easy_margin,
            })
        }
        LossName::Triplet => {
            let default = TripletConfig::default();
            LossConfig::Triplet(TripletConfig {
                margin: args.margin.unwrap_or(default.margin),
                miner: args.miner.map_or(default.miner, miner),
            })
        }
    }
}

fn miner(name: MinerName) -> Miner {
    match name {
        MinerName::Layout => Miner::Layout,
        MinerName::BatchAll => Miner::BatchAll,
        MinerName::BatchHard => Miner::BatchHard,
        MinerName::SemiHard => Miner::SemiHard,
    }
}

fn schedule(args: &OptimizerArgs) -> Schedule {
    let default = Schedule::default();
    let shape = match args.lr_schedule {
        ScheduleName::Cosine => Shape::Cosine,
        ScheduleName::Constant => Shape::Constant,
        ScheduleName::Piecewise => Shape::Piecewise { steps: args.lr_steps.clone(), factor: args.lr_factor },
    };
    Schedule { lr: args.lr.unwrap_or(default.lr), warmup: args.warmup.unwrap_or(default.warmup), shape }
}

fn optimizer(args: &OptimizerArgs) -> SgdConfig {
    let default = SgdConfig::default();
    SgdConfig {
        momentum: args.momentum.unwrap_or(default.momentum),
        nesterov: args.nesterov,
        weight_decay: args.weight_decay.unwrap_or(default.weight_decay),
        decay_vectors: !args.no_decay_vectors,
        loss_lr: args.loss_lr.unwrap_or(default.loss_lr),
        clip_norm: args.clip_norm.unwrap_or(default.clip_norm),
    }
}

fn augment(args: &TrainArgs, embedder: &Embedder) -> TrainTransform {
    let default = TrainTransform::matching(embedder.transform());
    let args = &args.augment;
    TrainTransform {
        size: args.train_size.unwrap_or(default.size),
        scale: (args.crop_min.unwrap_or(default.scale.0), args.crop_max.unwrap_or(default.scale.1)),
        ratio: (args.ratio_min.unwrap_or(default.ratio.0), args.ratio_max.unwrap_or(default.ratio.1)),
        flip: args.flip.unwrap_or(default.flip),
        ..default
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

fn text(summary: &TrainSummary) -> String {
    let mut out = format!(
        "{} after {} steps; the model is in {}\n",
        if summary.stopped { "stopped and saved" } else { "trained" },
        summary.steps,
        summary.model.display()
    );
    if let (Some(before), Some((step, best))) = (summary.recall_before, summary.best) {
        out.push_str(&format!(
            "Recall@1 on held-out photographs: {before:.4} before, {best:.4} best (step {step})\n"
        ));
    }
    if summary.skipped > 0 {
        out.push_str(&format!("{} times a photograph could not be read and was left out\n", summary.skipped));
    }
    if summary.stopped {
        out.push_str("go on with the same command and --resume\n");
    }
    out
}
