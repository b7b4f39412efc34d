//! The folder of the pictures that an index was built over: naming it, and saying where it cannot be used.

mod move_root;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use semblance_embed::dataset::Dataset;
use semblance_index::{Index, IndexConfig, IndexWriter, Item};
use semblance_query::pictures::{CatalogueRoot, SealError, Survey, seal};
use semblance_query::{CataloguePictures, catalog};
use serde::Serialize;

pub(crate) use self::move_root::MoveRootArgs;
pub(crate) use self::move_root::run as move_root;
use crate::printer::Printer;

/// Pictures looked for where nobody asked for a search: enough to see that a catalogue was moved.
const SAMPLE: usize = 200;

/// Where the pictures are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RootArgs {
    /// Folder of the catalogue's pictures, in place of the one that the index records; needed for an index that was built
    /// elsewhere (`semblance index move-root` records it for good)
    #[arg(long = "root", visible_alias = "catalogue-root", value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

impl RootArgs {
    /// The pictures of an index.
    pub(crate) fn pictures(&self, index: &Index) -> anyhow::Result<Arc<CataloguePictures>> {
        Ok(Arc::new(CataloguePictures::of(index, self.root.as_deref())?))
    }
}

/// Seals the catalogue's folder for the index in this folder.
pub(crate) fn seal_for(config: &mut IndexConfig, folder: &Path, printer: Printer) {
    if let Err(error) = seal::seal(&mut config.attributes, folder) {
        warn_unsealed(&error, printer);
    }
}

fn warn_unsealed(error: &SealError, printer: Printer) {
    printer.warn(format_args!(
        "{error}; the pictures of this index will be opened only where --root names their folder (set XDG_STATE_HOME to a \
         folder that this user may write, and build again or use `semblance index move-root`)"
    ));
}

/// Before pictures of `dataset` are added to an index: seals a recorded folder that the user has named now, and says so if
/// the pictures lie elsewhere.
pub(crate) fn same_as_added(
    writer: &mut IndexWriter,
    dataset: &Dataset,
    printer: Printer,
) -> anyhow::Result<()> {
    let mut attributes = writer.config().attributes.clone();
    let Some(recorded) = attributes.get(catalog::ROOT) else { return Ok(()) };
    let added = dataset.root.canonicalize().unwrap_or_else(|_| dataset.root.clone());
    if Path::new(recorded) != added {
        printer.warn(format_args!(
            "the index records {recorded} as the folder of its pictures, these lie in {}: they will be looked for in the recorded \
             folder (if the catalogue was moved, use `semblance index move-root`)",
            added.display()
        ));
    } else if !seal::fits(&attributes, writer.dir()) {
        match seal::seal(&mut attributes, writer.dir()) {
            Ok(()) => writer.set_attributes(attributes)?,
            Err(error) => warn_unsealed(&error, printer),
        }
    }
    Ok(())
}

/// Says, once, that pictures cannot be opened or were not found among those looked for.
pub(crate) fn remark_on(pictures: &CataloguePictures, survey: &Survey, printer: Printer) {
    if let Some(remark) = remark(pictures.root(), survey) {
        printer.warn(remark);
    }
}

/// What there is to say of the pictures of an index, if anything.
pub(crate) fn remark(root: &CatalogueRoot, survey: &Survey) -> Option<String> {
    const ADVICE: &str =
        "name their folder with --root, or record it for good with `semblance index move-root`";
    match (root, root.complaint()) {
        (_, Some(complaint)) => Some(format!("{complaint}: {ADVICE}")),
        (CatalogueRoot::Open { path }, None) if survey.missing() > 0 => Some(format!(
            "{} of the {} pictures looked for are not below {} (such as {}): if they were moved, {ADVICE}",
            survey.missing(),
            survey.looked_for,
            path.display(),
            survey.first_missing.as_deref().unwrap_or_default()
        )),
        _ => None,
    }
}

/// The pictures of an index, as `verify` and `doctor` tell of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PicturesView {
    #[serde(flatten)]
    root: CatalogueRoot,
    #[serde(flatten)]
    survey: Survey,
    /// What there is to say of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remark: Option<String>,
}

impl PicturesView {
    /// Looks for some of the pictures of an index.
    pub(crate) fn of(index: &Index) -> anyhow::Result<Self> {
        let pictures = CataloguePictures::of(index, None)?;
        let survey =
            if pictures.root().is_open() { pictures.sample(index, SAMPLE)? } else { Survey::default() };
        let remark = remark(pictures.root(), &survey);
        Ok(Self { root: pictures.root().clone(), survey, remark })
    }
}

/// How an item is named to people: by the path of its picture, or by its key where the picture is not there.
pub(crate) fn shown(pictures: &CataloguePictures, item: &Item) -> PathBuf {
    let path = pictures.has(item).then(|| pictures.path(item)).flatten();
    path.unwrap_or_else(|| PathBuf::from(&item.key))
}
