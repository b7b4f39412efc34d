//! What a training run starts from: a model, the weights of an earlier run, or random weights.

use anyhow::{Context as _, bail};
use semblance_embed::head::HeadConfig;
use semblance_embed::init::{HeadStart, InitConfig, init};
use semblance_embed::{Embedder, ModelSource, Precision};

use crate::args::ModelArgs;
use crate::inputs;
use crate::printer::Printer;
use crate::train_args::TrainArgs;

/// The network to train.
pub(crate) fn embedder(args: &TrainArgs, printer: Printer) -> anyhow::Result<Embedder> {
    if args.model.precision != Precision::F32 {
        bail!("--precision {}: training is done in f32; leave it out", args.model.precision);
    }
    let (head, pool) = (args.head.wanted()?, args.head.pool()?);
    if args.init.is_some() {
        return second_stage(args, head, printer);
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
    if let Some(wanted) = pool.filter(|wanted| *wanted != config.pool()) {
        bail!(
            "--model {} pools by {}, not by {wanted}: give it as --init to start another head on its backbone",
            source.model,
            config.pool()
        );
    }
    Ok(embedder)
}

fn second_stage(args: &TrainArgs, head: Option<HeadConfig>, printer: Printer) -> anyhow::Result<Embedder> {
    let path = args.init.clone().unwrap_or_default();
    let config = InitConfig {
        arch: args.model.arch,
        head,
        pool: args.head.pool()?,
        resize: args.model.resize,
        crop: args.model.crop,
        seed: args.seed,
        device: args.model.device,
        path,
    };
    let (embedder, start) = init(&config).context("--init")?;
    if let HeadStart::Anew { was } = start {
        printer.note(format_args!(
            "the head starts anew: {} has {}, this run {}",
            config.path.display(),
            spell(&was),
            spell(&embedder.config().head)
        ));
    }
    Ok(embedder)
}

/// A head's kind and settings, such as `linear, dim 128`.
fn spell(head: &HeadConfig) -> String {
    let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(head) else { return String::new() };
    let kind = settings.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
    let others = settings.iter().filter(|(key, _)| *key != "kind");
    others.fold(kind, |text, (key, value)| format!("{text}, {key} {value}"))
}
