//! Training in two stages: the second starts from the first one's weights.

use serde_json::Value;

use crate::util::{Dir, draw_catalogue};

const SETTINGS: [&str; 13] = [
    "train",
    "--data",
    "cat",
    "--crop",
    "32",
    "--resize",
    "32",
    "--batch",
    "8",
    "--steps",
    "3",
    "--holdout",
    "0.25",
];

fn stage(dir: &Dir, args: &[&str]) -> crate::util::Output {
    dir.run(SETTINGS.iter().chain(args))
}

fn state(dir: &Dir, run: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.path(run).join("last/state.json")).unwrap()).unwrap()
}

fn log_of_last_validation(dir: &Dir, run: &str) -> Value {
    let log = std::fs::read_to_string(dir.path(run).join("train.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.rev().find_map(|line| line.get("recall_at_1").cloned()).unwrap()
}

fn first() -> Dir {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let loss =
        ["--arch", "resnet10_tiny", "--embedding-dim", "16", "--loss", "softmax", "--out", "one", "-q"];
    stage(&dir, &loss).exits(0);
    dir
}

#[test]
fn a_second_stage_keeps_the_head_or_starts_another_and_says_so() {
    let dir = first();
    for loss in ["triplet", "eml"] {
        let out =
            stage(&dir, &["--init", "one/last", "--loss", loss, "--per-class", "2", "--out", loss]).exits(0);
        assert!(!out.stderr.contains("re-initialised"), "{}", out.stderr);
        let state = state(&dir, loss);
        assert_eq!(state["model"]["head"], serde_json::json!({ "kind": "linear", "dim": 16 }));
        assert_eq!(state["config"]["loss"]["name"], loss);
    }
    // Before its first step the second stage is what the first one ended with.
    let ended_with = log_of_last_validation(&dir, "one");
    for loss in ["triplet", "eml"] {
        assert_eq!(state(&dir, loss)["recall_before"], ended_with);
    }

    let other = ["--init", "one/last/model.safetensors", "--embedding-dim", "8", "--out", "other"];
    stage(&dir, &other).exits(0).complains_of(&["re-initialised", "one/last", "dim 16", "dim 8"]);
    assert_eq!(state(&dir, "other")["model"]["head"]["dim"], 8);
    // The same command goes on with the run, from its own weights.
    let more = ["--init", "one/last", "--embedding-dim", "8", "--out", "other", "--resume", "-q", "--json"];
    assert_eq!(stage(&dir, &more).exits(0).json()["steps"], 3);
}

#[test]
fn a_learned_power_goes_on_unless_another_is_asked_for() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let gem = ["--arch", "resnet10_tiny", "--pool", "gem", "--gem-power", "2.5", "--out", "one", "-q"];
    stage(&dir, &gem).exits(0);
    for (start, out) in [("--init", "two"), ("--model", "three")] {
        let same = stage(&dir, &[start, "one/last", "--pool", "gem", "--out", out]).exits(0);
        assert!(!same.stderr.contains("re-initialised"), "{}", same.stderr);
        assert_eq!(state(&dir, out)["model"]["pool"]["p"], 2.5);
    }
    let other = ["one/last", "--pool", "gem", "--gem-power", "4", "--out", "four"];
    stage(&dir, &[&["--init"], &other[..]].concat()).exits(0).complains_of(&[
        "re-initialised",
        "gem, p 2.5",
        "gem, p 4",
    ]);
    assert_eq!(state(&dir, "four")["model"]["pool"]["p"], 4.0);
    stage(&dir, &[&["--model"], &other[..]].concat()).exits(2).complains_of(&[
        "gem, p 2.5",
        "gem, p 4",
        "--init",
    ]);
}

#[test]
fn a_recipe_names_the_first_stage() {
    let dir = first();
    dir.write(
        "two.toml",
        "init = \"one/last\"\nloss = \"eml\"\nprogressive_size = [16, 32]\nexplode_factor = 0\n",
    );
    stage(&dir, &["--config", "two.toml", "--out", "two", "-q"]).exits(0);
    let config = &state(&dir, "two")["config"];
    assert_eq!(config["progressive_size"], serde_json::json!([16, 32]));
    assert_eq!(config["explode_factor"], 0.0);
    dir.write("two.toml", "init = \"one/last\"\nmodel = \"one/last\"\n");
    stage(&dir, &["--config", "two.toml", "--out", "three"]).exits(2).complains_of(&["init", "model"]);
}

#[test]
fn what_cannot_be_started_from_is_named_and_nothing_is_written() {
    let dir = first();
    let before = dir.snapshot();
    let refused = |args: &[&str], words: &[&str]| {
        stage(&dir, &[args, &["--out", "two"]].concat()).exits(2).complains_of(words);
    };
    refused(&["--init", "one/last", "--arch", "resnet18"], &["one/last", "resnet10_tiny", "resnet18"]);
    refused(&["--init", "one/last", "--model", "one/last"], &["--init", "--model"]);
    refused(&["--init", "nowhere"], &["--init", "nowhere"]);
    refused(&["--init", "one"], &["one", "config.json"]);
    refused(&["--model", "one/last", "--embedding-dim", "8"], &["dim 16", "dim 8", "--init"]);
    refused(&["--model", "one/last", "--pool", "gem"], &["average", "gem", "--init"]);
    let mlp = ["--model", "one/last", "--head", "mlp", "--hidden", "9", "--embedding-dim", "8"];
    refused(&mlp, &["linear", "mlp", "--init"]);
    let smaller =
        ["train", "--data", "cat", "--model", "one/last", "--crop", "16", "--steps", "1", "--out", "two"];
    dir.run(smaller).exits(2).complains_of(&["--crop 32", "16", "--init"]);
    refused(&["--init", "one/last", "--pool", "class_token"], &["class token", "resnet10_tiny"]);
    refused(&["--init", "one/last", "--gem-power", "2"], &["--pool gem"]);
    refused(&["--progressive-size", "32,16", "--init", "one/last"], &["progressive_size"]);
    refused(&["--progressive-size", "32", "--train-size", "32", "--init", "one/last"], &["--train-size"]);
    assert!(dir.snapshot() == before, "nothing was written");
}
