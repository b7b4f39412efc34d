//! What helps against an error, in commands and flags of this program, which the libraries do not know.

use std::error::Error;
use std::path::Path;

use semblance_embed::EmbedError;
use semblance_embed::dataset::DatasetError;
use semblance_index::IndexError;
use semblance_query::QueryError;
use semblance_server::{OperatorAdvice, ServerError};

use crate::args::INDEX_DIR;
use crate::inputs::named_folder;
use crate::serve::TOKEN_VARIABLE;

/// What helps against the errors in this chain; `None` if no command or flag does.
pub(crate) fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().filter_map(of_cause).reduce(joined)
}

fn joined(first: String, second: String) -> String {
    if first.contains(&second) { first } else { format!("{first}; {second}") }
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref() {
        of_index(error)
    } else if let Some(error) = cause.downcast_ref() {
        of_embedder(error)
    } else if let Some(error) = cause.downcast_ref() {
        of_query(error)
    } else if let Some(error) = cause.downcast_ref() {
        of_dataset(error)
    } else {
        of_server(cause.downcast_ref()?)
    }
}

fn of_index(error: &IndexError) -> Option<String> {
    Some(match error {
        IndexError::Missing { dir } => {
            format!("`semblance index build --name {} --data PHOTOS --model MODEL` builds one", name_of(dir))
        }
        IndexError::Unfinished { dir } => {
            let name = name_of(dir);
            format!(
                "resume it with the same `semblance index build --name {name}` command and --resume, or make it searchable from \
                 what it holds with `semblance index compact --index {name}`"
            )
        }
        IndexError::FormatVersion { dir, .. } => format!(
            "`semblance index export --index {} --out FOLDER` of the program that wrote it, then `semblance index import \
             FOLDER/vectors.npy --index NEW` of this one",
            name_of(dir)
        ),
        IndexError::WrongModel { dir, .. } => format!(
            "--model names the model, without it the index's own is taken; `semblance index build --name {} --replace` \
             builds the index with another one",
            name_of(dir)
        ),
        IndexError::Damaged { path, .. } => {
            format!("`semblance index compact --index {}` restores it from the store", name_of_file(path))
        }
        IndexError::StoreDamaged { path, .. } => {
            let name = path.parent().map_or_else(|| "NAME".to_owned(), name_of);
            format!(
                "`semblance index verify --index {name}` shows what is left, `semblance index export --index {name} --out \
                 FOLDER` saves what is published"
            )
        }
        IndexError::StoreOlder { dir, .. }
        | IndexError::StoreIncomplete { dir, .. }
        | IndexError::StoreMissing { dir } => format!(
            "`semblance index export --index {} --out FOLDER`, then `semblance index import FOLDER/vectors.npy --index NEW`",
            name_of(dir)
        ),
        IndexError::Uncertain { source } => return of_index(source),
        _ => return None,
    })
}

fn of_query(error: &QueryError) -> Option<String> {
    match error {
        QueryError::ModelOfIndex { source, .. } => {
            let place = "--model says where the model is now".to_owned();
            Some(of_embedder(source).into_iter().fold(place, joined))
        }
        QueryError::ModelIsNoFile { .. } | QueryError::NoModelRecorded { .. } => {
            Some("--model says where the model is".to_owned())
        }
        QueryError::ReadReport { .. } => {
            Some("`semblance eval --index NAME --report FOLDER` writes a report".to_owned())
        }
        QueryError::NothingToDerive => Some("--whiten DIM or --augment asks for it".to_owned()),
        QueryError::Index(error) => of_index(error),
        QueryError::Embed(error) => of_embedder(error),
        QueryError::Table(error) => of_dataset(error),
        _ => None,
    }
}

fn of_dataset(error: &DatasetError) -> Option<String> {
    matches!(error, DatasetError::NotAFolder { .. })
        .then(|| "--format table reads a list of pictures".to_owned())
}

fn of_embedder(error: &EmbedError) -> Option<String> {
    Some(match error {
        EmbedError::ArchNeeded { .. } => "--arch names the architecture".to_owned(),
        EmbedError::ArchMismatch { .. } => "leave out --arch".to_owned(),
        EmbedError::SizeMismatch { what, found, .. } => {
            format!(
                "leave out --{what} (its own is --{what} {found}), or give the model to `semblance train` as --init to train it at another size"
            )
        }
        EmbedError::Export { fits_without_head: true, .. } => {
            "--without-head leaves the head out, --format onnx has a place for every network".to_owned()
        }
        EmbedError::Export { .. } => "--format onnx has a place for every network".to_owned(),
        EmbedError::Dataset(error) => return of_dataset(error),
        EmbedError::Diverged { .. } => "--lr, --warmup and --clip-norm set these".to_owned(),
        EmbedError::Exploded { .. } => {
            "--lr, --warmup, --clip-norm and --explode-factor set these".to_owned()
        }
        _ => return None,
    })
}

fn of_server(error: &ServerError) -> Option<String> {
    match error {
        ServerError::NoIndex => Some("--index names one".to_owned()),
        ServerError::TokenNeeded { .. } => {
            Some(format!("the token is read from --token-file or from the variable {TOKEN_VARIABLE}"))
        }
        ServerError::BadToken { .. } => Some("`openssl rand -hex 32` prints a token".to_owned()),
        ServerError::Index(error) => of_index(error),
        ServerError::Query(error) => of_query(error),
        _ => None,
    }
}

/// What a server started by `semblance serve` advises its operator in its answers.
pub(crate) fn for_operators(reports: &Path) -> OperatorAdvice {
    let reports = quoted(&reports.join("NAME"));
    OperatorAdvice {
        public_host: "--public-host of `semblance serve`".to_owned(),
        allowed_origin: "--allow-origin and --public-host of `semblance serve`".to_owned(),
        report: format!("`semblance eval --index NAME --report {reports}` writes one"),
    }
}

/// How the index in a folder is called on the command line: the inverse of [`named_folder`], quoted for a shell.
pub(crate) fn name_of(folder: &Path) -> String {
    let names = Path::new(INDEX_DIR);
    let short = folder.strip_prefix(names).ok().and_then(Path::to_str);
    match short.filter(|name| named_folder(name, names) == folder && !name.is_empty()) {
        Some(name) => quoted(Path::new(name)),
        None if folder.components().count() > 1 || folder.has_root() => quoted(folder),
        // A name would be looked for among the indexes.
        None => quoted(&Path::new(".").join(folder)),
    }
}

/// The same of the index that a damaged file lies in, or that is damaged as a whole. A manifest can name a file of another
/// folder: the name is then left open.
fn name_of_file(path: &Path) -> String {
    let parts = path.file_name().zip(path.parent());
    match parts {
        _ if path.is_dir() => name_of(path),
        Some((_, folder)) if !folder.ends_with("..") => name_of(folder),
        _ => "NAME".to_owned(),
    }
}

/// A path as one word of a shell's command line.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().all(is_plain) && !text.starts_with('-') {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    const DIR: &str = "index-data/shop";

    fn missing() -> IndexError {
        IndexError::Missing { dir: DIR.into() }
    }

    fn arch_needed() -> EmbedError {
        EmbedError::ArchNeeded { path: "w.pth".into(), known: "resnet50".into() }
    }

    #[test]
    fn every_error_that_a_command_helps_against_names_it() {
        let dir = || DIR.into();
        let file = || format!("{DIR}/items-000001.bin").into();
        let text = || "x".to_owned();
        let export = |fits_without_head| EmbedError::Export {
            arch: text(),
            format: "timm",
            reason: text(),
            fits_without_head,
        };
        let cases: Vec<(anyhow::Error, &[&str])> = vec![
            (missing().into(), &["`semblance index build --name shop "]),
            (
                IndexError::Unfinished { dir: dir() }.into(),
                &[
                    "`semblance index build --name shop`",
                    "--resume",
                    "`semblance index compact --index shop`",
                ],
            ),
            (
                IndexError::FormatVersion { dir: dir(), found: 9, oldest: 1, newest: 3 }.into(),
                &["`semblance index export --index shop ", "`semblance index import "],
            ),
            (
                IndexError::WrongModel { dir: dir(), index: text(), given: text() }.into(),
                &["--model", "`semblance index build --name shop --replace`"],
            ),
            (
                IndexError::Damaged { path: file(), what: text() }.into(),
                &["`semblance index compact --index shop`"],
            ),
            (
                IndexError::StoreDamaged { path: format!("{DIR}/store").into(), what: text() }.into(),
                &["`semblance index verify --index shop`", "`semblance index export --index shop "],
            ),
            (
                IndexError::StoreOlder { dir: dir(), stored: 1, published: 2 }.into(),
                &["`semblance index export --index shop ", "`semblance index import "],
            ),
            (IndexError::Uncertain { source: Box::new(missing()) }.into(), &["semblance index build"]),
            (
                QueryError::ModelOfIndex {
                    dir: dir(),
                    model: "w.pth".into(),
                    source: Box::new(arch_needed()),
                }
                .into(),
                &["--model", "--arch"],
            ),
            (QueryError::ModelIsNoFile { dir: dir(), model: text() }.into(), &["--model"]),
            (QueryError::NoModelRecorded { dir: dir() }.into(), &["--model"]),
            (
                QueryError::ReadReport { path: "r.json".into(), reason: text() }.into(),
                &["`semblance eval --index NAME --report "],
            ),
            (QueryError::NothingToDerive.into(), &["--whiten", "--augment"]),
            (QueryError::Index(missing()).into(), &["semblance index build"]),
            (QueryError::from(arch_needed()).into(), &["--arch"]),
            (arch_needed().into(), &["--arch"]),
            (
                EmbedError::ArchMismatch { path: "m".into(), found: text(), wanted: text() }.into(),
                &["leave out --arch"],
            ),
            (
                EmbedError::SizeMismatch { path: "m".into(), what: "crop", found: 1, wanted: 2 }.into(),
                &["leave out --crop", "--crop 1", "--init"],
            ),
            (export(true).into(), &["--without-head", "--format onnx"]),
            (export(false).into(), &["--format onnx"]),
            (
                EmbedError::Diverged { step: 1, what: "loss", value: 1.0, checkpoint: text() }.into(),
                &["--lr", "--clip-norm"],
            ),
            (
                EmbedError::Exploded { step: 1, what: "loss", value: 1.0, median: 1.0, checkpoint: text() }
                    .into(),
                &["--lr", "--explode-factor"],
            ),
            (
                EmbedError::Validation { source: Box::new(QueryError::Index(missing())) }.into(),
                &["semblance index build"],
            ),
            (DatasetError::NotAFolder { path: "a.csv".into() }.into(), &["--format table"]),
            (EmbedError::from(DatasetError::NotAFolder { path: "a.csv".into() }).into(), &["--format table"]),
            (ServerError::NoIndex.into(), &["--index"]),
            (
                ServerError::TokenNeeded { listen: ([0, 0, 0, 0], 80).into() }.into(),
                &["--token-file", "SEMBLANCE_TOKEN"],
            ),
            (ServerError::BadToken { what: "is short" }.into(), &["openssl rand"]),
            (ServerError::Query(QueryError::Index(missing())).into(), &["semblance index build"]),
        ];
        for (error, words) in cases {
            let hint = of(&error).unwrap_or_else(|| panic!("no hint for: {error}"));
            assert!(words.iter().all(|word| hint.contains(word)), "{error}: {hint}");
            assert!(!error.to_string().contains(" --"), "the library names no flag: {error}");
            assert!(!error.to_string().contains('`'), "the library names no command: {error}");
        }
    }

    #[test]
    fn a_hint_is_found_below_any_context_and_given_once() {
        let error = Err::<(), _>(missing()).context("cannot search").context("demo").unwrap_err();
        assert_eq!(of(&error).unwrap().matches("index build").count(), 1);
        assert_eq!(of(&anyhow::anyhow!("no command helps")), None);
        assert_eq!(of(&IndexError::ZeroK.into()), None);
    }

    #[test]
    fn without_a_head_is_advised_only_where_it_helps() {
        let export = EmbedError::Export {
            arch: "a".into(),
            format: "f",
            reason: "r".into(),
            fits_without_head: false,
        };
        assert!(!of(&export.into()).unwrap().contains("--without-head"));
    }

    #[test]
    fn a_name_leads_back_to_its_folder() {
        let names = Path::new(INDEX_DIR);
        for name in ["shop", "./shop", "/srv/shop", "a/b/shop", "../shop"] {
            let folder = named_folder(name, names);
            assert_eq!(named_folder(&name_of(&folder), names), folder, "{name}");
        }
        assert_eq!(name_of(Path::new("index-data/shop")), "shop");
        assert_eq!(name_of(Path::new("elsewhere/shop")), "elsewhere/shop");
        assert_eq!(name_of(Path::new("shop")), "./shop", "of --index-dir ''");
        assert_eq!(name_of(Path::new("index-data/it's")), "'it'\\''s'");
        assert_eq!(name_of(Path::new("index-data/a b")), "'a b'");
        assert_eq!(name_of(Path::new("index-data/a;b")), "'a;b'");
        assert_eq!(name_of_file(Path::new("../shop/items-000001.bin")), "../shop");
        assert_eq!(name_of_file(Path::new("index-data/shop/../x")), "NAME");
    }
}
