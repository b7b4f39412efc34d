//! Vectors as JSON lines, on standard output and in a file.

use serde_json::Value;

use crate::util::{Dir, MODEL, Output, draw_catalogue};

fn embed(dir: &Dir, args: &[&str]) -> Output {
    dir.run([&["embed", "--data", "cat"], &MODEL[..], args].concat())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn standard_output_has_a_line_a_picture_and_nothing_else() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let output = embed(&dir, &["--out", "-"]).exits(0).complains_of(&["48 vectors"]);
    let found = lines(&output.stdout);
    embed(&dir, &["--out", "vectors", "-q"]).exits(0);
    let table = std::fs::read_to_string(dir.path("vectors/items.jsonl")).unwrap();
    let numbers = std::fs::read(dir.path("vectors/vectors.npy")).unwrap();
    let dim = found[0]["vector"].as_array().unwrap().len();
    let numbers = &numbers[numbers.len() - 48 * dim * 4..];
    assert_eq!(found.len(), table.lines().count());
    for (i, (line, row)) in found.iter().zip(lines(&table)).enumerate() {
        for field in ["key", "class", "super_class", "metadata"] {
            assert_eq!(line[field], row[field], "{field}");
        }
        for (j, value) in line["vector"].as_array().unwrap().iter().enumerate() {
            let at = (i * dim + j) * 4;
            let wanted = f32::from_le_bytes(numbers[at..at + 4].try_into().unwrap());
            assert_eq!(value.as_f64().unwrap() as f32, wanted, "not one digit is lost");
        }
    }

    // With --json the summary is JSON, beside the lines; --quiet leaves it out.
    let output = embed(&dir, &["--out", "-", "--json"]).exits(0);
    assert_eq!(lines(&output.stdout), found);
    let summary = output.stderr.lines().find(|line| line.starts_with('{')).expect("a summary");
    assert_eq!(serde_json::from_str::<Value>(summary).unwrap()["embedded"], 48);
    assert_eq!(embed(&dir, &["--out", "-", "-q"]).exits(0).stderr, "");
}

#[test]
fn a_file_appears_whole_and_only_where_none_was() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let summary = embed(&dir, &["--out", "new/vectors.jsonl", "--json"]).exits(0).json();
    assert_eq!((&summary["embedded"], &summary["files"][0]), (&48.into(), &"new/vectors.jsonl".into()));
    let file = std::fs::read_to_string(dir.path("new/vectors.jsonl")).unwrap();
    assert_eq!(file, embed(&dir, &["--out", "-"]).exits(0).stdout);
    let before = dir.snapshot();
    embed(&dir, &["--out", "new/vectors.jsonl"]).exits(2).complains_of(&["vectors.jsonl", "exists"]);
    dir.write("bare/mug/empty.jpg", "");
    let nothing = ["embed", "--data", "bare", "--out", "nothing.jsonl"];
    dir.run(nothing.into_iter().chain(MODEL)).exits(2).complains_of(&["empty.jpg", "none of the 1"]);
    std::fs::remove_dir_all(dir.path("bare")).unwrap();
    assert!(dir.snapshot() == before, "nothing was left");
}

#[test]
fn broken_photographs_are_named_and_have_no_line() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).unwrap();
    let broken = table.lines().nth(3).and_then(|line| line.split(',').next()).unwrap().to_owned();
    dir.write(&format!("cat/{broken}"), "no picture");
    let output = embed(&dir, &["--out", "-", "-q"]).exits(0).complains_of(&[&broken, "skipped"]);
    let found = lines(&output.stdout);
    assert_eq!(found.len(), 47);
    assert!(found.iter().all(|line| line["key"] != broken.as_str()));
    embed(&dir, &["--out", "-", "--strict"]).exits(2).complains_of(&[&broken]);
}
