//! Replacing an index: the old one or the new one can be searched at every moment, whatever happens.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use semblance_index::{Index, IndexWriter, MANIFEST_NAME, verify};

use crate::durability::catalogue;
use crate::faults::{Action, CHANGES, Faults, places, setting};
use crate::serve::{SHOP, a_photo};
use crate::serving::Serving;
use crate::util::{Dir, MODEL, shop};

fn build(name: &str, more: &[&'static str]) -> Vec<String> {
    let args = ["index", "build", "--data", name, "--name", "shop"];
    args.iter().chain(&MODEL).chain(more).map(ToString::to_string).collect()
}

fn items(dir: &Dir) -> usize {
    Index::open(dir.path("index-data/shop")).expect("an index").len()
}

fn left(dir: &Dir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path("index-data")).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_replacement_killed_anywhere_leaves_the_old_index_or_the_new_one() {
    let Some(faults) = Faults::compile() else { return };
    let dir = Dir::new();
    catalogue(&dir);
    let import = ["index", "import", "in/vectors.npy", "--index", "shop", "--fingerprint", "m"];
    dir.run(import).exits(0);
    let args = ["index", "derive", "--index", "shop", "--name", "new", "--augment", "3", "--replace"];
    let (folder, indexes) = (dir.path("index-data/new"), dir.path("index-data"));
    let run = |at, action| {
        let mut replacing = Command::new(env!("CARGO_BIN_EXE_semblance"));
        replacing
            .args(args)
            .args(["--quiet", "--threads", "2"])
            .current_dir(dir.path(""))
            .stdin(Stdio::null());
        faults.load(&mut replacing, &indexes, CHANGES, at, action);
        replacing.output().expect("the binary starts")
    };
    assert!(run(0, Action::Kill).status.success());
    dir.write("index-data/new/uploads/a.jpg", "picture");
    // Now there is one to replace.
    assert!(run(0, Action::Kill).status.success());
    let count = faults.operations().len();
    let few = setting("SEMBLANCE_FAULTS", 36);
    for (action, few) in [(Action::Kill, few), (Action::Fail, few / 2)] {
        for at in places(count, few, 13) {
            let output = run(at, action);
            let told = format!("{action:?} at {at} of {count}, {:?}: {:?}", faults.met(), output);
            let index = Index::open(&folder).unwrap_or_else(|e| panic!("{told}: {e}"));
            assert_eq!(index.len(), 40, "{told}");
            let report = verify(&folder, &|_| {}).unwrap_or_else(|e| panic!("{told}: {e}"));
            assert!(report.is_sound() && report.unpublished == 0, "{told}: {report:?}");
            dir.run(args).exits(0);
            assert_eq!(left(&dir), ["new", "shop"], "{told}");
            let kept = std::fs::read_to_string(folder.join("uploads/a.jpg"));
            assert_eq!(kept.ok().as_deref(), Some("picture"), "{told}");
        }
    }
    eprintln!("{count} operations");
}

#[test]
fn a_build_that_fails_leaves_the_old_index_and_nothing_else() {
    let dir = shop();
    let before = items(&dir);
    dir.write("broken/a/1.jpg", "no picture");
    dir.run(build("broken", &["--replace"])).exits(2).complains_of(&["1.jpg"]);
    assert_eq!((items(&dir), left(&dir)), (before, vec!["shop".into()]));
    // Nothing is left of an index that never had an item either.
    dir.run(["index", "build", "--data", "broken", "--name", "other"].iter().chain(&MODEL)).exits(2);
    dir.write("bad/vectors.npy", "no matrix");
    dir.run(["index", "import", "bad/vectors.npy", "--index", "other", "--fingerprint", "m"]).exits(2);
    dir.write(
        "bad/v.jsonl",
        "{\"key\": \"a\", \"vector\": [0.6, 0.8]}\n{\"key\": \"b\", \"vector\": [3, 4]}\n",
    );
    dir.run(["index", "import", "bad/v.jsonl", "--index", "other", "--fingerprint", "m"]).exits(2);
    assert_eq!(left(&dir), ["shop"]);
}

/// Killed while it embeds: the replacement goes on with --resume, or begins again.
#[test]
fn an_interrupted_build_of_a_replacement_goes_on() {
    let dir = shop();
    let before = items(&dir);
    dir.run(
        ["data", "sample", "--quiet", "--out", "more", "--classes", "20", "--images-per-class", "20"]
            .iter()
            .chain(&["--size", "48"]),
    )
    .exits(0);
    for way in ["--resume", "--replace"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_semblance"))
            .args(build("more", &["--replace", "--batch", "4"]))
            .current_dir(dir.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let new = dir.path("index-data/.shop.new");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !new.join("store/db").exists() || new.join("store.incomplete").exists() {
            assert!(Instant::now() < deadline && child.try_wait().expect("a status").is_none());
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        dir.run(["search", "--item", &first_key(&dir), "--index", "shop"]).exits(0);
        assert_eq!(items(&dir), before);
        dir.run(build("more", &[])).exits(2).complains_of(&["--resume or --replace"]);
        dir.run(build("more", &[way])).exits(0);
        assert_eq!((items(&dir), left(&dir)), (400, vec!["shop".into()]), "{way}");
        dir.run(["index", "verify", "--index", "shop"]).exits(0);
        dir.run(build("cat", &["--replace"])).exits(0);
        assert_eq!(items(&dir), before);
    }
}

fn first_key(dir: &Dir) -> String {
    Index::open(dir.path("index-data/shop")).and_then(|index| index.items()).expect("items")[0].key.clone()
}

#[test]
fn an_index_that_lies_aside_is_found_and_put_back_by_the_next_command() {
    let dir = shop();
    let before = items(&dir);
    std::fs::rename(dir.path("index-data/shop"), dir.path("index-data/.shop.old")).expect("renamed");
    dir.run(["index", "info", "--index", "shop"])
        .exits(0)
        .complains_of(&["interrupted", "old index is in its place"]);
    assert_eq!((items(&dir), left(&dir)), (before, vec!["shop".into()]));
}

/// A server that only reads goes on through a replacement, and takes up the new index; a seal still fits.
#[test]
fn a_server_takes_up_the_index_that_replaced_its_own() {
    let dir = shop();
    let fewer = ["--classes", "5", "--images-per-class", "4", "--size", "48"];
    dir.run(["data", "sample", "--quiet", "--out", "fewer"].iter().chain(&fewer)).exits(0);
    let server = Serving::start(&dir, &["--read-only", "--log-level", "error"]);
    let count = || server.get(SHOP).json()["items"].as_u64();
    let before = items(&dir) as u64;
    assert_eq!(count(), Some(before));
    dir.run(build("fewer", &["--replace"])).exits(0);
    let after = items(&dir) as u64;
    assert!(after < before);
    let deadline = Instant::now() + Duration::from_secs(60);
    while count() != Some(after) {
        assert!(Instant::now() < deadline, "{:?} instead of {after}: {}", count(), server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.get("/readyz").status, 200);
    let key = first_key(&dir);
    let hits = dir.run(["search", "--item", &key, "--index", "shop", "--json"]).exits(0);
    assert!(!hits.stderr.contains("--root"), "the catalogue's folder is still sealed: {}", hits.stderr);
}

#[test]
fn a_server_whose_index_is_taken_away_makes_no_folder_and_says_so() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &["--log-level", "error"]);
    let upload = |key: &str| {
        let address = format!("{SHOP}/items?key={key}");
        server.send("POST", &address, &[("content-type", "image/jpeg")], Some(&photo))
    };
    let ready_is = |status: u16| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.get("/readyz").status != status {
            assert!(Instant::now() < deadline, "{}", server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        server.get("/readyz")
    };
    upload("first").is(201);
    let (here, away) = (dir.path("index-data/shop"), dir.path("index-data/elsewhere"));
    std::fs::rename(&here, &away).expect("renamed");
    upload("second").fails(503, "index_gone");
    ready_is(503).fails(503, "index_gone");
    assert!(!here.exists(), "the server made the folder again");
    // Back again: the server goes on.
    std::fs::rename(&away, &here).expect("renamed");
    ready_is(200);
    upload("third").is(201);
    std::fs::remove_dir_all(&here).expect("removed");
    upload("fourth").fails(503, "index_gone");
    ready_is(503).fails(503, "index_gone");
    drop(server);
    assert!(!here.exists(), "{:?}", std::fs::read_dir(&here).map(|entries| entries.count()));
}

#[test]
fn imports_at_once_into_one_new_name_name_each_other() {
    let dir = Dir::new();
    catalogue(&dir);
    let children: Vec<_> = (0..6)
        .map(|_| {
            Command::new(env!("CARGO_BIN_EXE_semblance"))
                .args(["index", "import", "in/vectors.npy", "--index", "one", "--fingerprint", "m"])
                .current_dir(dir.path(""))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the binary starts")
        })
        .collect();
    let mut done = 0;
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        done += usize::from(output.status.success());
        assert!(output.status.success() || told.contains("is being written by"), "{told}");
    }
    assert!(done > 0);
    assert_eq!(Index::open(dir.path("index-data/one")).expect("an index").len(), 40);
}

#[test]
fn an_export_killed_anywhere_can_be_repeated() {
    let Some(faults) = Faults::compile() else { return };
    let dir = Dir::new();
    catalogue(&dir);
    dir.run(["index", "import", "in/vectors.npy", "--index", "shop", "--fingerprint", "m"]).exits(0);
    let args = ["index", "export", "--index", "shop", "--out", "out"];
    let out = dir.path("out");
    let run = |at| {
        let _ = std::fs::remove_dir_all(&out);
        let mut exporting = Command::new(env!("CARGO_BIN_EXE_semblance"));
        exporting
            .args(args)
            .args(["--quiet", "--threads", "2"])
            .current_dir(dir.path(""))
            .stdin(Stdio::null());
        faults.load(&mut exporting, &out, CHANGES, at, Action::Kill);
        exporting.output().expect("the binary starts")
    };
    assert!(run(0).status.success());
    let whole = files(&out);
    for at in 1..=faults.operations().len() {
        assert!(!run(at).status.success());
        dir.run(args).exits(0);
        assert!(files(&out) == whole, "killed at {at}, {:?}", faults.met());
    }
    // What is there without having been interrupted stays.
    dir.run(args).exits(2).complains_of(&["is there already"]);
    assert!(files(&out) == whole);
}

fn files(folder: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn damage_that_a_command_mends_is_said() {
    let dir = Dir::new();
    catalogue(&dir);
    dir.run(["index", "import", "in/vectors.npy", "--index", "shop", "--fingerprint", "m"]).exits(0);
    let folder = dir.path("index-data/shop");
    let columns = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains("columns-"))
        .expect("metadata by field");
    let mut bytes = std::fs::read(&columns).expect("a file");
    bytes[3] ^= 1;
    std::fs::write(&columns, bytes).expect("a file");
    dir.run(["index", "remove", "p3.jpg", "--index", "shop"])
        .exits(0)
        .complains_of(&["is damaged", "makes it again"]);
    dir.run(["index", "verify", "--index", "shop"]).exits(0);
    // A store that is gone: what is published can be taken elsewhere.
    std::fs::remove_dir_all(folder.join("store")).expect("removed");
    dir.run(["index", "compact", "--index", "shop"]).exits(2).complains_of(&[
        "store",
        "is gone",
        "index export",
    ]);
    dir.run(["index", "export", "--index", "shop", "--out", "saved"]).exits(0);
    dir.run(["index", "import", "saved/vectors.npy", "--index", "again"]).exits(0);
    assert_eq!(Index::open(dir.path("index-data/again")).expect("an index").len(), 39);
    assert!(folder.join(MANIFEST_NAME).exists() && IndexWriter::open(&folder).is_err());
}

/// Threads whose stacks do not fit into the memory that the process may have.
#[cfg(target_os = "linux")]
#[test]
fn threads_that_cannot_be_started_are_an_error_and_no_panic() {
    let dir = Dir::new();
    catalogue(&dir);
    let script = "ulimit -v 4000000; exec \"$0\" \"$@\"";
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_semblance")])
        .args(["index", "import", "in/vectors.npy", "--index", "shop", "--threads", "8000"])
        .current_dir(dir.path(""))
        .output()
        .expect("bash starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("cannot start the threads") && told.contains("--threads"), "{told}");
}
