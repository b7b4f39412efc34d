//! An error of the disk at every file operation in turn: what was acknowledged is kept with the right vector, what
//! failed can be repeated, nothing hangs and nothing is called damaged.
//!
//! The test starts itself as a child whose operations fail. `SEMBLANCE_FAULTS=100000` tries every place in every way.

#![cfg(unix)]

mod data;
mod faults;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use data::unit;
use faults::{ALL, Action, CREATE, Faults, WRITE, places, run_to_its_end, setting};
use semblance_index::*;

const DIM: usize = 8;
const CHILD: &str = "SEMBLANCE_FAULT_CHILD";

/// Key → version; the version says which vector.
type Model = BTreeMap<u32, u64>;

/// What the child does, one after another. Each can be repeated.
#[derive(Debug, Clone, Copy)]
enum Step {
    Upsert(u64, &'static [u32]),
    /// An item so large that the store keeps it in a file of its own.
    Large(u64, u32),
    Delete(&'static [u32]),
    Finish,
    /// Writes a segment again of which much is deleted.
    Merge,
    Compact,
}

const STEPS: [Step; 15] = [
    Step::Upsert(2, &[20, 21, 22, 23, 24]),
    Step::Upsert(2, &[0, 1, 2]),
    Step::Finish,
    Step::Delete(&[10, 11, 12]),
    Step::Upsert(3, &[2, 3, 30]),
    Step::Finish,
    Step::Merge,
    Step::Large(4, 5),
    Step::Compact,
    Step::Upsert(5, &[3, 6]),
    Step::Delete(&[21]),
    Step::Finish,
    Step::Upsert(6, &[3, 7, 31]),
    Step::Compact,
    Step::Upsert(7, &[3, 8]),
];

impl Step {
    fn apply(self, model: &mut Model) {
        match self {
            Self::Upsert(version, keys) => model.extend(keys.iter().map(|&key| (key, version))),
            Self::Large(version, key) => drop(model.insert(key, version)),
            Self::Delete(keys) => model.retain(|key, _| !keys.contains(key)),
            Self::Finish | Self::Merge | Self::Compact => {}
        }
    }

    fn run(self, writer: &IndexWriter) -> Result<()> {
        match self {
            Self::Upsert(version, keys) => {
                let items: Vec<NewItem> = keys.iter().map(|key| NewItem::new(key.to_string())).collect();
                writer
                    .upsert(&items, &keys.iter().flat_map(|&key| vector(key, version)).collect::<Vec<_>>())?;
            }
            Self::Large(version, key) => {
                let mut item = NewItem::new(key.to_string());
                item.metadata.insert("text".into(), "x".repeat(200 << 10).into());
                writer.upsert(&[item], &vector(key, version))?;
            }
            Self::Delete(keys) => {
                writer.delete_keys(&keys.iter().map(u32::to_string).collect::<Vec<_>>())?;
            }
            Self::Finish => drop(writer.finish(&|_| {})?),
            Self::Merge => drop(writer.merge(&MergeOptions::default(), &|_| {})?),
            Self::Compact => drop(writer.compact(&|_| {})?),
        }
        Ok(())
    }
}

fn vector(key: u32, version: u64) -> Vec<f32> {
    unit(DIM, version << 32 | u64::from(key))
}

fn config() -> IndexConfig {
    let hnsw = HnswConfig { m: 4, ef_construction: 20, ..HnswConfig::default() };
    IndexConfig { hnsw, ..IndexConfig::new(DIM, "m") }
}

/// Twenty items, published.
fn begin(dir: &Path) -> Model {
    let writer = IndexWriter::create(dir, &config()).unwrap();
    let keys: Vec<u32> = (0..20).collect();
    let items: Vec<NewItem> = keys.iter().map(|key| NewItem::new(key.to_string())).collect();
    writer.upsert(&items, &keys.iter().flat_map(|&key| vector(key, 1)).collect::<Vec<_>>()).unwrap();
    writer.finish(&|_| {}).unwrap();
    keys.into_iter().map(|key| (key, 1)).collect()
}

/// Whether an index holds exactly this.
fn holds(index: &Index, model: &Model) -> std::result::Result<(), String> {
    if index.len() != model.len() {
        return Err(format!("{} items for {}", index.len(), model.len()));
    }
    for (&key, &version) in model {
        let id = index.find(&key.to_string()).unwrap().ok_or(format!("item {key} is lost"))?;
        let found = index.vector(id).unwrap();
        if found != vector(key, version) {
            let which = (1..10).find(|&v| vector(key, v) == found);
            return Err(format!("item {key} has version {which:?}, not {version}"));
        }
        let nearest = index.search(&found, &SearchParams::new(1)).unwrap();
        if nearest[0].id != id {
            return Err(format!("item {key} is not the nearest to its own vector"));
        }
    }
    Ok(())
}

fn say(text: &str) {
    // Straight to the descriptor: `println!` is captured by the test harness.
    let mut out = std::io::stderr().lock();
    writeln!(out, "\n@{text}").unwrap();
}

/// What the child does; as a test of its own it has nothing to do.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (repeat, dir) = task.split_once(':').unwrap();
    let repeat = repeat == "repeat";
    let mut model: Model = (0..20).map(|key| (key, 1)).collect();
    let writer = match (0..3).find_map(|_| IndexWriter::open(dir).ok()) {
        Some(writer) => writer,
        None => return say("closed"),
    };
    let mut reader = writer.reader().ok();
    for (number, step) in STEPS.into_iter().enumerate() {
        say(&format!("begin {number}"));
        let mut done = false;
        for _ in 0..3 {
            match step.run(&writer) {
                Ok(()) => {
                    done = true;
                    break;
                }
                Err(error) => {
                    say(&format!("error {error}"));
                    assert!(!error.is_rebuildable(), "nothing is damaged: {error}");
                    assert!(!matches!(error, IndexError::StoreDamaged { .. }), "nothing is damaged: {error}");
                    if !repeat {
                        break;
                    }
                }
            }
        }
        let before = model.clone();
        step.apply(&mut model);
        if !done {
            // Whether it was kept shows once the store can be used again.
            if writer.recover().is_err() {
                return say("closed");
            }
            reader = reader.or_else(|| writer.reader().ok());
            let Some(reader) = &reader else { return say("closed") };
            match (holds(reader, &before), holds(reader, &model)) {
                (Ok(()), _) => {
                    say(&format!("undone {number}"));
                    model = before;
                }
                (_, Ok(())) => say(&format!("done {number}")),
                (Err(e), Err(f)) => panic!("step {number} that failed: {e}; if it was kept: {f}"),
            }
            continue;
        }
        say(&format!("done {number}"));
        reader = reader.or_else(|| writer.reader().ok());
        if let Some(reader) = &reader {
            holds(reader, &model).unwrap_or_else(|e| panic!("after step {number}: {e}"));
        }
    }
    say("end");
}

struct Ended {
    /// Steps that were acknowledged or found to be kept.
    done: Vec<usize>,
    /// A step of which it is not known whether it was kept.
    open: Option<usize>,
    text: String,
}

fn run_child(faults: &Faults, dir: &Path, how: &str, at: usize, action: Action) -> Ended {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{how}:{}", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    faults.load(&mut command, dir, ALL, at, action);
    let (status, text) = run_to_its_end(&mut command).unwrap_or_else(|text| {
        panic!("{how}, {action:?} at {at}: the child hangs\n{text}\n{:?}", faults.met())
    });
    assert!(status.success(), "{how}, {action:?} at {at}: {:?}\n{text}", faults.met());
    let (mut done, mut open) = (vec![], None);
    for line in text.lines().filter_map(|line| line.strip_prefix('@')) {
        match line.split_once(' ') {
            Some(("begin", number)) => open = Some(number.parse().unwrap()),
            Some(("done", number)) => {
                done.push(number.parse().unwrap());
                open = None;
            }
            Some(("undone", _)) => open = None,
            _ => {}
        }
    }
    Ended { done, open, text }
}

/// A copy of a folder whose files nobody has open.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// One run with an error at a place; returns false if the child did not come to it.
fn one_run(faults: &Faults, first: &Path, how: &str, at: usize, action: Action) -> bool {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("index");
    copy(first, &dir);
    let ended = run_child(faults, &dir, how, at, action);
    let told = || format!("{how}, {action:?} at {at}: {:?}\n{}", faults.met(), ended.text);
    let mut model: Model = (0..20).map(|key| (key, 1)).collect();
    ended.done.iter().for_each(|&number| STEPS[number].apply(&mut model));

    // The disk is well again. What was acknowledged is there; the step that was left open is, or is not.
    let published = Index::open(&dir).unwrap_or_else(|e| panic!("{e}\n{}", told()));
    drop(published);
    let writer = IndexWriter::open(&dir).unwrap_or_else(|e| panic!("{e}\n{}", told()));
    let reader = writer.reader().unwrap_or_else(|e| panic!("{e}\n{}", told()));
    if let Err(without) = holds(&reader, &model) {
        let mut with = model.clone();
        if let Some(open) = ended.open {
            STEPS[open].apply(&mut with);
        }
        holds(&reader, &with).unwrap_or_else(|e| panic!("{without}; with the open step {e}\n{}", told()));
        model = with;
    }
    // Written again, published, and compacted from the store: every vector stays right.
    let more = Step::Upsert(9, &[3, 9, 22]);
    for step in [more, Step::Finish, Step::Merge, Step::Compact] {
        step.run(&writer).unwrap_or_else(|e| panic!("{e}\n{}", told()));
        step.apply(&mut model);
        holds(&reader, &model).unwrap_or_else(|e| panic!("{step:?}: {e}\n{}", told()));
        if !matches!(step, Step::Upsert(..)) {
            let fresh = Index::open(&dir).unwrap_or_else(|e| panic!("{e}\n{}", told()));
            holds(&fresh, &model).unwrap_or_else(|e| panic!("{step:?}: {e}\n{}", told()));
        }
    }
    drop((reader, writer));
    let report = verify(&dir, &|_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}\n{}", told());
    faults.met().is_some()
}

#[test]
fn an_error_of_the_disk_anywhere_loses_and_hides_nothing() {
    let Some(faults) = Faults::compile() else { return };
    let first = tempfile::tempdir().unwrap();
    begin(first.path());
    let counted = tempfile::tempdir().unwrap();
    copy(first.path(), &counted.path().join("index"));
    let whole = run_child(&faults, &counted.path().join("index"), "repeat", 0, Action::Fail);
    assert_eq!(whole.done.len(), STEPS.len(), "{}", whole.text);
    let count = faults.operations().len();
    let few = setting("SEMBLANCE_FAULTS", 250);
    let (mut met, mut tried) = (0, 0);
    for (how, action, few) in
        [("repeat", Action::Fail, few), ("go on", Action::Fail, few / 3), ("go on", Action::Stick, few / 5)]
    {
        for at in places(count, few, 7) {
            tried += 1;
            met += usize::from(one_run(&faults, first.path(), how, at, action));
        }
    }
    assert!(met > tried / 2, "{met} errors of {tried} were met");
    eprintln!("{count} operations, {met} errors met in {tried} runs");
}

const WIDE: usize = 4096;
const WIDE_CHILD: &str = "SEMBLANCE_WIDE_CHILD";

fn wide_batch(keys: std::ops::Range<usize>, version: u64) -> (Vec<NewItem>, Vec<f32>) {
    let items = keys.clone().map(|key| NewItem::new(key.to_string())).collect();
    (items, keys.flat_map(|key| unit(WIDE, version << 32 | key as u64)).collect())
}

/// Writes one large batch, some of it new, and removes some; as a test of its own it has nothing to do.
#[test]
fn wide_child() {
    let Ok(dir) = std::env::var(WIDE_CHILD) else { return };
    let writer = IndexWriter::open(dir).unwrap();
    let (items, vectors) = wide_batch(10..120, 2);
    if let Err(error) = writer.upsert(&items, &vectors) {
        return say(&format!("error {error}"));
    }
    say("written");
    match writer.delete_keys(&(0..100).map(|key| key.to_string()).collect::<Vec<_>>()) {
        Err(error) => say(&format!("error {error}")),
        Ok(_) => say("deleted"),
    }
}

/// Batches that outgrow what sled writes at once, of vectors so long that it keeps pages in files of their own. An error
/// at one of these files cuts a transaction short without sled noting it.
#[test]
fn a_large_batch_that_is_cut_short_damages_nothing() {
    let Some(faults) = Faults::compile() else { return };
    let first = tempfile::tempdir().unwrap();
    let hnsw = HnswConfig { m: 4, ef_construction: 20, ..HnswConfig::default() };
    let writer =
        IndexWriter::create(first.path(), &IndexConfig { hnsw, ..IndexConfig::new(WIDE, "m") }).unwrap();
    let (items, vectors) = wide_batch(0..40, 1);
    writer.upsert(&items, &vectors).unwrap();
    writer.finish(&|_| {}).unwrap();
    drop(writer);
    let run = |at: usize| {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("index");
        copy(first.path(), &dir);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "wide_child", "--nocapture", "--test-threads=1"])
            .env(WIDE_CHILD, &dir)
            .stdin(Stdio::null());
        faults.load(&mut command, &dir.join("store/blobs"), CREATE | WRITE, at, Action::Fail);
        let (status, text) = run_to_its_end(&mut command)
            .unwrap_or_else(|text| panic!("{at}: the child hangs\n{text}\n{:?}", faults.met()));
        assert!(status.success(), "{at}: {text}");
        (parent, dir, text)
    };
    let whole = run(0);
    assert!(whole.2.contains("@deleted"), "{}", whole.2);
    let count = faults.operations().len();
    assert!(count > 20, "only {count} operations on files of pages");
    for at in places(count, setting("SEMBLANCE_FAULTS", 20), 5) {
        let (_parent, dir, text) = run(at);
        let told = || format!("error at {at} of {count}: {:?}\n{text}", faults.met());
        let report = verify(&dir, &|_| {}).unwrap();
        assert!(report.is_sound(), "{report:?}\n{}", told());
        let writer = IndexWriter::open(&dir).unwrap_or_else(|e| panic!("{e}\n{}", told()));
        writer.finish(&|_| {}).unwrap_or_else(|e| panic!("{e}\n{}", told()));
        let index = Index::open(&dir).unwrap();
        // 40 before, 120 with the batch, 20 without what was deleted; batches are whole.
        let sizes: &[usize] = match (text.contains("@deleted"), text.contains("@written")) {
            (true, _) => &[20],
            (false, true) => &[120, 20],
            (false, false) => &[40, 120],
        };
        assert!(sizes.contains(&index.len()), "{} items\n{}", index.len(), told());
        let version = |key: u64| if index.len() > 40 && key >= 10 || index.len() == 20 { 2 } else { 1 };
        for id in index.ids() {
            let key: u64 = index.item(id).unwrap().key.parse().unwrap();
            let right = unit(WIDE, version(key) << 32 | key);
            assert!(index.vector(id).unwrap() == right, "item {key}\n{}", told());
        }
        drop((index, writer));
        let report = verify(&dir, &|_| {}).unwrap();
        assert!(report.is_sound(), "{report:?}\n{}", told());
    }
}
