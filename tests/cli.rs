//! What the command line promises whatever the command: help, exit codes, JSON, pipes.

use std::io::Read as _;
use std::process::{Command, Stdio};

use crate::util::Dir;

#[test]
fn help_tells_the_exit_codes() {
    let help = Dir::new().run(["--help"]).exits(0).stdout;
    for code in ["  0  ", "  1  ", "  2  ", "  130"] {
        assert!(help.contains(code), "{code:?} is not in\n{help}");
    }
    for command in ["demo", "data", "embed", "train", "index", "search", "eval", "doctor"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in\n{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let dir = Dir::new();
    dir.run(["nonsense"]).exits(2).complains_of(&["nonsense"]);
    dir.run(["search"]).exits(2).complains_of(&["PHOTO"]);
    dir.run(["eval", "--index", "x", "--threads", "0"]).exits(2).complains_of(&["--threads"]);
    assert!(dir.snapshot().is_empty(), "nothing was written");
}

#[test]
fn doctor_reports_as_text_and_json() {
    let dir = Dir::new();
    let text = dir.run(["doctor"]).exits(0).stdout;
    assert!(text.starts_with(concat!("semblance ", env!("CARGO_PKG_VERSION"))), "{text}");
    let found = dir.run(["doctor", "--json"]).exits(0).json();
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
    assert!(found["processors"].as_u64().unwrap() >= 1);
    let paths = found["instructions"].as_array().unwrap();
    assert_eq!(paths.iter().map(|p| p["precision"].as_str().unwrap()).collect::<Vec<_>>(), ["f32", "int16"]);
    assert!(paths.iter().all(|p| text.contains(p["path"].as_str().unwrap())), "{text}");
    // A folder that is no index is a finding, told by the exit code too.
    dir.write("index-data/broken/notes.txt", "not an index");
    let found = dir.run(["doctor", "--json"]).exits(1).json();
    assert!(found["indexes"][0]["problem"].as_str().unwrap().contains("broken"), "{found}");
    let hint = found["indexes"][0]["hint"].as_str().unwrap();
    assert!(hint.contains("`semblance index build --name broken "), "{found}");
    assert!(dir.run(["doctor"]).exits(1).stdout.contains(hint), "{hint}");
}

#[test]
fn an_error_is_printed_once_with_the_command_that_helps() {
    let dir = Dir::new();
    for (index, name) in [("nowhere", "nowhere"), ("./my shop", "'./my shop'")] {
        let search = ["search", "a.jpg", "--index", index];
        let told = dir.run(search).exits(2).stderr;
        let lines: Vec<&str> = told.lines().collect();
        let [error, hint] = lines[..] else { panic!("two lines: {told}") };
        assert!(error.starts_with("error: no index at ") && !error.contains("semblance"), "{told}");
        assert!(hint.starts_with(&format!("hint: `semblance index build --name {name} ")), "{told}");
        let told = dir.run(search.iter().chain(&["--json"])).exits(2).stderr;
        let told: serde_json::Value = serde_json::from_str(&told).expect("one line of JSON on stderr");
        assert_eq!(error.strip_prefix("error: "), told["error"].as_str());
        assert_eq!(hint.strip_prefix("hint: "), told["hint"].as_str());
    }
    let told = dir.run(["data", "check", "--data", "nowhere", "--json"]).exits(2).stderr;
    let told: serde_json::Value = serde_json::from_str(&told).expect("one line of JSON on stderr");
    assert!(told["error"].as_str().unwrap().contains("nowhere") && told.get("hint").is_none(), "{told}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = Dir::new();
    for (name, text) in [("a/1.txt", "x"), ("b/2.txt", "y")] {
        dir.write(name, text);
    }
    // Enough files that their listing cannot fit into the pipe's buffer.
    for number in 0..3000 {
        dir.write(&format!("many/{number:0>60}.jpg"), "");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_semblance"))
        .args(["data", "check", "--json", "--quiet", "--data"])
        .arg(dir.path("many"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
