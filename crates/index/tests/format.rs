//! Indexes written by earlier programs: `data/format-N` holds one of each format version, written once and never again.
//!
//! For a new version: `cargo test -p semblance-index --test format -- --ignored` before changing anything else.

mod data;

use std::fs;
use std::path::{Path, PathBuf};

use data::unit;
use semblance_index::*;
use serde_json::json;

/// What the fixture of a format version holds.
#[derive(Clone, Copy)]
struct Fixture {
    version: u32,
    dim: usize,
    items: u64,
    codes: Codes,
}

/// Version 1 has 8-bit codes; version 2 the note that 8-bit codes do not tell its near-copies apart.
const FIXTURES: [Fixture; 2] = [
    Fixture { version: 1, dim: 6, items: 30, codes: Codes::I8 },
    Fixture { version: 2, dim: 64, items: 200, codes: Codes::Auto },
];

impl Fixture {
    fn dir(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/format-{}", self.version))
    }

    fn vector(self, i: u64) -> Vec<f32> {
        if self.version == 1 {
            return unit(self.dim, i);
        }
        let (centre, noise) = (unit(self.dim, i / 100), unit(self.dim, 1000 + i));
        let near: Vec<f32> = centre.iter().zip(noise).map(|(c, n)| c + 0.002 * n).collect();
        let norm = near.iter().map(|x| x * x).sum::<f32>().sqrt();
        near.into_iter().map(|x| x / norm).collect()
    }

    fn vectors(self, range: std::ops::Range<u64>) -> Vec<f32> {
        range.flat_map(|i| self.vector(i)).collect()
    }
}

fn item(i: u64) -> NewItem {
    NewItem {
        key: format!("photo/{i}.jpg"),
        class: (!i.is_multiple_of(3)).then(|| format!("class {}", i % 3)),
        super_class: Some("all".into()),
        metadata: json!({"n": i, "tags": ["a", i.is_multiple_of(2)], "price": i as f64 / 4.0})
            .as_object()
            .unwrap()
            .clone(),
    }
}

#[test]
#[ignore = "writes the fixture of the newest format version"]
fn write_the_fixture() {
    let fixture = FIXTURES[FIXTURES.len() - 1];
    let mut config = IndexConfig::new(fixture.dim, "model of the fixture");
    config.codes = fixture.codes;
    config.hnsw = HnswConfig { m: 4, ef_construction: 20, ..HnswConfig::default() };
    let writer = IndexWriter::create(fixture.dir(), &config).unwrap();
    let items: Vec<NewItem> = (0..fixture.items + 5).map(item).collect();
    writer.upsert(&items, &fixture.vectors(0..fixture.items + 5)).unwrap();
    assert_eq!(writer.finish(&|_| {}).unwrap().format, fixture.version);
    // Not published: it is in the store alone.
    writer.delete(&(fixture.items..fixture.items + 5).collect::<Vec<_>>()).unwrap();
    writer.sync().unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn check(index: &Index, fixture: Fixture, items: u64) {
    assert_eq!(index.len() as u64, items);
    index.check_model("model of the fixture").unwrap();
    for i in 0..items {
        let id = index.find(&format!("photo/{i}.jpg")).unwrap().unwrap();
        assert_eq!(index.item(id).unwrap(), item(i).with_id(id));
        let vector = fixture.vector(i);
        assert_eq!(index.vector(id).unwrap(), vector);
        assert_eq!(index.search(&vector, &SearchParams::new(1)).unwrap()[0].id, id);
    }
    let cheap = SearchParams { filter: Some(Filter::range("price", 0, 1)), ..SearchParams::new(100) };
    assert_eq!(index.search(&fixture.vector(0), &cheap).unwrap().len(), 4);
}

#[test]
fn indexes_of_every_earlier_format_open_and_can_be_written() {
    for fixture in FIXTURES {
        let items = fixture.items;
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture.dir(), dir.path());
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(index.manifest().format, fixture.version);
        check(&index, fixture, items + 5);
        let report = verify(dir.path(), &|_| {}).unwrap();
        assert_eq!((report.is_sound(), report.unpublished), (true, 5), "{report:?}");
        let writer = IndexWriter::open(dir.path()).unwrap();
        check(&writer.reader().unwrap(), fixture, items);
        writer.upsert(&[item(items)], &fixture.vector(items)).unwrap();
        let manifest = writer.finish(&|_| {}).unwrap();
        assert_eq!(manifest.items, items + 1);
        check(&Index::open(dir.path()).unwrap(), fixture, items + 1);
        drop(writer);
        assert!(verify(dir.path(), &|_| {}).unwrap().is_sound());
    }
}
