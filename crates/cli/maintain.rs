//! `semblance index add | remove | verify | compact | export | import`: keeping an index up.

use std::fmt::Write as _;
use std::io::{BufRead as _, stdin};
use std::path::Path;

use semblance_index::{
    Imported, Index, IndexConfig, IndexError, IndexWriter, MergeOptions, Progress, VerifyReport, export,
    import, verify,
};
use semblance_query::catalog::{self, BuildProgress};
use semblance_query::uploads;
use serde::Serialize;
use serde_json::json;

use crate::args::IndexArgs;
use crate::catalogue::{self as roots, PicturesView};
use crate::exit::Exit;
use crate::hint;
use crate::index::show;
use crate::inputs;
use crate::maintain_args::{AddArgs, ExportArgs, ImportArgs, RemoveArgs, WriteArgs};
use crate::printer::{Bar, Printer};

/// Embeds the pictures an index does not have yet and adds them.
pub(crate) fn add(args: &AddArgs, printer: Printer) -> anyhow::Result<Exit> {
    let dataset = inputs::dataset(&args.data, printer)?;
    inputs::refuse_left_out(&dataset, args.extract.strict)?;
    let (metadata, joined) = args.metadata.read(&dataset, &args.extract, printer)?;
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir, printer);
    let engine = inputs::engine(&folder, &args.model)?;
    let mut writer = writer(&folder, &args.write, printer)?;
    roots::same_as_added(&mut writer, &dataset, printer)?;
    let bar = printer.bar("embedding", dataset.len());
    let extract = inputs::extract(&args.extract, printer.threads);
    let (summary, manifest) =
        catalog::build_with(&dataset, &metadata, engine.embedder(), &writer, &extract, &|step| {
            show(&bar, step)
        })?;
    drop(bar);
    inputs::warn_of(&summary.failures, printer);
    let result = json!({
        "index": folder, "summary": summary, "left_out": dataset.left_out, "metadata": joined, "items": manifest.items,
    });
    printer.result(&result, |_| {
        format!(
            "{}: {} added, {} there before ({} of them with changed metadata), {} skipped; {} items\n",
            folder.display(),
            summary.embedded,
            summary.already_stored,
            summary.described,
            summary.failures.len(),
            manifest.items
        )
    })?;
    Ok(Exit::Done)
}

/// Removes items by key; unknown keys are reported and make the exit code 1.
pub(crate) fn remove(args: &RemoveArgs, printer: Printer) -> anyhow::Result<Exit> {
    let mut keys = Vec::new();
    for key in &args.keys {
        if key == "-" {
            for line in stdin().lock().lines() {
                keys.push(line?);
            }
        } else {
            keys.push(key.clone());
        }
    }
    let folder = inputs::index_folder(&args.index.index, &args.index.dir.index_dir, printer);
    let writer = writer(&folder, &args.write, printer)?;
    let (mut ids, mut unknown) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in &keys {
        match catalog::id_of(key, |form| writer.find(form))? {
            Some(id) => ids.push(id),
            None => {
                printer.warn(format_args!("the index has no item {key:?}"));
                unknown.push(key);
            }
        }
    }
    let removed = writer.delete(&ids)?;
    let manifest = finish(printer, |progress| writer.finish_merged(&MergeOptions::all_threads(), progress))?;
    let result = json!({ "index": folder, "removed": removed, "unknown": unknown, "items": manifest.items });
    printer.result(&result, |_| {
        format!(
            "{}: {removed} removed, {} unknown; {} items\n",
            folder.display(),
            unknown.len(),
            manifest.items
        )
    })?;
    Ok(if unknown.is_empty() { Exit::Done } else { Exit::Incomplete })
}

/// Checks every checksum and record; faults, and what could not be checked, make the exit code 1.
pub(crate) fn check(args: &IndexArgs, printer: Printer) -> anyhow::Result<Exit> {
    let folder = inputs::index_folder(&args.index, &args.dir.index_dir, printer);
    let report = finish(printer, |progress| verify(&folder, progress))?;
    // Missing pictures are not a fault of the index itself, so they are only a remark.
    let pictures = Index::open(&folder).ok().and_then(|index| PicturesView::of(&index).ok());
    let checked = Checked { report, pictures };
    printer.result(&checked, |checked| told(&checked.report, &folder))?;
    if let Some(remark) = checked.pictures.and_then(|pictures| pictures.remark) {
        printer.warn(remark);
    }
    Ok(if checked.report.is_sound() { Exit::Done } else { Exit::Incomplete })
}

#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    report: VerifyReport,
    /// The catalogue's pictures; none where the index cannot be opened.
    pictures: Option<PicturesView>,
}

fn told(report: &VerifyReport, folder: &Path) -> String {
    let mut out = format!("{}: {} items published", folder.display(), report.items);
    if let Some(stored) = report.stored {
        let _ = write!(out, ", {stored} stored, {} changes not published yet", report.unpublished);
    }
    for fault in &report.faults {
        let _ = write!(out, "\n{}: {} (", fault.path.display(), fault.what);
        let _ = match fault.rebuildable {
            true => write!(out, "`semblance index compact --index {}` mends it)", hint::name_of(folder)),
            false => write!(out, "something is lost)"),
        };
    }
    for unchecked in &report.unchecked {
        let _ = write!(out, "\n{}: NOT CHECKED: {}", unchecked.path.display(), unchecked.why);
    }
    out.push_str(match (report.is_sound(), report.faults.is_empty()) {
        (true, _) => "\nsound\n",
        (false, false) => "\nNOT sound\n",
        (false, true) => "\nNOT CHECKED in full: whether the index is whole is not known\n",
    });
    out
}

/// Makes the published files again from the store and removes uploads that no item names.
pub(crate) fn compact(args: &IndexArgs, printer: Printer) -> anyhow::Result<Exit> {
    let folder = inputs::index_folder(&args.index, &args.dir.index_dir, printer);
    let size = |index: Option<Index>| index.map_or(0, |index| index.manifest().bytes());
    let before = size(Index::open(&folder).ok());
    let writer = IndexWriter::open(&folder)?;
    inputs::warn_of_damage(&writer, printer);
    let manifest = finish(printer, |progress| writer.compact(progress))?;
    let swept = uploads::sweep(&writer)?;
    let after = manifest.bytes();
    let result = json!({
        "index": folder, "items": manifest.items, "bytes_before": before, "bytes": after, "uploads_removed": swept,
    });
    printer.result(&result, |_| {
        format!(
            "{}: {} items, {before} bytes of files before, {after} now{}\n",
            folder.display(),
            manifest.items,
            match swept.files {
                0 => String::new(),
                files => format!("; {files} uploads that no item names removed ({} bytes)", swept.bytes),
            }
        )
    })?;
    Ok(Exit::Done)
}

/// Writes an index out for other programs.
pub(crate) fn write_out(args: &ExportArgs, printer: Printer) -> anyhow::Result<Exit> {
    let index = Index::open(inputs::index_folder(&args.index.index, &args.index.dir.index_dir, printer))?;
    let items = finish(printer, |progress| export(&index, &args.out, args.format, progress))?;
    printer.result(&json!({ "index": index.dir(), "out": args.out, "items": items }), |_| {
        format!("{}: {items} items written\n", args.out.display())
    })?;
    Ok(Exit::Done)
}

/// Adds vectors and items from files to an index.
pub(crate) fn read_in(args: &ImportArgs, printer: Printer) -> anyhow::Result<Exit> {
    let folder = inputs::index_folder(&args.index, &args.dir.index_dir, printer);
    let (mut writer, is_new) = open_or_create(&folder, args)?;
    inputs::warn_of_damage(&writer, printer);
    if let Some(durability) = args.write.durability {
        writer.set_durability(durability);
    }
    let imported = finish(printer, |progress| {
        let imported = import(&writer, &args.vectors, args.items.as_deref(), progress)?;
        Ok((imported, writer.finish_merged(&MergeOptions::all_threads(), progress)?))
    });
    let (imported, manifest) = match imported {
        Err(error) if is_new => {
            let way = "repeat the command, which replaces them and goes on";
            return Err(inputs::given_up(writer, error, way));
        }
        imported => imported?,
    };
    let Imported { rows, replaced } = imported;
    let summary = json!({ "index": folder, "imported": rows, "replaced": replaced, "items": manifest.items });
    printer.result(&summary, |_| {
        let twice = match replaced {
            0 => String::new(),
            _ => format!(
                " ({replaced} had a key that the index or an earlier row had, and replaced that item)"
            ),
        };
        format!("{}: {rows} imported{twice}, {} items\n", folder.display(), manifest.items)
    })?;
    Ok(Exit::Done)
}

/// The index to import into, and whether it is a new one.
fn open_or_create(folder: &Path, args: &ImportArgs) -> semblance_index::Result<(IndexWriter, bool)> {
    match IndexWriter::open(folder) {
        Err(IndexError::Missing { .. }) => {}
        opened => return opened.map(|writer| (writer, false)),
    }
    let config = IndexConfig::for_import(&args.vectors, &args.fingerprint)?;
    match IndexWriter::create(folder, &config) {
        // Another process made it and has ended since.
        Err(IndexError::AlreadyExists { .. }) => IndexWriter::open(folder).map(|writer| (writer, false)),
        created => created.map(|writer| (writer, true)),
    }
}

fn writer(folder: &Path, args: &WriteArgs, printer: Printer) -> anyhow::Result<IndexWriter> {
    let mut writer = IndexWriter::open(folder)?;
    inputs::warn_of_damage(&writer, printer);
    if let Some(durability) = args.durability {
        writer.set_durability(durability);
    }
    Ok(writer)
}

/// Does something that takes long, with a bar.
fn finish<T>(
    printer: Printer,
    work: impl FnOnce(&(dyn Fn(Progress) + Sync)) -> semblance_index::Result<T>,
) -> anyhow::Result<T> {
    let bar: Bar = printer.bar("working", 0);
    let done = work(&|progress| show(&bar, BuildProgress::Indexing(progress)))?;
    Ok(done)
}
