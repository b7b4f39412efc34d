//! `semblance data`: check a data set, draw the sample catalogue.

mod args;

use std::fmt::Write as _;

use semblance_embed::dataset::LeftOut;
use semblance_embed::dataset::check::{DataCheck, check};
use semblance_embed::dataset::sample::SampleCatalogue;
use semblance_embed::transform::Limits;
use serde_json::json;

use self::args::SampleArgs;
pub(crate) use self::args::{CatalogueArgs, DataCommand, DatasetArgs, FormatArg, HeaderArg, LayoutArgs};
use crate::exit::Exit;
use crate::inputs;
use crate::printer::Printer;

pub(crate) fn run(command: &DataCommand, printer: Printer) -> anyhow::Result<Exit> {
    match command {
        DataCommand::Check(args) => run_check(args, printer),
        DataCommand::Sample(args) => run_sample(args, printer),
    }
}

fn run_check(args: &DatasetArgs, printer: Printer) -> anyhow::Result<Exit> {
    let dataset = inputs::dataset(args, printer)?;
    let bar = printer.bar("reading pictures", dataset.len());
    let found = check(&dataset, &Limits::default(), &|done, total| bar.set(done, total));
    drop(bar);
    printer.result(&found, text)?;
    Ok(if found.is_complete() { Exit::Done } else { Exit::Incomplete })
}

fn text(found: &DataCheck) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = lines(&mut out, found);
    out
}

fn lines(out: &mut String, found: &DataCheck) -> std::fmt::Result {
    writeln!(out, "{}: {} pictures below {}", found.name, found.samples, found.root)?;
    writeln!(
        out,
        "{} with a class; {} classes, {} super classes; {:.1} MB",
        found.labelled,
        found.classes,
        found.super_classes,
        found.bytes as f64 / 1e6
    )?;
    for (split, count) in &found.splits {
        writeln!(out, "split {split:?}: {count}")?;
    }
    if let Some(per_class) = &found.images_per_class {
        writeln!(
            out,
            "pictures per class: {} to {}, median {}",
            per_class.min, per_class.max, per_class.median
        )?;
        for bin in &per_class.histogram {
            let range =
                if bin.from == bin.to { bin.from.to_string() } else { format!("{}–{}", bin.from, bin.to) };
            writeln!(out, "  {range:>12} pictures: {:>6} classes", bin.classes)?;
        }
    }
    let mut list = |what: &str, items: &mut dyn Iterator<Item = String>, count: usize| -> std::fmt::Result {
        const SHOWN: usize = 10;
        writeln!(out, "{what}: {count}")?;
        for item in items.take(SHOWN) {
            writeln!(out, "  {item}")?;
        }
        if count > SHOWN {
            writeln!(out, "  and {} more (--json lists them all)", count - SHOWN)?;
        }
        Ok(())
    };
    list("missing", &mut found.missing.iter().cloned(), found.missing.len())?;
    let unreadable = &mut found.unreadable.iter().map(|file| format!("{}: {}", file.path, file.reason));
    list("unreadable", unreadable, found.unreadable.len())?;
    let (faults, others): (Vec<&LeftOut>, Vec<_>) =
        found.left_out.iter().partition(|group| group.reason.is_fault());
    let counts = &found.counts;
    let kind = |group: &&LeftOut| {
        let text = group.to_string();
        text.strip_prefix("left out: ").map_or(text.clone(), str::to_owned)
    };
    list(&format!("left out: {}; kinds", counts.left_out), &mut faults.iter().map(kind), faults.len())?;
    let passed_over = format!("passed over: {}; kinds", counts.passed_over + counts.empty_folders);
    list(&passed_over, &mut others.iter().map(kind), others.len())?;
    let single = &found.single_image_classes;
    list("classes with one picture", &mut single.iter().cloned(), single.len())?;
    let group = |files: &Vec<String>| files.join(" = ");
    let within = &found.duplicates_within_class;
    list("repeated pictures within a class", &mut within.iter().map(group), within.len())?;
    let across = &found.duplicates_across_classes;
    list("repeated pictures across classes", &mut across.iter().map(group), across.len())
}

/// The sample catalogue asked for.
pub(crate) fn catalogue(args: &CatalogueArgs, default: SampleCatalogue) -> SampleCatalogue {
    SampleCatalogue {
        classes: args.classes.unwrap_or(default.classes),
        images_per_class: args.images_per_class.unwrap_or(default.images_per_class),
        size: args.size.unwrap_or(default.size),
        seed: args.seed.unwrap_or(default.seed),
    }
}

fn run_sample(args: &SampleArgs, printer: Printer) -> anyhow::Result<Exit> {
    let catalogue = catalogue(&args.catalogue, SampleCatalogue::default());
    let bar = printer.bar("drawing the catalogue", catalogue.classes * catalogue.images_per_class);
    let dataset = catalogue.write(&args.out, &|done, total| bar.set(done, total))?;
    drop(bar);
    let summary = json!({
        "folder": args.out, "pictures": dataset.len(), "classes": dataset.classes().len(), "catalogue": catalogue,
    });
    printer.result(&summary, |_| {
        format!(
            "{} pictures of {} products in {}\n",
            dataset.len(),
            dataset.classes().len(),
            args.out.display()
        )
    })?;
    Ok(Exit::Done)
}
