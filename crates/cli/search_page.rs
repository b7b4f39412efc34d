//! `semblance search --html`: the answers as a page with their pictures.

use std::path::Path;

use anyhow::Context as _;
use semblance_query::report::html::{self, SearchPage, Thumbnails};
use semblance_query::study::{Case, CaseHit};
use semblance_query::{Engine, PagePictures};

use crate::args::SearchArgs;
use crate::search::Answered;

pub(crate) fn write(
    file: &Path,
    args: &SearchArgs,
    engine: &Engine,
    results: &[Answered<'_>],
) -> anyhow::Result<()> {
    let mut how =
        vec![if args.how.exact { "exact search".to_owned() } else { "through the graph".to_owned() }];
    how.extend(args.answer.told());
    how.extend(args.show.threshold.map(|score| format!("scores from {score} on")));
    let page = SearchPage {
        index: args.index.index.clone(),
        items: engine.index().len(),
        how,
        answers: results.iter().map(|answer| case(answer, engine)).collect(),
        remarks: results.iter().map(Answered::remark).collect(),
    };
    // Pictures of search results are looked at closely.
    let thumbnails = Thumbnails { side: 320, quality: 80, ..Thumbnails::default() };
    let photos = results.iter().map(|answer| answer.photo.to_owned());
    let pictures = PagePictures::of(engine.pictures()).with_files(photos);
    let text = html::search(&page, &thumbnails, &pictures)?;
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

fn case(answer: &Answered<'_>, engine: &Engine) -> Case {
    let hit = |hit: &semblance_query::Hit| CaseHit {
        key: hit.item.key.clone(),
        class: hit.item.class.clone(),
        picture: engine.pictures().path(&hit.item),
        score: hit.score,
        is_match: false,
    };
    Case {
        key: answer.title(),
        class: answer.photo.file_name().map(|name| name.to_string_lossy().into_owned()),
        picture: Some(answer.photo.to_owned()),
        hits: answer.hits.iter().map(hit).collect(),
        first_match: None,
        right: None,
    }
}
