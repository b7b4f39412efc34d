//! This crate's side of `benches/peers/index`: builds and searches on command, so that a script can measure it in turn
//! with others. Commands on standard input, one JSON object per line on standard output:
//!
//! `build DIR CODES BUILDER M EF_CONSTRUCTION` · `open DIR` · `search EF THREADS REPEAT` · `exact K QUERIES` ·
//! `filter CLASS_COUNT EF` · `own EF STEP` · `memory`

use std::error::Error;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use semblance_index::*;
use serde_json::{Value, json};

/// As in the `semblance` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("the data was generated before");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

/// Kilobytes of a line of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::args().nth(1).ok_or("usage: peer DATA_DIR")?;
    let data = Path::new(&data);
    let truth = floats(&data.join("truth.u32"));
    let queries = floats(&data.join("queries.f32"));
    let n = truth.len() / 100;
    let dim = queries.len() / n;
    let truth: Vec<Vec<u64>> =
        truth.chunks_exact(100).map(|row| row.iter().map(|id| u64::from(id.to_bits())).collect()).collect();
    let recall = |found: &[Vec<Neighbor>]| {
        let hits =
            found.iter().zip(&truth).map(|(f, t)| f.iter().filter(|n| t[..10].contains(&n.id)).count());
        hits.sum::<usize>() as f64 / (10 * n) as f64
    };
    let mut index: Option<Index> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer: Value = match words.as_slice() {
            ["build", dir, codes, builder, m, ef] => {
                let base = floats(&data.join("base.f32"));
                let _ = std::fs::remove_dir_all(dir);
                let mut config = IndexConfig::new(dim, "peer");
                config.codes = codes.parse()?;
                config.durability = Durability::Finish;
                config.hnsw = HnswConfig {
                    m: m.parse()?,
                    ef_construction: ef.parse()?,
                    builder: builder.parse()?,
                    ..HnswConfig::default()
                };
                let start = Instant::now();
                let writer = IndexWriter::create(dir, &config)?;
                for (i, vectors) in base.chunks(2048 * dim).enumerate() {
                    let item = |j: usize| {
                        let key = i * 2048 + j;
                        let metadata = json!({"n": key % 2000}).as_object().expect("an object").clone();
                        NewItem { metadata, ..NewItem::new(format!("{key}")) }
                    };
                    let items: Vec<NewItem> = (0..vectors.len() / dim).map(item).collect();
                    writer.upsert(&items, vectors)?;
                }
                let stored = start.elapsed().as_secs_f64();
                let begin = std::sync::Mutex::new((f64::NAN, 0.0));
                writer.finish(&|p| {
                    let mut begin = begin.lock().expect("no panic");
                    match p.stage {
                        Stage::Link if begin.0.is_nan() => begin.0 = start.elapsed().as_secs_f64(),
                        Stage::Link => begin.1 = start.elapsed().as_secs_f64(),
                        _ => {}
                    }
                })?;
                let all = start.elapsed().as_secs_f64();
                let (from, to) = *begin.lock().expect("no panic");
                json!({"stored": stored, "linked": to - from, "build": all - stored, "all": all})
            }
            ["open", dir] => {
                drop(index.take());
                let start = Instant::now();
                let opened = Index::open(dir)?;
                let open = start.elapsed().as_secs_f64();
                opened.search(&queries[..dim], &SearchParams::new(10))?;
                let first = start.elapsed().as_secs_f64();
                index = Some(opened);
                json!({"open_ms": open * 1e3, "with_first_query_ms": first * 1e3})
            }
            ["search", ef, threads, repeat] => {
                let index = index.as_ref().ok_or("open first")?;
                let params = SearchParams { ef_search: Some(ef.parse()?), ..SearchParams::new(10) };
                let (mut times, mut found) = (vec![], vec![]);
                for _ in 0..repeat.parse::<usize>()? {
                    let start = Instant::now();
                    found = if *threads == "1" {
                        queries.chunks(dim).map(|q| index.search(q, &params)).collect::<Result<_>>()?
                    } else {
                        index.search_batch(&queries, n, &params)?
                    };
                    times.push(n as f64 / start.elapsed().as_secs_f64());
                }
                let mut scored = 0;
                for query in queries.chunks(dim) {
                    scored += index.search_explained(query, &params)?.1.scored;
                }
                json!({"qps": times, "recall": recall(&found), "scored": scored as f64 / n as f64})
            }
            ["exact", k, count] => {
                let index = index.as_ref().ok_or("open first")?;
                let count: usize = count.parse()?;
                let queries = floats(&data.join("base.f32"));
                let queries = &queries[..count * dim];
                let start = Instant::now();
                // In parts, and of each answer the ids: all of it at once would be a gigabyte by itself.
                let mut found: Vec<u32> = Vec::with_capacity(count * k.parse::<usize>()?);
                for part in queries.chunks(4096 * dim) {
                    let answers =
                        index.search_batch(part, part.len() / dim, &SearchParams::exact(k.parse()?))?;
                    found.extend(answers.iter().flatten().map(|n| n.id as u32));
                }
                json!({"seconds": start.elapsed().as_secs_f64(), "found": found.len(), "peak_mib": status("VmHWM") / 1024})
            }
            ["filter", below, ef] => {
                let index = index.as_ref().ok_or("open first")?;
                let filter = Filter::range("n", 0, below.parse::<u64>()?);
                let params = SearchParams {
                    ef_search: Some(ef.parse()?),
                    filter: Some(filter),
                    ..SearchParams::new(10)
                };
                let exact = SearchParams { exact: true, ..params.clone() };
                let (_, explain) = index.search_explained(&queries[..dim], &params)?;
                let ask = |params: &SearchParams| -> Result<(f64, Vec<Vec<Neighbor>>)> {
                    let start = Instant::now();
                    let queries = queries[..200 * dim].chunks(dim);
                    let found = queries.map(|q| index.search(q, params)).collect::<Result<_>>()?;
                    Ok((start.elapsed().as_secs_f64(), found))
                };
                // In turn, and the median: a machine is never quite still.
                let mut rounds =
                    (0..5).map(|_| Ok((ask(&params)?, ask(&exact)?))).collect::<Result<Vec<_>>>()?;
                let median = |mut times: Vec<f64>| {
                    times.sort_by(f64::total_cmp);
                    times[times.len() / 2]
                };
                let seconds = median(rounds.iter().map(|r| r.0.0).collect());
                let exact_seconds = median(rounds.iter().map(|r| r.1.0).collect());
                let ((_, found), (_, truth)) = rounds.pop().expect("five rounds");
                let hits: usize = found
                    .iter()
                    .zip(&truth)
                    .map(|(f, t)| f.iter().filter(|n| t.iter().any(|m| m.id == n.id)).count())
                    .sum();
                let all: usize = truth.iter().map(Vec::len).sum();
                json!({"qps": 200.0 / seconds, "exact_qps": 200.0 / exact_seconds, "recall": hits as f64 / all as f64, "explain": explain})
            }
            ["own", ef, step] => {
                // Stored vectors, one in `step`, as queries: an answer that scores as high as the vector itself counts. Far: one below 0.8.
                let index = index.as_ref().ok_or("open first")?;
                let params = SearchParams { ef_search: Some(ef.parse()?), ..SearchParams::new(10) };
                let base = floats(&data.join("base.f32"));
                let (mut asked, mut missed, mut far, mut scored) = (0, 0, 0, 0);
                for query in base.chunks_exact(dim).step_by(step.parse()?) {
                    let (found, explain) = index.search_explained(query, &params)?;
                    let own: f32 = query.iter().map(|x| x * x).sum();
                    let first = found.first().map_or(f32::NEG_INFINITY, |first| first.score);
                    missed += usize::from(first < own - 1e-6);
                    far += usize::from(first < 0.8 * own);
                    scored += explain.scored;
                    asked += 1;
                }
                json!({"asked": asked, "missed": missed, "far": far, "scored": scored as f64 / asked as f64})
            }
            ["memory"] => {
                json!({"anonymous_mib": status("RssAnon") / 1024, "mapped_mib": status("RssFile") / 1024})
            }
            _ => return Err(format!("what is {line:?}?").into()),
        };
        println!("{answer}");
    }
    Ok(())
}
