//! A study, or the answers of a search, as one HTML page that needs nothing else: pictures inside, no script, no font and no
//! style sheet from elsewhere. Every text is escaped by the template engine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{Environment, State, context};
use serde::Serialize;

use crate::error::{QueryError, Result};
use crate::pictures::PagePictures;
use crate::study::{Case, CaseHit, Study};

mod charts;
mod thumbnail;

pub use thumbnail::{Thumbnails, data_uri};

/// Rows of a table of classes on the page; all are in the JSON.
const CLASS_ROWS: usize = 300;
/// Suspects on the page; all are in the JSON.
const SUSPECTS: usize = 12;

const TEMPLATES: [(&str, &str); 5] = [
    ("study.html", include_str!("study.html")),
    ("tables.html", include_str!("tables.html")),
    ("pictures.html", include_str!("pictures.html")),
    ("search.html", include_str!("search.html")),
    ("style.css", include_str!("style.css")),
];

/// The page of a study. A picture that is gone or broken, or is not among `pictures`, leaves an empty frame.
///
/// # Errors
/// [`QueryError::Render`], which is a fault of this program.
pub fn study(study: &Study, thumbnails: &Thumbnails, pictures: &PagePictures<'_>) -> Result<String> {
    let mut study = study.clone();
    let hidden = study.classes.len().saturating_sub(CLASS_ROWS);
    study.classes.truncate(CLASS_ROWS);
    let all_suspects = study.suspects.len();
    study.suspects.truncate(SUSPECTS);
    let pictures = thumbnails.make(pictures_of(&study), pictures);
    let charts = charts::of(&study)?;
    // Columns of every query; the page shows none of them.
    study.per_query.searches.clear();
    study.per_query.keys.clear();
    study.per_query.classes.clear();
    render(
        "study.html",
        pictures,
        context! { study => Serde(&study), charts => Serde(&charts), hidden_classes => hidden, all_suspects },
    )
}

/// A page of answers to photographs.
///
/// # Errors
/// As [`study`].
pub fn search(page: &SearchPage, thumbnails: &Thumbnails, pictures: &PagePictures<'_>) -> Result<String> {
    let pictures = thumbnails.make(page.answers.iter().flat_map(pictures_of_case), pictures);
    render("search.html", pictures, context! { page => Serde(page) })
}

/// The answers to show.
#[derive(Clone, Debug, Serialize)]
pub struct SearchPage {
    /// The index.
    pub index: String,
    /// Its items.
    pub items: usize,
    /// How was searched, in words.
    pub how: Vec<String>,
    /// One a photograph.
    pub answers: Vec<Case>,
    /// What each photograph got instead of hits, if anything: an error, or that nothing is like it.
    pub remarks: Vec<Option<String>>,
}

fn pictures_of(study: &Study) -> impl Iterator<Item = PathBuf> {
    let cases = study.hardest.iter().chain(&study.usual).flat_map(pictures_of_case);
    let pairs = study.near_duplicates.pairs.iter().flat_map(|pair| [&pair.query, &pair.item]);
    let suspects =
        study.suspects.iter().flat_map(|suspect| std::iter::once(&suspect.query).chain(&suspect.neighbours));
    cases.chain(pairs.chain(suspects).filter_map(|hit| hit.picture.clone()))
}

fn pictures_of_case(case: &Case) -> impl Iterator<Item = PathBuf> + use<> {
    let of_hit = |hit: &CaseHit| hit.picture.clone();
    let hits: Vec<PathBuf> = case.hits.iter().chain(&case.right).filter_map(of_hit).collect();
    case.picture.clone().into_iter().chain(hits)
}

fn render(name: &str, pictures: HashMap<PathBuf, String>, context: Value) -> Result<String> {
    let failed = |error: minijinja::Error| {
        let mut reason = format!("{error:#}");
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            reason.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        QueryError::Render { what: name.to_owned(), reason }
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let blocks_alone = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(blocks_alone.map_err(failed)?);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text).map_err(failed)?;
    }
    environment.add_filter("num", num);
    environment.add_filter("signed", signed);
    environment.add_filter("count", count);
    environment.add_filter("percent", |share: f64| format!("{:.1} %", share * 100.0));
    environment.add_function("thumbnail", move |_: &State<'_, '_>, path: Value| match path.as_str() {
        Some(path) => pictures.get(Path::new(path)).map_or(Value::from(()), |uri| {
            // Base64 and a fixed prefix: nothing to escape.
            Value::from_safe_string(uri.clone())
        }),
        None => Value::from(()),
    });
    environment.get_template(name).and_then(|template| template.render(context)).map_err(failed)
}

/// A number with three digits; a dash where there is none.
fn num(value: Value) -> String {
    match (value.kind(), f64::try_from(value)) {
        (ValueKind::Number, Ok(number)) => format!("{number:.3}"),
        _ => "–".to_owned(),
    }
}

/// A number with its sign.
fn signed(value: f64) -> String {
    let text = format!("{value:+.3}");
    // A typographic minus lines up with the plus.
    if text == "-0.000" { "+0.000".to_owned() } else { text.replace('-', "−") }
}

/// A whole number with its thousands apart.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(
            [count(7.0), count(1234.4), count(1_234_567.0)],
            ["7", "1\u{202f}234", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!([signed(0.0124), signed(-0.5), signed(-0.0001)], ["+0.012", "−0.500", "+0.000"]);
        assert_eq!([num(Value::from(0.12349)), num(Value::from(()))], ["0.123", "–"]);
    }
}
