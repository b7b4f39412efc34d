//! Errors of the disk at every file operation of a command, and under a running server.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use semblance_index::Index;
use serde_json::json;

use crate::durability::catalogue;
use crate::faults::{ALL, Action, Faults, SYNC, WRITE, places, setting};
use crate::serving::Serving;
use crate::util::{Dir, shop};

type Vectors = BTreeMap<String, Vec<f32>>;

fn vectors(dir: &Dir) -> Vectors {
    let index = Index::open(dir.path("index-data/shop")).expect("an index");
    let mut all = Vectors::new();
    let collect = |item: semblance_index::Item, vector: &[f32]| {
        all.insert(item.key, vector.to_vec());
        Ok(())
    };
    index.for_each(collect).expect("every vector");
    all
}

/// What the same commands make where nothing fails.
fn expected(commands: &[&[&str]]) -> Vec<Vectors> {
    let dir = prepared();
    let after = |args: &&[&str]| {
        dir.run(*args).exits(0);
        vectors(&dir)
    };
    commands.iter().map(after).collect()
}

/// An index of forty items, and files that give five of them other vectors.
fn prepared() -> Dir {
    let dir = Dir::new();
    catalogue(&dir);
    dir.run(["index", "import", "in/vectors.npy", "--index", "shop", "--fingerprint", "m"]).exits(0);
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3), }";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    let mut items = String::new();
    for i in 0..5 {
        [0.0f32, 0.6, 0.8].into_iter().for_each(|x| npy.extend(x.to_le_bytes()));
        items += &format!("{}\n", json!({ "key": format!("p{}.jpg", i * 7) }));
    }
    dir.write("changed/vectors.npy", npy);
    dir.write("changed/items.jsonl", items);
    dir
}

#[test]
fn commands_that_met_an_error_are_repeated_and_every_vector_is_right() {
    let Some(faults) = Faults::compile() else { return };
    let commands: [&[&str]; 3] = [
        &["index", "import", "changed/vectors.npy", "--index", "shop"],
        &["index", "remove", "p1.jpg", "p7.jpg", "--index", "shop"],
        &["index", "compact", "--index", "shop"],
    ];
    let expected = expected(&commands);
    let few = setting("SEMBLANCE_FAULTS", 30);
    let dir = prepared();
    let (mut met, mut tried) = (0, 0);
    for (number, args) in commands.iter().enumerate() {
        // The state this command begins with, kept to come back to.
        let (folder, kept) = (dir.path("index-data/shop"), dir.path("kept"));
        let _ = std::fs::remove_dir_all(&kept);
        copy(&folder, &kept);
        let faulty = |at| {
            std::fs::remove_dir_all(&folder).expect("removed");
            copy(&kept, &folder);
            let mut command = Command::new(env!("CARGO_BIN_EXE_semblance"));
            command.args(*args).arg("--quiet").current_dir(dir.path("")).stdin(Stdio::null());
            faults.load(&mut command, &folder, ALL, at, Action::Fail);
            let output = command.output().expect("the binary starts");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let told = format!("{args:?}, error at {at}, {:?}: {:?} {stderr}", faults.met(), output.status);
            assert!(matches!(output.status.code(), Some(0 | 2)), "{told}");
            assert!(!stderr.contains("damaged"), "{told}");
            told
        };
        faulty(0);
        for at in places(faults.operations().len(), few, 3) {
            let told = faulty(at);
            tried += 1;
            met += usize::from(faults.met().is_some());
            let again = dir.run(*args);
            // What is removed already is unknown: code 1.
            assert!(again.code == 0 || (number == 1 && again.code == 1), "{told}\nagain: {}", again.stderr);
            assert!(vectors(&dir) == expected[number], "{told}: a vector is wrong");
            dir.run(["index", "rebuild", "--index", "shop"]).exits(0);
            assert!(vectors(&dir) == expected[number], "{told}: a vector is wrong after a rebuild");
        }
        faulty(0);
    }
    assert!(met > tried / 2, "{met} of {tried} errors were met");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("a copy");
        }
    }
}

#[test]
fn a_server_whose_disk_fails_is_not_ready_and_gets_ready_again() {
    let Some(faults) = Faults::compile() else { return };
    let dir = shop();
    let start = || {
        Serving::start_as(&dir.path(""), &[], |command| {
            faults.load(command, &dir.path("index-data/shop/store"), WRITE | SYNC, 1, Action::Stick);
            command.env("FAULT_SWITCH", faults.switch());
        })
    };
    let server = start();
    let items = Index::open(dir.path("index-data/shop")).and_then(|index| index.items()).expect("items");
    let (id, key) = (items[0].id, items[0].key.clone());
    let put = |server: &Serving, class: &str| {
        server.json("PUT", "/v1/indexes/shop/items", &json!({ "key": key, "class": class }))
    };
    let class = |server: &Serving| {
        let item: serde_json::Value =
            serde_json::from_slice(&server.get(&format!("/v1/indexes/shop/items/{id}")).body).expect("JSON");
        item["class"].as_str().map(str::to_owned)
    };
    let ready_is = |server: &Serving, status: u16| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = server.get("/readyz");
            if answer.status == status {
                return String::from_utf8_lossy(&answer.body).into_owned();
            }
            assert!(Instant::now() < deadline, "/readyz answers {}: {}", answer.status, server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(put(&server, "first").status, 200);
    ready_is(&server, 200);

    std::fs::write(faults.switch(), "").expect("a switch");
    let refused = put(&server, "second");
    assert!(refused.status >= 500, "{refused:?}");
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(told.contains("may have been kept"), "{told}");
    let why = ready_is(&server, 503);
    assert!(why.contains("cannot_write") && why.contains("shop") && why.contains("error"), "{why}");
    assert!(put(&server, "third").status >= 500);
    let search = format!("/v1/indexes/shop/items/{id}");
    assert_eq!(server.get(&search).status, 200, "reading goes on");

    // The disk is well again: no write is needed for the server to see it.
    std::fs::remove_file(faults.switch()).expect("no switch");
    ready_is(&server, 200);
    let kept = class(&server);
    assert!([Some("first".to_owned()), Some("second".to_owned())].contains(&kept), "{kept:?}");
    drop(server);
    let server = start();
    assert_eq!(class(&server), kept, "what is shown after the error is what is on the disk");
    assert_eq!(put(&server, "fourth").status, 200);
    assert_eq!(class(&server).as_deref(), Some("fourth"));
}
