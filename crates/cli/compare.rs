//! `semblance eval --compare`: two reports of the same queries side by side.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use semblance_query::report::folder;
use semblance_query::statistics::bootstrap::BootstrapConfig;
use semblance_query::study::compare::{Comparison, Verdict, compare};

use crate::exit::Exit;
use crate::printer::Printer;

/// Draws for the intervals: enough for p-values of a thousandth.
const RESAMPLES: usize = 10_000;

pub(crate) fn run(paths: &[PathBuf], seed: u64, printer: Printer) -> anyhow::Result<Exit> {
    let [a, b] = paths else { anyhow::bail!("--compare takes two reports") };
    let names = [a, b].map(|path| Path::new(path).display().to_string());
    let (study_a, study_b) = (folder::read(a)?, folder::read(b)?);
    let config = BootstrapConfig { resamples: RESAMPLES, seed };
    let found = compare((&names[0], &study_a), (&names[1], &study_b), &config)
        .map_err(semblance_query::QueryError::from)?;
    printer.result(&found, text)?;
    Ok(Exit::Done)
}

fn text(found: &Comparison) -> String {
    let mut out = format!("A  {}\nB  {}\n{} queries scored by both", found.a, found.b, found.queries);
    for note in &found.notes {
        let _ = write!(out, "; {note}");
    }
    let _ =
        write!(out, "\n\n{:<22}{:>8}{:>8}{:>9}  {:<20}{:>7}  verdict\n", "", "A", "B", "B − A", "95 %", "p");
    for row in &found.rows {
        let difference = &row.difference;
        let interval = format!("[{:+.4}, {:+.4}]", difference.interval.low, difference.interval.high);
        let verdict = match row.verdict {
            Verdict::A => "A is better",
            Verdict::B => "B is better",
            Verdict::Neither => "may be chance",
        };
        let label = format!("{} {}", row.search, row.measure);
        let _ = writeln!(
            out,
            "{label:<22}{:>8.4}{:>8.4}{:>+9.4}  {interval:<20}{:>7.4}  {verdict}",
            row.a, row.b, difference.mean, difference.p_value
        );
    }
    let _ = writeln!(
        out,
        "\npaired bootstrap over the queries, {} draws, seed {}; a verdict where 0 lies outside the 95 % interval",
        found.bootstrap.resamples, found.bootstrap.seed
    );
    out
}
