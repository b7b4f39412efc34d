//! Who may use the server: tokens, pages of other sites, TLS, read-only, and files outside of the catalogue.

use std::process::Command;

use serde_json::json;

use crate::serve::{SHOP, a_key, a_photo};
use crate::serving::Serving;
use crate::util::shop;

#[test]
fn wants_its_token_and_keeps_strangers_out() {
    let dir = shop();
    let token = "a-token-that-is-long-enough";
    dir.write("token", token);
    let server = Serving::start(&dir, &["--token-file", "token"]);
    server.get("/healthz").is(200);
    server.get("/").is(200);
    server.get("/v1/indexes").fails(401, "unauthorized");
    server.get("/metrics").fails(401, "unauthorized");
    let wrong = [("authorization", "Bearer a-token-that-is-long-enougH")];
    server.send("GET", "/v1/indexes", &wrong, None).fails(401, "unauthorized");
    server.send("POST", "/session", &wrong, Some(b"")).fails(401, "unauthorized");
    let right = [("authorization", &*format!("Bearer {token}"))];
    let session = server.send("POST", "/session", &right, Some(b"")).is(204);
    let cookie = session.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a cookie");
    server.send("GET", "/v1/indexes", &[("cookie", cookie)], None).is(200);
    assert!(!server.log().contains(token), "the token is in the log");
    let server = server.with_token(token);
    server.get("/v1/indexes").is(200);
    server
        .send("GET", "/v1/indexes", &[("origin", "https://evil.example")], None)
        .fails(403, "foreign_origin");
    server.send("GET", "/v1/indexes", &[("host", "evil.example")], None).fails(421, "wrong_host");
    let answer = server.send("GET", "/v1/indexes", &[("origin", &server.url)], None).is(200);
    assert_eq!(answer.header("access-control-allow-origin"), "", "CORS is off");

    let outside = ["serve", "--index", "shop", "--listen", "0.0.0.0:0"];
    dir.run(outside).exits(2).complains_of(&["0.0.0.0:0", "token"]);
    dir.write("weak", "short");
    dir.run(outside.into_iter().chain(["--token-file", "weak"])).exits(2).complains_of(&["16 characters"]);
}

#[test]
fn lets_in_the_origins_it_was_told() {
    let dir = shop();
    let server = Serving::start(&dir, &["--allow-origin", "https://Shop.example/"]);
    let origin = [("origin", "https://shop.example")];
    let answer = server.send("GET", "/v1/indexes", &origin, None).is(200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
    let asked = [origin[0], ("access-control-request-method", "DELETE")];
    let answer = server.send("OPTIONS", "/v1/indexes/shop/items/1", &asked, None).is(200);
    assert!(answer.header("access-control-allow-methods").contains("DELETE"), "{:?}", answer.headers);
    server
        .send("GET", "/v1/indexes", &[("origin", "https://other.example")], None)
        .fails(403, "foreign_origin");
    let bad = ["serve", "--index", "shop", "--allow-origin", "shop.example/x"];
    dir.run(bad).exits(2).complains_of(&["shop.example/x", "origin"]);
}

#[test]
fn reads_only_where_it_may_not_write() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let writing = Serving::start(&dir, &[]);
    let told = Serving::start(&dir, &["--read-only"]);
    let locked = Serving::start(&dir, &[]);
    let remark = locked.get(SHOP).is(200).json()["remark"].clone();
    assert!(remark.as_str().is_some_and(|why| why.contains("being written by")), "{remark}");
    for server in [&told, &locked] {
        server.form("POST", &format!("{SHOP}/items"), Some(&photo), &[]).fails(403, "read_only");
        server.json("PUT", &format!("{SHOP}/items"), &json!({ "key": "a" })).fails(403, "read_only");
        server.delete(&format!("{SHOP}/items/1")).fails(403, "read_only");
        assert_eq!(server.get(SHOP).is(200).json()["writable"], false);
    }
    writing.form("POST", &format!("{SHOP}/items"), Some(&photo), &[]).is(201);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while told.get(SHOP).json()["items"] != 49 {
        assert!(std::time::Instant::now() < deadline, "the readers never saw the new item");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn speaks_tls_with_a_certificate() {
    let dir = shop();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir.path(""))
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("no openssl to make a certificate with: left out");
        return;
    }
    let server = Serving::start(&dir, &["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let asked = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            server.address(),
            "-CAfile",
            "cert.pem",
            "-verify_return_error",
            "-quiet",
        ])
        .current_dir(dir.path(""))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut asked = asked.expect("openssl");
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address());
    std::io::Write::write_all(&mut asked.stdin.take().expect("stdin"), request.as_bytes()).expect("sent");
    let output = asked.wait_with_output().expect("an answer");
    assert!(String::from_utf8_lossy(&output.stdout).contains("200 OK"), "{:?}\n{}", output, server.log());
    dir.write("bad.pem", "no certificate");
    let bad = [
        "serve",
        "--index",
        "shop",
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        "bad.pem",
        "--tls-key",
        "key.pem",
    ];
    dir.run(bad).exits(2).complains_of(&["bad.pem"]);
}

#[test]
fn pictures_outside_of_the_catalogue_are_not_there() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let key = a_key(&dir, 3);
    dir.write("secret.jpg", &photo);
    let path = dir.path("cat").join(&key);
    std::fs::remove_file(&path).expect("removed");
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.path("secret.jpg"), &path).expect("a link");
    let server = Serving::start(&dir, &[]);
    let encoded = key.replace('/', "%2F");
    let item = server.get(&format!("{SHOP}/items?key={encoded}")).is(200).json()["items"][0].clone();
    server.get(item["photo"].as_str().expect("it")).fails(404, "no_picture");
    server.get(item["thumbnail"].as_str().expect("it")).fails(404, "no_picture");
}
