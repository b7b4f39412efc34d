//! What a training run starts from: a model, the weights of an earlier run, or random weights.

use std::path::Path;

use anyhow::{Context as _, bail};
use semblance_embed::checkpoint::{self, LearnedFrom};
use semblance_embed::dataset::Dataset;
use semblance_embed::head::{HeadConfig, Pool};
use semblance_embed::init::{HeadStart, InitConfig, init};
use semblance_embed::{Embedder, ModelSource, Precision};
use serde::Serialize;

use crate::args::ModelArgs;
use crate::inputs;
use crate::printer::Printer;
use crate::train_args::TrainArgs;

/// A model of the hub that is good enough to begin with and quick on any machine.
pub(crate) const PRETRAINED: &str = "timm/mobilenetv2_100.ra_in1k";

/// The network to train.
pub(crate) fn embedder(args: &TrainArgs, printer: Printer) -> anyhow::Result<Embedder> {
    if args.model.precision != Precision::F32 {
        bail!("--precision {}: training is done in f32; leave it out", args.model.precision);
    }
    let (head, pool) = (args.head.wanted()?, args.head.pool()?);
    if let Some(path) = &args.init {
        return second_stage(args, path, (head, pool), printer);
    }
    let start = match (&args.model.model, args.model.arch) {
        (None, Some(arch)) => ModelArgs { model: Some(format!("random:{arch}")), ..args.model.clone() },
        _ => args.model.clone(),
    };
    let source = inputs::model(&start).context(
        "no model to start from: give weights with --model, those of an earlier run with --init, or begin from random \
         ones with --arch",
    )?;
    let source = ModelSource { head: head.clone().unwrap_or_default(), pool, seed: args.seed, ..source };
    let embedder = Embedder::open(&source)?;
    let config = embedder.config();
    if let Some(wanted) = head.filter(|wanted| *wanted != config.head) {
        bail!(
            "--model {} has a head of its own ({}), so it cannot have the one of --head and --embedding-dim ({}): give it \
             as --init to start another head on its backbone",
            source.model,
            spell(&config.head),
            spell(&wanted)
        );
    }
    if let Some(wanted) = pool.filter(|wanted| !is_same(*wanted, config.pool(), args)) {
        bail!(
            "--model {} pools by {}, not by {}: give it as --init to start another head on its backbone",
            source.model,
            spell(&config.pool()),
            spell(&wanted)
        );
    }
    Ok(embedder)
}

/// Names the tensors of a weight file that the network has no place for, and warns of a model that has seen drawn pictures
/// only, where it is used on others.
pub(crate) fn remark_on(embedder: &Embedder, dataset: &Dataset, printer: Printer) {
    let (unused, arch) = (embedder.unused_weights(), embedder.config().arch);
    if !unused.is_empty() {
        printer.note(unused_remark(unused, &arch.to_string()));
    }
    if embedder.config().learned_from == Some(LearnedFrom::DrawnPictures) && !inputs::is_drawn(dataset) {
        printer.warn(format_args!(
            "this model learned from drawn pictures alone and finds photographs badly; take one that learned from \
             photographs, such as --model {PRETRAINED}, or a torchvision or timm weight file with --arch"
        ));
    }
}

/// What to say of tensors that a network has no place for.
fn unused_remark(names: &[String], arch: &str) -> String {
    const SHOWN: usize = 4;
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    format!(
        "{} tensors of the weights have no place in {arch} and are left out: {}{more} (a classifier is not needed; anything \
         else may mean another --arch)",
        names.len(),
        names[..names.len().min(SHOWN)].join(", ")
    )
}

/// Whether the pooling asked for is the one there is; a power that was learned begins where it is, unless another one is
/// asked for.
fn is_same(wanted: Pool, own: Pool, args: &TrainArgs) -> bool {
    let learned =
        matches!((wanted, own), (Pool::Gem { .. }, Pool::Gem { .. })) && args.head.gem_power.is_none();
    wanted == own || learned
}

fn second_stage(
    args: &TrainArgs,
    path: &Path,
    (head, pool): (Option<HeadConfig>, Option<Pool>),
    printer: Printer,
) -> anyhow::Result<Embedder> {
    // What cannot be read is named by what follows.
    let own = checkpoint::read_config(&checkpoint::locate(path)).ok().map(|config| config.pool());
    let config = InitConfig {
        arch: args.model.arch,
        head,
        pool: match own {
            Some(own) if pool.is_some_and(|wanted| is_same(wanted, own, args)) => Some(own),
            _ => pool,
        },
        resize: args.model.resize,
        crop: args.model.crop,
        seed: args.seed,
        device: args.model.device,
        path: path.to_owned(),
    };
    let (embedder, start) = init(&config).context("--init")?;
    if let HeadStart::Anew { was, pooled } = start {
        let (head, pool) = (&embedder.config().head, embedder.config().pool());
        printer.note(format_args!(
            "the head is re-initialised: {} has {} on {}, this run {} on {}",
            config.path.display(),
            spell(&was),
            spell(&pooled),
            spell(head),
            spell(&pool)
        ));
    }
    Ok(embedder)
}

/// The kind and settings of a head or pooling, such as `linear, dim 128`.
fn spell(part: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(part) else { return String::new() };
    let kind = settings.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
    let others = settings.iter().filter(|(key, _)| *key != "kind");
    others.fold(kind, |text, (key, value)| format!("{text}, {key} {value}"))
}
