//! Arguments that name a data set and its layout, and those of `semblance data`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use semblance_embed::dataset::{Column, Split};

use crate::args::positive;

/// Which pictures.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatasetArgs {
    /// A folder of pictures, a table of them (CSV, TSV), or Stanford Online Products' folder [default: the sample
    /// catalogue, drawn on first use into runs/sample-catalogue]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
}

/// How a data set is laid out.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Layout of the data set")]
pub(crate) struct LayoutArgs {
    /// The layout
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: FormatArg,
    /// Column of the picture's path: its name, or its number from 1
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    pub(crate) path_column: Option<Column>,
    /// Column of the class
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    pub(crate) class_column: Option<Column>,
    /// Column of the super class
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    pub(crate) super_class_column: Option<Column>,
    /// Column of the split (train, val, test)
    #[arg(long, value_name = "COLUMN", value_parser = column)]
    pub(crate) split_column: Option<Column>,
    /// Whether the table's first row names its columns
    #[arg(long, value_enum, default_value_t)]
    pub(crate) header: HeaderArg,
    /// What stands between the table's fields: a character, or "tab" [default: found out from the rows]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub(crate) delimiter: Option<char>,
    /// Folder the table's paths are relative to [default: the table's own]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Only the pictures of this split: train, val or test
    #[arg(long, value_parser = split)]
    pub(crate) split: Option<Split>,
    /// Accept symbolic links that lead out of the data set's folder
    #[arg(long)]
    pub(crate) follow_outside_links: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// Find out from the files
    #[default]
    Auto,
    /// Folders of pictures: the folder is the class
    Folder,
    /// Pictures without classes
    Flat,
    /// A CSV or TSV file
    Table,
    /// Stanford Online Products: Ebay_train.txt, Ebay_test.txt
    Sop,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeaderArg {
    /// Find out from the first row
    #[default]
    Auto,
    /// It does
    Yes,
    /// It does not
    No,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Count pictures and classes; find missing, unreadable and repeated pictures
    Check(DatasetArgs),
    /// Draw the sample catalogue: products that do not exist, as JPEG files with a products.csv
    Sample(SampleArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// The folder to draw into; must be new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) catalogue: CatalogueArgs,
}

/// The size of the sample catalogue.
#[derive(Clone, Debug, Args)]
pub(crate) struct CatalogueArgs {
    /// Products
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) classes: Option<usize>,
    /// Pictures of each product
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) images_per_class: Option<usize>,
    /// Width and height of a picture in pixels
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=2048))]
    pub(crate) size: Option<u32>,
    /// The same seed draws the same catalogue
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

fn delimiter(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (text, characters.next(), characters.next()) {
        ("tab" | "\\t", ..) => Ok('\t'),
        (_, Some(one), None) if one.is_ascii() && !matches!(one, '"' | '\n' | '\r') => Ok(one),
        _ => Err("it must be one ASCII character other than the quote, or \"tab\"".to_owned()),
    }
}

fn column(text: &str) -> Result<Column, std::convert::Infallible> {
    Ok(Column::from(text))
}

fn split(text: &str) -> Result<Split, String> {
    Split::parse(text).ok_or_else(|| "is none of train, val, test".to_owned())
}
