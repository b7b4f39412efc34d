//! Arguments that say which items count and what is known of them.

use std::path::PathBuf;

use clap::Args;
use semblance_embed::dataset::Dataset;
use semblance_index::{Filter, Index, SearchParams};
use semblance_query::{Metadata, MetadataSummary};

use crate::args::{ExtractArgs, HowArgs};
use crate::printer::Printer;

/// What to search with instead of photographs, and which items count.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConditionArgs {
    /// Search with a stored item, by its key, instead of a photograph; can be given several times
    #[arg(long = "item", value_name = "KEY", 
        conflicts_with_all = ["photos", "model", "part", "views", "together", "html"])]
    pub(crate) items: Vec<String>,
    /// Only items that meet the condition: "price < 20", "price between 10 and 20", "brand = Acme", "brand != Acme", "size in
    /// 40, 41", "metadata.class = x" (where metadata has the name of an own field), "brand" (is
    /// there), "not …", or a filter as JSON; given several times, all must be met
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) conditions: Vec<Filter>,
    /// Only items with at least this score (cosine, -1 to 1); of those the K best
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub(crate) min_score: Option<f32>,
    /// Tell how the answers were found: through the graph or by comparing, and how many vectors were scored
    #[arg(long)]
    pub(crate) explain: bool,
}

impl ConditionArgs {
    /// The parameters of a search for `k` items.
    pub(crate) fn params(&self, k: usize, how: &HowArgs) -> SearchParams {
        let (filter, min_score) = (self.filter(), self.min_score);
        SearchParams { exact: how.exact, ef_search: how.ef_search, filter, min_score, ..SearchParams::new(k) }
    }

    fn filter(&self) -> Option<Filter> {
        match self.conditions.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(Filter::And(several.to_vec())),
        }
    }

    /// Warns of conditions that no item can meet, and gives the warnings.
    pub(crate) fn warnings(&self, index: &Index, printer: Printer) -> anyhow::Result<Vec<String>> {
        let Some(filter) = self.filter() else { return Ok(Vec::new()) };
        let warnings: Vec<String> = index.filter_warnings(&filter)?.iter().map(ToString::to_string).collect();
        warnings.iter().for_each(|warning| printer.warn(warning));
        Ok(warnings)
    }
}

/// What is known of the pictures.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MetadataArgs {
    /// What is known of the pictures, for searches to filter by: JSON lines (.jsonl) or a table with a header (.csv,
    /// .tsv, ...), with the picture's path in an entry "key", "path", "file" or the like
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata: Option<PathBuf>,
}

impl MetadataArgs {
    /// Reads the file, if one is named, and says which rows belong to no picture of the data set.
    pub(crate) fn read(
        &self,
        dataset: &Dataset,
        extract: &ExtractArgs,
        printer: Printer,
    ) -> anyhow::Result<(Metadata, Option<MetadataSummary>)> {
        let Some(path) = &self.metadata else { return Ok((Metadata::default(), None)) };
        let (metadata, summary) = Metadata::read(path, dataset)?;
        let MetadataSummary { file, rows, unmatched, key_example, without_row, .. } = &summary;
        if *unmatched > 0 {
            let message = format!(
                "{file}: {unmatched} of {rows} rows belong to no picture, such as the one for {:?} (keys of the catalogue \
                 are like {key_example:?})",
                summary.unmatched_keys[0]
            );
            if extract.strict {
                anyhow::bail!("{message} (--strict)");
            }
            printer.warn(message);
        }
        if *without_row > 0 {
            printer.note(format_args!("{file}: {without_row} of {} pictures have no row", dataset.len()));
        }
        for remark in &summary.remarks {
            printer.note(format_args!("{file}: {remark}"));
        }
        Ok((metadata, Some(summary)))
    }
}
