//! `semblance search`: the catalogue's items most like a photograph.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use semblance_index::SearchParams;
use semblance_query::{Engine, Hit};
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
    photo: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    hits: Vec<Hit>,
}

pub(crate) fn run(args: &SearchArgs, printer: Printer) -> anyhow::Result<Exit> {
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir);
    let engine = Engine::open(&folder, inputs::model(&args.model).as_ref())?;
    let items = engine.index().len();
    if args.k > items {
        printer.note(format_args!("the index holds only {items} items: that is all there is to find"));
    }
    let params =
        SearchParams { exact: args.how.exact, ef_search: args.how.ef_search, ..SearchParams::new(args.k) };
    let mut results = Vec::with_capacity(args.photos.len());
    for photo in &args.photos {
        let (hits, error) = match engine.search_file(photo, &params) {
            Ok(hits) => (hits, None),
            // One bad photograph must not cost the answers to the others.
            Err(error @ semblance_query::QueryError::Image(_)) => {
                printer.warn(&error);
                (Vec::new(), Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        results.push(Answer { photo, error, hits });
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
        out.push_str(&hits(&answer.hits, engine));
    }
    out
}

/// Rank, score, class and picture, one hit a line.
pub(crate) fn hits(hits: &[Hit], engine: &Engine) -> String {
    let class = |hit: &Hit| hit.item.class.clone().unwrap_or_else(|| "–".to_owned());
    let width = hits.iter().map(|hit| class(hit).chars().count()).max().unwrap_or(0);
    hits.iter().fold(String::new(), |mut out, hit| {
        let picture = engine.picture(&hit.item).unwrap_or_else(|| PathBuf::from(&hit.item.key));
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
