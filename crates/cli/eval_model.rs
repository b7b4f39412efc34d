//! `semblance eval --model … --data …`: recall of a model on a data set, with no index made.

use std::path::Path;

use semblance_embed::Embedder;
use semblance_embed::dataset::Dataset;
use semblance_query::answer::Matrix;
use semblance_query::study::Shelf;
use semblance_query::{Embedded, PagePictures, PhotoConfig, Queries, QueryError};

use crate::args::EvalArgs;
use crate::eval::{Measured, check_own, files_of};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::{inputs, report, start};

pub(crate) fn run(args: &EvalArgs, data: &Path, printer: Printer) -> anyhow::Result<Exit> {
    if args.queries.is_none() {
        check_own(args)?;
    }
    let dataset = inputs::dataset_at(data, &args.layout, printer)?;
    let searched = args.queries.as_deref();
    let searched = searched.map(|path| inputs::dataset_at(path, &args.layout, printer)).transpose()?;
    for part in [&dataset].into_iter().chain(&searched) {
        inputs::refuse_left_out(part, args.extract.strict)?;
    }
    let source = inputs::required_model(&args.model)?;
    let embedder = Embedder::open(&source)?;
    start::remark_on(&embedder, &dataset, printer);
    let report_folder = report::folder(&args.report, data)?;
    let extract = inputs::extract(&args.extract, printer.threads);
    let embed = |dataset: &'_ Dataset, photo: &PhotoConfig| -> Result<Vec<f32>, QueryError> {
        let bar = printer.bar("embedding queries", dataset.len());
        let progress = &mut |done| bar.set(done, dataset.len());
        Ok(Embedded::with_photos(&embedder, dataset, &extract, photo, progress)?.vectors)
    };

    let bar = printer.bar("embedding", dataset.len());
    let own = Embedded::new(&embedder, &dataset, &extract, &mut |done| bar.set(done, dataset.len()))?;
    drop(bar);
    inputs::warn_of(&own.failures, printer);
    let shelf = Shelf::of_embedded(&own, &dataset, &embedder, &source);
    let ids: Vec<u64> = (0..own.samples.len() as u64).collect();
    let classes = own.classes();
    let gallery = Matrix::new(own.vectors.clone(), own.dim, ids.clone(), classes.clone())?;
    let copy = || Ok(gallery.with_vectors(gallery.vectors().to_vec(), own.dim)?);
    let name = &dataset.name;

    let Some(searched) = &searched else {
        let queries = Queries { name, vectors: &own.vectors, classes: &classes, own_ids: Some(&ids) };
        let pictures: Vec<_> = own.samples.iter().map(|sample| report::of_sample(&dataset, sample)).collect();
        let measured = Measured {
            args,
            index: &gallery,
            shelf: &shelf,
            gallery: &copy,
            name,
            queries,
            page: PagePictures::default().with_files(files_of(&pictures)),
            pictures,
            failures: &own.failures,
            requery: None,
        };
        return measured.finish(report_folder.as_deref(), printer);
    };
    let bar = printer.bar("embedding queries", searched.len());
    let progress = &mut |done| bar.set(done, searched.len());
    let embedded = Embedded::with_photos(&embedder, searched, &extract, &args.answer.photo(), progress)?;
    drop(bar);
    inputs::warn_of(&embedded.failures, printer);
    let classes = embedded.classes();
    let queries =
        Queries { name: &searched.name, vectors: &embedded.vectors, classes: &classes, own_ids: None };
    let pictures: Vec<_> =
        embedded.samples.iter().map(|sample| report::of_sample(searched, sample)).collect();
    let gallery_files = own.samples.iter().map(|sample| dataset.full_path(sample));
    let requery = |photo: &PhotoConfig| embed(searched, photo);
    let measured = Measured {
        args,
        index: &gallery,
        shelf: &shelf,
        gallery: &copy,
        name,
        queries,
        page: PagePictures::default().with_files(files_of(&pictures)).with_files(gallery_files),
        pictures,
        failures: &embedded.failures,
        requery: Some(&requery),
    };
    measured.finish(report_folder.as_deref(), printer)
}
