//! A catalogue that was moved: said everywhere, and mended without embedding again.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::serving::Serving;
use crate::util::{Dir, shop};

fn moved() -> (Dir, String) {
    let dir = shop();
    std::fs::rename(dir.path("cat"), dir.path("moved")).expect("moved");
    let table = std::fs::read_to_string(dir.path("moved/products.csv")).expect("the table");
    let key = table.lines().nth(1).and_then(|line| line.split(',').next()).expect("a picture").to_owned();
    (dir, key)
}

#[test]
fn every_command_says_that_the_pictures_are_gone() {
    let (dir, key) = moved();
    let photo = format!("moved/{key}");
    let gone = dir.path("cat").display().to_string();
    let words = [gone.as_str(), "cannot be opened", "move-root"];
    let found = dir.run(["search", &photo, "--index", "shop", "-k", "2"]).exits(0).complains_of(&words);
    assert!(found.stdout.contains(&key) && !found.stdout.contains(&gone), "{}", found.stdout);
    dir.run(["search", "--item", &key, "--index", "shop"]).exits(0).complains_of(&words);
    // The index itself is sound, and says so.
    let checked = dir.run(["index", "verify", "--index", "shop"]).exits(0).complains_of(&words);
    assert!(checked.stdout.contains("sound"), "{}", checked.stdout);
    let checked = dir.run(["index", "verify", "--index", "shop", "--json"]).exits(0).json();
    assert_eq!((&checked["faults"], &checked["pictures"]["state"]), (&json!([]), &json!("unavailable")));
    let doctor = dir.run(["doctor"]).exits(0).stdout;
    assert!(doctor.contains(&gone) && doctor.contains("move-root"), "{doctor}");
    dir.run(["eval", "--index", "shop", "--report", "out"]).exits(0).complains_of(&words);
    let server = Serving::start(&dir, &[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server.log().contains("move-root") {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }

    // For one run.
    let path = dir.path(&photo).display().to_string();
    let root = dir.path("moved").display().to_string();
    let found = dir.run(["search", &photo, "--index", "shop", "--root", &root]).exits(0);
    assert!(found.stdout.contains(&path) && !found.stderr.contains("move-root"), "{}", found.stderr);
    dir.run(["eval", "--index", "shop", "--report", "out", "--root", "moved"]).exits(0);
    let page = std::fs::read_to_string(dir.path("out/report.html")).expect("a report");
    assert!(page.contains("data:image/jpeg;base64,"));
}

#[test]
fn move_root_counts_what_it_finds_and_embeds_nothing() {
    let (dir, key) = moved();
    dir.run(["search", &format!("moved/{key}"), "--index", "shop"]).exits(0).complains_of(&["move-root"]);
    let before = dir.snapshot();
    for nothing in ["index-data", "moved/products.csv", "nowhere"] {
        dir.run(["index", "move-root", "shop", nothing]).exits(2).complains_of(&[nothing]);
    }
    dir.run(["index", "move-root", "shop"]).exits(2).complains_of(&["NEW_ROOT"]);
    let manifest = |files: &[(std::path::PathBuf, Vec<u8>)]| {
        files.iter().find(|file| file.0.ends_with("manifest.json")).map(|file| file.1.clone())
    };
    assert_eq!(manifest(&before), manifest(&dir.snapshot()), "what is refused changes nothing");

    std::fs::remove_file(dir.path("moved").join(&key)).expect("removed");
    let done = dir.run(["index", "move-root", "shop", "moved", "--json"]).exits(0).json();
    let root = dir.path("moved").canonicalize().expect("a folder").display().to_string();
    let pictures = json!({ "looked_for": 48, "found": 47, "first_missing": key });
    assert_eq!((&done["root"], &done["pictures"]), (&json!(root), &pictures));
    let info = dir.run(["index", "info", "--index", "shop", "--json"]).exits(0).json();
    assert_eq!(info["manifest"]["config"]["attributes"]["catalogue_root"], json!(root));
    let vectors = |files: &[(std::path::PathBuf, Vec<u8>)]| {
        files.iter().find(|file| file.0.ends_with("vectors-000001.bin")).map(|file| file.1.clone())
    };
    assert_eq!(vectors(&before), vectors(&dir.snapshot()), "no vector is written again");

    let other = std::fs::read_to_string(dir.path("moved/products.csv")).expect("the table");
    let other = other.lines().nth(9).and_then(|line| line.split(',').next()).expect("a picture").to_owned();
    let found = dir.run(["search", "--item", &key, "--index", "shop", "-k", "48"]).exits(0);
    assert!(found.stdout.contains(&format!("{root}/{other}")), "{}", found.stdout);
    dir.run(["search", &format!("moved/{other}"), "--index", "shop", "-k", "48"])
        .exits(0)
        .complains_of(&["1 of the 48 pictures looked for are not below", &key]);
    let checked = dir.run(["index", "verify", "--index", "shop", "--json"]).exits(0).json();
    assert_eq!((&checked["stored"], &checked["pictures"]["state"]), (&json!(48), &json!("open")));
    // By the option that other commands have, and back.
    std::fs::rename(dir.path("moved"), dir.path("cat")).expect("moved");
    dir.run(["index", "move-root", "--index", "shop", "cat"]).exits(0);
}

#[test]
fn adding_from_another_folder_is_remarked_on() {
    let (dir, _) = moved();
    dir.run(["index", "add", "--index", "shop", "--data", "moved"]).exits(0).complains_of(&[
        "as the folder of its pictures",
        "moved",
        "move-root",
    ]);
}
