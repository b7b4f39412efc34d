//! `semblance search --item`: the catalogue's items most like one of its own.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use semblance_index::{Explain, Index, Strategy};
use semblance_query::{Hit, engine};
use serde::Serialize;

use crate::args::SearchArgs;
use crate::exit::Exit;
use crate::inputs;
use crate::printer::Printer;

#[derive(Serialize)]
struct Found<'a> {
    index: PathBuf,
    items: usize,
    k: usize,
    exact: bool,
    results: Vec<Answer<'a>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    item: &'a str,
    hits: Vec<Hit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

pub(crate) fn run(args: &SearchArgs, printer: Printer) -> anyhow::Result<Exit> {
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir);
    let index = Index::open(&folder)?;
    let params = args.condition.params(args.k, &args.how);
    let mut results = Vec::with_capacity(args.condition.items.len());
    for key in &args.condition.items {
        let id = index.find(key)?.with_context(|| format!("the index has no item {key:?}"))?;
        let (neighbors, explain) = index.search_by_id_explained(id, &params)?;
        let hits = Hit::of(&index, &neighbors)?;
        results.push(Answer { item: key, hits, explain: args.condition.explain.then_some(explain) });
    }
    let found = Found { items: index.len(), index: folder, k: args.k, exact: args.how.exact, results };
    printer.result(&found, |found| {
        found.results.iter().fold(String::new(), |mut out, answer| {
            let _ = writeln!(out, "{}", answer.item);
            out.push_str(&crate::search::hits(&answer.hits, |item| engine::picture(&index, item)));
            out.push_str(&explained(answer.explain.as_ref()));
            out
        })
    })?;
    Ok(Exit::Done)
}

/// How an answer was found, on a line; nothing if that was not asked for.
pub(crate) fn explained(explain: Option<&Explain>) -> String {
    let Some(explain) = explain else { return String::new() };
    let mut out = match explain.strategy {
        Strategy::Graph { ef } => format!("  found through the graph (ef {ef})"),
        Strategy::ExactAll => "  found by comparing with every item".to_owned(),
        Strategy::ExactMatches => "  found by comparing with the items that match".to_owned(),
    };
    if let Some(matching) = explain.matching {
        let _ = write!(out, "; {matching} of {} items match", explain.items);
    }
    let _ = writeln!(out, "; {} vectors scored", explain.scored);
    out
}
