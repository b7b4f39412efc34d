//! A place of the disk that cannot be read, anywhere in the store: the error is told, and nothing is written over what is
//! still there. sled takes a segment of its log that cannot be read for the end of it, and writes zeros over what follows.
//!
//! The test starts itself as a child that meets the error. `SEMBLANCE_FAULTS=100000` tries every place.

#![cfg(target_os = "linux")]

mod data;
mod faults;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data::unit;
use faults::{Action, Faults, READ, places, run_to_its_end, setting};
use semblance_index::*;

const DIM: usize = 8;
const CHILD: &str = "SEMBLANCE_READ_CHILD";
const ITEMS: usize = 700;

/// An index whose store has several segments, and a few that no summary tells of.
fn begin(dir: &Path) {
    let writer = IndexWriter::create(dir, &IndexConfig::new(DIM, "m")).unwrap();
    for first in (0..ITEMS).step_by(50) {
        let batch: Vec<NewItem> = (first..first + 50)
            .map(|key| {
                let mut item = NewItem::new(key.to_string());
                item.metadata.insert("text".into(), "x".repeat(3_000).into());
                item
            })
            .collect();
        let vectors: Vec<f32> = (first..first + 50).flat_map(|key| unit(DIM, key as u64)).collect();
        writer.upsert(&batch, &vectors).unwrap();
        if first == 500 {
            writer.finish(&|_| {}).unwrap();
        }
    }
}

/// Reads and writes all there is; as a test of its own it has nothing to do.
#[test]
fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (how, dir) = what.split_once(':').unwrap();
    if how == "verify" {
        return eprintln!("{:?}", verify(Path::new(dir), &|_| {}).map(|report| report.is_sound()));
    }
    let work = || -> Result<()> {
        let writer = IndexWriter::open(dir)?;
        for id in 0..ITEMS as u64 {
            writer.item(id)?;
            writer.vector(id)?;
        }
        writer.upsert(&[NewItem::new("0")], &unit(DIM, 0))?;
        writer.finish(&|_| {})?;
        writer.compact(&|_| {}).map(drop)
    };
    eprintln!("{:?}", work());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = vec![];
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            all.extend(contents(&entry));
        } else {
            all.push((entry.clone(), std::fs::read(&entry).unwrap()));
        }
    }
    all.sort();
    all
}

fn run(faults: &Faults, dir: &Path, how: &str, at: usize) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{how}:{}", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    faults.load(&mut command, &dir.join("store"), READ, at, Action::Fail);
    let (status, text) =
        run_to_its_end(&mut command).unwrap_or_else(|text| panic!("{how} at {at}: the child hangs\n{text}"));
    let told = format!("{how}, place {at}: {:?}\n{text}", faults.met());
    assert!(status.success(), "{told}");
    told
}

#[test]
fn a_bad_place_in_the_store_is_told_and_nothing_is_written_over_it() {
    let Some(faults) = Faults::compile() else { return };
    let first = tempfile::tempdir().unwrap();
    begin(first.path());
    for (how, few) in
        [("write", setting("SEMBLANCE_FAULTS", 40)), ("verify", setting("SEMBLANCE_FAULTS", 12))]
    {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("index");
        copy(first.path(), &dir);
        let whole = run(&faults, &dir, how, 0);
        assert!(whole.contains("Ok("), "{whole}");
        let count = faults.operations().len();
        assert!(count > 8, "only {count} reads");
        let (mut met, mut tried) = (0, 0);
        for at in places(count, few, 3) {
            std::fs::remove_dir_all(&dir).unwrap();
            copy(first.path(), &dir);
            let before = contents(&dir);
            let told = run(&faults, &dir, how, at);
            tried += 1;
            if faults.met().is_none() {
                continue;
            }
            met += 1;
            if how == "verify" {
                assert!(contents(&dir) == before, "{told}: verifying changed something");
            }
            assert!(!told.contains("Ok(true)"), "{told}: what could not be read counts as sound");
            // The disk is well again.
            let writer = IndexWriter::open(&dir).unwrap_or_else(|e| panic!("{e}\n{told}"));
            assert_eq!(writer.finish(&|_| {}).unwrap().items, ITEMS as u64, "{told}");
            drop(writer);
            let index = Index::open(&dir).unwrap();
            for key in 0..ITEMS {
                let id =
                    index.find(&key.to_string()).unwrap().unwrap_or_else(|| panic!("{key} is lost\n{told}"));
                assert_eq!(index.vector(id).unwrap(), unit(DIM, key as u64), "{told}");
            }
            let report = verify(&dir, &|_| {}).unwrap();
            assert!(report.is_sound(), "{report:?}\n{told}");
        }
        assert!(met > tried / 2, "{how}: {met} of {tried} errors were met");
        eprintln!("{how}: {count} reads, {met} errors met in {tried} runs");
    }
}
