//! `semblance search --item`: the catalogue's items most like one of its own.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use semblance_index::{Explain, Index, Strategy};
use semblance_query::answer::AnswerConfig;
use semblance_query::{Answer, Question, catalog};
use serde::Serialize;

use crate::args::SearchArgs;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::{catalogue, inputs};

#[derive(Serialize)]
struct Found<'a> {
    index: PathBuf,
    items: usize,
    k: usize,
    exact: bool,
    /// Conditions that no item can meet.
    warnings: Vec<String>,
    results: Vec<Answered<'a>>,
}

#[derive(Serialize)]
struct Answered<'a> {
    item: &'a str,
    #[serde(flatten)]
    answer: Answer,
}

pub(crate) fn run(args: &SearchArgs, printer: Printer) -> anyhow::Result<Exit> {
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir, printer);
    let index = Index::open(&folder)?;
    let params = args.condition.params(args.k, &args.how);
    let warnings = args.condition.warnings(&index, printer)?;
    let config = AnswerConfig { threshold: args.show.threshold, ..args.answer.answer() };
    let mut results = Vec::with_capacity(args.condition.items.len());
    for key in &args.condition.items {
        let id = catalog::id_of(key, |form| index.find(form))?
            .with_context(|| format!("the index has no item {key:?}"))?;
        let (vector, explain) = (index.vector(id)?, args.condition.explain);
        let question =
            Question { vector: &vector, without: Some(id), params: &params, config: &config, explain };
        results.push(Answered { item: key, answer: question.ask(&index)? });
    }
    let pictures = args.catalogue.pictures(&index)?;
    let (items, k, exact) = (index.len(), args.k, args.how.exact);
    let found = Found { items, index: folder, k, exact, warnings, results };
    printer.result(&found, |found| {
        found.results.iter().fold(String::new(), |mut out, Answered { item, answer }| {
            let _ = writeln!(out, "{item}");
            if answer.no_match {
                out.push_str("  no match\n");
            }
            out.push_str(&crate::search::hits(&answer.hits, &pictures));
            out.push_str(&explained(&answer.searches));
            out
        })
    })?;
    let hits = found.results.iter().flat_map(|found| &found.answer.hits).map(|hit| &hit.item);
    catalogue::remark_on(&pictures, &pictures.survey(hits), printer);
    Ok(Exit::Done)
}

/// How an answer was found, one line per search; nothing if that was not asked for.
pub(crate) fn explained(searches: &[Explain]) -> String {
    searches.iter().fold(String::new(), |mut out, explain| {
        let _ = match explain.strategy {
            Strategy::Graph { ef } => write!(out, "  searched through the graph (ef {ef})"),
            Strategy::ExactAll => write!(out, "  searched by comparing with every item"),
            Strategy::ExactMatches => write!(out, "  searched by comparing with the items that match"),
        };
        if let Some(matching) = explain.matching {
            let _ = write!(out, "; {matching} of {} items match", explain.items);
        }
        let _ = writeln!(out, "; {} vectors scored", explain.scored);
        out
    })
}
