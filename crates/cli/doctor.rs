//! `semblance doctor`: what this program and this machine can do, and whether the indexes open.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use semblance_embed::backbone::Arch;
use semblance_embed::{Isa, Precision};
use semblance_index::Index;
use serde::Serialize;

use crate::args::{DoctorArgs, INDEX_DIR};
use crate::catalogue::PicturesView;
use crate::exit::Exit;
use crate::hint;
use crate::printer::Printer;

#[derive(Serialize)]
struct Findings {
    version: &'static str,
    profile: &'static str,
    target: String,
    processors: usize,
    processor_features: Vec<&'static str>,
    instructions: Vec<Instructions>,
    cuda: bool,
    architectures: Vec<&'static str>,
    indexes: Vec<Finding>,
}

/// The instructions that networks are computed with on this processor.
#[derive(Serialize)]
struct Instructions {
    precision: String,
    path: String,
}

#[derive(Serialize)]
struct Finding {
    index: String,
    items: Option<usize>,
    problem: Option<String>,
    /// What helps against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The catalogue's pictures.
    pictures: Option<PicturesView>,
}

impl Finding {
    fn of_error(index: String, items: Option<usize>, error: &anyhow::Error) -> Self {
        let (problem, hint) = (Some(error.to_string()), hint::of(error));
        Self { index, items, problem, hint, pictures: None }
    }
}

pub(crate) fn run(args: &DoctorArgs, printer: Printer) -> anyhow::Result<Exit> {
    let findings = Findings {
        version: env!("CARGO_PKG_VERSION"),
        profile: if cfg!(debug_assertions) { "debug (slow: build with --release)" } else { "release" },
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        processor_features: processor_features(),
        instructions: Precision::ALL
            .into_iter()
            .map(|p| Instructions { precision: p.to_string(), path: p.isa(Isa::detect()).to_string() })
            .collect(),
        cuda: cfg!(feature = "cuda"),
        architectures: Arch::ALL.iter().map(|arch| arch.name()).collect(),
        indexes: indexes(&args.dir.index_dir)?,
    };
    printer.result(&findings, text)?;
    let healthy = findings.indexes.iter().all(|finding| finding.problem.is_none());
    Ok(if healthy { Exit::Done } else { Exit::Incomplete })
}

fn processor_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let has = [
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ];
        has.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

fn indexes(folder: &Path) -> anyhow::Result<Vec<Finding>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // A program that was never used has no indexes.
        Err(error) if error.kind() == ErrorKind::NotFound && folder == Path::new(INDEX_DIR) => {
            return Ok(Vec::new());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look for indexes in {}", folder.display()));
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // What cannot be looked at is opened, so that the finding says why.
        if path.metadata().is_ok_and(|about| !about.is_dir()) {
            continue;
        }
        let index = path.display().to_string();
        found.push(match Index::open(&path) {
            Ok(open) => {
                let items = Some(open.len());
                match PicturesView::of(&open) {
                    Ok(pictures) => {
                        Finding { index, items, problem: None, hint: None, pictures: Some(pictures) }
                    }
                    Err(error) => Finding::of_error(index, items, &error),
                }
            }
            Err(error) => Finding::of_error(index, None, &error.into()),
        });
    }
    found.sort_by(|a, b| a.index.cmp(&b.index));
    Ok(found)
}

fn text(findings: &Findings) -> String {
    let mut out = format!(
        "semblance {} ({}), {}\n{} processors, {}\n{}GPU support: {}\narchitectures: {}\n",
        findings.version,
        findings.profile,
        findings.target,
        findings.processors,
        findings.processor_features.join(" "),
        findings.instructions.iter().map(|i| format!("{}: {}\n", i.precision, i.path)).collect::<String>(),
        if findings.cuda { "cuda" } else { "none (build with --features cuda)" },
        findings.architectures.join(", "),
    );
    for finding in &findings.indexes {
        let _ = match (&finding.problem, finding.items) {
            (Some(problem), _) => {
                let hint = finding.hint.as_ref().map(|hint| format!(" ({hint})"));
                writeln!(out, "index {}: {problem}{}", finding.index, hint.unwrap_or_default())
            }
            (None, items) => writeln!(out, "index {}: {} items", finding.index, items.unwrap_or(0)),
        };
        if let Some(remark) = finding.pictures.as_ref().and_then(|pictures| pictures.remark.as_ref()) {
            let _ = writeln!(out, "index {}: {remark}", finding.index);
        }
    }
    out
}
