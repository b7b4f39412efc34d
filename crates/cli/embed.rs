//! `semblance embed`: pictures to vectors, in files or as JSON lines on standard output.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use semblance_embed::extract::Extracted;
use semblance_embed::{Embedder, dataset::Dataset};
use semblance_index::{Embeddings, ExportFormat, NewItem, write_embeddings};
use semblance_query::{Embedded, catalog, export, lines};
use serde_json::json;

use crate::exit::Exit;
use crate::export_args::EmbedArgs;
use crate::inputs;
use crate::printer::Printer;
use crate::start;

pub(crate) fn run(args: &EmbedArgs, printer: Printer) -> anyhow::Result<Exit> {
    let dataset = inputs::dataset(&args.data, printer)?;
    inputs::refuse_left_out(&dataset, args.extract.strict)?;
    let source = inputs::required_model(&args.model)?;
    let embedder = Embedder::open(&source)?;
    start::remark_on(&embedder, &dataset, printer);
    let is_file = args.out.extension().is_some_and(|extension| extension == "jsonl");
    if args.out == Path::new("-") || is_file {
        return as_lines(args, (&dataset, &embedder), is_file, printer);
    }
    export::prepare_folder(&args.out)?;
    let bar = printer.bar("embedding", dataset.len());
    let config = inputs::extract(&args.extract, printer.threads);
    let embedded = Embedded::new(&embedder, &dataset, &config, &mut |done| bar.set(done, dataset.len()))?;
    drop(bar);
    let items: Vec<NewItem> = embedded.samples.iter().map(|sample| lines::item(sample)).collect();
    let files = write_embeddings(
        &args.out,
        &[ExportFormat::Safetensors, ExportFormat::Npy],
        &Embeddings {
            items: &items,
            vectors: &embedded.vectors,
            config: &catalog::index_config(&dataset, &embedder, &source),
            labels: &[("model", embedder.fingerprint()), ("catalogue", &dataset.name)],
        },
    )?;
    let extracted = Extracted { embedded: embedded.samples.len(), failures: embedded.failures };
    let (summary, text) = summary(&extracted, &dataset, &embedder, &files);
    inputs::warn_of(&extracted.failures, printer);
    printer.result(&summary, |_| text)?;
    Ok(Exit::Done)
}

/// Lines into a file, or to standard output, where the summary must stay out of them.
fn as_lines(
    args: &EmbedArgs,
    (dataset, embedder): (&Dataset, &Embedder),
    is_file: bool,
    printer: Printer,
) -> anyhow::Result<Exit> {
    let bar = printer.bar("embedding", dataset.len());
    let config = inputs::extract(&args.extract, printer.threads);
    let mut progress = |done| bar.set(done, dataset.len());
    let extracted = if is_file {
        lines::write_file(embedder, dataset, &config, &args.out, &mut progress)?
    } else {
        let place = (&mut io::stdout().lock() as &mut dyn io::Write, Path::new("standard output"));
        lines::write(embedder, dataset, &config, place, &mut progress)?
    };
    drop(bar);
    inputs::warn_of(&extracted.failures, printer);
    if is_file {
        let (summary, text) = summary(&extracted, dataset, embedder, std::slice::from_ref(&args.out));
        printer.result(&summary, |_| text)?;
    } else {
        let (summary, text) = summary(&extracted, dataset, embedder, &[]);
        let summary = serde_json::to_string(&summary).context("the summary")?;
        printer.note(if printer.json { &summary } else { text.trim_end() });
    }
    Ok(Exit::Done)
}

/// What was done, for programs and for people.
fn summary(
    extracted: &Extracted,
    dataset: &Dataset,
    embedder: &Embedder,
    files: &[PathBuf],
) -> (serde_json::Value, String) {
    let Extracted { embedded, failures } = extracted;
    let value = json!({
        "embedded": embedded, "dim": embedder.dim(), "skipped": failures.len(), "failures": failures,
        "left_out": dataset.left_out, "model": embedder.fingerprint(), "files": files,
    });
    let names: String = files.iter().map(|file| format!("  {}\n", file.display())).collect();
    let (dim, skipped) = (embedder.dim(), failures.len());
    (value, format!("{embedded} vectors of {dim} numbers, {skipped} pictures skipped\n{names}"))
}
