//! Search and evaluation on top of the embedder and the index.
//!
//! - [`catalog`]: a catalogue's pictures through the embedder into an index;
//! - [`engine`]: a photograph in, the most similar items out;
//! - [`evaluate`](mod@evaluate): how often the right product comes back, by the pure functions of [`metrics`], told in a
//!   [`report`]; [`study`](mod@study) looks at the answers from all sides, with the [`statistics`] of how far to trust them;
//! - [`answer`]: better answers than the plain nearest; [`whitening`](mod@whitening) and [`derive`](mod@derive): better vectors for an index;
//! - [`validate`]: the same measure on held-out photographs, for training;
//! - [`pictures`]: opening what an index names, and nothing else;
//! - [`export`], [`lines`]: vectors as files and streams for other programs.
//!
//! ```
//! use semblance_embed::dataset::sample::SampleCatalogue;
//! use semblance_embed::transform::EvalTransform;
//! use semblance_embed::{Embedder, ModelSource, Precision};
//! use semblance_index::{IndexWriter, SearchParams};
//! use semblance_query::evaluate::OwnItems;
//! use semblance_query::{Engine, EvalConfig, Gallery, catalog, evaluate};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let (pictures, folder) = (home.path().join("pictures"), home.path().join("index"));
//! let drawing = SampleCatalogue { classes: 6, images_per_class: 3, size: 32, seed: 0 };
//! let dataset = drawing.write(&pictures, &|_done, _total| {})?;
//! let source = ModelSource {
//!     transform: Some(EvalTransform { resize: 32, crop: 32, ..EvalTransform::default() }),
//!     ..ModelSource::new("random:resnet10_tiny")
//! };
//! let embedder = Embedder::open(&source)?;
//!
//! let writer = IndexWriter::create(&folder, &catalog::index_config(&dataset, &embedder, &source))?;
//! let (summary, _manifest) = catalog::build(&dataset, &embedder, &writer, &Default::default(), &|_progress| {})?;
//! assert_eq!(summary.embedded, 18);
//!
//! let engine = Engine::open(&folder, None, Precision::F32)?; // the index knows its model
//! let photo = &dataset.samples[7];
//! let hits = engine.search_file(&dataset.full_path(photo), &SearchParams::new(3))?;
//! assert_eq!(hits[0].item.key, photo.key());
//!
//! let own = OwnItems::of(engine.index())?;
//! let gallery = Gallery::of_index(engine.index(), "drawn")?;
//! let config = EvalConfig { ks: vec![1, 5], ..EvalConfig::default() };
//! let report = evaluate(&gallery, &own.queries("drawn"), &config, &|_done, _total| {})?;
//! assert!(report.exact().unwrap().recall(1) <= report.exact().unwrap().recall(5));
//! # Ok(())
//! # }
//! ```

pub mod answer;
pub mod catalog;
pub mod derive;
pub mod embedded;
pub mod engine;
mod error;
pub mod evaluate;
pub mod export;
pub mod lines;
pub mod metadata;
pub mod metrics;
pub mod pictures;
pub mod question;
pub mod report;
pub mod statistics;
pub mod study;
pub mod uploads;
pub mod validate;
pub mod whitening;

pub use answer::{AnswerConfig, PhotoConfig};
pub use derive::{DeriveConfig, derive};
pub use embedded::Embedded;
pub use engine::Engine;
pub use error::{QueryError, Result};
pub use evaluate::{EvalConfig, Gallery, Queries, evaluate, evaluate_vectors};
pub use metadata::{FieldRemark, Metadata, MetadataSummary};
pub use pictures::{CataloguePictures, PagePictures};
pub use question::{Answer, Hit, Question};
pub use report::Report;
pub use study::{Study, StudyConfig, study};
pub use validate::Validation;
pub use whitening::Whitening;
