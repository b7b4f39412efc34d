//! What grows: filters at any selectivity, a great many items with one vector.

mod data;

use data::{clustered, unit};
use semblance_index::*;
use serde_json::json;

/// Shares of the items a filter lets through, from half of them to one in 2,000.
#[test]
fn filters_are_accurate_and_no_dearer_than_comparing_at_any_selectivity() {
    let (n, dim) = (20_000, 32);
    let dir = tempfile::tempdir().unwrap();
    let mut config = IndexConfig::new(dim, "m");
    config.durability = Durability::Finish;
    config.hnsw = HnswConfig { m: 12, ef_construction: 80, ..HnswConfig::default() };
    let writer = IndexWriter::create(dir.path(), &config).unwrap();
    let item = |i: usize| {
        let metadata = json!({"n": i % 2000}).as_object().unwrap().clone();
        NewItem { metadata, ..NewItem::new(format!("k{i}")) }
    };
    let vectors = clustered(n, dim, 1);
    for start in (0..n).step_by(2000) {
        let items: Vec<NewItem> = (start..start + 2000).map(item).collect();
        writer.upsert(&items, &vectors[start * dim..(start + 2000) * dim]).unwrap();
    }
    writer.finish(&|_| {}).unwrap();
    let index = Index::open(dir.path()).unwrap();
    let queries = clustered(50, dim, 2);
    for below in [1000, 100, 10, 1] {
        let filter = Some(Filter::range("n", 0, below));
        let params = SearchParams { filter, ef_search: Some(128), ..SearchParams::new(10) };
        let exact = SearchParams { exact: true, ..params.clone() };
        let (mut hits, mut wanted, mut scored, mut compared) = (0, 0, 0, 0);
        for query in queries.chunks(dim) {
            let (found, explain) = index.search_explained(query, &params).unwrap();
            let (truth, by_all) = index.search_explained(query, &exact).unwrap();
            assert_eq!(explain.matching, Some(n * below / 2000));
            hits += found.iter().filter(|f| truth.iter().any(|t| t.id == f.id)).count();
            wanted += truth.len();
            scored += explain.scored;
            compared += by_all.scored;
        }
        assert!(hits * 100 >= wanted * 99, "one in {}: {hits} of {wanted}", 2000 / below);
        assert!(scored <= compared, "one in {}: {scored} scored, {compared} by comparing", 2000 / below);
    }
}

/// Items with one vector share a node; here all do. A million of them, by hand for it takes a minute and a half:
/// `SEMBLANCE_SAME=1000000 cargo test -p semblance-index --test scale`.
#[test]
fn a_great_many_items_with_the_same_vector() {
    let n: usize = std::env::var("SEMBLANCE_SAME").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000);
    let dir = tempfile::tempdir().unwrap();
    let config = IndexConfig { durability: Durability::Finish, ..IndexConfig::new(4, "m") };
    let writer = IndexWriter::create(dir.path(), &config).unwrap();
    let same = unit(4, 1);
    for start in (0..n).step_by(10_000) {
        let items: Vec<NewItem> =
            (start..n.min(start + 10_000)).map(|i| NewItem::new(i.to_string())).collect();
        writer.upsert(&items, &same.repeat(items.len())).unwrap();
    }
    let manifest = writer.finish(&|_| {}).unwrap();
    assert_eq!((manifest.items, manifest.nodes()), (n as u64, 1));
    drop(writer);
    let index = Index::open(dir.path()).unwrap();
    for exact in [false, true] {
        let found = index.search(&same, &SearchParams { exact, ..SearchParams::new(20) }).unwrap();
        assert!(found.iter().map(|f| f.id).eq(0..20), "equal scores are ordered by id");
    }
    let all = index.search(&same, &SearchParams::new(2 * n)).unwrap();
    assert!(all.len() == n && all.iter().map(|f| f.id).eq(0..n as u64));
    let one = SearchParams { filter: Some(Filter::eq("key", "777")), ..SearchParams::new(5) };
    assert_eq!(index.search(&same, &one).unwrap().iter().map(|f| f.id).collect::<Vec<_>>(), [777]);
    assert_eq!(index.search_by_id(5, &SearchParams::new(3)).unwrap().len(), 3);
}
