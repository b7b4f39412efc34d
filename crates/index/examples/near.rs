//! How well near-copies are found: builds an index of generated or given vectors and asks for stored vectors by themselves.
//!
//! `near DIR VECTORS.f32 DIM CODES EFS OWN_COUNT QUERIES.f32`

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use semblance_index::*;

/// As in the `semblance` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("the data was generated before");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (dir, dim) = (Path::new(&args[0]), args[2].parse::<usize>()?);
    let base = floats(Path::new(&args[1]));
    let n = base.len() / dim;
    let builder = std::env::var("BUILDER").unwrap_or("native".into());
    if !dir.join("manifest.json").exists() {
        let mut config = IndexConfig::new(dim, "near");
        config.codes = args[3].parse()?;
        config.hnsw.builder = builder.parse()?;
        config.hnsw.seed = std::env::var("SEED").map_or(0, |s| s.parse().unwrap());
        config.durability = Durability::Finish;
        let writer = IndexWriter::create(dir, &config)?;
        for (i, vectors) in base.chunks(2048 * dim).enumerate() {
            let items: Vec<NewItem> =
                (0..vectors.len() / dim).map(|j| NewItem::new(format!("{}", i * 2048 + j))).collect();
            writer.upsert(&items, vectors)?;
        }
        let start = Instant::now();
        let manifest = writer.finish(&|_| {})?;
        println!(
            "{} nodes, built in {:.1} s {}",
            manifest.nodes,
            start.elapsed().as_secs_f64(),
            std::fs::read_to_string(dir.join("manifest.json"))?
                .lines()
                .filter(|l| l.contains("odes") || l.contains("egree") || l.contains("loss"))
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
    let index = Index::open(dir)?;
    let own: usize = args[5].parse()?;
    let step = (n / own).max(1);
    let own: Vec<usize> = (0..n).step_by(step).collect();
    let queries = floats(Path::new(&args[6]));
    let count = queries.len() / dim;
    let own_queries: Vec<f32> =
        own.iter().take(1000).flat_map(|&i| base[i * dim..][..dim].to_vec()).collect();
    let truth = index.search_batch(&queries, count, &SearchParams::exact(10))?;
    let own_truth = index.search_batch(&own_queries, own_queries.len() / dim, &SearchParams::exact(10))?;
    let recall =
        |queries: &[f32], truth: &[Vec<Neighbor>], params: &SearchParams| -> Result<(f64, f64, f64)> {
            let (mut hits, mut scored, start) = (0, 0, Instant::now());
            for (q, t) in queries.chunks(dim).zip(truth) {
                let (found, explain) = index.search_explained(q, params)?;
                let kth = t[9].score - 1e-6;
                hits += found.iter().filter(|f| f.score >= kth).count().min(10);
                scored += explain.scored;
            }
            Ok((
                hits as f64 / (10 * truth.len()) as f64,
                scored as f64 / truth.len() as f64,
                truth.len() as f64 / start.elapsed().as_secs_f64(),
            ))
        };
    for ef in args[4].split(',') {
        let params = SearchParams { ef_search: Some(ef.parse()?), ..SearchParams::new(10) };
        let (fresh, scored, qps) = recall(&queries, &truth, &params)?;
        let (stored, own_scored, own_qps) = recall(&own_queries, &own_truth, &params)?;
        let (mut missed, mut absent) = (0, 0);
        for &i in &own {
            let found = index.search(&base[i * dim..][..dim], &params)?;
            missed += usize::from(found[0].id != i as u64);
            absent += usize::from(found.iter().all(|f| f.id != i as u64));
        }
        println!(
            "ef {ef}: fresh {fresh:.4} ({scored:.0} scored, {qps:.0}/s)  stored {stored:.4} ({own_scored:.0}, {own_qps:.0}/s)  own not first {missed} of {}, absent {absent}",
            own.len()
        );
    }
    Ok(())
}
