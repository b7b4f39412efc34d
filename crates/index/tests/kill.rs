//! kill -9 at random moments: what was acknowledged is there, what was deleted is not, batches are whole.
//!
//! The test starts itself as a child that writes, tells what it begins and what was acknowledged, and is killed. A
//! longer soak: `SEMBLANCE_KILLS=5000 SEMBLANCE_SEED=7 cargo test -p semblance-index --test kill`.

#![cfg(unix)]

mod data;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use data::unit;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use semblance_index::*;

const DIM: usize = 8;
const KEYS: u32 = 200;
const CHILD: &str = "SEMBLANCE_KILL_CHILD";

/// Key → version; versions only rise, and say which vector.
type Model = BTreeMap<u32, u64>;

#[derive(Debug, Clone)]
enum Batch {
    Upsert(u64, Vec<u32>),
    Delete(Vec<u32>),
}

impl Batch {
    fn apply(&self, model: &mut Model) {
        match self {
            Self::Upsert(version, keys) => model.extend(keys.iter().map(|&key| (key, *version))),
            Self::Delete(keys) => model.retain(|key, _| !keys.contains(key)),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Upsert(version, keys) => format!("u {version} {keys:?}"),
            Self::Delete(keys) => format!("d 0 {keys:?}"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        let (version, keys) = rest.split_once(' ')?;
        let keys = keys
            .strip_prefix('[')?
            .strip_suffix(']')?
            .split(", ")
            .map(|k| k.parse().ok())
            .collect::<Option<_>>()?;
        match kind {
            "u" => Some(Self::Upsert(version.parse().ok()?, keys)),
            "d" => Some(Self::Delete(keys)),
            _ => None,
        }
    }
}

fn random_batch(rng: &mut ChaCha8Rng, version: u64) -> Batch {
    let mut keys: Vec<u32> = (0..rng.random_range(1..30)).map(|_| rng.random_range(0..KEYS)).collect();
    keys.sort();
    keys.dedup();
    if rng.random_bool(0.7) { Batch::Upsert(version, keys) } else { Batch::Delete(keys) }
}

fn say(text: &str) {
    // Straight to the descriptor: `println!` is captured by the test harness.
    let mut out = std::io::stderr().lock();
    writeln!(out, "\n@{text}").unwrap();
    out.flush().unwrap();
}

/// What the child does till it is killed; as a test of its own it has nothing to do.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (dir, seed) = task.rsplit_once(':').unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed.parse().unwrap());
    let writer = IndexWriter::open(dir).unwrap();
    for step in 0.. {
        let batch = random_batch(&mut rng, seed.parse::<u64>().unwrap() * 1_000_000 + step);
        say(&format!("begin {}", batch.line()));
        match &batch {
            Batch::Upsert(version, keys) => {
                let items: Vec<NewItem> = keys.iter().map(|key| NewItem::new(key.to_string())).collect();
                let vectors: Vec<f32> =
                    keys.iter().flat_map(|&key| unit(DIM, version ^ u64::from(key) << 40)).collect();
                writer.upsert(&items, &vectors).unwrap();
            }
            Batch::Delete(keys) => {
                writer.delete_keys(&keys.iter().map(u32::to_string).collect::<Vec<_>>()).unwrap();
            }
        }
        say("done");
        match rng.random_range(0..12) {
            0..=3 => drop(writer.finish(&|_| {}).unwrap()),
            4 => drop(writer.merge(&MergeOptions::default(), &|_| {}).unwrap()),
            5 => drop(writer.compact(&|_| {}).unwrap()),
            _ => {}
        }
    }
}

/// The state of an index as a model: which version each key has.
fn matches(index: &Index, model: &Model) -> Result<(), String> {
    if index.len() != model.len() {
        return Err(format!("{} items for {}", index.len(), model.len()));
    }
    for (&key, &version) in model {
        let id = index.find(&key.to_string()).unwrap().ok_or(format!("key {key} is lost"))?;
        if index.vector(id).unwrap() != unit(DIM, version ^ u64::from(key) << 40) {
            return Err(format!("key {key} has not version {version}"));
        }
    }
    Ok(())
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost() {
    let (kills, seed) = (setting("SEMBLANCE_KILLS", 200), setting("SEMBLANCE_SEED", 1));
    // A few indexes at once: most of the time goes into starting children and waiting.
    let lanes = 4;
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            scope.spawn(move || run_lane(kills.div_ceil(lanes), seed * 100 + lane));
        }
    });
}

fn run_lane(kills: u64, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = IndexConfig::new(DIM, "m");
    config.hnsw = HnswConfig { m: 4, ef_construction: 20, ..HnswConfig::default() };
    let writer = IndexWriter::create(dir.path(), &config).unwrap();
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut model, mut acknowledged) = (Model::new(), 0);
    for kill in 0..kills {
        let pause = Duration::from_micros(rng.random_range(5_000..120_000));
        let (batches, done) = killed_child(dir.path(), seed * 10_000 + kill, pause);
        acknowledged += done;
        batches[..done].iter().for_each(|batch| batch.apply(&mut model));

        // Readers need nobody's help, whatever the writer was at.
        Index::open(dir.path()).unwrap_or_else(|e| panic!("seed {seed}, kill {kill}: {e}"));
        let writer =
            IndexWriter::open(dir.path()).unwrap_or_else(|e| panic!("seed {seed}, kill {kill}: {e}"));
        let reader = writer.reader().unwrap();
        let mut with_last = model.clone();
        batches[done..].iter().for_each(|batch| batch.apply(&mut with_last));
        // The batch under way is there whole or not at all.
        match (matches(&reader, &model), matches(&reader, &with_last)) {
            (Ok(()), _) => {}
            (_, Ok(())) => model = with_last,
            (Err(e), Err(f)) => {
                panic!("seed {seed}, kill {kill}, {done} acknowledged: {e}; or with the last: {f}")
            }
        }
        if kill % 10 == 9 {
            writer.finish(&|_| {}).unwrap();
            drop((writer, reader));
            matches(&Index::open(dir.path()).unwrap(), &model).unwrap();
            let report = verify(dir.path(), &|_| {}).unwrap();
            assert!(report.is_sound(), "seed {seed}, kill {kill}: {report:?}");
        }
    }
    assert!(
        acknowledged as u64 > kills,
        "only {acknowledged} batches in {kills} runs: the child hardly wrote"
    );
}

/// Batches a child began before it was killed, and how many of them it saw acknowledged.
fn killed_child(dir: &Path, seed: u64, pause: Duration) -> (Vec<Batch>, usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{}:{seed}", dir.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(|l| l.ok());
    let (mut batches, mut done) = (vec![], 0);
    let mut read = |line: String| match line.strip_prefix('@') {
        Some("done") => done += 1,
        Some(line) => batches.extend(line.strip_prefix("begin ").and_then(Batch::parse)),
        None => assert!(!line.contains("panicked"), "{line}"),
    };
    // The time counts from the first batch on.
    for line in lines.by_ref() {
        let began = line.starts_with('@');
        read(line);
        if began {
            break;
        }
    }
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap();
    lines.for_each(read);
    (batches, done)
}
