//! Random sequences of operations against a plain model, with readers beside.

mod data;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use data::unit;
use proptest::prelude::*;
use semblance_index::{
    Durability, HnswConfig, Index, IndexConfig, IndexWriter, MergeOptions, Neighbor, NewItem, SearchParams,
};

const DIM: usize = 8;

#[derive(Debug, Clone)]
enum Op {
    Upsert(Vec<(u8, u8)>),
    DeleteKeys(Vec<u8>),
    Finish,
    Merge,
    Compact,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => proptest::collection::vec((0u8..40, 0u8..30), 1..12).prop_map(Op::Upsert),
        3 => proptest::collection::vec(0u8..40, 1..8).prop_map(Op::DeleteKeys),
        4 => Just(Op::Finish),
        2 => Just(Op::Merge),
        1 => Just(Op::Compact),
        1 => Just(Op::Reopen),
    ]
}

/// Key → (id, version); version says which vector.
type Model = BTreeMap<String, (u64, u8)>;

fn agree(index: &Index, model: &Model) {
    assert_eq!(index.len(), model.len());
    let mut ids: Vec<u64> = model.values().map(|v| v.0).collect();
    ids.sort();
    assert_eq!(index.ids(), ids);
    for (key, &(id, version)) in model {
        assert_eq!(index.find(key).unwrap(), Some(id));
        let item = index.item(id).unwrap();
        assert_eq!((&item.key, item.metadata["version"].as_u64()), (key, Some(version.into())));
        assert_eq!(index.vector(id).unwrap(), unit(DIM, version.into()));
    }
    assert_eq!(index.find("never").unwrap(), None);
    let query = unit(DIM, 77);
    let mut want: Vec<Neighbor> = model
        .values()
        .map(|&(id, version)| Neighbor {
            id,
            score: unit(DIM, version.into()).iter().zip(&query).map(|(a, b)| a * b).sum(),
        })
        .collect();
    want.sort_by(Neighbor::cmp_best_first);
    for params in [SearchParams::exact(100), SearchParams::new(100)] {
        let found = index.search(&query, &params).unwrap();
        assert_eq!(found.len(), want.len());
        for (f, w) in found.iter().zip(&want) {
            assert!((f.score - w.score).abs() < 1e-5);
        }
        let mut got: Vec<u64> = found.iter().map(|n| n.id).collect();
        assert!(found.is_sorted_by(|a, b| a.cmp_best_first(b).is_le()));
        got.sort();
        assert_eq!(got, ids);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn operations_do_what_a_map_would(ops in proptest::collection::vec(op(), 1..50)) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = IndexConfig::new(DIM, "m");
        config.durability = Durability::Process;
        config.hnsw = HnswConfig { m: 4, ef_construction: 20, ..HnswConfig::default() };
        let mut writer = IndexWriter::create(dir.path(), &config).unwrap();
        writer.finish(&|_| {}).unwrap();
        let (mut model, mut next) = (Model::new(), 0);
        let mut published = model.clone();
        for op in ops {
            match op {
                Op::Upsert(rows) => {
                    let reader = writer.reader().unwrap();
                    let items: Vec<NewItem> = rows.iter().map(|(key, version)| {
                        let mut item = NewItem::new(format!("k{key}"));
                        item.metadata.insert("version".into(), (*version).into());
                        item
                    }).collect();
                    let vectors: Vec<f32> = rows.iter().flat_map(|r| unit(DIM, r.1.into())).collect();
                    let ids = writer.upsert(&items, &vectors).unwrap();
                    for ((key, version), id) in rows.into_iter().zip(ids) {
                        let entry = model.entry(format!("k{key}")).or_insert_with(|| { next += 1; (next - 1, 0) });
                        prop_assert_eq!(entry.0, id);
                        entry.1 = version;
                    }
                    agree(&reader, &model);
                }
                Op::DeleteKeys(keys) => {
                    let keys: Vec<String> = keys.iter().map(|k| format!("k{k}")).collect();
                    let before = model.len();
                    model.retain(|key, _| !keys.contains(key));
                    prop_assert_eq!(writer.delete_keys(&keys).unwrap(), before - model.len());
                }
                Op::Finish => { writer.finish(&|_| {}).unwrap(); published = model.clone(); }
                Op::Merge => { writer.merge(&MergeOptions::default(), &|_| {}).unwrap(); }
                Op::Compact => { writer.compact(&|_| {}).unwrap(); published = model.clone(); }
                Op::Reopen => { drop(writer); writer = IndexWriter::open(dir.path()).unwrap(); }
            }
            agree(&writer.reader().unwrap(), &model);
            agree(&Index::open(dir.path()).unwrap(), &published);
        }
    }
}

/// Each batch writes all keys with one version: a reader must never see two versions at once.
#[test]
fn readers_see_whole_batches_while_a_writer_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = IndexConfig::new(DIM, "m");
    config.durability = Durability::Finish;
    let writer = IndexWriter::create(dir.path(), &config).unwrap();
    let write = |version: u64| {
        let item = |i| {
            let mut item = NewItem::new(format!("k{i}"));
            item.metadata.insert("version".into(), version.into());
            item
        };
        let vectors: Vec<f32> = (0..50).flat_map(|i| unit(DIM, version * 100 + i)).collect();
        writer.upsert(&(0..50).map(item).collect::<Vec<_>>(), &vectors).unwrap();
    };
    write(0);
    writer.finish(&|_| {}).unwrap();
    let (reader, stop) = (writer.reader().unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut newest = 0;
                while !stop.load(Ordering::Relaxed) {
                    let items = reader.items().unwrap();
                    let version = items[0].metadata["version"].as_u64().unwrap();
                    assert_eq!(items.len(), 50);
                    assert!(items.iter().all(|i| i.metadata["version"] == version), "half a batch");
                    assert!(version >= newest, "an older state after a newer one");
                    newest = version;
                    assert_eq!(reader.search(&unit(DIM, 1), &SearchParams::new(50)).unwrap().len(), 50);
                    let other = Index::open(dir.path()).unwrap();
                    assert_eq!(other.search(&unit(DIM, 1), &SearchParams::new(50)).unwrap().len(), 50);
                }
            });
        }
        for version in 1..60 {
            write(version);
            if version % 10 == 0 {
                writer.finish(&|_| {}).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn writers_on_several_threads_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let writer = IndexWriter::create(dir.path(), &IndexConfig::new(DIM, "m")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let writer = &writer;
            scope.spawn(move || {
                for i in 0..25 {
                    writer
                        .upsert(&[NewItem::new(format!("{thread}-{i}"))], &unit(DIM, thread * 100 + i))
                        .unwrap();
                }
            });
        }
    });
    writer.finish(&|_| {}).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!((index.len(), index.ids()), (100, (0..100).collect()));
}
