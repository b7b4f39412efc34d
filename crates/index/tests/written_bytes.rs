//! How many bytes an import writes, as the system counts them, and what a first publication does while items are written.
//!
//! The count is of the whole process, so the import runs in a child.

mod data;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use data::{clustered, unit};
use semblance_index::*;

const CHILD: &str = "SEMBLANCE_WRITTEN_CHILD";

fn items(range: std::ops::Range<usize>) -> Vec<NewItem> {
    range.map(|i| NewItem::new(format!("photographs/{i:08}.jpg"))).collect()
}

fn config(dim: usize) -> IndexConfig {
    let hnsw = HnswConfig { m: 8, ef_construction: 40, ..HnswConfig::default() };
    IndexConfig { hnsw, durability: Durability::Finish, ..IndexConfig::new(dim, "m") }
}

/// Bytes that this process has had the system write to disks; `None` where the system does not count them.
fn written() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

/// What the child does; as a test of its own it has nothing to do.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let (rows, dim) = (4000, 512);
    let vectors = clustered(rows, dim, 1);
    let writer = IndexWriter::create(&dir, &config(dim)).unwrap();
    let Some(before) = written() else {
        println!("@uncounted");
        return;
    };
    for from in (0..rows).step_by(1000) {
        writer.upsert(&items(from..from + 1000), &vectors[from * dim..][..1000 * dim]).unwrap();
    }
    writer.sync().unwrap();
    let stored = written().unwrap() - before;
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    let all = written().unwrap() - before;
    let bytes = (rows * dim * 4) as f64;
    println!("@stored {}", stored as f64 / bytes);
    println!("@all {}", all as f64 / bytes);
}

#[test]
fn an_import_writes_few_bytes_per_byte_of_vectors() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "child", "--nocapture"]).env(CHILD, dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let number = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.split_once(name))?;
        Some(line.1.trim().parse().unwrap())
    };
    // Nothing is counted where the system does not say it, or the folder lies in memory.
    let Some(all) = number("@all ").filter(|all| *all > 0.0) else {
        eprintln!(
            "SKIPPED: this system does not count the bytes that an import writes to {}",
            dir.path().display()
        );
        return;
    };
    let stored = number("@stored ").unwrap();
    // 200,000 vectors take some 2.6 and 4.
    assert!(stored < 4.0 && all < 6.0, "{stored} in the store, {all} in all, per byte of vectors");
}

/// Keys and vectors of a published index, by id.
fn published(dir: &Path) -> Vec<(String, Vec<f32>)> {
    let index = Index::open(dir).unwrap();
    let items = index.items().unwrap();
    items.into_iter().map(|item| (item.key, index.vector(item.id).unwrap())).collect()
}

/// A first publication reads vectors twice. Items that are new in between are left to the next one; if others change, it
/// begins again.
#[test]
fn items_written_while_the_first_publication_links_are_published_by_it_or_the_next() {
    const DIM: usize = 16;
    for replaces in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let rows = 3000;
        let mut expected = clustered(rows + 40, DIM, 2);
        // Items that share a vector share a node.
        expected.copy_within(0..DIM, 500 * DIM);
        let writer = IndexWriter::create(dir.path(), &config(DIM)).unwrap();
        writer.upsert(&items(0..rows), &expected[..rows * DIM]).unwrap();
        let has_written = AtomicBool::new(false);
        let new = expected[rows * DIM..].to_vec();
        writer
            .finish(&|step| {
                // Vectors are written last, when the graph is linked.
                if step.stage == Stage::Link && !has_written.swap(true, Ordering::Relaxed) {
                    writer.upsert(&items(rows..rows + 40), &new).unwrap();
                    if replaces {
                        writer.upsert(&items(7..8), &unit(DIM, 77)).unwrap();
                        writer.delete_keys(&["photographs/00002999.jpg"]).unwrap();
                    }
                }
            })
            .unwrap();
        assert!(has_written.into_inner());
        let mut keys: Vec<usize> = (0..rows).collect();
        if replaces {
            expected[7 * DIM..8 * DIM].copy_from_slice(&unit(DIM, 77));
            keys = (0..rows + 40).filter(|key| *key != 2999).collect();
        }
        let expect = |keys: &[usize]| -> Vec<(String, Vec<f32>)> {
            let vector = |key: usize| expected[key * DIM..][..DIM].to_vec();
            keys.iter().map(|key| (format!("photographs/{key:08}.jpg"), vector(*key))).collect()
        };
        assert!(published(dir.path()) == expect(&keys));
        writer.finish(&|_| {}).unwrap();
        drop(writer);
        keys = (0..rows + 40).filter(|key| !replaces || *key != 2999).collect();
        assert!(published(dir.path()) == expect(&keys));
        let report = verify(dir.path(), &|_| {}).unwrap();
        assert!(report.is_sound() && report.unpublished == 0, "{report:?}");
    }
}

/// Notes of changes begin with the first publication: what is written after it, in this process or another, is published
/// beside the first segment, and nothing else is written again.
#[test]
fn what_is_written_after_the_first_publication_is_noted() {
    const DIM: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let vectors = clustered(2000, DIM, 4);
    let writer = IndexWriter::create(dir.path(), &config(DIM)).unwrap();
    writer.upsert(&items(0..2000), &vectors).unwrap();
    drop(writer);
    // Not published yet: begun by one process and finished by another.
    let writer = IndexWriter::open(dir.path()).unwrap();
    writer.delete_keys(&["photographs/00000003.jpg"]).unwrap();
    let first = writer.finish(&|_| {}).unwrap();
    assert_eq!((first.items, first.segments.len()), (1999, 1));
    writer.upsert(&items(5..6), &unit(DIM, 55)).unwrap();
    writer.sync().unwrap();
    drop(writer);
    let writer = IndexWriter::open(dir.path()).unwrap();
    writer.upsert(&items(6..7), &unit(DIM, 66)).unwrap();
    let second = writer.finish(&|_| {}).unwrap();
    assert_eq!((second.items, second.segments.len()), (1999, 2));
    let sizes: Vec<(u64, u64)> = second.segments.iter().map(|s| (s.items, s.deleted)).collect();
    assert_eq!(sizes, [(1999, 2), (2, 0)]);
    drop(writer);
    let index = Index::open(dir.path()).unwrap();
    for (number, seed) in [(5u64, 55), (6, 66)] {
        assert_eq!(index.vector(number).unwrap(), unit(DIM, seed));
    }
    assert!(verify(dir.path(), &|_| {}).unwrap().is_sound());
}
