use std::fs;
use std::path::Path;

use super::*;
use crate::item::NewItem;
use crate::reader::Index;

fn write(writer: &IndexWriter, keys: &[&str]) {
    let items: Vec<NewItem> = keys.iter().map(|key| NewItem::new(*key)).collect();
    writer.upsert(&items, &[0.6, 0.8].repeat(keys.len())).unwrap();
}

fn config() -> IndexConfig {
    IndexConfig::new(2, "m")
}

/// An index of one item, `old`, with a file of somebody else.
fn old(dir: &Path) {
    let writer = IndexWriter::create(dir, &config()).unwrap();
    write(&writer, &["old"]);
    writer.finish(&|_| {}).unwrap();
    fs::create_dir(dir.join("uploads")).unwrap();
    fs::write(dir.join("uploads/a.jpg"), "picture").unwrap();
}

/// A replacement of two items, not in its place yet.
fn begun(dir: &Path) -> IndexWriter {
    let writer = IndexWriter::replace(dir, &config()).unwrap();
    write(&writer, &["new", "newer"]);
    writer
}

fn keys(dir: &Path) -> Vec<String> {
    Index::open(dir).unwrap().items().unwrap().into_iter().map(|item| item.key).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_old_index_is_there_until_the_new_one_takes_its_place() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("shop");
    old(&dir);
    let reader = Index::open(&dir).unwrap();
    let writer = begun(&dir);
    assert_eq!((keys(&dir), reader.refresh().unwrap()), (vec!["old".into()], false));
    assert!(matches!(IndexWriter::open(&dir), Err(IndexError::Locked { .. })), "nobody else writes it");
    assert!(matches!(IndexWriter::replace(&dir, &config()), Err(IndexError::Locked { .. })));
    writer.finish(&|_| {}).unwrap();
    assert_eq!(keys(&dir), ["old"]);
    writer.take_place().unwrap();
    assert_eq!(keys(&dir), ["new", "newer"]);
    assert_eq!(names(home.path()), ["shop"]);
    assert_eq!(fs::read_to_string(dir.join("uploads/a.jpg")).unwrap(), "picture");
    assert!(!dir.join(NOTE).exists());
    // What has the old one open keeps it, and takes up the new one.
    assert_eq!(reader.len(), 1);
    assert!(reader.refresh().unwrap() && reader.len() == 2);
    let writer = IndexWriter::open(&dir).unwrap();
    write(&writer, &["newest"]);
    writer.finish(&|_| {}).unwrap();
    assert!(reader.refresh().unwrap() && reader.len() == 3);
}

#[test]
fn a_replacement_by_another_model_is_not_taken_up_by_readers_of_the_old_one() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("shop");
    old(&dir);
    let reader = Index::open(&dir).unwrap();
    let writer = IndexWriter::replace(&dir, &IndexConfig::new(2, "other")).unwrap();
    write(&writer, &["new"]);
    writer.finish(&|_| {}).unwrap();
    writer.take_place().unwrap();
    assert!(matches!(reader.refresh(), Err(IndexError::WrongModel { .. })));
    assert_eq!(reader.items().unwrap()[0].key, "old");
}

#[test]
fn an_interrupted_replacement_goes_on_or_begins_again() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("shop");
    old(&dir);
    assert!(matches!(
        IndexWriter::resume(&dir, &config()),
        Err(IndexError::AlreadyExists { finished: true, .. })
    ));
    drop(begun(&dir));
    assert!(has_interrupted_replacement(&dir) && keys(&dir) == ["old"]);
    let other = IndexConfig::new(2, "other");
    assert!(matches!(IndexWriter::resume(&dir, &other), Err(IndexError::WrongModel { .. })));
    let writer = IndexWriter::resume(&dir, &config()).unwrap();
    assert_eq!(writer.len(), 2);
    assert!(writer.take_place().is_err() && keys(&dir) == ["old"], "it was not finished");
    // A new replacement knows nothing of the one before.
    let writer = IndexWriter::replace(&dir, &config()).unwrap();
    assert_eq!(writer.len(), 0);
    assert!(writer.discard_if_empty().unwrap());
    assert_eq!((names(home.path()), keys(&dir)), (vec!["shop".into()], vec!["old".into()]));
    // The old index can be written while a replacement of it lies there.
    drop(begun(&dir));
    let writer = IndexWriter::open(&dir).unwrap();
    write(&writer, &["later"]);
    writer.finish(&|_| {}).unwrap();
    assert_eq!(keys(&dir), ["old", "later"]);
}

#[test]
fn what_was_interrupted_in_between_is_ended_by_the_next_writer() {
    let home = tempfile::tempdir().unwrap();
    let (dir, new, aside) =
        (home.path().join("shop"), home.path().join(".shop.new"), home.path().join(".shop.old"));
    let finished = || {
        let _ = fs::remove_dir_all(&dir);
        old(&dir);
        let writer = begun(&dir);
        writer.finish(&|_| {}).unwrap();
    };
    let is_whole = |expected: &[&str]| {
        assert_eq!(
            (keys(&dir), names(home.path())),
            (expected.iter().map(ToString::to_string).collect(), vec!["shop".to_string()])
        );
        assert!(dir.join("uploads/a.jpg").exists() && !dir.join(NOTE).exists());
        drop(IndexWriter::open(&dir).unwrap());
    };
    // After the folders were exchanged.
    finished();
    fs::rename(&dir, &aside).unwrap();
    fs::rename(&new, &dir).unwrap();
    fs::rename(&aside, &new).unwrap();
    drop(IndexWriter::open(&dir).unwrap());
    is_whole(&["new", "newer"]);
    // Between two renames.
    finished();
    fs::rename(&dir, &aside).unwrap();
    let held = lock(&aside).unwrap();
    assert!(matches!(recover_replacement(&dir), Err(IndexError::Locked { .. })), "it still goes on");
    drop(held);
    assert_eq!(recover_replacement(&dir).unwrap(), Some(Recovered::Completed));
    is_whole(&["new", "newer"]);
    // The new one is lost.
    finished();
    fs::rename(&dir, &aside).unwrap();
    fs::remove_dir_all(&new).unwrap();
    assert_eq!(recover_replacement(&dir).unwrap(), Some(Recovered::Restored));
    is_whole(&["old"]);
    assert_eq!(recover_replacement(&dir).unwrap(), None);
}

#[test]
fn what_was_begun_and_holds_nothing_goes_away() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("shop");
    assert!(IndexWriter::create(&dir, &config()).unwrap().discard_if_empty().unwrap());
    assert_eq!(names(home.path()), [""; 0]);
    let writer = IndexWriter::create(&dir, &config()).unwrap();
    write(&writer, &["a"]);
    assert!(!writer.discard_if_empty().unwrap() && dir.exists(), "what was stored stays");
}
