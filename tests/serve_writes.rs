//! Writes that are repeated, given up, or cut short: nothing twice, nothing by halves, nothing left over.

use serde_json::json;

use crate::serve::{SHOP, a_photo};
use crate::serving::{Answer, Serving};
use crate::util::shop;

const BOUNDARY: &str = "----a-boundary";

/// A form with a photograph and a description, with an `Idempotency-Key`.
fn send(server: &Serving, method: &str, key: &str, photo: &[u8], item: &serde_json::Value) -> Answer {
    let mut body = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"item\"\r\n\r\n{item}\r\n--{BOUNDARY}\r\n\
         content-disposition: form-data; name=\"photo\"; filename=\"a.jpg\"\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(photo);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let headers = [("content-type", kind.as_str()), ("idempotency-key", key)];
    server.send(method, &format!("{SHOP}/items"), &headers, Some(&body))
}

#[test]
fn a_repeated_request_is_done_once_and_answered_alike() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &["--log-level", "error"]);
    let hat = json!({ "key": "hat", "class": "hat", "metadata": { "price": 5 } });
    let first = send(&server, "POST", "one", &photo, &hat).is(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let second = send(&server, "POST", "one", &photo, &hat).is(201);
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(first.body, second.body);
    // Another request under the same key, and the same under another key.
    let cap = json!({ "key": "cap" });
    send(&server, "POST", "one", &photo, &cap).fails(422, "key_reused");
    send(&server, "POST", "", &photo, &cap).fails(400, "bad_request");
    server
        .form("POST", &format!("{SHOP}/items"), Some(&photo), &[("item", &hat.to_string())])
        .fails(409, "key_taken");
    // Many at once are one.
    let cap = json!({ "key": "cap", "class": "cap" });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let (server, photo, cap) = (&server, &photo, &cap);
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(move || send(server, "POST", "two", photo, cap).status)).collect();
        all.into_iter().map(|one| one.join().expect("a client")).collect()
    });
    assert_eq!(statuses, [201; 8]);
    let path = format!("{SHOP}/items?key=cap");
    let repeated = [("idempotency-key", "three")];
    server.send("DELETE", &path, &repeated, None).is(200);
    server.send("DELETE", &path, &repeated, None).is(200);
    server.send("DELETE", &path, &[], None).fails(404, "unknown_item");
    // The server's memory is gone: what is there as it was asked for was done.
    drop(server);
    let server = Serving::start(&dir, &["--log-level", "error"]);
    assert_eq!(send(&server, "POST", "one", &photo, &hat).is(201).json()["id"], first.json()["id"]);
    let other = json!({ "key": "hat", "class": "hat", "metadata": { "price": 6 } });
    send(&server, "POST", "four", &photo, &other).fails(409, "key_taken");
    assert_eq!(server.get(SHOP).is(200).json()["items"], 49);
}

#[test]
fn what_crashes_left_behind_is_swept_at_the_start_and_by_compacting() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &["--log-level", "error"]);
    let item = json!({ "key": "kept" });
    send(&server, "POST", "a", &photo, &item).is(201);
    let uploads = dir.path("index-data/shop/uploads");
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(&uploads)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let kept = names();
    assert_eq!(kept.len(), 1);
    drop(server);
    let orphan = |digit: &str| uploads.join(format!("{}.jpg", digit.repeat(32)));
    let litter = || {
        for path in [orphan("a"), orphan("b"), uploads.join(".upload-Ab12Cd")] {
            std::fs::write(path, "left behind").expect("a file");
        }
    };
    litter();
    std::fs::write(uploads.join("notes.txt"), "not ours").expect("a file");
    let server = Serving::start(&dir, &["--log-level", "error"]);
    let after = [kept.clone(), vec!["notes.txt".to_owned()]].concat();
    let mut after = after;
    after.sort();
    assert_eq!(names(), after);
    // Another process may not while this one writes.
    litter();
    dir.run(["index", "compact", "--index", "shop"]).exits(2);
    let reader = Serving::start(&dir, &["--read-only", "--log-level", "error"]);
    assert_eq!(names().len(), after.len() + 3);
    drop((server, reader));
    let told = dir.run(["index", "compact", "--index", "shop", "--json"]).exits(0).json();
    assert_eq!(told["uploads_removed"]["files"], 3, "{told}");
    assert_eq!(names(), after);
}
