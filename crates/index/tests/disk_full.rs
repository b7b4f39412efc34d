//! A disk that runs full: an error, and the index is as it was.
//!
//! The tests start themselves as a child that may not write files beyond a size, which the system reports as it reports
//! a full disk. One fills a real one; it mounts it, which takes root, and is therefore run by hand.

#![cfg(target_os = "linux")]

mod data;

use std::path::Path;
use std::process::{Command, Stdio};

use data::{clustered, unit};
use semblance_index::*;

const DIM: usize = 16;
const CHILD: &str = "SEMBLANCE_FULL_CHILD";

fn items(range: std::ops::Range<usize>) -> Vec<NewItem> {
    range.map(|i| NewItem::new(format!("k{i}"))).collect()
}

fn config() -> IndexConfig {
    let hnsw = HnswConfig { m: 4, ef_construction: 20, ..HnswConfig::default() };
    IndexConfig { hnsw, ..IndexConfig::new(DIM, "m") }
}

/// Runs `child` with files limited to so many kilobytes and returns what it printed.
fn limited(task: &str, dir: &Path, kilobytes: u64) -> String {
    // An ignored signal stays ignored in the program that is started: writes fail instead of ending it.
    let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" --exact child --nocapture");
    let output = Command::new("bash")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, format!("{task}:{}", dir.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What the child does; as a test of its own it has nothing to do.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (task, dir) = task.split_once(':').unwrap();
    match task {
        "write" => {
            let writer = IndexWriter::open(dir).unwrap();
            for start in (100..100_000).step_by(100) {
                let vectors: Vec<f32> = (start..start + 100).flat_map(|i| unit(DIM, i as u64)).collect();
                match writer.upsert(&items(start..start + 100), &vectors) {
                    Ok(_) => println!("@acknowledged {}", start + 100),
                    Err(error) => {
                        println!("@error {error}");
                        // One item may have room where a hundred had none: it is kept then, too.
                        if writer.upsert(&items(0..1), &unit(DIM, 7)).is_ok() {
                            println!("@replaced");
                        }
                        break;
                    }
                }
            }
        }
        _ => {
            let error = IndexWriter::open(dir).and_then(|w| w.finish(&|_| {}).map(drop)).unwrap_err();
            println!("@error {error}");
        }
    }
}

fn lines<'a>(text: &'a str, what: &str) -> Vec<&'a str> {
    text.lines().filter_map(|l| l.split_once('@')?.1.strip_prefix(what)).map(str::trim).collect()
}

#[test]
fn what_was_acknowledged_before_the_disk_ran_full_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config()).unwrap();
    let vectors: Vec<f32> = (0..100).flat_map(|i| unit(DIM, i)).collect();
    writer.upsert(&items(0..100), &vectors).unwrap();
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    let text = limited("write", dir.path(), 4096);
    let acknowledged: usize = lines(&text, "acknowledged").last().unwrap().parse().unwrap();
    let error = lines(&text, "error").concat();
    assert!(error.contains("no space left"), "{error}");
    assert!(acknowledged > 100);

    assert_eq!(Index::open(dir.path()).unwrap().len(), 100, "readers are not concerned");
    let writer = IndexWriter::open(dir.path()).unwrap();
    // The batch that failed is there whole or not at all.
    assert!([acknowledged, acknowledged + 100].contains(&writer.len()), "{} of {acknowledged}", writer.len());
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    let index = Index::open(dir.path()).unwrap();
    let replaced = !lines(&text, "replaced").is_empty();
    for i in 0..acknowledged {
        let id = index.find(&format!("k{i}")).unwrap().unwrap();
        let seed = if i == 0 && replaced { 7 } else { i as u64 };
        let vector = index.vector(id).unwrap();
        // A write that was refused may have been kept.
        assert!(vector == unit(DIM, seed) || (i == 0 && vector == unit(DIM, 7)), "item {i}");
    }
    let report = verify(dir.path(), &|_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn a_publication_that_finds_no_room_leaves_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config()).unwrap();
    writer.upsert(&items(0..100), &clustered(100, DIM, 1)).unwrap();
    writer.finish(&|_| {}).unwrap();
    writer.upsert(&items(100..3000), &clustered(2900, DIM, 2)).unwrap();
    drop(writer);
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let query = unit(DIM, 9);
    let found = Index::open(dir.path()).unwrap().search(&query, &SearchParams::new(10)).unwrap();
    // 3,000 vectors are 188 KiB.
    let text = limited("finish", dir.path(), 100);
    let error = lines(&text, "error").concat();
    assert!(error.contains("no space left"), "{error}");
    assert_eq!(names(), before, "nothing half written is left");
    assert_eq!(Index::open(dir.path()).unwrap().search(&query, &SearchParams::new(10)).unwrap(), found);
    IndexWriter::open(dir.path()).unwrap().finish(&|_| {}).unwrap();
    assert_eq!(Index::open(dir.path()).unwrap().len(), 3000);
    assert!(verify(dir.path(), &|_| {}).unwrap().is_sound());
}

/// A small file system in memory, unmounted in the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=160m", "tmpfs"];
        assert!(Command::new("mount").args(mount).arg(dir.path()).status().unwrap().success());
        Self(dir)
    }

    /// Fills what is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("ballast")).unwrap();
        while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
#[ignore = "mounts a file system, which takes root"]
fn a_full_file_system_damages_nothing() {
    let disk = SmallDisk::new();
    let dir = disk.0.path().join("index");
    let writer = IndexWriter::create(&dir, &config()).unwrap();
    writer.upsert(&items(0..100), &clustered(100, DIM, 1)).unwrap();
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    let is_full = |error: IndexError| {
        assert!(error.to_string().contains("free some and repeat"), "{error}");
    };
    for round in 0..10 {
        let mut writer = IndexWriter::open(&dir).unwrap();
        let before = writer.len();
        // Written, but not handed to the system: there is no room for it when it is.
        writer.set_durability(Durability::Finish);
        let some = round * 1000..(round + 1) * 1000;
        writer.upsert(&items(some.clone()), &clustered(1000, DIM, round as u64 + 2)).unwrap();
        disk.fill();
        is_full(writer.upsert(&items(0..1), &unit(DIM, 7)).unwrap_err());
        is_full(writer.finish(&|_| {}).unwrap_err());
        drop(writer);
        assert_eq!(Index::open(&dir).unwrap().len(), 100, "readers are not concerned");
        for _ in 0..3 {
            is_full(IndexWriter::open(&dir).err().unwrap());
            is_full(verify(&dir, &|_| {}).unwrap_err());
        }
        disk.make_room();
        let report = verify(&dir, &|_| {}).unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert!(report.stored.unwrap() as usize >= before);
        let writer = IndexWriter::open(&dir).unwrap();
        writer.upsert(&items(some), &clustered(1000, DIM, round as u64 + 2)).unwrap();
        assert!(writer.len() >= before);
    }
    IndexWriter::open(&dir).unwrap().finish(&|_| {}).unwrap();
    assert_eq!(Index::open(&dir).unwrap().len(), 10_000);
    assert!(verify(&dir, &|_| {}).unwrap().is_sound());
}
