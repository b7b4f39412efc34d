//! The index as its users see it: written, published, read, changed.

mod data;

use data::{clustered, unit};
use semblance_index::*;
use serde_json::json;

const DIM: usize = 24;

fn items(range: std::ops::Range<usize>) -> Vec<NewItem> {
    range
        .map(|i| NewItem {
            key: format!("k{i}"),
            class: Some(format!("c{}", i % 10)),
            super_class: None,
            metadata: json!({"n": i, "even": i % 2 == 0}).as_object().unwrap().clone(),
        })
        .collect()
}

fn quiet(_: Progress) {}

fn config(codes: Codes, builder: Builder) -> IndexConfig {
    let mut config = IndexConfig::new(DIM, "model");
    config.codes = codes;
    config.hnsw = HnswConfig { m: 8, ef_construction: 100, builder, ..HnswConfig::default() };
    config
}

fn ids(found: &[Neighbor]) -> Vec<u64> {
    found.iter().map(|n| n.id).collect()
}

#[test]
fn every_builder_and_code_finds_what_exact_search_finds() {
    let vectors = clustered(3000, DIM, 1);
    let queries = clustered(50, DIM, 2);
    let flat = FlatIndex::new(&vectors, DIM).unwrap();
    for (codes, builder) in [
        (Codes::F32, Builder::Native),
        (Codes::F16, Builder::Native),
        (Codes::I8, Builder::Native),
        (Codes::Auto, Builder::HnswRs),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let writer = IndexWriter::create(dir.path(), &config(codes, builder)).unwrap();
        for start in (0..3000).step_by(500) {
            writer.upsert(&items(start..start + 500), &vectors[start * DIM..(start + 500) * DIM]).unwrap();
        }
        let manifest = writer.finish(&quiet).unwrap();
        assert_eq!((manifest.items, manifest.nodes()), (3000, 3000));
        let index = Index::open(dir.path()).unwrap();
        let (graph, exact) = (SearchParams::new(10), SearchParams::exact(10));
        let truth = flat.search_batch(&queries, 50, &exact).unwrap();
        assert_eq!(index.search_batch(&queries, 50, &exact).unwrap(), truth, "{codes:?}");
        let found = index.search_batch(&queries, 50, &graph).unwrap();
        let hits: usize = truth
            .iter()
            .zip(&found)
            .map(|(t, f)| ids(f).iter().filter(|id| ids(t).contains(id)).count())
            .sum();
        assert!(hits >= 485, "{codes:?} {builder:?}: {hits} of 500");
        for (query, found) in queries.chunks(DIM).zip(&found) {
            assert_eq!(&index.search(query, &graph).unwrap(), found);
            let best = &truth[0];
            assert!(best.is_sorted_by(|a, b| a.cmp_best_first(b).is_le()));
        }
    }
}

#[test]
fn what_is_known_of_items_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = clustered(100, DIM, 3);
    let writer = IndexWriter::create(dir.path(), &config(Codes::Auto, Builder::Native)).unwrap();
    let written = writer.upsert(&items(0..100), &vectors).unwrap();
    assert_eq!(written, (0..100).collect::<Vec<u64>>());
    writer.finish(&quiet).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!((index.len(), index.dim(), index.ids()), (100, DIM, written));
    assert_eq!(index.find("k42").unwrap(), Some(42));
    assert_eq!(index.find("nothing").unwrap(), None);
    assert_eq!(index.item(42).unwrap(), items(42..43).remove(0).with_id(42));
    assert_eq!(index.vector(42).unwrap(), vectors[42 * DIM..43 * DIM]);
    assert_eq!(index.items().unwrap().len(), 100);
    assert!(matches!(index.item(100), Err(IndexError::UnknownId { id: 100 })));
    index.check_model("model").unwrap();
    let error = index.check_model("other").unwrap_err().to_string();
    assert!(error.contains("built with model model, the given model is other"), "{error}");
    let found = index.search_by_id(42, &SearchParams::new(3)).unwrap();
    assert!(found.len() == 3 && !ids(&found).contains(&42));
}

#[test]
fn changes_are_seen_by_readers_of_the_writer_at_once_and_by_others_when_published() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = clustered(400, DIM, 4);
    let writer = IndexWriter::create(dir.path(), &config(Codes::F32, Builder::Native)).unwrap();
    writer.upsert(&items(0..340), &vectors[..340 * DIM]).unwrap();
    writer.finish(&quiet).unwrap();
    let (near, far) = (writer.reader().unwrap(), Index::open(dir.path()).unwrap());

    writer.upsert(&items(340..400), &vectors[340 * DIM..]).unwrap();
    assert_eq!(writer.delete_keys(&["k7", "k8", "nothing"]).unwrap(), 2);
    let moved = unit(DIM, 9);
    assert_eq!(writer.upsert(&items(5..6), &moved).unwrap(), [5]);

    let check = |index: &Index| {
        assert_eq!(index.len(), 398);
        assert_eq!(index.search(&vectors[350 * DIM..351 * DIM], &SearchParams::new(1)).unwrap()[0].id, 350);
        assert_eq!(index.find("k7").unwrap(), None);
        assert!(index.item(8).is_err() && index.vector(8).is_err());
        assert_eq!(index.vector(5).unwrap(), moved);
        assert_eq!(index.search(&moved, &SearchParams::new(1)).unwrap()[0].id, 5);
        for exact in [false, true] {
            let all = index.search(&moved, &SearchParams { exact, ..SearchParams::new(1000) }).unwrap();
            let mut found = ids(&all);
            found.sort();
            assert_eq!(found, index.ids(), "exact: {exact}");
        }
    };
    check(&near);
    assert_eq!((far.len(), far.find("k7").unwrap()), (340, Some(7)));
    let manifest = writer.finish(&quiet).unwrap();
    assert_eq!((manifest.items, manifest.nodes(), manifest.deleted()), (398, 401, 3));
    check(&near);
    assert!(far.refresh().unwrap() && !far.refresh().unwrap());
    check(&far);
    let manifest = writer.compact(&quiet).unwrap();
    assert_eq!((manifest.items, manifest.nodes(), manifest.deleted()), (398, 398, 0));
    check(&near);
    drop(writer);
    check(&Index::open(dir.path()).unwrap());
    // Only the newest files are left.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2 + manifest.files().count() + 1);
}

#[test]
fn a_writer_finds_what_was_acknowledged_but_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = clustered(60, DIM, 5);
    let writer = IndexWriter::create(dir.path(), &config(Codes::Auto, Builder::Native)).unwrap();
    writer.upsert(&items(0..20), &vectors[..20 * DIM]).unwrap();
    drop(writer);
    assert!(matches!(Index::open(dir.path()), Err(IndexError::Unfinished { .. })));
    let writer = IndexWriter::resume(dir.path(), &config(Codes::Auto, Builder::Native)).unwrap();
    assert!(writer.contains("k19").unwrap() && !writer.contains("k20").unwrap());
    writer.upsert(&items(20..40), &vectors[20 * DIM..40 * DIM]).unwrap();
    writer.finish(&quiet).unwrap();
    writer.upsert(&items(40..60), &vectors[40 * DIM..]).unwrap();
    drop(writer);
    assert_eq!(Index::open(dir.path()).unwrap().len(), 40);
    let writer = IndexWriter::open(dir.path()).unwrap();
    assert_eq!((writer.len(), writer.reader().unwrap().len()), (60, 60));
    writer.finish(&quiet).unwrap();
    assert_eq!(Index::open(dir.path()).unwrap().len(), 60);
}

#[test]
fn filters_are_accurate_at_any_selectivity() {
    let (n, dim) = (4000, DIM);
    let dir = tempfile::tempdir().unwrap();
    let vectors = clustered(n, dim, 6);
    let writer = IndexWriter::create(dir.path(), &config(Codes::F32, Builder::Native)).unwrap();
    writer.upsert(&items(0..n), &vectors).unwrap();
    writer.finish(&quiet).unwrap();
    let index = Index::open(dir.path()).unwrap();
    let queries = clustered(20, dim, 7);
    for (filter, matching) in [
        (Filter::eq("even", true), 2000),
        (Filter::eq("class", "c3"), 400),
        (Filter::range("n", 100, 120), 20),
        (Filter::eq("key", "k17"), 1),
        (Filter::eq("key", "none"), 0),
        (Filter::not(Filter::eq("class", "c3")), 3600),
        (Filter::Or(vec![Filter::eq("class", "c1"), Filter::eq("class", "c2")]), 800),
    ] {
        let params = SearchParams { filter: Some(filter.clone()), ..SearchParams::new(10) };
        let exact = SearchParams { exact: true, ..params.clone() };
        let mut hits = 0;
        for query in queries.chunks(dim) {
            let (found, explain) = index.search_explained(query, &params).unwrap();
            let truth = index.search(query, &exact).unwrap();
            assert_eq!(explain.matching, Some(matching));
            assert_eq!(truth.len(), matching.min(10));
            assert_eq!(found.len(), truth.len());
            assert!(found.iter().all(|n| filter.matches(&index.item(n.id).unwrap())));
            hits += ids(&found).iter().filter(|id| ids(&truth).contains(id)).count();
        }
        assert!(hits as f64 >= 0.99 * (20 * matching.min(10)) as f64, "{filter:?}: {hits}");
    }
}

#[test]
fn range_search_returns_all_above_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let vectors = clustered(2000, DIM, 8);
    for codes in [Codes::F32, Codes::I8] {
        let dir = dir.path().join(format!("{codes:?}"));
        let writer = IndexWriter::create(&dir, &config(codes, Builder::Native)).unwrap();
        writer.upsert(&items(0..2000), &vectors).unwrap();
        writer.finish(&quiet).unwrap();
        let index = Index::open(&dir).unwrap();
        let (mut all, mut found) = (0, 0);
        for query in vectors.chunks(DIM).step_by(100) {
            let exact = SearchParams { min_score: Some(0.6), ..SearchParams::exact(2000) };
            let truth = index.search(query, &exact).unwrap();
            let near = index.search(query, &SearchParams { exact: false, ..exact }).unwrap();
            assert!(truth.iter().chain(&near).all(|n| n.score >= 0.6));
            all += truth.len();
            found += near.len();
        }
        assert!(all > 100 && found as f64 >= 0.98 * all as f64, "{found} of {all}");
    }
}

#[test]
fn duplicates_share_a_node_and_are_ordered_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config(Codes::Auto, Builder::Native)).unwrap();
    let (same, other) = (unit(DIM, 1), unit(DIM, 2));
    for start in (0..6000).step_by(2000) {
        writer.upsert(&items(start..start + 2000), &same.repeat(2000)).unwrap();
    }
    writer.upsert(&items(6000..6001), &other).unwrap();
    let manifest = writer.finish(&quiet).unwrap();
    assert_eq!((manifest.items, manifest.nodes()), (6001, 2));
    let index = Index::open(dir.path()).unwrap();
    for exact in [false, true] {
        let found = index.search(&same, &SearchParams { exact, ..SearchParams::new(5) }).unwrap();
        assert_eq!(ids(&found), [0, 1, 2, 3, 4]);
        let all = index.search(&other, &SearchParams { exact, ..SearchParams::new(10_000) }).unwrap();
        assert_eq!((all.len(), all[0].id, all[1].id), (6001, 6000, 0));
    }
    let odd = SearchParams { filter: Some(Filter::eq("even", false)), ..SearchParams::new(3) };
    assert_eq!(ids(&index.search(&same, &odd).unwrap()), [1, 3, 5]);
}

#[test]
fn dimensions_from_one_to_4096_work() {
    for dim in [1, 2, 3, 17, 64, 100, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let writer = IndexWriter::create(dir.path(), &IndexConfig::new(dim, "m")).unwrap();
        let vectors = clustered(40, dim, dim as u64);
        writer.upsert(&items(0..40), &vectors).unwrap();
        writer.finish(&quiet).unwrap();
        let index = Index::open(dir.path()).unwrap();
        for (i, query) in vectors.chunks(dim).enumerate() {
            let found = index.search(query, &SearchParams::new(50)).unwrap();
            assert_eq!(found.len(), 40);
            assert!(
                (found[0].score - 1.0).abs() < 1e-4 && (dim == 1 || found[0].id == i as u64),
                "dim {dim}"
            );
        }
    }
}

#[test]
fn an_empty_index_is_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config(Codes::Auto, Builder::Native)).unwrap();
    writer.finish(&quiet).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert!(index.is_empty() && index.ids().is_empty());
    for params in [SearchParams::new(3), SearchParams::exact(3)] {
        assert_eq!(index.search(&unit(DIM, 1), &params).unwrap(), []);
        assert_eq!(index.search_batch(&clustered(9, DIM, 1), 9, &params).unwrap(), vec![vec![]; 9]);
    }
    writer.upsert(&items(0..1), &unit(DIM, 1)).unwrap();
    writer.finish(&quiet).unwrap();
    assert!(index.refresh().unwrap());
    assert_eq!(index.len(), 1);
    writer.delete(&[0]).unwrap();
    writer.finish(&quiet).unwrap();
    assert_eq!(Index::open(dir.path()).unwrap().search(&unit(DIM, 1), &SearchParams::new(3)).unwrap(), []);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let message = |e: IndexError| e.to_string();
    assert!(message(Index::open(&path).err().unwrap()).starts_with("no index at "));
    assert!(matches!(IndexWriter::open(&path).err().unwrap(), IndexError::Missing { .. }));
    let writer = IndexWriter::create(&path, &config(Codes::Auto, Builder::Native)).unwrap();
    assert!(message(Index::open(&path).err().unwrap()).contains("is unfinished"));
    let second = IndexWriter::open(&path).err().unwrap();
    assert!(
        matches!(&second, IndexError::Locked { holder, .. } if holder.contains(&std::process::id().to_string())),
        "{second}"
    );

    let v = unit(DIM, 1);
    let with = |at: usize, x: f32| {
        v.iter().enumerate().map(|(i, &y)| if i == at { x } else { y }).collect::<Vec<f32>>()
    };
    assert!(matches!(
        writer.upsert(&items(0..1), &with(3, f32::NAN)),
        Err(IndexError::NotFinite { position: 3, .. })
    ));
    assert!(matches!(
        writer.upsert(&items(0..1), &with(3, f32::INFINITY)),
        Err(IndexError::NotFinite { .. })
    ));
    assert!(matches!(writer.upsert(&items(0..1), &[0.0; DIM]), Err(IndexError::ZeroVector { row: 0 })));
    assert!(matches!(writer.upsert(&items(0..1), &with(3, 7.0)), Err(IndexError::NotUnit { .. })));
    assert!(matches!(writer.upsert(&items(0..1), &v[1..]), Err(IndexError::WrongDimension { .. })));
    assert!(matches!(writer.upsert(&items(0..2), &v), Err(IndexError::WrongLength { .. })));
    assert!(matches!(writer.upsert(&[NewItem::new("")], &v), Err(IndexError::Item { .. })));
    assert_eq!(writer.len(), 0);
    writer.finish(&quiet).unwrap();
    drop(writer);

    let index = Index::open(&path).unwrap();
    assert!(matches!(index.search(&v, &SearchParams::new(0)), Err(IndexError::ZeroK)));
    assert!(matches!(index.search(&v[1..], &SearchParams::new(1)), Err(IndexError::WrongDimension { .. })));
    let zero_ef = SearchParams { ef_search: Some(0), ..SearchParams::new(1) };
    assert!(matches!(index.search(&v, &zero_ef), Err(IndexError::Parameter { name: "ef_search", .. })));
    let create = IndexWriter::create(&path, &config(Codes::Auto, Builder::Native)).err().unwrap();
    assert!(matches!(create, IndexError::AlreadyExists { finished: true, .. }));
    let other = IndexConfig { model: "other".into(), ..config(Codes::Auto, Builder::Native) };
    assert!(matches!(IndexWriter::resume(&path, &other).err().unwrap(), IndexError::AlreadyExists { .. }));
    std::fs::remove_file(path.join("manifest.json")).unwrap();
    assert!(matches!(IndexWriter::resume(&path, &other).err().unwrap(), IndexError::WrongModel { .. }));
    IndexWriter::replace(&path, &other).unwrap();

    let full = dir.path().join("photos");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("a.jpg"), b"x").unwrap();
    let create = IndexWriter::create(&full, &config(Codes::Auto, Builder::Native)).err().unwrap();
    assert!(matches!(create, IndexError::NotAnIndex { .. }), "{create}");
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
}

#[test]
fn of_one_key_twice_the_later_wins() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config(Codes::Auto, Builder::Native)).unwrap();
    let twice =
        [NewItem::new("a"), NewItem::new("b"), NewItem { class: Some("x".into()), ..NewItem::new("a") }];
    let vectors = clustered(3, DIM, 1);
    assert_eq!(writer.upsert(&twice, &vectors).unwrap(), [0, 1, 0]);
    writer.finish(&quiet).unwrap();
    let index = writer.reader().unwrap();
    assert_eq!((index.len(), index.item(0).unwrap().class), (2, Some("x".into())));
    assert_eq!(index.vector(0).unwrap(), vectors[2 * DIM..]);
    // What is known of an item can change without its vector.
    writer.upsert(&[NewItem::new("a")], &vectors[2 * DIM..]).unwrap();
    let manifest = writer.finish(&quiet).unwrap();
    assert_eq!((manifest.items, manifest.segments.len(), manifest.deleted()), (2, 2, 1));
    assert_eq!(index.item(0).unwrap().class, None);
}

#[test]
fn a_graph_over_halves_of_f32_is_built_and_extended() {
    let dim = 96;
    let vectors = clustered(1500, dim, 1);
    let mut config = IndexConfig::new(dim, "model");
    config.codes = Codes::F32;
    config.hnsw = HnswConfig { m: 8, ef_construction: 100, ..HnswConfig::default() };
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config).unwrap();
    for part in [0..1200, 1200..1500] {
        writer.upsert(&items(part.clone()), &vectors[part.start * dim..part.end * dim]).unwrap();
        writer.finish(&quiet).unwrap();
        let (index, seen) = (Index::open(dir.path()).unwrap(), &vectors[..part.end * dim]);
        let truth = index.search_batch(seen, part.end, &SearchParams::exact(5)).unwrap();
        let params = SearchParams { ef_search: Some(64), ..SearchParams::new(5) };
        let found = index.search_batch(seen, part.end, &params).unwrap();
        let same = found.iter().zip(&truth).filter(|(f, t)| ids(f) == ids(t)).count();
        assert!(same * 100 >= part.end * 97, "{same} of {}", part.end);
    }
    drop(writer);
    assert!(verify(dir.path(), &quiet).unwrap().is_sound());
}

#[test]
fn metadata_that_could_not_be_read_again_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &config(Codes::Auto, Builder::Native)).unwrap();
    let nested = |depth: usize| {
        let mut item = NewItem::new(format!("{depth} deep"));
        let value = (1..depth).fold(serde_json::json!([]), |inner, _| serde_json::json!([inner]));
        item.metadata.insert("x".into(), value);
        item
    };
    for depth in [MAX_METADATA_DEPTH + 1, 127, 1_000] {
        let error = writer.upsert(&[nested(depth)], &unit(DIM, 1)).unwrap_err();
        assert!(matches!(error, IndexError::Item { .. }), "{depth}: {error}");
    }
    writer.upsert(&[nested(MAX_METADATA_DEPTH)], &unit(DIM, 1)).unwrap();
    assert_eq!(writer.finish(&quiet).unwrap().items, 1);
    drop(writer);
    assert_eq!(IndexWriter::open(dir.path()).unwrap().len(), 1);
    assert!(verify(dir.path(), &quiet).unwrap().is_sound());
}
