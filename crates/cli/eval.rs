//! `semblance eval`: recall of an index, over its own items or a set of queries.

use semblance_index::Index;
use semblance_query::evaluate::OwnItems;
use semblance_query::report::{LoneQueries, text};
use semblance_query::{Embedded, Engine, EvalConfig, Gallery, Queries, Report, evaluate};

use crate::args::EvalArgs;
use crate::exit::Exit;
use crate::inputs;
use crate::printer::Printer;

pub(crate) fn run(args: &EvalArgs, printer: Printer) -> anyhow::Result<Exit> {
    let config = EvalConfig {
        ks: args.k.clone(),
        graph: !args.how.exact,
        ef_search: args.how.ef_search,
        lone_queries: if args.lone_as_miss { LoneQueries::CountAsMiss } else { LoneQueries::Exclude },
        ..EvalConfig::default()
    };
    let report = match &args.queries {
        None => among_itself(args, &config, printer)?,
        Some(_) => with_queries(args, &config, printer)?,
    };
    printer.result(&report, text::render)?;
    Ok(Exit::Done)
}

fn among_itself(args: &EvalArgs, config: &EvalConfig, printer: Printer) -> anyhow::Result<Report> {
    let index = Index::open(inputs::index_folder(&args.index.index, &args.index.dir.index_dir))?;
    if let Some(source) = inputs::model(&args.model) {
        index.check_model(semblance_embed::Embedder::open(&source)?.fingerprint())?;
    }
    let own = OwnItems::of(&index)?;
    let gallery = Gallery::of_index(&index, &args.index.index)?;
    let bar = printer.bar("searching", own.ids.len());
    Ok(evaluate(&gallery, &own.queries(&args.index.index), config, &|done, total| bar.set(done, total))?)
}

fn with_queries(args: &EvalArgs, config: &EvalConfig, printer: Printer) -> anyhow::Result<Report> {
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir);
    let path = args.queries.as_deref().unwrap_or(&folder);
    let dataset = inputs::dataset_at(path, &args.layout, printer)?;
    let engine = Engine::open(&folder, inputs::model(&args.model).as_ref())?;
    let bar = printer.bar("embedding queries", dataset.len());
    let extract = inputs::extract(&args.extract, printer.threads);
    let embedded =
        Embedded::new(engine.embedder(), &dataset, &extract, &mut |done| bar.set(done, dataset.len()))?;
    inputs::warn_of(&embedded.failures, printer);
    let gallery = Gallery::of_index(engine.index(), &args.index.index)?;
    let classes = embedded.classes();
    let queries =
        Queries { name: &dataset.name, vectors: &embedded.vectors, classes: &classes, own_ids: None };
    bar.say("searching");
    Ok(evaluate(&gallery, &queries, config, &|done, total| bar.set(done, total))?)
}
