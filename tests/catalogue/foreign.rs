//! An index from elsewhere names files; nothing is read because it does.

use std::path::Path;

use semblance_index::{IndexConfig, IndexWriter, NewItem};
use semblance_query::catalog;
use serde_json::{Value, json};

use crate::serving::Serving;
use crate::util::{Dir, MODEL, draw_catalogue, shop};

/// A copy of the index `shop` that names other folders and other files, as somebody could send it.
fn forged(dir: &Dir, root: &str, keys: &[(&str, Option<&str>)]) {
    let shop = semblance_index::Index::open(dir.path("index-data/shop")).expect("the index");
    let config = shop.manifest().config.clone();
    let mut attributes = config.attributes.clone();
    attributes.insert(catalog::ROOT.into(), root.into());
    let at = dir.path("index-data/forged");
    let _ = std::fs::remove_dir_all(&at);
    let writer = IndexWriter::create(&at, &IndexConfig { attributes, ..config }).expect("a new index");
    for ((key, upload), id) in keys.iter().zip(shop.ids().iter()) {
        let mut item = NewItem::new(*key);
        if let Some(upload) = upload {
            item.metadata.insert(catalog::PHOTO.into(), (*upload).into());
        }
        writer.upsert(&[item], &shop.vector(*id).expect("a vector")).expect("stored");
    }
    writer.finish(&|_| {}).expect("published");
}

fn photo(dir: &Dir) -> String {
    let table = std::fs::read_to_string(dir.path("cat/products.csv")).expect("the table");
    format!("cat/{}", table.lines().nth(1).and_then(|line| line.split(',').next()).expect("a picture"))
}

/// Pictures on the page of a search, the photograph searched with included.
fn pictures_on_page(dir: &Dir, index: &str, more: &[&str]) -> usize {
    let photo = photo(dir);
    let args = ["search", &photo, "--index", index, "--html", "page.html", "-k", "4"];
    dir.run(args.iter().chain(more)).exits(0);
    let page = std::fs::read_to_string(dir.path("page.html")).expect("the page");
    page.matches("data:image/jpeg;base64,").count()
}

#[test]
fn a_forged_index_shows_no_private_picture() {
    let dir = shop();
    let private = dir.path("private.jpg");
    std::fs::copy(dir.path(photo(&dir)), &private).expect("a private picture");
    let private = private.to_str().expect("a path");
    let inside = private.trim_start_matches('/');
    let upload = format!("../../../{}", "private.jpg");
    // Relative to the root of the file system, absolute, upwards, a file that is read for ever, and uploads that are none.
    let keys = [(inside, None), (private, None), ("../private.jpg", None), ("proc/kmsg", None)];
    let uploads =
        [("a", Some(private)), ("b", Some(upload.as_str())), ("/proc/kmsg", None), ("etc/passwd", None)];
    for keys in [keys, uploads] {
        forged(&dir, "/", &keys);
        assert_eq!(pictures_on_page(&dir, "forged", &[]), 1, "only the photograph searched with: {keys:?}");
        let photo = photo(&dir);
        let told = dir.run(["search", &photo, "--index", "forged"]).exits(0);
        let told = told.complains_of(&[
            "the folder of the index's pictures, /, was recorded by",
            "--root",
            "move-root",
        ]);
        assert!(!told.stdout.contains("//"), "keys, and no paths: {}", told.stdout);
        dir.run(["eval", "--index", "forged", "--report", "out"]).exits(0).complains_of(&["--root"]);
        let report = std::fs::read_to_string(dir.path("out/report.html")).expect("a report");
        assert!(!report.contains("data:image/jpeg"), "a report shows none of them");

        let args = ["--index", "forged", "--log-level", "off"];
        let server = Serving::start(&dir, &args);
        let items = server.get("/v1/indexes/forged/items").is(200).json()["items"].clone();
        for item in items.as_array().expect("items") {
            for address in ["photo", "thumbnail"] {
                server.get(item[address].as_str().expect("an address")).fails(404, "no_picture");
            }
        }
        let view = server.get("/v1/indexes/forged").is(200).json();
        assert_eq!((&view["pictures"], view["pictures_remark"].is_string()), (&json!(false), true), "{view}");
    }
    // Whoever names the folder gets what lies below it, and no more.
    forged(&dir, "/", &keys);
    assert_eq!(pictures_on_page(&dir, "forged", &["--root", "/"]), 2, "the picture below the root");
    assert_eq!(pictures_on_page(&dir, "forged", &["--root", "cat"]), 1);
    let root = ["--index", "forged", "--root", "forged=/", "--log-level", "off"];
    let server = Serving::start(&dir, &root);
    let items = server.get("/v1/indexes/forged/items").is(200).json()["items"].clone();
    let statuses: Vec<u16> = items
        .as_array()
        .expect("items")
        .iter()
        .map(|item| server.get(item["photo"].as_str().expect("an address")).status)
        .collect();
    assert_eq!(statuses, [200, 404, 404, 404]);
}

#[test]
fn a_copied_index_opens_its_pictures_only_when_they_are_named() {
    let dir = shop();
    assert_eq!(pictures_on_page(&dir, "shop", &[]), 5, "this user's own index, where it was made");
    copy(&dir.path("index-data/shop"), &dir.path("index-data/copy"));
    assert_eq!(pictures_on_page(&dir, "copy", &[]), 1);
    assert_eq!(pictures_on_page(&dir, "copy", &["--root", "cat"]), 5);
    dir.run(["search", &photo(&dir), "--index", "copy", "--root", "none"]).exits(2).complains_of(&["none"]);
    dir.run(["index", "move-root", "copy", "cat"]).exits(0);
    assert_eq!(pictures_on_page(&dir, "copy", &[]), 5);
    // What is derived from one's own index is one's own, what is imported is not.
    dir.run(["index", "derive", "--index", "shop", "--name", "better", "--whiten", "8"]).exits(0);
    assert_eq!(pictures_on_page(&dir, "better", &[]), 5);
    dir.run(["index", "export", "--index", "shop", "--out", "out"]).exits(0);
    dir.run(["index", "import", "out/vectors.npy", "--index", "imported"]).exits(0);
    assert_eq!(pictures_on_page(&dir, "imported", &[]), 1);
}

#[test]
fn an_unsealed_index_is_sealed_when_its_user_names_the_folder() {
    let dir = shop();
    let (at, root) = (dir.path("index-data/shop"), dir.path("cat").canonicalize().expect("the catalogue"));
    let mut writer = IndexWriter::open(&at).expect("a writer");
    let mut attributes = writer.config().attributes.clone();
    attributes.remove(semblance_query::pictures::seal::SEAL).expect("a seal");
    writer.set_attributes(attributes).expect("as an older program left it");
    drop(writer);
    assert_eq!(pictures_on_page(&dir, "shop", &[]), 1);
    dir.run(["index", "add", "--data", "cat", "--index", "shop"].into_iter().chain(MODEL)).exits(0);
    assert_eq!(pictures_on_page(&dir, "shop", &[]), 5);
    let info = dir.run(["index", "info", "--index", "shop", "--json"]).exits(0).json();
    let recorded = info["manifest"]["config"]["attributes"]["catalogue_root"].clone();
    assert_eq!(recorded, Value::from(root.display().to_string()));
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_the_model_is_refused() {
    let dir = shop();
    let mut writer = IndexWriter::open(dir.path("index-data/shop")).expect("a writer");
    let pipe = dir.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    for model in [pipe.to_str().expect("a path"), "/proc/kmsg"] {
        let mut attributes = writer.config().attributes.clone();
        attributes.insert(catalog::MODEL.into(), model.into());
        writer.set_attributes(attributes).expect("as somebody could send it");
        for command in [&["search", "cat/products.csv"][..], &["serve"]] {
            dir.run(command.iter().chain(&["--index", "shop"]))
                .exits(2)
                .complains_of(&[model, "no regular file"]);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_in_the_catalogue_is_no_picture_and_no_waiting() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    dir.run(["index", "build", "--data", "cat", "--name", "shop"].into_iter().chain(MODEL)).exits(0);
    let first = photo(&dir);
    std::fs::rename(dir.path(&first), dir.path("photo.jpg")).expect("moved");
    let made = std::process::Command::new("mkfifo").arg(dir.path(&first)).status();
    assert!(made.expect("mkfifo").success());
    let args = ["search", "photo.jpg", "--index", "shop", "-k", "2", "--html", "page.html"];
    dir.run(args).exits(0).complains_of(&["1 of the 2 pictures looked for are not below"]);
    let server = Serving::start(&dir, &[]);
    let key = first.trim_start_matches("cat/").replace('/', "%2F");
    let item = server.get(&format!("/v1/indexes/shop/items?key={key}")).is(200).json()["items"][0].clone();
    for address in ["photo", "thumbnail"] {
        server.get(item[address].as_str().expect("an address")).fails(404, "no_picture");
    }
    assert_eq!(server.stop("-TERM"), Some(0), "nothing waits for the pipe");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}
