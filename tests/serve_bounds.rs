//! What one request, or many, may take from the server: memory, time, threads, connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::serve::{SHOP, a_key, a_photo};
use crate::serving::Serving;
use crate::util::{Dir, shop};

/// Most memory that hostile requests may take beyond that of an idle server, in KiB.
#[cfg(target_os = "linux")]
const BOUND: u64 = 700 << 10;

/// Resident memory of the process in KiB: now (`VmRSS`) or at its peak (`VmHWM`).
#[cfg(target_os = "linux")]
fn memory(server: &Serving, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a line");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

fn repeated(begin: &str, unit: &str, end: &str, bytes: usize) -> String {
    format!("{begin}{}{end}", unit.repeat(bytes / unit.len()))
}

/// JSON of every shape, each near to the largest body that is accepted, and beyond it.
fn shapes(bytes: usize) -> Vec<(&'static str, String)> {
    let filter = |inner: String| format!(r#"{{"id":1,"filter":{inner}}}"#);
    let values = |unit: &str, last: &str| {
        filter(repeated(r#"{"in":{"field":"x","values":["#, unit, &format!("{last}]}}}}"), bytes))
    };
    vec![
        ("objects among the values", values(r#"{"":0},"#, "0")),
        ("lists among the values", values("[],", "0")),
        ("many values", values("0,", "0")),
        ("many strings", values(r#""ab","#, "0")),
        ("floats", values("0.1e1,", "0")),
        (
            "many leaves",
            filter(repeated(
                r#"{"or":["#,
                r#"{"exists":{"field":"a"}},"#,
                r#"{"exists":{"field":"a"}}]}"#,
                bytes,
            )),
        ),
        ("many empty nodes", filter(repeated(r#"{"or":["#, r#"{"and":[]},"#, r#"{"and":[]}]}"#, bytes))),
        ("deep nodes", filter(repeated("", r#"{"not":"#, "0", bytes))),
        ("deep lists", filter(repeated(r#"{"eq":{"field":"x","value":"#, "[", "", bytes))),
        ("deep objects", filter(repeated(r#"{"eq":{"field":"x","value":"#, r#"{"a":"#, "0", bytes))),
        ("a long string", values(&"x".repeat(bytes), "").replace("[x", "[\"x").replace("x]", "x\"]")),
        ("a long name", filter(repeated(r#"{"exists":{"field":""#, "é", r#""}}"#, bytes))),
        ("escapes", filter(repeated(r#"{"exists":{"field":""#, "\\u0001", r#""}}"#, bytes))),
        ("a long number", repeated(r#"{"id":1,"min_score":0."#, "1", "}", bytes)),
        ("a vector", repeated(r#"{"vector":["#, "0,", "0]}", bytes)),
        ("unknown entries", repeated("{", r#""k":0,"#, r#""k":0}"#, bytes)),
        (
            "different entries",
            format!("{{{}\"k\":0}}", (0..bytes / 12).map(|i| format!("\"{i:07}\":0,")).collect::<String>()),
        ),
        ("only commas", repeated("[", ",", "]", bytes)),
        ("only quotes", repeated("", "\"", "", bytes)),
    ]
}

#[cfg(target_os = "linux")]
#[test]
fn json_of_every_shape_from_sixteen_clients_takes_bounded_memory() {
    let dir = shop();
    let server = Serving::start(&dir, &["--log-level", "error"]);
    server
        .json(
            "POST",
            &format!("{SHOP}/search"),
            &json!({ "id": 1, "filter": { "exists": { "field": "class" } } }),
        )
        .is(200);
    let idle = memory(&server, "VmRSS:");
    for bytes in [1 << 20, 4_100_000, 16_700_000] {
        for (name, body) in shapes(bytes) {
            // The largest bodies are refused before they are looked at: two kinds show it.
            if bytes > 1 << 23 && !["objects among the values", "deep lists"].contains(&name) {
                continue;
            }
            std::thread::scope(|scope| {
                for client in 0..16 {
                    let (server, body) = (&server, body.as_bytes());
                    scope.spawn(move || {
                        let (method, path) =
                            if client % 4 == 3 { ("PUT", "items") } else { ("POST", "search") };
                        let json = [("content-type", "application/json")];
                        let answer = server.send(method, &format!("{SHOP}/{path}"), &json, Some(body));
                        let expected = [200, 400, 413, 503].contains(&answer.status);
                        assert!(expected, "{name}: {} {}", answer.status, answer.text());
                        assert!(
                            answer.body.len() < 20_000,
                            "{name}: an answer of {} bytes",
                            answer.body.len()
                        );
                    });
                }
            });
            let peak = memory(&server, "VmHWM:");
            assert!(peak < idle + BOUND, "{name} of {bytes} bytes: {idle} KiB idle, {peak} KiB at the peak");
        }
    }
    // Filters in addresses and forms are the same filters.
    let long = format!("{SHOP}/items?filter={}", "%5B".repeat(10_000));
    assert_eq!(server.get(&long).status, 413);
    let (_, photo) = a_photo(&dir);
    let filter = repeated(r#"{"in":{"field":"x","values":["#, r#"{"":0},"#, "0]}}", 4_000_000);
    let form = server.form("POST", &format!("{SHOP}/search/photo"), Some(&photo), &[("filter", &filter)]);
    form.fails(413, "too_large");
    server.json("POST", &format!("{SHOP}/search"), &json!({ "id": 1 })).is(200);
}

#[test]
fn filters_are_bounded_and_say_what_no_item_meets() {
    let dir = shop();
    let server = Serving::start(&dir, &[]);
    let search = |filter: serde_json::Value| {
        server.json("POST", &format!("{SHOP}/search"), &json!({ "id": 1, "filter": filter }))
    };
    let leaf = json!({ "eq": { "field": "class", "value": "x" } });
    search(json!({ "or": vec![leaf.clone(); 1_023] })).is(200);
    search(json!({ "or": vec![leaf.clone(); 1_024] })).fails(400, "bad_filter");
    search((0..40).fold(leaf, |inner, _| json!({ "not": inner }))).fails(400, "bad_filter");
    search(json!({ "in": { "field": "class", "values": vec![0; 65_537] } })).fails(400, "bad_filter");
    let found = search(json!({ "eq": { "field": "klass", "value": "x" } })).is(200).json();
    assert_eq!(found["hits"], json!([]));
    assert!(
        found["warnings"][0].as_str().is_some_and(|w| w.contains("klass") && w.contains("\"class\"")),
        "{found}"
    );
    let page = server
        .get(&format!("{SHOP}/items?filter=%7B%22exists%22:%7B%22field%22:%22klass%22%7D%7D"))
        .is(200)
        .json();
    assert_eq!((&page["items"], page["warnings"].as_array().map(Vec::len)), (&json!([]), Some(1)), "{page}");
    assert_eq!(search(json!({ "exists": { "field": "class" } })).is(200).json()["warnings"], json!([]));
}

/// An index whose item `at` has a named pipe for a picture.
#[cfg(unix)]
fn with_a_pipe(dir: &Dir, at: usize) -> String {
    let path = dir.path("cat").join(a_key(dir, at));
    std::fs::remove_file(&path).expect("removed");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let index = semblance_index::Index::open(dir.path("index-data/shop")).expect("the index");
    let id = index.items().expect("items")[at].id;
    format!("{SHOP}/items/{id}")
}

#[cfg(unix)]
#[test]
fn a_picture_that_is_a_pipe_blocks_nobody_and_the_server_stops() {
    let dir = shop();
    let item = with_a_pipe(&dir, 3);
    let server = Serving::start(&dir, &["--time-limit", "3", "--log-level", "error"]);
    let good = server.get(&format!("{SHOP}/items?limit=1")).is(200).json();
    let good = good["items"][0]["thumbnail"].as_str().expect("an address").to_owned();
    std::thread::scope(|scope| {
        let stuck: Vec<_> = (0..16)
            .map(|client| {
                let (server, item) = (&server, &item);
                let what = if client % 2 == 0 { "photo" } else { "thumbnail" };
                scope.spawn(move || server.get(&format!("{item}/{what}")).status)
            })
            .collect();
        // Others are served meanwhile.
        for _ in 0..10 {
            server.get("/healthz").is(200);
            server.get(&good).is(200);
            server.json("POST", &format!("{SHOP}/search"), &json!({ "id": 1 })).is(200);
        }
        for client in stuck {
            let status = client.join().expect("a client");
            assert_eq!(status, 404);
        }
    });
    let began = Instant::now();
    assert_eq!(server.stop("-TERM"), Some(0));
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

/// Whether the server closes the connection, in at most a minute.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn silent_connections_are_closed() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let dir = shop();
    let server = Serving::start(&dir, &["--idle-time", "2", "--log-level", "error"]);
    let whole = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", server.address());
    let beginnings: [&[u8]; 6] = [
        b"",
        &PREFACE[..10],
        PREFACE,
        &[PREFACE, SETTINGS].concat(),
        b"GET / HTTP/1.1\r\nhost: lo",
        whole.as_bytes(),
    ];
    let mut streams: Vec<TcpStream> = beginnings
        .iter()
        .map(|beginning| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            stream.write_all(beginning).expect("sent");
            stream
        })
        .collect();
    for (stream, beginning) in streams.iter_mut().zip(beginnings) {
        assert!(is_closed(stream), "still open after {:?}", String::from_utf8_lossy(beginning));
    }
}

#[test]
fn more_connections_than_there_is_room_for_do_not_make_the_server_deaf() {
    let dir = shop();
    let server = Serving::start(&dir, &["--max-connections", "32", "--log-level", "error"]);
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(server.address()).expect("a connection")).collect();
    let uploading = format!(
        "POST {SHOP}/search HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n",
        server.address()
    );
    let slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            // One that had to make room has been closed.
            let _ = stream.write_all(uploading.as_bytes());
            stream
        })
        .collect();
    for _ in 0..5 {
        server.get("/healthz").is(200);
        server.json("POST", &format!("{SHOP}/search"), &json!({ "id": 1 })).is(200);
    }
    drop((silent, slow));
}

/// The first line of the answer to a request as it stands.
fn raw(server: &Serving, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_request_is_for_one_host() {
    let dir = shop();
    let server = Serving::start(&dir, &["--log-level", "error"]);
    let host = server.address();
    let get =
        |hosts: &str| raw(&server, &format!("GET /healthz HTTP/1.1\r\n{hosts}connection: close\r\n\r\n"));
    assert!(get(&format!("host: {host}\r\n")).contains(" 200 "));
    assert!(get(&format!("host: {host}\r\nhost: {host}\r\n")).contains(" 400 "));
    assert!(get(&format!("host: {host}\r\nhost: evil.example\r\n")).contains(" 400 "));
    assert!(get("").contains(" 400 "));
    assert!(get("host: a b\r\n").contains(" 400 "));
}

#[test]
fn too_many_requests_and_wrong_tokens_are_sent_away() {
    let dir = shop();
    dir.write("token", "a-token-that-is-long-enough");
    let server = Serving::start(
        &dir,
        &["--token-file", "token", "--trusted-proxy", "127.0.0.1", "--rate-limit", "5", "--log-level", "off"],
    );
    let statuses = |client: &str, token: &str, count: usize| -> Vec<u16> {
        let token = format!("Bearer {token}");
        let headers = [("x-forwarded-for", client), ("authorization", token.as_str())];
        (0..count).map(|_| server.send("GET", "/v1/indexes", &headers, None).status).collect()
    };
    let good = "a-token-that-is-long-enough";
    // 50 at once, then 5 a second: in 200 some are sent away, whatever the speed of the machine below 40 a second apart.
    let wrong = statuses("9.9.9.1", "wrong-token-of-someone", 45);
    assert_eq!(wrong[..30], [401; 30]);
    assert!(wrong[31..].contains(&429), "{wrong:?}");
    assert!(statuses("9.9.9.2", good, 10).iter().all(|status| *status == 200), "others are served");
    let many = statuses("9.9.9.3", good, 400);
    assert_eq!(many[..50], [200; 50]);
    assert!(many[50..].contains(&429), "the limit was never reached");
    let answer = server.send("GET", "/v1/indexes", &[("x-forwarded-for", "9.9.9.3")], None);
    if answer.status == 429 {
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    }
    server.get("/healthz").is(200);
    // What a client writes itself is not believed: the address nearest to the proxy counts.
    let disguised = statuses("9.9.9.250, 9.9.9.3", good, 100);
    assert!(disguised.contains(&429), "{disguised:?}");
    dir.run(["serve", "--index", "shop", "--trusted-proxy", "proxy.example"])
        .exits(2)
        .complains_of(&["proxy.example", "10.0.0.0/8"]);
}
