//! `semblance index move-root`: another folder for the pictures, without embedding them again.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use semblance_index::IndexWriter;
use semblance_query::pictures::move_root;
use serde_json::json;

use super::warn_unsealed;
use crate::args::IndexDirArgs;
use crate::exit::Exit;
use crate::inputs;
use crate::printer::Printer;

#[derive(Debug, Args)]
pub(crate) struct MoveRootArgs {
    /// The index, unless --index names it, and the folder that its keys are now relative to
    #[arg(required = true, num_args = 1..=2, value_names = ["NAME", "NEW_ROOT"])]
    places: Vec<PathBuf>,
    /// The index: a name below --index-dir, or a path (with a / in it)
    #[arg(long, value_name = "NAME")]
    index: Option<String>,
    #[command(flatten)]
    dir: IndexDirArgs,
}

impl MoveRootArgs {
    fn index_and_root(&self) -> anyhow::Result<(String, &Path)> {
        match (&self.index, self.places.as_slice()) {
            (Some(index), [root]) => Ok((index.clone(), root)),
            (None, [index, root]) => Ok((index.to_string_lossy().into_owned(), root)),
            (Some(_), _) => bail!("with --index, name one more thing: the new folder"),
            (None, _) => {
                bail!("name the index and the new folder: `semblance index move-root NAME NEW_ROOT`")
            }
        }
    }
}

pub(crate) fn run(args: &MoveRootArgs, printer: Printer) -> anyhow::Result<Exit> {
    let (index, root) = args.index_and_root()?;
    let folder = inputs::index_folder(&index, &args.dir.index_dir, printer);
    let mut writer = IndexWriter::open(&folder)?;
    if !writer.damage().is_empty() {
        inputs::warn_of_damage(&writer, printer);
        writer.finish(&|_| {})?;
    }
    let bar = printer.bar("looking for pictures", writer.len());
    let moved = move_root(&mut writer, root, &|done, total| bar.set(done, total))?;
    drop(bar);
    if let Some(error) = &moved.unsealed {
        warn_unsealed(error, printer);
    }
    let survey = &moved.survey;
    let result = json!({ "index": folder, "root": moved.root, "before": moved.before, "pictures": survey });
    printer.result(&result, |_| {
        let missing = match &survey.first_missing {
            Some(key) => format!(", {} are missing (such as {key})", survey.missing()),
            None => String::new(),
        };
        format!(
            "{}: the pictures are in {}; {} of {} found{missing}\n",
            folder.display(),
            moved.root.display(),
            survey.found,
            survey.looked_for,
        )
    })?;
    Ok(Exit::Done)
}
