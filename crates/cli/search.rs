//! `semblance search`: the catalogue's items most like a photograph.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use semblance_index::Explain;
use semblance_query::answer::{AnswerConfig, together};
use semblance_query::{Answer, CataloguePictures, Engine, Hit, QueryError, Question};
use serde::Serialize;

use crate::args::SearchArgs;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::{catalogue, inputs, pictures, search_item, search_page};

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

/// What one photograph, or several together, got.
#[derive(Serialize)]
pub(crate) struct Answered<'a> {
    pub(crate) photo: &'a Path,
    /// The photographs that were searched with as one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) together_with: Vec<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_match: bool,
    pub(crate) hits: Vec<Hit>,
    /// The searches of the index that the answer took, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) searches: Vec<Explain>,
}

pub(crate) fn run(args: &SearchArgs, printer: Printer) -> anyhow::Result<Exit> {
    if !args.condition.items.is_empty() {
        return search_item::run(args, printer);
    }
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir, printer);
    let mut engine = inputs::engine(&folder, &args.model)?;
    if let Some(root) = &args.catalogue.root {
        engine = engine.with_root(root)?;
    }
    let items = engine.index().len();
    if args.k > items {
        printer.note(format_args!("the index holds only {items} items: that is all there is to find"));
    }
    let warnings = args.condition.warnings(engine.index(), printer)?;
    let (results, failed) = answers(args, &engine, printer)?;
    let found = Found { index: folder, items, k: args.k, exact: args.how.exact, warnings, results };
    if let Some(file) = &args.show.html {
        search_page::write(file, args, &engine, &found.results)?;
    }
    match pictures::protocol(args.show.pictures, printer) {
        Some(protocol) => pictures::show(&found.results, &engine, protocol)?,
        None => printer.result(&found, |found| text(found, engine.pictures()))?,
    }
    let hits = found.results.iter().flat_map(|answer| &answer.hits).map(|hit| &hit.item);
    catalogue::remark_on(engine.pictures(), &engine.pictures().survey(hits), printer);
    Ok(if failed > 0 { Exit::Incomplete } else { Exit::Done })
}

/// The answers, and how many photographs could not be searched with.
fn answers<'a>(
    args: &'a SearchArgs,
    engine: &Engine,
    printer: Printer,
) -> anyhow::Result<(Vec<Answered<'a>>, usize)> {
    let params = args.condition.params(args.k, &args.how);
    let config = AnswerConfig { threshold: args.show.threshold, ..args.answer.answer() };
    let photo_config = args.answer.photo();
    let mut results = Vec::with_capacity(args.photos.len());
    let explain = args.condition.explain;
    let ask = |vector: &[f32]| {
        Question { vector, without: None, params: &params, config: &config, explain }.ask(engine.index())
    };
    let (mut vectors, mut photos, mut failed) = (Vec::new(), Vec::new(), 0);
    for photo in &args.photos {
        let vector = match engine.embed_file(photo, &photo_config) {
            Ok(vector) => vector,
            // One bad photograph must not cost the answers to the others.
            Err(error @ (QueryError::Image(_) | QueryError::Crop(_))) => {
                let error = match error {
                    QueryError::Image(error) => error.to_string(),
                    other => format!("{}: {other}", photo.display()),
                };
                // For people. Programs find it in the JSON; the text on stdout does not repeat it.
                printer.warn(&error);
                failed += 1;
                results.push(Answered { error: Some(error), ..Answered::of(photo) });
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if args.show.together {
            vectors.push(vector);
            photos.push(photo.as_path());
        } else {
            results.push(Answered::of(photo).with(ask(&vector)?));
        }
    }
    if let [first, others @ ..] = photos.as_slice() {
        let vector = together(&vectors).ok_or(QueryError::NothingInCommon)?;
        let answered = Answered { together_with: others.to_vec(), ..Answered::of(first) };
        results.push(answered.with(ask(&vector)?));
    }
    Ok((results, failed))
}

impl<'a> Answered<'a> {
    fn of(photo: &'a Path) -> Self {
        Self {
            photo,
            together_with: Vec::new(),
            error: None,
            no_match: false,
            hits: Vec::new(),
            searches: Vec::new(),
        }
    }

    fn with(self, answer: Answer) -> Self {
        let Answer { hits, no_match, searches, .. } = answer;
        Self { hits, no_match, searches, ..self }
    }

    /// The photographs, as one line.
    pub(crate) fn title(&self) -> String {
        let all = std::iter::once(&self.photo).chain(&self.together_with);
        all.map(|path| path.display().to_string()).collect::<Vec<_>>().join(" + ")
    }

    /// What there is to say instead of hits.
    pub(crate) fn remark(&self) -> Option<String> {
        self.error.clone().or_else(|| self.no_match.then(|| "no match".to_owned()))
    }
}

fn text(found: &Found<'_>, pictures: &CataloguePictures) -> String {
    let mut out = String::new();
    for answer in found.results.iter().filter(|answer| answer.error.is_none()) {
        let _ = writeln!(out, "{}", answer.title());
        if let Some(remark) = answer.remark() {
            let _ = writeln!(out, "  {remark}");
        }
        out.push_str(&hits(&answer.hits, pictures));
        out.push_str(&search_item::explained(&answer.searches));
    }
    out
}

/// Rank, score, class and picture, one line per hit.
pub(crate) fn hits(hits: &[Hit], pictures: &CataloguePictures) -> String {
    let class = |hit: &Hit| hit.item.class.clone().unwrap_or_else(|| "–".to_owned());
    let width = hits.iter().map(|hit| class(hit).chars().count()).max().unwrap_or(0);
    hits.iter().fold(String::new(), |mut out, hit| {
        let picture = catalogue::shown(pictures, &hit.item);
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
