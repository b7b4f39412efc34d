//! Searching 20,000 clustered vectors of dimension 512: through the graph by kind of codes, exactly, with filters.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use semblance_index::{Codes, Filter, Index, IndexConfig, IndexWriter, NewItem, SearchParams};

const DIM: usize = 512;
const N: usize = 20_000;

/// Unit vectors around centres of 24 dimensions, mapped to all.
fn vectors(n: usize, seed: u64) -> Vec<f32> {
    const LATENT: usize = 24;
    let mut fixed = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut numbers = |count: usize| (0..count).map(|_| fixed.random_range(-1.0f32..1.0)).collect::<Vec<_>>();
    let (mapping, centres) = (numbers(LATENT * DIM), numbers(LATENT * N / 5));
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .flat_map(|_| {
            let centre = rng.random_range(0..N / 5);
            let mut vector = vec![0.0f32; DIM];
            for axis in 0..LATENT {
                let at = centres[centre * LATENT + axis] + rng.random_range(-0.5..0.5);
                vector.iter_mut().zip(&mapping[axis * DIM..]).for_each(|(x, m)| *x += at * m);
            }
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.into_iter().map(move |x| x / norm)
        })
        .collect()
}

fn search(c: &mut Criterion) {
    let (base, queries) = (vectors(N, 1), vectors(256, 2));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut group = c.benchmark_group("search");
    for codes in [Codes::F32, Codes::F16, Codes::I8] {
        let config = IndexConfig { codes, ..IndexConfig::new(DIM, "bench") };
        let folder = dir.path().join(format!("{codes:?}"));
        let writer = IndexWriter::create(&folder, &config).expect("a new index");
        let item = |i: usize| {
            let mut item = NewItem::new(i.to_string());
            item.metadata.insert("n".into(), i.into());
            item
        };
        writer.upsert(&(0..N).map(item).collect::<Vec<_>>(), &base).expect("unit vectors");
        writer.finish(&|_| {}).expect("a graph");
        let index = Index::open(&folder).expect("an index");
        let mut next = queries.chunks_exact(DIM).cycle();
        for ef in [16, 64, 256] {
            let params = SearchParams { ef_search: Some(ef), ..SearchParams::new(10) };
            group.bench_function(BenchmarkId::new(format!("graph {codes:?}"), ef), |b| {
                b.iter(|| {
                    index.search(black_box(next.next().expect("a cycle")), &params).expect("an answer")
                });
            });
        }
        for share in [2, 20, 200, 2000] {
            let filter = Some(Filter::range("n", 0, N / share));
            let params = SearchParams { filter, ..SearchParams::new(10) };
            group.bench_function(BenchmarkId::new(format!("filter {codes:?}, one in"), share), |b| {
                b.iter(|| {
                    index.search(black_box(next.next().expect("a cycle")), &params).expect("an answer")
                });
            });
        }
        group.bench_function(format!("exact, one query {codes:?}"), |b| {
            b.iter(|| {
                index
                    .search(black_box(next.next().expect("a cycle")), &SearchParams::exact(10))
                    .expect("an answer")
            });
        });
        group.throughput(Throughput::Elements(256));
        group.bench_function(format!("exact, batch of 256 {codes:?}"), |b| {
            b.iter(|| {
                index.search_batch(black_box(&queries), 256, &SearchParams::exact(1000)).expect("answers")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
