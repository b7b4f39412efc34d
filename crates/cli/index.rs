//! `semblance index`: build an index, show what one holds, write its published files again.

use std::fmt::Write as _;

use semblance_embed::Embedder;
use semblance_index::{
    HnswConfig, Index, IndexConfig, IndexError, IndexWriter, Manifest, has_interrupted_replacement,
};
use semblance_query::catalog::{self, BuildProgress};
use semblance_query::whitening::readable;
use serde_json::json;

use crate::args::{BuildArgs, IndexArgs, IndexCommand};
use crate::exit::Exit;
use crate::printer::{Bar, Printer};
use crate::{catalogue, derive, inputs, maintain, start};

pub(crate) fn run(command: &IndexCommand, printer: Printer) -> anyhow::Result<Exit> {
    match command {
        IndexCommand::Build(args) => build(args, printer),
        IndexCommand::Info(args) => info(args, printer),
        IndexCommand::Add(args) => maintain::add(args, printer),
        IndexCommand::Remove(args) => maintain::remove(args, printer),
        IndexCommand::Verify(args) => maintain::check(args, printer),
        IndexCommand::Compact(args) => maintain::compact(args, printer),
        IndexCommand::Export(args) => maintain::write_out(args, printer),
        IndexCommand::Import(args) => maintain::read_in(args, printer),
        IndexCommand::MoveRoot(args) => catalogue::move_root(args, printer),
        IndexCommand::Derive(args) => derive::run(args, printer),
    }
}

fn build(args: &BuildArgs, printer: Printer) -> anyhow::Result<Exit> {
    let dataset = inputs::dataset(&args.data, printer)?;
    inputs::refuse_left_out(&dataset, args.extract.strict)?;
    let (metadata, joined) = args.metadata.read(&dataset, &args.extract, printer)?;
    let source = inputs::required_model(&args.model)?;
    let embedder = Embedder::open(&source)?;
    start::remark_on(&embedder, &dataset, printer);
    let default = HnswConfig::default();
    let mut config = IndexConfig {
        hnsw: HnswConfig {
            m: args.m.unwrap_or(default.m),
            ef_construction: args.ef_construction.unwrap_or(default.ef_construction),
            seed: args.graph_seed.unwrap_or(default.seed),
            builder: args.builder,
        },
        codes: args.codes,
        durability: args.durability,
        ..catalog::index_config(&dataset, &embedder, &source)
    };
    let folder = inputs::index_folder(&args.name, &args.dir.index_dir, printer);
    catalogue::seal_for(&mut config, &folder, printer);
    let writer = match (args.resume, args.replace) {
        (true, _) => IndexWriter::resume(&folder, &config),
        (_, true) => IndexWriter::replace(&folder, &config),
        _ => IndexWriter::create(&folder, &config),
    };
    let writer = writer.map_err(|error| match error {
        IndexError::AlreadyExists { finished, .. } if !finished || has_interrupted_replacement(&folder) => {
            inputs::name_taken(error, "--resume or --replace")
        }
        error => inputs::name_taken(error, "--replace"),
    })?;
    let bar = printer.bar("embedding", dataset.len());
    let extract = inputs::extract(&args.extract, printer.threads);
    let built =
        catalog::build_with(&dataset, &metadata, &embedder, &writer, &extract, &|step| show(&bar, step));
    drop(bar);
    let (summary, manifest) = match built {
        Ok(built) => built,
        Err(error) => return Err(inputs::given_up(writer, error.into(), "repeat the command with --resume")),
    };
    writer.take_place()?;
    inputs::warn_of(&summary.failures, printer);
    let result = json!({
        "index": folder, "summary": summary, "left_out": dataset.left_out, "metadata": joined, "manifest": manifest,
    });
    printer.result(&result, |_| {
        format!(
            "{}: {} items of {} numbers ({} embedded, {} stored before, {} skipped)\n",
            folder.display(),
            manifest.items,
            manifest.config.dim,
            summary.embedded,
            summary.already_stored,
            summary.failures.len(),
        )
    })?;
    Ok(Exit::Done)
}

/// Draws the progress of a build.
pub(crate) fn show(bar: &Bar, step: BuildProgress) {
    match step {
        BuildProgress::Embedding { done, total } => bar.set(done, total),
        BuildProgress::Indexing(progress) => {
            bar.say(progress.stage.label());
            bar.set(progress.done as usize, progress.total as usize);
        }
    }
}

fn info(args: &IndexArgs, printer: Printer) -> anyhow::Result<Exit> {
    let index = Index::open(inputs::index_folder(&args.index, &args.dir.index_dir, printer))?;
    let manifest = index.manifest();
    let items = index.items()?;
    let mut classes: Vec<&str> = items.iter().filter_map(|item| item.class.as_deref()).collect();
    let labelled = classes.len();
    classes.sort_unstable();
    classes.dedup();
    let result = json!({
        "index": index.dir(), "items": items.len(), "labelled": labelled, "classes": classes.len(),
        "manifest": *manifest,
    });
    printer.result(&result, |_| {
        let mut out = format!("{}\n", index.dir().display());
        let _ = writeln!(out, "{} items, {labelled} with a class, {} classes", items.len(), classes.len());
        out.push_str(&describe(&manifest));
        out
    })?;
    Ok(Exit::Done)
}

fn describe(manifest: &Manifest) -> String {
    let config = &manifest.config;
    let megabytes = manifest.bytes() as f64 / 1e6;
    let mut out = format!(
        "{} dimensions, {megabytes:.1} MB of files, format {}, written by {}\nmodel fingerprint {}\n",
        config.dim, manifest.format, manifest.program, config.model
    );
    let hnsw = &config.hnsw;
    let _ = writeln!(
        out,
        "graph: M {}, ef_construction {}, seed {}, {} nodes\n{} segments, {} deleted items in them",
        hnsw.m,
        hnsw.ef_construction,
        hnsw.seed,
        manifest.nodes(),
        manifest.segments.len(),
        manifest.deleted()
    );
    let codes = format!("{:?}", manifest.codes()).to_lowercase();
    let _ = match manifest.precision() {
        Some(precision) => writeln!(
            out,
            "codes: {codes}; of {} nearest neighbours in a sample, i8 codes find {:.1} %, f16 codes {:.1} %: links were \
             chosen by {:?} vectors",
            precision.neighbors,
            100.0 * precision.i8_recall(),
            100.0 * precision.f16_recall(),
            precision.codes
        ),
        None => writeln!(out, "codes: {codes}"),
    };
    for (key, value) in readable(&config.attributes) {
        let _ = writeln!(out, "{key}: {value}");
    }
    out
}
