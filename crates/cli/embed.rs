//! `semblance embed`: pictures to vectors in files.

use semblance_embed::Embedder;
use semblance_query::{Embedded, export};
use serde_json::json;

use crate::args::EmbedArgs;
use crate::exit::Exit;
use crate::inputs;
use crate::printer::Printer;

pub(crate) fn run(args: &EmbedArgs, printer: Printer) -> anyhow::Result<Exit> {
    let dataset = inputs::dataset(&args.data, printer)?;
    let embedder = Embedder::open(&inputs::required_model(&args.model)?)?;
    export::prepare_folder(&args.out)?;
    let bar = printer.bar("embedding", dataset.len());
    let config = inputs::extract(&args.extract, printer.threads);
    let embedded = Embedded::new(&embedder, &dataset, &config, &mut |done| bar.set(done, dataset.len()))?;
    drop(bar);
    let files = export::write(
        &args.out,
        &export::Vectors {
            dim: embedded.dim,
            values: &embedded.vectors,
            samples: &embedded.samples,
            model: embedder.fingerprint(),
            catalogue: &dataset.name,
        },
    )?;
    inputs::warn_of(&embedded.failures, printer);
    let summary = json!({
        "embedded": embedded.samples.len(), "dim": embedded.dim, "skipped": embedded.failures.len(),
        "failures": embedded.failures, "model": embedder.fingerprint(), "files": files,
    });
    printer.result(&summary, |_| {
        let [vectors, npy, items] = files.map(|file| file.display().to_string());
        format!(
            "{} vectors of {} numbers, {} pictures skipped\n  {vectors}\n  {npy}\n  {items}\n",
            embedded.samples.len(),
            embedded.dim,
            embedded.failures.len(),
        )
    })?;
    Ok(Exit::Done)
}
