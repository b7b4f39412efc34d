//! From arguments to the things they name: data sets, models, indexes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use semblance_embed::ModelSource;
use semblance_embed::dataset::sample::{SampleCatalogue, TABLE_NAME};
use semblance_embed::dataset::{Dataset, DatasetConfig, Format, Header, LeftOutReason, TableConfig};
use semblance_embed::extract::{ExtractConfig, Failure};

use semblance_index::{IndexError, IndexWriter, Recovered, recover_replacement};
use semblance_query::Engine;

use crate::args::{ExtractArgs, ModelArgs};
use crate::data::{DatasetArgs, FormatArg, HeaderArg, LayoutArgs};
use crate::printer::Printer;

/// Where the sample catalogue is drawn when no data set is named.
const SAMPLE_CATALOGUE: &str = "runs/sample-catalogue";

/// The data set named by the arguments, or the sample catalogue.
pub(crate) fn dataset(args: &DatasetArgs, printer: Printer) -> anyhow::Result<Dataset> {
    match &args.data {
        Some(path) => dataset_at(path, &args.layout, printer),
        None => {
            let path = Path::new(SAMPLE_CATALOGUE);
            printer.note(format_args!("no --data: taking the sample catalogue in {SAMPLE_CATALOGUE}"));
            sample_catalogue(path, &SampleCatalogue::default(), printer)?;
            dataset_at(path, &args.layout, printer)
        }
    }
}

/// The data set in a folder or table.
pub(crate) fn dataset_at(path: &Path, layout: &LayoutArgs, printer: Printer) -> anyhow::Result<Dataset> {
    let config = DatasetConfig {
        format: format(layout)?,
        follow_outside_links: layout.follow_outside_links,
        ..DatasetConfig::new(path)
    };
    let dataset = Dataset::open(&config)?;
    for warning in &dataset.warnings {
        printer.warn(warning);
    }
    tell_left_out(&dataset, printer);
    let Some(split) = layout.split else { return Ok(dataset) };
    let part = dataset.filter(|sample| sample.split == Some(split));
    if part.is_empty() {
        bail!("{} has no picture of the split asked for with --split", path.display());
    }
    Ok(part)
}

/// Says what a folder holds that was not taken: as warnings where a picture may be missing, else as remarks.
fn tell_left_out(dataset: &Dataset, printer: Printer) {
    const SHOWN: usize = 20;
    for group in dataset.left_out.iter().take(SHOWN) {
        if group.reason.is_fault() || group.reason == LeftOutReason::EmptyFolder {
            printer.warn(group);
        } else {
            printer.note(group);
        }
    }
    if dataset.left_out.len() > SHOWN {
        printer.warn(format_args!(
            "and {} more kinds of files are left out; --json lists them all",
            dataset.left_out.len() - SHOWN
        ));
    }
}

/// Refuses a data set of which a picture may be missing, if `--strict` asks for it.
pub(crate) fn refuse_left_out(dataset: &Dataset, strict: bool) -> anyhow::Result<()> {
    let faults = dataset.left_out.iter().filter(|group| group.reason.is_fault());
    let faults: Vec<String> = faults.map(ToString::to_string).collect();
    if strict && !faults.is_empty() {
        bail!("{} (--strict): {}", dataset.root.display(), faults.join("; "));
    }
    Ok(())
}

fn format(layout: &LayoutArgs) -> anyhow::Result<Format> {
    let table = TableConfig {
        path_column: layout.path_column.clone(),
        class_column: layout.class_column.clone(),
        super_class_column: layout.super_class_column.clone(),
        split_column: layout.split_column.clone(),
        header: match layout.header {
            HeaderArg::Auto => Header::Auto,
            HeaderArg::Yes => Header::Yes,
            HeaderArg::No => Header::No,
        },
        root: layout.root.clone(),
        delimiter: layout.delimiter,
    };
    let is_table = table != TableConfig::default();
    Ok(match layout.format {
        FormatArg::Table => Format::Table(table),
        FormatArg::Auto if is_table => Format::Table(table),
        _ if is_table => {
            bail!("columns, --header, --delimiter and --root belong to tables: use --format table")
        }
        FormatArg::Auto => Format::Auto,
        FormatArg::Folder => Format::Folder,
        FormatArg::Flat => Format::Flat,
        FormatArg::Sop => Format::Sop { split: layout.split },
    })
}

/// Draws the sample catalogue, unless it is there already. What was drawn is noted in a file beside the folder, so that
/// one catalogue is not taken for another.
pub(crate) fn sample_catalogue(
    dir: &Path,
    catalogue: &SampleCatalogue,
    printer: Printer,
) -> anyhow::Result<Dataset> {
    let note = dir.with_extension("json");
    if dir.join(TABLE_NAME).is_file() {
        let drawn: Option<SampleCatalogue> =
            std::fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if drawn.as_ref() != Some(catalogue) {
            bail!(
                "{} holds another catalogue than the one asked for ({catalogue:?}): remove it, or choose another folder",
                dir.display()
            );
        }
    } else {
        // The note first: with the table, which is written last, it is there too, also if the drawing is interrupted.
        if let Some(parent) = note.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        std::fs::write(&note, serde_json::to_vec_pretty(catalogue)?)
            .with_context(|| note.display().to_string())?;
        let bar = printer.bar("drawing the catalogue", catalogue.classes * catalogue.images_per_class);
        catalogue.write(dir, &|done, total| bar.set(done, total))?;
    }
    Ok(Dataset::open(&DatasetConfig::new(dir))?)
}

/// Whether the pictures are a catalogue that the program has drawn, by the note beside their folder.
pub(crate) fn is_drawn(dataset: &Dataset) -> bool {
    let note = std::fs::read(dataset.root.with_extension("json"));
    dataset.root.join(TABLE_NAME).is_file()
        && note.is_ok_and(|text| serde_json::from_slice::<SampleCatalogue>(&text).is_ok())
}

/// The model named by the arguments, if one is.
pub(crate) fn model(args: &ModelArgs) -> Option<ModelSource> {
    let model = args.model.clone()?;
    let (resize, crop) = (args.resize, args.crop);
    let (device, precision) = (args.device, args.precision);
    Some(ModelSource { arch: args.arch, resize, crop, device, precision, ..ModelSource::new(model) })
}

/// An index with the model named by the arguments, or its own.
pub(crate) fn engine(folder: &Path, args: &ModelArgs) -> anyhow::Result<Engine> {
    Ok(Engine::open(folder, model(args).as_ref(), args.precision)?)
}

/// The model named by the arguments; an error without one.
pub(crate) fn required_model(args: &ModelArgs) -> anyhow::Result<ModelSource> {
    model(args).context(
        "no model: name a Hugging Face model (such as timm/mobilenetv2_100.ra_in1k), a weight file or a checkpoint folder \
         (`semblance train` makes one) with --model",
    )
}

/// How pictures are read.
pub(crate) fn extract(args: &ExtractArgs, threads: Option<u16>) -> ExtractConfig {
    ExtractConfig {
        batch: args.batch,
        strict: args.strict,
        threads: threads.map_or(0, usize::from),
        ..ExtractConfig::default()
    }
}

/// The folder of an index. Ends a replacement of the index that was interrupted, and says so.
pub(crate) fn index_folder(name: &str, indexes: &Path, printer: Printer) -> PathBuf {
    let folder = named_folder(name, indexes);
    // Where this user cannot end it, the command finds no index and says that.
    match recover_replacement(&folder) {
        Ok(Some(Recovered::Completed)) => printer.warn(format_args!(
            "replacing the index at {} was interrupted: its new index was finished and is in its place now",
            folder.display()
        )),
        Ok(Some(Recovered::Restored)) => printer.warn(format_args!(
            "replacing the index at {} was interrupted: the old index is in its place again",
            folder.display()
        )),
        Ok(None) | Err(_) => {}
    }
    folder
}

/// A name below the folder of indexes, or a path if it looks like one.
pub(crate) fn named_folder(name: &str, indexes: &Path) -> PathBuf {
    let is_path = name.contains(['/', std::path::MAIN_SEPARATOR]) || matches!(name, "." | "..");
    if is_path { PathBuf::from(name) } else { indexes.join(name) }
}

/// The error of a place that an index has already, with the options that help.
pub(crate) fn name_taken(error: IndexError, options: &str) -> anyhow::Error {
    match error {
        IndexError::AlreadyExists { .. } => anyhow!("{error}: repeat the command with {options}"),
        error => error.into(),
    }
}

/// The error of a command that began an index and did not finish it: nothing is left of it if nothing was stored, else the
/// error says how to go on.
pub(crate) fn given_up(writer: IndexWriter, error: anyhow::Error, way: &str) -> anyhow::Error {
    let items = writer.len();
    match writer.discard_if_empty() {
        Ok(false) if items > 0 => anyhow!("{error:#}; {items} items are stored: {way}"),
        _ => error,
    }
}

/// Says which published files are damaged, and that they are made again.
pub(crate) fn warn_of_damage(writer: &IndexWriter, printer: Printer) {
    const SHOWN: usize = 10;
    for damage in writer.damage().iter().take(SHOWN) {
        printer.warn(format_args!("{damage}; this command makes it again"));
    }
    if writer.damage().len() > SHOWN {
        printer.warn(format_args!("and {} more damaged segments", writer.damage().len() - SHOWN));
    }
}

/// Names the pictures that were skipped.
pub(crate) fn warn_of(failures: &[Failure], printer: Printer) {
    const SHOWN: usize = 20;
    for failure in failures.iter().take(SHOWN) {
        printer.warn(format_args!("skipped {}: {}", failure.path, failure.reason));
    }
    if failures.len() > SHOWN {
        printer.warn(format_args!("and {} more pictures; --json lists them all", failures.len() - SHOWN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_of_indexes() {
        let folder = |name| named_folder(name, Path::new("index-data"));
        assert_eq!(folder("shop"), Path::new("index-data/shop"));
        assert_eq!(folder("./shop"), Path::new("./shop"));
        assert_eq!(folder("/tmp/shop"), Path::new("/tmp/shop"));
        assert_eq!(folder(".."), Path::new(".."), "not the parent of the indexes by accident");
    }
}
