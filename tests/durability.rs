//! Keeping an index up: import, remove, verify, compact, rebuild, export; damage is found and mended.

use serde_json::{Value, json};

use crate::util::{Dir, Output};

/// Forty unit vectors of dimension 3 as a NumPy file, with their items.
pub(crate) fn catalogue(dir: &Dir) {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (40, 3), }";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    let mut items = String::new();
    for i in 0..40 {
        let angle = i as f32 / 40.0;
        for x in [angle.cos(), angle.sin(), 0.0] {
            npy.extend(x.to_le_bytes());
        }
        items += &format!(
            "{}\n",
            json!({"key": format!("p{i}.jpg"), "class": format!("c{}", i % 4), "metadata": {"n": i}})
        );
    }
    dir.write("in/vectors.npy", npy);
    dir.write("in/items.jsonl", items);
}

fn run(dir: &Dir, args: &[&str]) -> Output {
    dir.run(["index"].iter().chain(args).chain(&["--json"]))
}

fn done(dir: &Dir, args: &[&str]) -> Value {
    let output = run(dir, args);
    assert_eq!(output.code, 0, "{args:?}: {}", output.stderr);
    serde_json::from_str(&output.stdout).expect("JSON on stdout")
}

#[test]
fn vectors_come_in_change_and_go_out() {
    let dir = Dir::new();
    catalogue(&dir);
    let made = done(&dir, &["import", "in/vectors.npy", "--index", "shop", "--fingerprint", "some-model"]);
    assert_eq!((&made["imported"], &made["items"]), (&json!(40), &json!(40)));
    let removed = done(&dir, &["remove", "p3.jpg", "p4.jpg", "--index", "shop"]);
    assert_eq!((&removed["removed"], &removed["items"]), (&json!(2), &json!(38)));
    assert_eq!(done(&dir, &["compact", "--index", "shop"])["items"], 38);
    let unknown = run(&dir, &["remove", "p3.jpg", "--index", "shop"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("p3.jpg"), "{}", unknown.stderr);

    for (format, file) in [
        ("npy", "vectors.npy"),
        ("safetensors", "vectors.safetensors"),
        ("parquet", "index.parquet"),
        ("jsonl", "vectors.jsonl"),
    ] {
        let out = format!("out-{format}");
        assert_eq!(
            done(&dir, &["export", "--index", "shop", "--out", &out, "--format", format])["items"],
            38
        );
        let name = format!("back-{format}");
        let back = done(&dir, &["import", &format!("{out}/{file}"), "--index", &name]);
        assert_eq!(back["items"], 38);
        let info = done(&dir, &["info", "--index", &name]);
        assert_eq!(info["manifest"]["config"]["model"], "some-model");
        assert_eq!(info["classes"], 4);
    }
    let again = run(&dir, &["export", "--index", "shop", "--out", "out-npy"]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("out-npy") && again.stderr.contains("already"), "{}", again.stderr);
}

#[test]
fn damage_is_found_and_mended() {
    let dir = Dir::new();
    catalogue(&dir);
    done(&dir, &["import", "in/vectors.npy", "--index", "shop"]);
    assert_eq!(done(&dir, &["verify", "--index", "shop"])["faults"], json!([]));
    let table = dir.path("index-data/shop/items-000001.bin");
    let mut bytes = std::fs::read(&table).expect("a table of items");
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    std::fs::write(&table, bytes).expect("a damaged table");
    let found = run(&dir, &["verify", "--index", "shop"]);
    assert_eq!(found.code, 1);
    assert!(
        found.stdout.contains("items-000001.bin") && found.stdout.contains("\"rebuildable\": true"),
        "{}",
        found.stdout
    );
    let refused = run(&dir, &["info", "--index", "shop"]);
    assert_eq!(refused.code, 2);
    let told: Value = serde_json::from_str(&refused.stderr).expect("JSON on stderr");
    let hint = told["hint"].as_str().expect("a hint");
    assert!(hint.contains("`semblance index compact --index shop`"), "{hint}");
    // The command that is advised, as it stands.
    let advised = hint.split('`').nth(1).expect("a command");
    dir.run(advised.split(' ').skip(1)).exits(0);
    assert_eq!(done(&dir, &["info", "--index", "shop"])["items"], 40);
    done(&dir, &["rebuild", "--index", "shop"]);
    assert_eq!(done(&dir, &["verify", "--index", "shop"])["faults"], json!([]));
    assert_eq!(done(&dir, &["info", "--index", "shop"])["items"], 40);
}

#[test]
fn an_index_without_a_model_asks_for_one() {
    let dir = Dir::new();
    catalogue(&dir);
    done(&dir, &["import", "in/vectors.npy", "--index", "shop"]);
    dir.run(["search", "p1.jpg", "--index", "shop"])
        .exits(2)
        .complains_of(&["does not record where its model is", "hint: --model says"]);
}

#[test]
fn a_second_writer_is_told_who_writes() {
    let dir = Dir::new();
    catalogue(&dir);
    done(&dir, &["import", "in/vectors.npy", "--index", "shop"]);
    let _writer = semblance_index::IndexWriter::open(dir.path("index-data/shop")).expect("the first writer");
    let second = run(&dir, &["remove", "p1.jpg", "--index", "shop"]);
    assert_eq!(second.code, 2);
    let told = format!("being written by process {}", std::process::id());
    assert!(second.stderr.contains(&told), "{}", second.stderr);
    assert_eq!(done(&dir, &["info", "--index", "shop"])["items"], 40, "readers are welcome");
    let beside = dir.run(["index", "verify", "--index", "shop"]).exits(1);
    let told = format!("NOT CHECKED: process {} is writing it", std::process::id());
    assert!(beside.stdout.contains(&told) && !beside.stdout.contains("sound"), "{}", beside.stdout);
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let dir = Dir::new();
    catalogue(&dir);
    dir.write("bad/vectors.npy", b"not numpy");
    dir.write("bad/items.jsonl", b"");
    let refused = run(&dir, &["import", "bad/vectors.npy", "--index", "new"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("vectors.npy cannot be imported"), "{}", refused.stderr);
    assert!(!dir.path("index-data/new").exists(), "nothing is made for it");
    for command in [
        &["verify", "--index", "none"][..],
        &["compact", "--index", "none"],
        &["remove", "x", "--index", "none"],
    ] {
        let refused = run(&dir, command);
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains("no index at"), "{}", refused.stderr);
    }
}
