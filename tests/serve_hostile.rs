//! What the server withstands: hostile uploads, crowds, being killed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use semblance_index::Index;
use serde_json::json;

use crate::serving::Serving;
use crate::util::{Dir, shop};

const ITEMS: &str = "/v1/indexes/shop/items";
const BY_PHOTO: &str = "/v1/indexes/shop/search/photo";

fn photos(dir: &Dir) -> Vec<Vec<u8>> {
    let items = Index::open(dir.path("index-data/shop")).and_then(|index| index.items()).expect("items");
    items.iter().map(|item| std::fs::read(dir.path("cat").join(&item.key)).expect("a photograph")).collect()
}

/// Numbers that look random (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Kinds of uploads nobody should send.
fn hostile(photo: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    match numbers.next() % 6 {
        0 => photo[..numbers.next() as usize % photo.len()].to_vec(),
        1 => (0..numbers.next() % 4096).map(|_| numbers.next() as u8).collect(),
        2 => {
            let mut bytes = photo.to_vec();
            for _ in 0..8 {
                let at = numbers.next() as usize % bytes.len();
                bytes[at] = numbers.next() as u8;
            }
            bytes
        }
        3 => bomb(numbers.next() as u32 % 60_000 + 1, numbers.next() as u32 % 60_000 + 1),
        4 => b"<script>alert(1)</script>".to_vec(),
        _ => [b"\xff\xd8\xff\xe0".to_vec(), vec![numbers.next() as u8; 300]].concat(),
    }
}

/// A PNG that claims this size and holds next to nothing.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(1, 1).write_to(&mut png, image::ImageFormat::Png).expect("a PNG");
    let mut bytes = png.into_inner();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    // The checksum of the header, so that it is believed.
    let mut crc = !0u32;
    for byte in &bytes[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn hostile_uploads_are_refused_and_the_next_good_one_is_answered() {
    let dir = shop();
    let photos = photos(&dir);
    let server = Serving::start(&dir, &["--max-upload", "2", "--log-level", "error"]);
    let mut numbers = Numbers(7);
    for round in 0..300 {
        let body = hostile(&photos[round % photos.len()], &mut numbers);
        let answer = if round % 2 == 0 {
            server.form("POST", BY_PHOTO, Some(&body), &[])
        } else {
            server.send("POST", BY_PHOTO, &[("content-type", "image/png")], Some(&body))
        };
        // Damage in the middle of a photograph can leave one that can be read.
        assert!([200, 400, 413, 415, 422].contains(&answer.status), "{}: {}", answer.status, answer.text());
    }
    server.form("POST", BY_PHOTO, Some(&photos[0]), &[]).is(200);
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(kib < 1 << 20, "the server took {kib} KiB");
    }
}

#[test]
fn slow_and_broken_senders_keep_nobody_waiting() {
    let dir = shop();
    let photo = photos(&dir).swap_remove(0);
    let server = Serving::start(&dir, &["--time-limit", "2", "--max-upload", "1"]);
    let head = format!(
        "POST {BY_PHOTO} HTTP/1.1\r\nhost: {}\r\ncontent-type: image/jpeg\r\ncontent-length: 100000\r\n\r\n",
        server.address()
    );
    let slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            stream.write_all(head.as_bytes()).expect("sent");
            stream.write_all(&photo[..100]).expect("sent");
            stream
        })
        .collect();
    server.form("POST", BY_PHOTO, Some(&photo), &[]).is(200);
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    }
    // Gone in the middle.
    for _ in 0..16 {
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.write_all(head.as_bytes()).expect("sent");
    }
    server.form("POST", BY_PHOTO, Some(&photo), &[]).is(200);
}

#[test]
fn a_crowd_is_sent_away_politely_and_whoever_is_served_is_served_right() {
    let dir = shop();
    let (photos, index) = (photos(&dir), Index::open(dir.path("index-data/shop")).expect("the index"));
    let keys: Vec<String> = index.items().expect("items").into_iter().map(|item| item.key).collect();
    let server = Serving::start(&dir, &["--queue", "4", "--log-level", "error"]);
    let (served, away) = std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..24)
            .map(|client| {
                let (server, photos, keys) = (&server, &photos, &keys);
                scope.spawn(move || {
                    let mut counts = (0, 0);
                    for round in 0..10 {
                        let at = (client * 7 + round * 5) % photos.len();
                        let answer = server.form("POST", BY_PHOTO, Some(&photos[at]), &[("k", "1")]);
                        if answer.status == 503 {
                            assert_eq!(answer.header("retry-after"), "1");
                            counts.1 += 1;
                        } else {
                            assert_eq!(answer.is(200).json()["hits"][0]["key"], keys[at]);
                            counts.0 += 1;
                        }
                    }
                    counts
                })
            })
            .collect();
        crowd.into_iter().map(|c| c.join().expect("a client")).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    });
    assert!(served > 0 && served + away == 240, "{served} served, {away} sent away");
    server.form("POST", BY_PHOTO, Some(&photos[0]), &[]).is(200);
}

#[test]
fn many_write_at_once_and_a_killed_server_has_lost_nothing() {
    let dir = shop();
    let photos = photos(&dir);
    let server = Serving::start(&dir, &["--log-level", "error"]);
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (server, photos) = (&server, &photos);
            scope.spawn(move || {
                for round in 0..5 {
                    let item = json!({ "key": format!("new/{client}/{round}"), "class": "new" }).to_string();
                    server.form("POST", ITEMS, Some(&photos[client * 5 + round]), &[("item", &item)]).is(201);
                    // All of them write this one.
                    let item = json!({ "key": "shared", "class": format!("by {client}") }).to_string();
                    server.form("PUT", ITEMS, Some(&photos[client * 5 + round]), &[("item", &item)]).is(200);
                }
            });
        }
    });
    server.delete(&format!("{ITEMS}?key=new%2F0%2F0")).is(200);
    // As by kill -9: no time to publish anything.
    drop(server);

    let server = Serving::start(&dir, &["--log-level", "error"]);
    assert_eq!(server.get("/v1/indexes/shop").is(200).json()["items"], 48 + 30 + 1 - 1);
    for (client, round) in (0..6).flat_map(|client| (0..5).map(move |round| (client, round))) {
        let page = server.get(&format!("{ITEMS}?key=new%2F{client}%2F{round}")).is(200).json();
        if (client, round) == (0, 0) {
            assert_eq!(page["items"], json!([]));
            continue;
        }
        let picture = server.get(page["items"][0]["photo"].as_str().expect("an address")).is(200);
        assert_eq!(picture.body, photos[client * 5 + round], "new/{client}/{round}");
    }
    let shared = server.get(&format!("{ITEMS}?key=shared")).is(200).json();
    let picture = server.get(shared["items"][0]["photo"].as_str().expect("an address")).is(200);
    assert!(photos.contains(&picture.body));
    let uploads = std::fs::read_dir(dir.path("index-data/shop/uploads")).expect("a folder").count();
    assert_eq!(uploads, 30, "29 items and the shared one, and nothing left over");
}
