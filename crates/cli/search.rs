//! `semblance search`: the catalogue's items most like a photograph.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use semblance_index::{Explain, Item};
use semblance_query::{Engine, Hit};
use serde::Serialize;

use crate::args::SearchArgs;
use crate::exit::Exit;
use crate::inputs;
use crate::printer::Printer;
use crate::search_item;

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
    photo: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    hits: Vec<Hit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

pub(crate) fn run(args: &SearchArgs, printer: Printer) -> anyhow::Result<Exit> {
    if !args.condition.items.is_empty() {
        return search_item::run(args, printer);
    }
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir);
    let engine = Engine::open(&folder, inputs::model(&args.model).as_ref())?;
    let items = engine.index().len();
    if args.k > items {
        printer.note(format_args!("the index holds only {items} items: that is all there is to find"));
    }
    let params = args.condition.params(args.k, &args.how);
    let mut results = Vec::with_capacity(args.photos.len());
    for photo in &args.photos {
        let (hits, explain, error) = match engine.search_file_explained(photo, &params) {
            Ok((hits, explain)) => (hits, args.condition.explain.then_some(explain), None),
            // One bad photograph must not cost the answers to the others.
            Err(error @ semblance_query::QueryError::Image(_)) => {
                printer.warn(&error);
                (Vec::new(), None, Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        results.push(Answer { photo, error, hits, explain });
    }
    let failed = results.iter().filter(|answer| answer.error.is_some()).count();
    let found = Found { index: folder, items, k: args.k, exact: args.how.exact, results };
    printer.result(&found, |found| text(found, &engine))?;
    Ok(if failed > 0 { Exit::Incomplete } else { Exit::Done })
}

fn text(found: &Found<'_>, engine: &Engine) -> String {
    let mut out = String::new();
    for answer in &found.results {
        let _ = writeln!(out, "{}", answer.photo.display());
        if let Some(error) = &answer.error {
            let _ = writeln!(out, "  {error}");
        }
        out.push_str(&hits(&answer.hits, |item| engine.picture(item)));
        out.push_str(&search_item::explained(answer.explain.as_ref()));
    }
    out
}

/// Rank, score, class and picture, one hit a line.
pub(crate) fn hits(hits: &[Hit], picture: impl Fn(&Item) -> Option<PathBuf>) -> String {
    let class = |hit: &Hit| hit.item.class.clone().unwrap_or_else(|| "–".to_owned());
    let width = hits.iter().map(|hit| class(hit).chars().count()).max().unwrap_or(0);
    hits.iter().fold(String::new(), |mut out, hit| {
        let picture = picture(&hit.item).unwrap_or_else(|| PathBuf::from(&hit.item.key));
        let _ = writeln!(
            out,
            "  {:>4}  {:.4}  {:<width$}  {}",
            hit.rank,
            hit.score,
            class(hit),
            picture.display()
        );
        out
    })
}
