//! `semblance demo`: the four uses on a catalogue the program draws itself.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use semblance_embed::backbone::Arch;
use semblance_embed::checkpoint::{LearnedFrom, ModelConfig};
use semblance_embed::dataset::Dataset;
use semblance_embed::dataset::sample::SampleCatalogue;
use semblance_embed::extract::ExtractConfig;
use semblance_embed::head::HeadConfig;
use semblance_embed::loss::{LossConfig, SoftmaxConfig};
use semblance_embed::optimizer::OptimizerConfig;
use semblance_embed::schedule::Schedule;
use semblance_embed::train::{TrainConfig, TrainJob};
use semblance_embed::transform::{EvalTransform, TrainTransform};
use semblance_embed::{DeviceKind, Embedder, ModelSource, Precision};
use semblance_index::{Index, IndexWriter, SearchParams};
use semblance_query::evaluate::OwnItems;
use semblance_query::report::{Report, text};
use semblance_query::{Engine, EvalConfig, Gallery, Validation, catalog, evaluate};
use serde_json::json;

use crate::allocator;
use crate::args::DemoArgs;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::start::PRETRAINED;
use crate::{catalogue as roots, data, index, inputs, search, train};

/// Name of the demo's index.
const NAME: &str = "demo";
/// Share of the classes that is trained on; the rest is never seen before it is searched.
const TRAINED: f64 = 0.5;

pub(crate) fn run(args: &DemoArgs, printer: Printer) -> anyhow::Result<Exit> {
    allocator::keep_freed_memory();
    let began = Instant::now();
    let places = Places::new(args)?;
    printer.note("1. A catalogue of products that do not exist");
    let drawn = data::catalogue(&args.catalogue, SampleCatalogue::default());
    let catalogue = inputs::sample_catalogue(&places.catalogue, &drawn, printer)?;
    let (learn, unseen) = catalogue.class_split(TRAINED, drawn.seed);
    if learn.classes().len() < 2 || unseen.classes().len() < 2 {
        bail!("{} products are too few to train on some and search the others", catalogue.classes().len());
    }

    printer.note(format_args!(
        "2. Train a small network on {} of its {} products; the others stay unseen",
        learn.classes().len(),
        catalogue.classes().len()
    ));
    let mut embedder = Embedder::untrained(model(drawn.size), drawn.seed, DeviceKind::Cpu)?;
    let extract = ExtractConfig {
        batch: 32,
        threads: printer.threads.map_or(0, usize::from),
        ..ExtractConfig::default()
    };
    let validation = Validation { queries: unseen.clone(), gallery: None, extract: extract.clone() };
    let before = validation.report(&embedder, &eval_config())?;
    let config = train_config(args, &embedder, learn.len(), printer);
    let never = AtomicBool::new(false);
    let job = TrainJob { data: &learn, run: &places.run, resume: false, stop: &never };
    // The unseen products take no part in choosing the model: the last weights are the result.
    let trained = train::fit(&mut embedder, &config, &job, (None, false), printer)?;
    let training_seconds = began.elapsed().as_secs_f64();

    printer.note("3. Index the unseen products, but for one photograph");
    let (gallery, photo) = leave_one_photo_out(&unseen).context("the unseen products have no photograph")?;
    let source = ModelSource::new(trained.model.to_string_lossy());
    let mut config = catalog::index_config(&gallery, &embedder, &source);
    roots::seal_for(&mut config, &places.index, printer);
    let writer = if args.replace {
        IndexWriter::replace(&places.index, &config)?
    } else {
        IndexWriter::create(&places.index, &config)?
    };
    let bar = printer.bar("embedding", gallery.len());
    catalog::build(&gallery, &embedder, &writer, &extract, &|step| index::show(&bar, step))?;
    drop(bar);
    writer.take_place()?;

    printer.note("4. Search with that photograph");
    let engine = Engine::open(&places.index, None, Precision::F32)?;
    let photo = catalogue.full_path(&photo);
    let hits = engine.search_file(&photo, &SearchParams::new(5))?;

    printer.note("5. Measure: every indexed photograph against all others");
    let after = measure(engine.index())?;
    let recall = |report: &Report| report.exact().and_then(|exact| exact.recall(1)).unwrap_or(0.0);
    let (recall_before, recall_after) = (recall(&before), recall(&after));
    let result = json!({
        "catalogue": places.catalogue, "model": trained.model, "index": places.index, "photo": photo, "hits": hits,
        "recall_at_1_before": recall_before, "recall_at_1_after": recall_after, "before": before, "after": after,
        "training_seconds": training_seconds, "seconds": began.elapsed().as_secs_f64(),
    });
    printer.result(&result, |_| {
        format!(
            "{}\n{}\n{}\nRecall@1 on products never seen in training: {recall_before:.3} before, {recall_after:.3} after \
             training ({:.0} s in all)\n\n{}",
            photo.display(),
            search::hits(&hits, engine.pictures()),
            text::render(&after),
            began.elapsed().as_secs_f64(),
            places.next(&trained.model, &photo, args),
        )
    })?;
    Ok(Exit::Done)
}

/// Where everything lies.
struct Places {
    catalogue: std::path::PathBuf,
    run: std::path::PathBuf,
    index: std::path::PathBuf,
}

impl Places {
    /// Refuses to write over an earlier demo, unless told to.
    fn new(args: &DemoArgs) -> anyhow::Result<Self> {
        let places = Self {
            catalogue: args.out.join("catalogue"),
            run: args.out.join("training"),
            index: args.dir.index_dir.join(NAME),
        };
        let trained = places.run.join("last").exists();
        if args.replace {
            // Only what a demo makes: its own training folder. The index is replaced later, by the index itself.
            if trained {
                std::fs::remove_dir_all(&places.run).with_context(|| places.run.display().to_string())?;
            }
            return Ok(places);
        }
        for (path, taken) in [(&places.run, trained), (&places.index, places.index.exists())] {
            if taken {
                bail!(
                    "{} exists already: look at it with `semblance eval --index {NAME}`, or do the demo again with \
                     --replace",
                    path.display()
                );
            }
        }
        Ok(places)
    }

    fn next(&self, model: &Path, photo: &Path, args: &DemoArgs) -> String {
        let mut index = format!("--index {NAME}");
        if args.dir.index_dir != Path::new("index-data") {
            index.push_str(&format!(" --index-dir {}", args.dir.index_dir.display()));
        }
        format!(
            "catalogue {}\nmodel     {}\nindex     {}\n\nNext, with `semblance` for `cargo run --release --`:\n\
             \x20 semblance search {} {index}\n\
             \x20 semblance eval {index}\n\
             \n\
             The demo's model learned from drawn pictures and is of little use on photographs. For those, begin with a model \n\
             that learned from photographs (downloaded once; or a torchvision or timm weight file with --arch):\n\
             \x20 semblance index build --data YOUR_PICTURES --model {PRETRAINED} --name shop\n\
             \x20 semblance train --data YOUR_PICTURES --model {PRETRAINED} --out runs/shop\n",
            self.catalogue.display(),
            model.display(),
            self.index.display(),
            photo.display(),
        )
    }
}

/// A network that learns in minutes on a small machine.
fn model(picture_size: u32) -> ModelConfig {
    let side = picture_size.min(64);
    let transform = EvalTransform { resize: side, crop: side, ..EvalTransform::default() };
    let learned_from = Some(LearnedFrom::DrawnPictures);
    ModelConfig { transform, learned_from, ..ModelConfig::new(Arch::ResNet10Tiny, HeadConfig::Pooled) }
}

/// Normalised softmax at a high rate, as few steps from random weights allow.
fn train_config(args: &DemoArgs, embedder: &Embedder, photographs: usize, printer: Printer) -> TrainConfig {
    let default = TrainConfig::default();
    let softmax = SoftmaxConfig { normalize: true, scale: 16.0, ..SoftmaxConfig::default() };
    TrainConfig {
        loss: LossConfig::Softmax(softmax),
        batch: default.batch.min(photographs),
        steps: Some(args.steps.unwrap_or(400)),
        schedule: Schedule { lr: 0.1, warmup: 20, ..Schedule::default() },
        optimizer: OptimizerConfig { nesterov: true, ..OptimizerConfig::default() },
        augment: TrainTransform { scale: (0.5, 1.0), ..TrainTransform::matching(embedder.transform()) },
        seed: args.catalogue.seed.unwrap_or(default.seed),
        threads: printer.threads.map_or(0, usize::from),
        ..default
    }
}

fn eval_config() -> EvalConfig {
    EvalConfig { ks: vec![1, 10, 100], ..EvalConfig::default() }
}

/// The first photograph, and the others.
fn leave_one_photo_out(dataset: &Dataset) -> Option<(Dataset, semblance_embed::dataset::Sample)> {
    let photo = dataset.samples.first()?.clone();
    Some((dataset.filter(|sample| sample.path != photo.path), photo))
}

fn measure(index: &Index) -> anyhow::Result<Report> {
    let own = OwnItems::of(index)?;
    Ok(evaluate(&Gallery::of_index(index, NAME)?, &own.queries(NAME), &eval_config(), &|_, _| {})?)
}
