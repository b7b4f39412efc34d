//! Whatever byte of the published files or the manifest is changed or cut: an error or the right answer, never a panic
//! or a wrong one; the store makes it whole again; and verification names every planted fault.

mod data;

use std::fs;
use std::path::{Path, PathBuf};

use data::clustered;
use rand::{Rng, SeedableRng};
use semblance_index::*;

const DIM: usize = 16;
const N: usize = 400;

fn build(dir: &Path, codes: Codes) -> IndexWriter {
    let mut config = IndexConfig::new(DIM, "model");
    config.codes = codes;
    config.hnsw = HnswConfig { m: 4, ef_construction: 30, ..HnswConfig::default() };
    let writer = IndexWriter::create(dir, &config).unwrap();
    let items: Vec<NewItem> = (0..N)
        .map(|i| NewItem { class: Some(format!("c{}", i % 5)), ..NewItem::new(format!("key {i}")) })
        .collect();
    writer.upsert(&items, &clustered(N, DIM, 1)).unwrap();
    writer.finish(&|_| {}).unwrap();
    writer
}

type Answers = (Vec<Vec<Neighbor>>, Vec<Item>, Vec<u64>);

/// Everything an index answers, or the first error.
fn answers(dir: &Path) -> Result<Answers> {
    let index = Index::open(dir)?;
    let mut found = vec![];
    for query in clustered(8, DIM, 2).chunks(DIM) {
        for exact in [false, true] {
            found.push(
                index.search(query, &SearchParams { exact, ef_search: Some(10), ..SearchParams::new(5) })?,
            );
        }
        let filter = Some(Filter::eq("class", "c2"));
        found.push(index.search(query, &SearchParams { filter, ..SearchParams::new(5) })?);
    }
    let found_by_key = (0..N).step_by(7).map(|i| Ok(index.find(&format!("key {i}"))?.unwrap_or(u64::MAX)));
    let found_by_key = found_by_key.collect::<Result<_>>()?;
    Ok((found, index.items()?, found_by_key))
}

fn published(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "bin") || p.ends_with(MANIFEST_NAME));
    files.sort();
    files
}

#[test]
fn a_thousand_random_corruptions() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let (mut noticed, mut harmless) = (0, 0);
    for codes in [Codes::F32, Codes::I8] {
        let dir = tempfile::tempdir().unwrap();
        let writer = build(dir.path(), codes);
        // A second segment, and a bitmap of what it replaces and what is deleted.
        let more: Vec<NewItem> = (N - 7..N + 30).map(|i| NewItem::new(format!("key {i}"))).collect();
        writer.upsert(&more, &clustered(37, DIM, 3)).unwrap();
        writer.delete_keys(&["key 1", "key 2"]).unwrap();
        assert_eq!(writer.finish(&|_| {}).unwrap().segments.len(), 2);
        let right = answers(dir.path()).unwrap();
        let files = published(dir.path());
        for _ in 0..500 {
            let path = &files[rng.random_range(0..files.len())];
            let good = fs::read(path).unwrap();
            let mut bad = good.clone();
            let at = rng.random_range(0..bad.len());
            match rng.random_range(0..4) {
                0 => bad.truncate(at),
                1 => bad.extend_from_slice(&good[at..]),
                2 => bad[at..].iter_mut().take(200).for_each(|b| *b = rng.random()),
                _ => bad[at] ^= 1 << rng.random_range(0..8),
            }
            // Written beside and renamed: a file of an index is never changed in place.
            let beside = path.with_extension("tmp");
            fs::write(&beside, &bad).unwrap();
            fs::rename(&beside, path).unwrap();
            match answers(dir.path()) {
                Err(IndexError::Damaged { .. } | IndexError::FormatVersion { .. }) => noticed += 1,
                Err(other) => panic!("{}: {other}", path.display()),
                Ok(answers) => {
                    assert!(answers == right, "{}: a wrong answer", path.display());
                    harmless += 1;
                }
            }
            fs::write(&beside, &good).unwrap();
            fs::rename(&beside, path).unwrap();
        }
        assert_eq!(answers(dir.path()).unwrap(), right);
        drop(writer);
    }
    assert!(noticed > 900, "{noticed} noticed, {harmless} harmless");
}

#[test]
fn a_damaged_or_missing_file_is_made_again_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    drop(build(dir.path(), Codes::I8));
    let right = answers(dir.path()).unwrap();
    for which in 0..published(dir.path()).len() {
        for missing in [false, true] {
            let path = published(dir.path()).remove(which);
            if missing {
                fs::remove_file(&path).unwrap();
            } else {
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                fs::write(&path, bytes).unwrap();
            }
            let writer = IndexWriter::open(dir.path()).unwrap();
            writer.compact(&|_| {}).unwrap();
            drop(writer);
            let again = answers(dir.path()).unwrap();
            assert_eq!((&again.1, &again.2), (&right.1, &right.2), "{}", path.display());
            assert!(verify(dir.path(), &|_| {}).unwrap().is_sound());
        }
    }
}

#[test]
fn verification_names_every_planted_fault() {
    let dir = tempfile::tempdir().unwrap();
    drop(build(dir.path(), Codes::I8));
    let sound = verify(dir.path(), &|_| {}).unwrap();
    assert!(sound.is_sound(), "{sound:?}");
    assert_eq!((sound.items, sound.stored, sound.unpublished), (N as u64, Some(N as u64), 0));
    for path in published(dir.path()) {
        let good = fs::read(&path).unwrap();
        for at in [0, good.len() / 3, good.len() - 5] {
            let mut bad = good.clone();
            bad[at] ^= 2;
            fs::write(&path, &bad).unwrap();
            let report = verify(dir.path(), &|_| {}).unwrap();
            assert!(
                report.faults.iter().any(|f| f.path == path && f.rebuildable),
                "{}: {report:?}",
                path.display()
            );
        }
        fs::remove_file(&path).unwrap();
        assert!(!verify(dir.path(), &|_| {}).unwrap().is_sound());
        fs::write(&path, &good).unwrap();
    }
    let writer = IndexWriter::open(dir.path()).unwrap();
    writer.delete(&[3]).unwrap();
    let beside = verify(dir.path(), &|_| {}).unwrap();
    assert_eq!((beside.is_sound(), beside.stored), (false, None), "beside a writer the store is left alone");
    assert!(beside.faults.is_empty() && beside.unchecked.len() == 1, "{beside:?}");
    assert!(beside.unchecked[0].path.ends_with("store"), "{beside:?}");
    drop(writer);
    let report = verify(dir.path(), &|_| {}).unwrap();
    assert_eq!((report.is_sound(), report.unpublished), (true, 1), "{report:?}");
}

#[test]
fn a_damaged_store_is_reported_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    drop(build(dir.path(), Codes::I8));
    let log = dir.path().join("store/db");
    let good = fs::read(&log).unwrap();
    let used = good.iter().rposition(|&b| b != 0).unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(12);
    let mut reported = 0;
    for _ in 0..20 {
        let mut bad = good.clone();
        let at = rng.random_range(0..used);
        bad[at..(at + 3000).min(used)].iter_mut().for_each(|b| *b = rng.random());
        fs::write(&log, &bad).unwrap();
        // Readers do not need the store.
        assert!(answers(dir.path()).is_ok());
        match verify(dir.path(), &|_| {}) {
            Ok(report) => reported += usize::from(!report.is_sound() || report.unpublished > 0),
            Err(error) => panic!("{error}"),
        }
        let _ = fs::remove_dir_all(dir.path().join("store/blobs"));
        for entry in fs::read_dir(dir.path().join("store")).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    assert!(reported > 0, "of 20 damaged stores at least some must be noticed");
}

#[test]
fn a_missing_store_is_a_fault_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    drop(build(dir.path(), Codes::I8));
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let report = verify(dir.path(), &|_| {}).unwrap();
    assert_eq!((report.is_sound(), report.stored), (false, None), "{report:?}");
    assert!(!dir.path().join("store").exists(), "checking makes nothing");
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_a_file_is_a_fault_and_no_waiting() {
    let dir = tempfile::tempdir().unwrap();
    drop(build(dir.path(), Codes::I8));
    for path in published(dir.path()).into_iter().chain([dir.path().join(MANIFEST_NAME)]) {
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(Index::open(dir.path()).is_err());
        let report = verify(dir.path(), &|_| {}).unwrap();
        assert!(report.faults.iter().any(|fault| fault.path == path), "{}: {report:?}", path.display());
        fs::remove_file(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
    }
}

#[test]
fn an_index_of_another_format_version_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    drop(build(dir.path(), Codes::I8));
    let path = dir.path().join(MANIFEST_NAME);
    let text = fs::read_to_string(&path).unwrap();
    let unknown = FORMAT + 1;
    let newer = text.replacen(&format!("\"format\": {FORMAT}"), &format!("\"format\": {unknown}"), 1);
    assert_ne!(text, newer);
    fs::write(&path, newer).unwrap();
    for error in [Index::open(dir.path()).err().unwrap(), IndexWriter::open(dir.path()).err().unwrap()] {
        assert!(matches!(error, IndexError::FormatVersion { found, .. } if found == unknown), "{error}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_store_that_is_older_than_what_is_published_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let older = tempfile::tempdir().unwrap();
    drop(build(dir.path(), Codes::I8));
    copy(&dir.path().join("store"), older.path());
    let writer = IndexWriter::open(dir.path()).unwrap();
    writer.upsert(&[NewItem::new("newer")], &clustered(1, DIM, 9)).unwrap();
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    copy(older.path(), &dir.path().join("store"));
    let error = IndexWriter::open(dir.path()).err().unwrap();
    assert!(
        matches!(error, IndexError::StoreOlder { stored, published, .. } if stored < published),
        "publishing such a store would delete items: {error}"
    );
    let index = Index::open(dir.path()).unwrap();
    assert_eq!((index.len(), index.find("newer").unwrap().is_some()), (N + 1, true));
    assert!(!verify(dir.path(), &|_| {}).unwrap().is_sound());
}
