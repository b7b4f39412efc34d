//! Behind a proxy: below a path of its own, and under a name of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::serve::{SHOP, a_photo};
use crate::serving::{Answer, Serving};
use crate::util::shop;

/// Addresses that a page, style sheet or module names.
fn addresses(text: &str) -> Vec<String> {
    let starts = ["href=\"", "src=\"", "from \"", "url(\"", "fetch(\"", "api(\"", "url: \"", "\"url\": \""];
    let after = starts.iter().flat_map(|start| text.split(start).skip(1));
    after.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

#[test]
fn the_page_names_nothing_from_the_root() {
    let dir = shop();
    let server = Serving::start(&dir, &[]);
    for path in
        ["/", "/web/main.js", "/web/api.js", "/web/item.js", "/web/about.js", "/web/search.js", "/docs/"]
    {
        let text = server.get(path).is(200).text();
        for address in addresses(&text) {
            assert!(!address.starts_with('/'), "{path} names {address}");
        }
        assert!(!text.contains("`/v1") && !text.contains("\"/v1/indexes\""), "{path}");
    }
    let initializer = server.get("/docs/swagger-initializer.js").is(200).text();
    assert!(
        initializer.contains("\"../openapi.json\"") && !initializer.contains("\"/openapi.json\""),
        "{initializer}"
    );
}

#[test]
fn a_base_path_is_served_with_and_without() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &["--base-path", "/semblance/"]);
    for base in ["", "/semblance"] {
        server.get(&format!("{base}/")).is(200);
        server.get(&format!("{base}/web/main.js")).is(200);
        server.get(&format!("{base}/docs/")).is(200);
        server.get(&format!("{base}/nowhere")).fails(404, "unknown_address");
        let found =
            server.form("POST", &format!("{base}{SHOP}/search/photo?k=2"), Some(&photo), &[]).is(200).json();
        let hit = &found["hits"][0];
        for address in ["photo", "thumbnail"] {
            let address = hit[address].as_str().expect("an address");
            assert!(address.starts_with("/semblance/v1/"), "{address}");
            server.get(address).is(200);
        }
        let document: Value = server.get(&format!("{base}/openapi.json")).is(200).json();
        assert_eq!(document["servers"][0]["url"], "/semblance");
    }
    // Without its slash, relative addresses in the page would count from elsewhere.
    let stream = |request: &str| {
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let request = |path: &str| {
        stream(&format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", server.address()))
    };
    let moved = request("/semblance").to_lowercase();
    assert!(moved.contains(" 308 ") && moved.contains("location: /semblance/\r"), "{moved}");
    assert!(request("/semblances/v1/indexes").contains(" 404 "));
    dir.run(["serve", "--index", "shop", "--base-path", "/a b"])
        .exits(2)
        .complains_of(&["/a b", "base path"]);
}

#[test]
fn a_proxy_that_takes_its_prefix_off_serves_the_whole_page() {
    let dir = shop();
    let server = Serving::start(&dir, &[]);
    let (proxy, upstream) = (TcpListener::bind("127.0.0.1:0").expect("a port"), server.address().to_owned());
    let address = proxy.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in proxy.incoming().flatten() {
            let upstream = upstream.clone();
            std::thread::spawn(move || forward(client, &upstream));
        }
    });
    let get = |path: &str| ureq::get(format!("http://{address}{path}")).call();
    let page = get("/tools/shop/").expect("the page").body_mut().read_to_string().expect("text");
    for name in addresses(&page).iter().filter(|name| !name.starts_with('#')) {
        assert!(get(&format!("/tools/shop/{name}")).is_ok(), "{name}");
    }
    assert!(get("/tools/shop/v1/indexes").is_ok());
}

/// What `location /tools/shop/ { proxy_pass http://…/; }` does, for one request.
fn forward(mut client: TcpStream, upstream: &str) {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone().expect("a connection"));
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|bytes| bytes > 0) {}
    let Some(path) = head.split(' ').nth(1) else { return };
    let mut answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    if let Some(rest) = path.strip_prefix("/tools/shop/") {
        let request = format!("GET /{rest} HTTP/1.1\r\nhost: {upstream}\r\nconnection: close\r\n\r\n");
        let mut server = TcpStream::connect(upstream).expect("the server");
        server.write_all(request.as_bytes()).expect("sent");
        answer.clear();
        server.read_to_end(&mut answer).expect("an answer");
    }
    let _ = client.write_all(&answer);
}

#[test]
fn a_public_host_is_answered_and_others_are_told_what_to_do() {
    let dir = shop();
    let server =
        Serving::start(&dir, &["--public-host", "Shop.Example", "--public-host", "other.example:8443"]);
    let send = |headers: &[(&str, &str)]| -> Answer { server.send("GET", "/v1/indexes", headers, None) };
    for host in ["shop.example", "SHOP.example:443", "other.example:8443", "localhost"] {
        send(&[("host", host)]).is(200);
    }
    for host in ["evil.example", "other.example", "shop.example.evil.example"] {
        let told = send(&[("host", host)]).fails(421, "wrong_host");
        let message = told["message"].as_str().expect("words");
        assert!(message.contains("--public-host") && message.contains("shop.example"), "{message}");
    }
    // The page itself, served by a proxy that speaks TLS, whether or not it passes its name on.
    send(&[("host", "shop.example"), ("origin", "https://shop.example")]).is(200);
    send(&[("origin", "https://shop.example")]).is(200);
    send(&[("host", "shop.example"), ("origin", "https://evil.example")]).fails(403, "foreign_origin");
    let host = server.address().to_uppercase();
    send(&[("host", &host), ("origin", &format!("http://{}", server.address()))]).is(200);
    dir.run(["serve", "--index", "shop", "--public-host", "https://shop.example"])
        .exits(2)
        .complains_of(&["https://shop.example", "name of a host"]);
    let mut twice = TcpStream::connect(server.address()).expect("a connection");
    let request =
        format!("GET / HTTP/1.1\r\nhost: {0}\r\nhost: {0}\r\nconnection: close\r\n\r\n", server.address());
    twice.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    twice.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(" 400 "), "{answer}");
}
