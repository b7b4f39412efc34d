//! Indexes written by earlier programs: `data/format-N` holds one of each format version, written once and never again.
//!
//! For a new version: `cargo test -p semblance-index --test format -- --ignored` before changing anything else.

mod data;

use std::fs;
use std::path::{Path, PathBuf};

use data::unit;
use semblance_index::*;
use serde_json::json;

const DIM: usize = 6;
const ITEMS: u64 = 30;

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/format-{version}"))
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
#[ignore = "writes the fixture of the present format version"]
fn write_the_fixture() {
    let dir = fixture(FORMAT);
    let mut config = IndexConfig::new(DIM, "model of the fixture");
    config.codes = Codes::I8;
    config.hnsw = HnswConfig { m: 4, ef_construction: 20, ..HnswConfig::default() };
    let writer = IndexWriter::create(&dir, &config).unwrap();
    let vectors: Vec<f32> = (0..ITEMS + 5).flat_map(|i| unit(DIM, i)).collect();
    writer.upsert(&(0..ITEMS + 5).map(item).collect::<Vec<_>>(), &vectors).unwrap();
    writer.finish(&|_| {}).unwrap();
    // Not published: it is in the store alone.
    writer.delete(&(ITEMS..ITEMS + 5).collect::<Vec<_>>()).unwrap();
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

fn check(index: &Index, items: u64) {
    assert_eq!(index.len() as u64, items);
    index.check_model("model of the fixture").unwrap();
    for i in 0..items {
        let id = index.find(&format!("photo/{i}.jpg")).unwrap().unwrap();
        assert_eq!(index.item(id).unwrap(), item(i).with_id(id));
        assert_eq!(index.vector(id).unwrap(), unit(DIM, i));
        assert_eq!(index.search(&unit(DIM, i), &SearchParams::new(1)).unwrap()[0].id, id);
    }
    let cheap = SearchParams { filter: Some(Filter::range("price", 0, 1)), ..SearchParams::new(100) };
    assert_eq!(index.search(&unit(DIM, 0), &cheap).unwrap().len(), 4);
}

#[test]
fn indexes_of_every_earlier_format_open_and_can_be_written() {
    for version in OLDEST_FORMAT..=FORMAT {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture(version), dir.path());
        check(&Index::open(dir.path()).unwrap(), ITEMS + 5);
        let report = verify(dir.path(), &|_| {}).unwrap();
        assert_eq!((report.is_sound(), report.unpublished), (true, 5), "{report:?}");
        let writer = IndexWriter::open(dir.path()).unwrap();
        check(&writer.reader().unwrap(), ITEMS);
        writer.upsert(&[item(ITEMS)], &unit(DIM, ITEMS)).unwrap();
        let manifest = writer.finish(&|_| {}).unwrap();
        assert_eq!((manifest.format, manifest.items), (FORMAT, ITEMS + 1));
        check(&Index::open(dir.path()).unwrap(), ITEMS + 1);
        drop(writer);
        assert!(verify(dir.path(), &|_| {}).unwrap().is_sound());
    }
}
