//! Arguments of reports: what to write, what to compare.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use semblance_query::study::options::Trial;

/// A report with pictures.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct ReportArgs {
    /// Write report.html and report.json into this folder, over those of an earlier report [default:
    /// runs/reports/INDEX, or after the data set]
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub(crate) report: Option<Option<PathBuf>>,
    /// Hardest queries the page shows
    #[arg(long, value_name = "N", default_value_t = 18, requires = "report")]
    pub(crate) hardest: usize,
    /// Share of photographs without a match that may be answered; gives the threshold the report proposes
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share, requires = "report")]
    pub(crate) false_accepts: f64,
    /// Measure what options of searching bring, and say so in the report: all, or some of box, flip, crops, together, expand,
    /// augment, rerank, whiten, one-per-class, combined
    #[arg(long = "try", value_name = "NAMES", value_delimiter = ',', requires = "report")]
    pub(crate) tried: Option<Vec<TrialNames>>,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) bootstrap_seed: u64,
    /// Compare two reports (report.json, or the folders they lie in) of the same queries instead of measuring: which is
    /// better, and is it more than chance?
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["report", "index", "data", "queries"])]
    pub(crate) compare: Option<Vec<PathBuf>>,
}

/// One trial, or all.
#[derive(Clone, Debug)]
pub(crate) struct TrialNames(pub(crate) Vec<Trial>);

impl FromStr for TrialNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self(Trial::ALL.to_vec())) } else { Ok(Self(vec![text.parse()?])) }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be a share from 0 to 1".to_owned()),
    }
}
