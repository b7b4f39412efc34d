//! `semblance eval --report`: the evaluation as a page with pictures, and as data.

use std::path::{Path, PathBuf};

use semblance_embed::dataset::{Dataset, Sample};
use semblance_index::Item;
use semblance_query::answer::Matrix;
use semblance_query::report::folder;
use semblance_query::report::html::Thumbnails;
use semblance_query::statistics::bootstrap::BootstrapConfig;
use semblance_query::study::options::{Embed, Trial, Trials};
use semblance_query::study::{QueryItem, Subject, study};
use semblance_query::{CataloguePictures, EvalConfig, PagePictures, Report, StudyConfig};

use crate::printer::Bar;
use crate::report_args::ReportArgs;

/// Where reports go that are given no folder: one folder per index.
const REPORTS: &str = "runs/reports";

/// Embeds the queries again with another treatment of their photographs.
pub(crate) type Requery<'a> = Embed<'a>;

/// The folder to write to, made and found writable; `None` if no report was asked for.
pub(crate) fn folder(args: &ReportArgs, index: &Path) -> anyhow::Result<Option<PathBuf>> {
    let Some(chosen) = &args.report else { return Ok(None) };
    let name = index.canonicalize().ok().and_then(|path| path.file_name().map(PathBuf::from));
    let default = || Path::new(REPORTS).join(name.unwrap_or_else(|| PathBuf::from("index")));
    let dir = chosen.clone().unwrap_or_else(default);
    folder::prepare(&dir)?;
    Ok(Some(dir))
}

/// Measures, writes both files, and returns the averages.
#[allow(clippy::too_many_arguments, reason = "what a report is made of")]
pub(crate) fn write(
    dir: &Path,
    subject: &Subject<'_>,
    pictures: &PagePictures<'_>,
    eval: &EvalConfig,
    args: &ReportArgs,
    requery: Option<&Requery<'_>>,
    gallery: &dyn Fn() -> anyhow::Result<Matrix>,
    bar: &Bar,
) -> anyhow::Result<Report> {
    let config = StudyConfig {
        cases: args.hardest,
        false_accepts: args.false_accepts,
        bootstrap: BootstrapConfig { seed: args.bootstrap_seed, ..BootstrapConfig::default() },
        ..StudyConfig::default()
    };
    let mut found = study(subject, eval, &config, &|done, total| bar.set(done, total))?;
    if let Some(names) = &args.tried {
        bar.say("trying options");
        let trials = Trials {
            gallery: &gallery()?,
            queries: subject.queries,
            embed: requery,
            lone_queries: eval.lone_queries,
            bootstrap: config.bootstrap,
        };
        let chosen: Vec<Trial> = names.iter().flat_map(|name| name.0.clone()).collect();
        found.options = trials.run(&chosen, &|done, total| bar.set(done, total))?;
        for row in &mut found.options {
            row.name = flag(row.trial, &row.name);
        }
    }
    bar.say("drawing the report");
    folder::write(dir, &found, &Thumbnails::default(), pictures)?;
    Ok(found.report)
}

/// How an option that was tried is asked for on the command line.
fn flag(trial: Option<Trial>, name: &str) -> String {
    match trial {
        None | Some(Trial::Combined) => name.to_owned(),
        Some(Trial::Augment | Trial::Whiten) => format!("derive --{name}"),
        Some(_) => format!("--{name}"),
    }
}

/// A picture of a data set.
pub(crate) fn of_sample(dataset: &Dataset, sample: &Sample) -> QueryItem {
    QueryItem {
        key: sample.key(),
        super_class: sample.super_class.clone(),
        picture: Some(dataset.full_path(sample)),
    }
}

/// A picture of the index's own catalogue.
pub(crate) fn of_item(pictures: &CataloguePictures, item: &Item) -> QueryItem {
    QueryItem { key: item.key.clone(), super_class: item.super_class.clone(), picture: pictures.path(item) }
}
