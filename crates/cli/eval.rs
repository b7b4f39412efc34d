//! `semblance eval`: recall of an index or of a model on a data set, over its own items or a set of queries.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use semblance_embed::extract::Failure;
use semblance_index::{Index, Item};
use semblance_query::answer::{Answering, ItemIndex, Matrix};
use semblance_query::evaluate::OwnItems;
use semblance_query::report::{LoneQueries, text};
use semblance_query::study::{QueryItem, Shelf, Subject};
use semblance_query::{
    CataloguePictures, Embedded, EvalConfig, Gallery, PagePictures, PhotoConfig, Queries, QueryError,
    evaluate,
};

use crate::args::EvalArgs;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::report::Requery;
use crate::{catalogue, compare, eval_model, inputs, report};

pub(crate) fn run(args: &EvalArgs, printer: Printer) -> anyhow::Result<Exit> {
    if let Some(paths) = &args.report.compare {
        return compare::run(paths, args.report.bootstrap_seed, printer);
    }
    if let Some(data) = &args.data {
        return eval_model::run(args, data, printer);
    }
    let name = args.index.as_deref().context("no index: name one with --index")?;
    let folder = inputs::index_folder(name, &args.dir.index_dir, printer);
    match &args.queries {
        None => among_itself(args, name, &folder, printer),
        Some(path) => with_queries(args, name, &folder, path, printer),
    }
}

/// Refuses what makes no sense where the queries are the gallery's own items.
pub(crate) fn check_own(args: &EvalArgs) -> anyhow::Result<()> {
    if !args.answer.photo().is_plain() {
        bail!("--box and --views need photographs to search with: name them with --queries");
    }
    if args.answer.one_per_class {
        bail!("--one-per-class would hide a query's class behind the query itself: it needs --queries");
    }
    Ok(())
}

fn among_itself(args: &EvalArgs, name: &str, folder: &Path, printer: Printer) -> anyhow::Result<Exit> {
    check_own(args)?;
    let index = Index::open(folder)?;
    let report_folder = report::folder(&args.report, folder)?;
    if let Some(source) = inputs::model(&args.model) {
        semblance_query::engine::check_model(&index, &semblance_embed::Embedder::open(&source)?)?;
    }
    let own = OwnItems::of(&index)?;
    let root = args.catalogue_root.as_deref().or(args.layout.root.as_deref());
    let catalogue = Arc::new(CataloguePictures::of(&index, root)?);
    let items = index.items()?;
    remark_on(&catalogue, &items, args, printer);
    let pictures = items.iter().map(|item| report::of_item(&catalogue, item)).collect();
    let queries = own.queries(name);
    let measured = Measured {
        args,
        index: &index,
        shelf: &Shelf::of(&index, catalogue.clone())?,
        page: PagePictures::of(&catalogue),
        gallery: &|| matrix(&index),
        name,
        queries,
        pictures,
        failures: &[],
        requery: None,
    };
    measured.finish(report_folder.as_deref(), printer)
}

fn with_queries(
    args: &EvalArgs,
    name: &str,
    folder: &Path,
    path: &Path,
    printer: Printer,
) -> anyhow::Result<Exit> {
    let dataset = inputs::dataset_at(path, &args.layout, printer)?;
    let engine = inputs::engine(folder, &args.model)?;
    let report_folder = report::folder(&args.report, folder)?;
    let extract = inputs::extract(&args.extract, printer.threads);
    let embed = |photo: &PhotoConfig| -> Result<Embedded<'_>, QueryError> {
        let bar = printer.bar("embedding queries", dataset.len());
        let progress = &mut |done| bar.set(done, dataset.len());
        let mut embedded = Embedded::with_photos(engine.embedder(), &dataset, &extract, photo, progress)?;
        embedded.vectors = engine.to_index(embedded.vectors);
        Ok(embedded)
    };
    let embedded = embed(&args.answer.photo())?;
    inputs::warn_of(&embedded.failures, printer);
    let classes = embedded.classes();
    let queries =
        Queries { name: &dataset.name, vectors: &embedded.vectors, classes: &classes, own_ids: None };
    let pictures: Vec<QueryItem> =
        embedded.samples.iter().map(|sample| report::of_sample(&dataset, sample)).collect();
    let catalogue = Arc::new(CataloguePictures::of(engine.index(), args.catalogue_root.as_deref())?);
    remark_on(&catalogue, &engine.index().items()?, args, printer);
    let requery = |photo: &PhotoConfig| Ok(embed(photo)?.vectors);
    Measured {
        args,
        index: engine.index(),
        shelf: &Shelf::of(engine.index(), catalogue.clone())?,
        page: PagePictures::of(&catalogue).with_files(files_of(&pictures)),
        gallery: &|| matrix(engine.index()),
        name,
        queries,
        pictures,
        failures: &embedded.failures,
        requery: Some(&requery),
    }
    .finish(report_folder.as_deref(), printer)
}

/// Says where a report will lack pictures.
fn remark_on(pictures: &CataloguePictures, items: &[Item], args: &EvalArgs, printer: Printer) {
    if args.report.report.is_some() {
        catalogue::remark_on(pictures, &pictures.survey(items), printer);
    }
}

/// The files of these pictures.
pub(crate) fn files_of(items: &[QueryItem]) -> impl Iterator<Item = PathBuf> {
    items.iter().filter_map(|item| item.picture.clone())
}

/// An index's items in memory.
fn matrix(index: &Index) -> anyhow::Result<Matrix> {
    let own = OwnItems::of(index)?;
    Ok(Matrix::new(own.vectors, index.dim(), own.ids, own.classes)?)
}

/// Queries ready to be searched with.
pub(crate) struct Measured<'a> {
    pub(crate) args: &'a EvalArgs,
    pub(crate) index: &'a dyn ItemIndex,
    pub(crate) shelf: &'a Shelf,
    /// The gallery's items in memory, for what tries other vectors.
    pub(crate) gallery: &'a dyn Fn() -> anyhow::Result<Matrix>,
    pub(crate) name: &'a str,
    pub(crate) queries: Queries<'a>,
    pub(crate) pictures: Vec<QueryItem>,
    /// The pictures that a report may show.
    pub(crate) page: PagePictures<'a>,
    pub(crate) failures: &'a [Failure],
    pub(crate) requery: Option<&'a Requery<'a>>,
}

impl Measured<'_> {
    /// Why the figures say nothing, if they do not.
    fn remark(&self) -> Option<&'static str> {
        let classes: HashSet<&str> = self.shelf.classes().filter_map(|(_, class)| class).collect();
        match classes.len() {
            0 => Some("no item has a class, so nothing is known to be a right answer: the figures are empty"),
            1 => Some(
                "all items are of one class, so every answer is right: Recall and MAP of 1 say nothing about the model",
            ),
            _ => None,
        }
    }

    pub(crate) fn finish(&self, report_folder: Option<&Path>, printer: Printer) -> anyhow::Result<Exit> {
        let args = self.args;
        if let Some(remark) = self.remark() {
            printer.warn(remark);
        }
        let config = EvalConfig {
            ks: args.k.clone(),
            graph: !args.how.exact && args.index.is_some(),
            ef_search: args.how.ef_search,
            lone_queries: if args.lone_as_miss { LoneQueries::CountAsMiss } else { LoneQueries::Exclude },
            ..EvalConfig::default()
        };
        let answer = args.answer.answer();
        let bar = printer.bar("searching", self.queries.classes.len());
        let result = match report_folder {
            None => {
                let answering = Answering::new(self.index, &answer);
                let gallery = Gallery::new(&answering, self.shelf.classes(), self.name, self.shelf.model());
                evaluate(&gallery, &self.queries, &config, &|done, total| bar.set(done, total))?
            }
            Some(folder) => {
                let subject = Subject {
                    index: self.index,
                    shelf: self.shelf,
                    name: self.name,
                    queries: &self.queries,
                    items: &self.pictures,
                    answer: &answer,
                    failures: self.failures,
                };
                let (requery, gallery) = (self.requery, self.gallery);
                report::write(folder, &subject, &self.page, &config, &args.report, requery, gallery, &bar)?
            }
        };
        drop(bar);
        printer.result(&result, text::render)?;
        if let Some(folder) = report_folder {
            printer.note(format_args!(
                "report: {} (`semblance eval --compare A B` compares two reports of the same queries)",
                folder.join("report.html").display()
            ));
        }
        Ok(Exit::Done)
    }
}
