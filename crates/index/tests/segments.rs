//! An index of several segments answers as one of a single segment; merging, compacting and publishing do not hold up
//! writes and lose none of them; damaged segments alone are made again.

mod data;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data::{clustered, unit};
use semblance_index::*;

const DIM: usize = 16;

fn config() -> IndexConfig {
    let hnsw = HnswConfig { m: 8, ef_construction: 60, ..HnswConfig::default() };
    IndexConfig { hnsw, durability: Durability::Process, ..IndexConfig::new(DIM, "model") }
}

fn quiet(_: Progress) {}

fn items(range: std::ops::Range<usize>) -> Vec<NewItem> {
    let item = |i: usize| {
        let mut item = NewItem { class: Some(format!("c{}", i % 10)), ..NewItem::new(format!("k{i}")) };
        item.metadata.insert("n".into(), i.into());
        item
    };
    range.map(item).collect()
}

/// Segments of these sizes, some of whose items were replaced or deleted later.
fn segmented(dir: &Path, sizes: &[usize]) -> IndexWriter {
    let writer = IndexWriter::create(dir, &config()).unwrap();
    let (mut first, vectors) = (0, clustered(sizes.iter().sum(), DIM, 1));
    for &size in sizes {
        writer.upsert(&items(first..first + size), &vectors[first * DIM..(first + size) * DIM]).unwrap();
        first += size;
        if first > 20 {
            writer.delete_keys(&[format!("k{}", first - 3), format!("k{}", first / 2)]).unwrap();
            writer.upsert(&items(first / 3..first / 3 + 1), &unit(DIM, first as u64)).unwrap();
        }
        writer.finish(&quiet).unwrap();
    }
    writer
}

fn all_params() -> Vec<SearchParams> {
    let filtered = |filter| SearchParams { filter: Some(filter), ..SearchParams::new(10) };
    vec![
        SearchParams::exact(10),
        SearchParams::exact(5_000),
        SearchParams { min_score: Some(0.5), ..SearchParams::exact(1_000) },
        SearchParams { exact: true, ..filtered(Filter::eq("class", "c3")) },
        SearchParams { exact: true, ..filtered(Filter::range("n", 100, 130)) },
        filtered(Filter::eq("key", "k77")),
        filtered(Filter::any_of("id", [1, 500, 1_500])),
        SearchParams { exact: true, ..filtered(Filter::not(Filter::range("n", 0, 1_000))) },
    ]
}

#[test]
fn several_segments_answer_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let writer = segmented(dir.path(), &[1_800, 3, 1_200, 40, 1]);
    let index = Index::open(dir.path()).unwrap();
    assert!(index.manifest().segments.len() >= 4 && index.manifest().deleted() > 4);
    assert!(index.manifest().segments.iter().any(|s| s.is_flat()));
    assert!(index.manifest().segments.iter().filter(|s| !s.is_flat()).count() >= 2);
    let (parted, live) = (index.frozen(), writer.reader().unwrap());
    writer.compact(&quiet).unwrap();
    assert!(index.refresh().unwrap());
    assert_eq!((index.manifest().segments.len(), index.manifest().deleted()), (1, 0));

    let queries = clustered(12, DIM, 2);
    for index in [&parted, &live] {
        assert_eq!(index.items().unwrap(), parted.items().unwrap());
    }
    assert_eq!((parted.items().unwrap(), parted.ids()), (index.items().unwrap(), index.ids()));
    for item in index.items().unwrap() {
        assert_eq!(parted.vector(item.id).unwrap(), index.vector(item.id).unwrap());
        assert_eq!(parted.find(&item.key).unwrap(), Some(item.id));
    }
    for params in all_params() {
        let batch = parted.search_batch(&queries, 12, &params).unwrap();
        assert_eq!(batch, index.search_batch(&queries, 12, &params).unwrap(), "{params:?}");
        for (query, batched) in queries.chunks(DIM).zip(&batch) {
            let found = parted.search(query, &params).unwrap();
            let same = |a: &Neighbor, b: &Neighbor| a.id == b.id && (a.score - b.score).abs() < 1e-6;
            assert!(found.iter().zip(batched).all(|(a, b)| same(a, b)) && found.len() == batched.len());
        }
    }
    // Through the graphs.
    let (mut hits, mut all) = (0, 0);
    for query in queries.chunks(DIM) {
        for filter in [None, Some(Filter::eq("class", "c4"))] {
            let params = SearchParams { filter, ..SearchParams::new(10) };
            let truth = index.search(query, &SearchParams { exact: true, ..params.clone() }).unwrap();
            let (found, explain) = parted.search_explained(query, &params).unwrap();
            assert!(explain.segments >= 4 && found.is_sorted_by(|a, b| a.cmp_best_first(b).is_lt()));
            hits += found.iter().filter(|f| truth.iter().any(|t| t.id == f.id)).count();
            all += truth.len();
        }
    }
    assert!(hits as f64 >= 0.98 * all as f64, "{hits} of {all}");
}

#[test]
fn publications_pile_up_no_more_segments_than_the_policy_allows() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config()).unwrap();
    for i in 0..60 {
        writer.upsert(&items(i..i + 1), &unit(DIM, i as u64)).unwrap();
        writer.finish_merged(&MergeOptions::default(), &quiet).unwrap();
    }
    let index = Index::open(dir.path()).unwrap();
    assert!(index.manifest().segments.len() < 8, "{}", index.manifest().segments.len());
    assert_eq!(index.ids(), (0..60).collect::<Vec<_>>());
    drop(writer);
    assert!(verify(dir.path(), &quiet).unwrap().is_sound());
    // Nothing but what the manifest names is left: besides it the store and the lock.
    let files = index.manifest().files().count();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), files + 3);
}

/// Writes from another thread while `work` builds a segment, and waits for the writes within the build.
fn write_during(writer: &Arc<IndexWriter>, work: impl FnOnce(&(dyn Fn(Progress) + Sync))) {
    let done = AtomicBool::new(false);
    work(&|_| {
        if done.swap(true, Ordering::Relaxed) {
            return;
        }
        let ((send, receive), writer) = (std::sync::mpsc::channel(), writer.clone());
        std::thread::spawn(move || {
            writer.upsert(&items(9_000..9_002), &[unit(DIM, 1), unit(DIM, 2)].concat()).unwrap();
            writer.upsert(&items(5..6), &unit(DIM, 3)).unwrap();
            assert_eq!(writer.delete_keys(&["k6", "k9001"]).unwrap(), 2);
            drop(writer);
            send.send(()).unwrap();
        });
        receive.recv_timeout(Duration::from_secs(60)).expect("a write waits for the build");
    });
    assert!(done.into_inner(), "the work reports no progress");
}

fn holds_what_was_written(index: &Index) {
    assert_eq!(index.find("k6").unwrap(), None);
    assert_eq!(index.find("k9001").unwrap(), None);
    let id = index.find("k9000").unwrap().expect("it was added");
    assert_eq!(index.vector(id).unwrap(), unit(DIM, 1));
    assert_eq!(index.vector(index.find("k5").unwrap().unwrap()).unwrap(), unit(DIM, 3));
}

#[test]
fn writes_go_on_while_segments_are_published_merged_and_compacted() {
    type Work<'a> = (&'a str, fn(&IndexWriter, &(dyn Fn(Progress) + Sync)));
    let works: [Work<'_>; 3] = [
        ("publish", |writer, progress| drop(writer.finish(progress).unwrap())),
        ("merge", |writer, progress| {
            assert!(writer.merge(&MergeOptions::default(), progress).unwrap().is_some(), "a merge is due");
        }),
        ("compact", |writer, progress| drop(writer.compact(progress).unwrap())),
    ];
    for (name, work) in works {
        let dir = tempfile::tempdir().unwrap();
        let writer = Arc::new(segmented(dir.path(), &[1_100, 5, 5, 5, 5, 5, 5, 5, 5]));
        let reader = writer.reader().unwrap();
        if name == "publish" {
            writer.upsert(&items(2_000..2_050), &clustered(50, DIM, 4)).unwrap();
        }
        let before = reader.len();
        write_during(&writer, |progress| work(&writer, progress));
        assert_eq!(reader.len(), before, "{name}: one item more and one less");
        holds_what_was_written(&reader);
        writer.finish(&quiet).unwrap();
        let index = Index::open(dir.path()).unwrap();
        holds_what_was_written(&index);
        assert_eq!(index.items().unwrap(), reader.items().unwrap(), "{name}");
        drop((reader, writer));
        let report = verify(dir.path(), &quiet).unwrap();
        assert!(report.is_sound() && report.unpublished == 0, "{name}: {report:?}");
    }
}

#[test]
fn what_is_published_during_a_merge_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let writer = segmented(dir.path(), &[5; 8]);
    let done = AtomicBool::new(false);
    let merged = writer.merge(&MergeOptions::default(), &|_| {
        if !done.swap(true, Ordering::Relaxed) {
            writer.delete_keys(&["k1", "k2"]).unwrap();
            writer.upsert(&items(3..4), &unit(DIM, 77)).unwrap();
            writer.finish(&quiet).unwrap();
        }
    });
    let manifest = merged.unwrap().expect("eight segments of a tier are merged");
    let index = Index::open(dir.path()).unwrap();
    assert_eq!((index.len() as u64, index.find("k1").unwrap()), (manifest.items, None));
    assert_eq!(index.vector(index.find("k3").unwrap().unwrap()).unwrap(), unit(DIM, 77));
    drop(writer);
    assert!(verify(dir.path(), &quiet).unwrap().is_sound());
}

#[test]
fn a_cancelled_merge_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let writer = segmented(dir.path(), &[5; 8]);
    let before = Index::open(dir.path()).unwrap();
    let options = MergeOptions::default();
    options.cancel.cancel();
    assert!(matches!(writer.merge(&options, &quiet), Err(IndexError::Cancelled)));
    assert_eq!(Index::open(dir.path()).unwrap().manifest(), before.manifest());
    assert!(writer.merge(&MergeOptions::default(), &quiet).unwrap().is_some());
    assert_eq!(Index::open(dir.path()).unwrap().items().unwrap(), before.items().unwrap());
}

#[test]
fn only_damaged_segments_are_made_again() {
    let names = |index: &Index, number: u64| -> BTreeSet<String> {
        let manifest = index.manifest();
        let segments = manifest.segments.iter().filter(|s| s.number != number);
        segments.flat_map(|s| s.files.iter().map(|f| f.name.clone())).collect()
    };
    for missing in [false, true] {
        for role in
            [FileRole::Items, FileRole::Vectors, FileRole::Graph, FileRole::Columns, FileRole::Deleted]
        {
            let dir = tempfile::tempdir().unwrap();
            drop(segmented(dir.path(), &[1_100, 30, 40]));
            let before = Index::open(dir.path()).unwrap();
            let manifest = before.manifest();
            let segment = manifest.segments.iter().find(|s| s.files.iter().any(|f| f.role == role)).unwrap();
            let path = dir.path().join(&segment.files.iter().find(|f| f.role == role).unwrap().name);
            // Damage that opening the segment notices.
            if missing {
                std::fs::remove_file(&path).unwrap();
            } else {
                let bytes = std::fs::read(&path).unwrap();
                let beside = path.with_extension("tmp");
                std::fs::write(&beside, &bytes[..bytes.len() - 7]).unwrap();
                std::fs::rename(&beside, &path).unwrap();
            }
            assert!(Index::open(dir.path()).is_err());
            let writer = IndexWriter::open(dir.path()).unwrap();
            assert!(writer.reader().is_err(), "what is missing is not hidden");
            writer.finish(&quiet).unwrap();
            drop(writer);
            let after = Index::open(dir.path()).unwrap();
            assert_eq!(after.items().unwrap(), before.items().unwrap(), "{role:?}");
            assert!(names(&before, segment.number).is_subset(&names(&after, segment.number)), "{role:?}");
            assert!(verify(dir.path(), &quiet).unwrap().is_sound());
        }
    }
}
