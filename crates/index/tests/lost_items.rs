//! A store that lost items, and one with something in it that is no file; published files whose bytes were changed: nothing
//! that is published goes away, and what can be made again is.

mod data;

use std::fs;
use std::path::{Path, PathBuf};

use data::clustered;
use semblance_index::*;

const DIM: usize = 80;

fn quiet(_: Progress) {}

fn items(range: std::ops::Range<usize>) -> Vec<NewItem> {
    let item = |i: usize| {
        let mut item = NewItem::new(format!("k{i}"));
        item.metadata.insert("n".into(), i.into());
        item
    };
    range.map(item).collect()
}

/// Two segments, the first with a graph over 8-bit codes.
fn build(dir: &Path) {
    let hnsw = HnswConfig { m: 8, ef_construction: 40, ..HnswConfig::default() };
    let config = IndexConfig { hnsw, codes: Codes::I8, ..IndexConfig::new(DIM, "model") };
    let writer = IndexWriter::create(dir, &config).unwrap();
    let vectors = clustered(1_150, DIM, 1);
    writer.upsert(&items(0..1_100), &vectors[..1_100 * DIM]).unwrap();
    writer.finish(&quiet).unwrap();
    writer.upsert(&items(1_100..1_150), &vectors[1_100 * DIM..]).unwrap();
    writer.finish(&quiet).unwrap();
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

fn file(dir: &Path, role: FileRole) -> PathBuf {
    let manifest = Manifest::read(dir).unwrap();
    let entry = manifest.files().find(|file| file.role == role).unwrap();
    dir.join(&entry.name)
}

/// Changes one byte in the middle of a file. What has the file mapped keeps the old one.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    let beside = path.with_extension("tmp");
    fs::write(&beside, &bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// Takes items out of the store behind the back of the index, whose counters stay.
fn lose(dir: &Path, ids: impl Iterator<Item = u64>) {
    let store = sled::open(dir.join("store")).unwrap();
    let (vectors, items) = (store.open_tree("vectors").unwrap(), store.open_tree("items").unwrap());
    for id in ids {
        vectors.remove(id.to_be_bytes()).unwrap().expect("it was there");
        items.remove(id.to_be_bytes()).unwrap().expect("it was there");
    }
    store.flush().unwrap();
}

#[test]
fn a_changed_byte_of_what_searches_read_is_mended_by_whatever_publishes() {
    type Work = fn(&IndexWriter) -> Result<()>;
    let works: [(&str, Work); 4] = [
        ("add", |writer| {
            writer.upsert(&items(2_000..2_001), &clustered(1, DIM, 7))?;
            writer.finish(&quiet).map(drop)
        }),
        ("remove", |writer| {
            writer.delete_keys(&["k3"])?;
            writer.finish_merged(&MergeOptions::default(), &quiet).map(drop)
        }),
        ("finish", |writer| writer.finish(&quiet).map(drop)),
        ("compact", |writer| writer.compact(&quiet).map(drop)),
    ];
    let first = tempfile::tempdir().unwrap();
    build(first.path());
    for role in [FileRole::Graph, FileRole::Codes, FileRole::Columns] {
        for (name, work) in works {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("index");
            copy(first.path(), &dir);
            let damaged = file(&dir, role);
            flip(&damaged);
            let writer = IndexWriter::open(&dir).unwrap();
            let told = writer.damage();
            assert!(told.len() == 1 && told[0].contains(damaged.to_str().unwrap()), "{role:?}: {told:?}");
            work(&writer).unwrap();
            drop(writer);
            let index = Index::open(&dir).unwrap_or_else(|e| panic!("{role:?} {name}: {e}"));
            let expected = match name {
                "add" => 1_151,
                "remove" => 1_149,
                _ => 1_150,
            };
            assert_eq!(index.len(), expected, "{role:?} {name}");
            let id = index.find("k70").unwrap().unwrap();
            let found = index.search(&index.vector(id).unwrap(), &SearchParams::new(1)).unwrap();
            assert_eq!(found[0].id, id);
            let report = verify(&dir, &quiet).unwrap();
            assert!(report.is_sound(), "{role:?} {name}: {report:?}");
            assert_eq!(IndexWriter::open(&dir).unwrap().damage(), [""; 0]);
        }
    }
}

#[test]
fn a_store_that_lost_items_is_not_written_and_what_is_published_stays() {
    let first = tempfile::tempdir().unwrap();
    build(first.path());
    for lost in [0..1_150, 17..18, 1_149..1_150] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("index");
        copy(first.path(), &dir);
        lose(&dir, lost.clone());
        let error = IndexWriter::open(&dir).err().unwrap();
        let expected = lost.end - lost.start;
        assert!(
            matches!(error, IndexError::StoreIncomplete { missing, checked: 1_150, .. } if missing == expected),
            "{lost:?}: {error}"
        );
        let index = Index::open(&dir).unwrap();
        assert_eq!(index.len(), 1_150);
        assert!(index.item(lost.start).is_ok());
        assert!(!verify(&dir, &quiet).unwrap().is_sound());
    }
    // What was deleted and not published yet is no loss.
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("index");
    copy(first.path(), &dir);
    IndexWriter::open(&dir).unwrap().delete_keys(&["k17", "k40"]).unwrap();
    assert_eq!(IndexWriter::open(&dir).unwrap().finish(&quiet).unwrap().items, 1_148);
}

#[test]
fn a_damaged_manifest_beside_a_damaged_store_costs_no_published_file() {
    let first = tempfile::tempdir().unwrap();
    let older = tempfile::tempdir().unwrap();
    build(first.path());
    copy(&first.path().join("store"), older.path());
    let writer = IndexWriter::open(first.path()).unwrap();
    writer.upsert(&items(5_000..5_010), &clustered(10, DIM, 8)).unwrap();
    writer.finish(&quiet).unwrap();
    drop(writer);
    let vectors: Vec<PathBuf> = {
        let manifest = Manifest::read(first.path()).unwrap();
        manifest.files().map(|file| PathBuf::from(&file.name)).collect()
    };
    for damage in ["older", "lost"] {
        for manifest in ["changed", "missing", "a folder"] {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("index");
            copy(first.path(), &dir);
            match damage {
                "older" => {
                    fs::remove_dir_all(dir.join("store")).unwrap();
                    copy(older.path(), &dir.join("store"));
                }
                _ => lose(&dir, 20..40),
            }
            let path = dir.join(MANIFEST_NAME);
            match manifest {
                "changed" => flip(&path),
                "missing" => fs::remove_file(&path).unwrap(),
                _ => {
                    fs::remove_file(&path).unwrap();
                    fs::create_dir(&path).unwrap();
                }
            }
            let error = IndexWriter::open(&dir).and_then(|writer| writer.compact(&quiet)).unwrap_err();
            assert!(
                matches!(error, IndexError::StoreIncomplete { .. } | IndexError::StoreDamaged { .. }),
                "{damage}, {manifest}: {error}"
            );
            for name in &vectors {
                assert!(dir.join(name).exists(), "{damage}, {manifest}: {} is gone", name.display());
            }
        }
    }
}

#[test]
fn a_folder_in_the_place_of_the_manifest_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let path = dir.path().join(MANIFEST_NAME);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let report = verify(dir.path(), &quiet).unwrap();
    assert!(report.faults.iter().any(|fault| fault.path == path && fault.rebuildable), "{report:?}");
    IndexWriter::open(dir.path()).unwrap().compact(&quiet).unwrap();
    assert_eq!(Index::open(dir.path()).unwrap().len(), 1_150);
    let aside = dir.path().join("manifest.json.folder-1/notes.txt");
    assert_eq!(fs::read_to_string(aside).unwrap(), "mine");
    assert!(verify(dir.path(), &quiet).unwrap().is_sound());
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_store_is_refused_before_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    for name in ["conf", "db", "undo", "blobs/7", "snap.00"] {
        let path = dir.path().join("store").join(name);
        let kept = dir.path().join("kept");
        let was_there = fs::rename(&path, &kept).is_ok();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = IndexWriter::open(dir.path()).err().unwrap().to_string();
        // Without its log there is no store.
        assert!(
            name == "db" || error.contains(&format!("{name} is damaged (it is no regular file)")),
            "{error}"
        );
        let report = verify(dir.path(), &quiet).unwrap();
        assert!(report.faults.iter().any(|fault| fault.path == path), "{name}: {report:?}");
        fs::remove_file(&path).unwrap();
        if was_there {
            fs::rename(&kept, &path).unwrap();
        }
    }
    assert!(verify(dir.path(), &quiet).unwrap().is_sound());
}

/// Every file below a folder with its bytes.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = vec![];
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            all.extend(contents(&entry.path()));
        } else {
            all.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn verifying_changes_nothing_and_lists_a_few_of_many_faults() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let before = contents(dir.path());
    assert!(verify(dir.path(), &quiet).unwrap().is_sound());
    assert!(contents(dir.path()) == before);
    // The end of the log is not whole, which sled mends when it opens it.
    let log = dir.path().join("store/db");
    let mut bytes = fs::read(&log).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    bytes[used - 200..].iter_mut().for_each(|b| *b = 0xaa);
    fs::write(&log, bytes).unwrap();
    let before = contents(dir.path());
    let _ = verify(dir.path(), &quiet).unwrap();
    assert!(contents(dir.path()) == before, "what is damaged stays as it is");

    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    lose(dir.path(), 100..400);
    let report = verify(dir.path(), &quiet).unwrap();
    assert!(!report.is_sound() && report.faults.len() < 25, "{report:?}");
    let counted = report.faults.iter().filter_map(|fault| {
        let count = fault.what.strip_prefix("and ")?.strip_suffix(" more faults like these")?;
        count.parse::<usize>().ok()
    });
    assert!(counted.sum::<usize>() >= 280, "{report:?}");
}

#[test]
fn the_published_items_of_an_index_without_a_store_can_be_taken_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    let error = IndexWriter::open(dir.path()).err().unwrap();
    assert!(matches!(error, IndexError::StoreMissing { .. }), "{error}");
    let index = Index::open(dir.path()).unwrap();
    let (out, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    export(&index, out.path(), ExportFormat::Npy, &quiet).unwrap();
    let vectors = out.path().join("vectors.npy");
    let writer = IndexWriter::create(new.path(), &IndexConfig::for_import(&vectors, "m").unwrap()).unwrap();
    import(&writer, &vectors, None, &quiet).unwrap();
    assert_eq!(writer.finish(&quiet).unwrap().items, 1_150);
}
