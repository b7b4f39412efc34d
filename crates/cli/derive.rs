//! `semblance index derive`: an index with better vectors, made from another.

use semblance_index::Index;
use semblance_query::QueryError;
use semblance_query::catalog::BuildProgress;
use serde_json::json;

use crate::answer_args::DeriveArgs;
use crate::exit::Exit;
use crate::index::show;
use crate::inputs;
use crate::printer::Printer;

pub(crate) fn run(args: &DeriveArgs, printer: Printer) -> anyhow::Result<Exit> {
    let source = Index::open(inputs::index_folder(&args.index.index, &args.index.dir.index_dir, printer))?;
    let folder = inputs::index_folder(&args.name, &args.index.dir.index_dir, printer);
    let bar = printer.bar("deriving", source.len());
    let progress = |step| show(&bar, BuildProgress::Indexing(step));
    let derived = semblance_query::derive(&source, &folder, &args.config(), &progress);
    let manifest = derived.map_err(|error| match error {
        QueryError::Index(error) => inputs::name_taken(error, "--replace"),
        error => error.into(),
    })?;
    drop(bar);
    let result = json!({ "index": folder, "items": manifest.items, "dim": manifest.config.dim });
    printer.result(&result, |_| {
        format!("{}: {} items of {} numbers\n", folder.display(), manifest.items, manifest.config.dim)
    })?;
    Ok(Exit::Done)
}
