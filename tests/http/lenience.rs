//! Spellings and habits that RFC 9110 and 9112 allow, and words on what is not understood.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::serve::{SHOP, a_photo};
use crate::serving::{Answer, Serving};
use crate::util::shop;

/// Sends raw bytes, perhaps shuts down this side, and reads to the end.
fn raw(server: &Serving, request: &[u8], half_close: bool) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    stream.write_all(request).expect("sent");
    if half_close {
        stream.shutdown(Shutdown::Write).expect("shut down");
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_client_that_has_said_everything_is_answered() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &[]);
    let host = server.address().to_owned();
    let get = format!("GET /v1/indexes HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let newer = format!("GET /v1/indexes HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut post = format!(
        "POST {SHOP}/search/photo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: image/jpeg\r\n\
         Content-Length: {}\r\n\r\n",
        photo.len()
    )
    .into_bytes();
    post.extend_from_slice(&photo);
    for request in [get.as_bytes(), newer.as_bytes(), &post] {
        for half_close in [false, true] {
            let answer = raw(&server, request, half_close);
            let status = answer.lines().next().unwrap_or_default();
            assert!(status.ends_with("200 OK"), "half closed: {half_close}\n{answer}");
            assert!(answer.contains("\"shop\""), "{answer}");
        }
    }
    // One that leaves in the middle of its request is let go.
    let cut = &post[..post.len() / 2];
    let answer = raw(&server, cut, true);
    assert!(!answer.contains("200 OK"), "{answer}");
    server.get("/healthz").is(200);
}

#[test]
fn media_types_are_understood_in_any_case() {
    let dir = shop();
    let (key, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &[]);
    let by_photo = format!("{SHOP}/search/photo");
    let send = |path: &str, kind: &str, body: &[u8]| -> Answer {
        server.send("POST", path, &[("content-type", kind)], Some(body))
    };
    for kind in ["Image/JPEG", "IMAGE/PNG", "Application/Octet-Stream"] {
        assert_eq!(send(&by_photo, kind, &photo).is(200).json()["hits"][0]["key"], key.as_str(), "{kind}");
    }
    let asked = format!("{{\"key\":{key:?}}}");
    for kind in ["Application/JSON", "APPLICATION/JSON; Charset=UTF-8"] {
        send(&format!("{SHOP}/search"), kind, asked.as_bytes()).is(200);
        let described = format!("{{\"key\":{key:?},\"class\":\"x\"}}");
        server
            .send("PUT", &format!("{SHOP}/items"), &[("content-type", kind)], Some(described.as_bytes()))
            .is(200);
    }
    let form = |field: &str| {
        let head = format!("--x\r\n{field}\r\nContent-Type: Image/JPEG\r\n\r\n");
        [head.as_bytes(), &photo, b"\r\n--x--\r\n"].concat()
    };
    for kind in ["Multipart/Form-Data; Boundary=x", "MULTIPART/FORM-DATA;BOUNDARY=\"x\""] {
        for field in [
            "Content-Disposition: form-data; name=\"photo\"; filename=\"a.jpg\"",
            "CONTENT-DISPOSITION: Form-Data; Name=photo; FileName=\"a.jpg\"",
        ] {
            let found = send(&by_photo, kind, &form(field)).is(200).json();
            assert_eq!(found["hits"][0]["key"], key.as_str(), "{kind} {field}");
        }
    }
    send(&by_photo, "text/plain", &photo).fails(415, "unsupported_media_type");
    send(&by_photo, "nonsense", &photo).fails(415, "unsupported_media_type");
}

#[test]
fn what_is_sent_wrongly_is_told_how_it_goes() {
    let dir = shop();
    let (_, photo) = a_photo(&dir);
    let server = Serving::start(&dir, &[]);
    let (by_photo, items) = (format!("{SHOP}/search/photo"), format!("{SHOP}/items"));
    let kind = [("content-type", "multipart/form-data; boundary=x")];
    for field in [
        "form-data; name=\"file\"; filename=\"a.jpg\"\r\ncontent-type: image/jpeg",
        "form-data; name=\"image\"\r\ncontent-type: image/jpeg",
        "form-data; name=\"upload\"",
    ] {
        let head = format!("--x\r\ncontent-disposition: {field}\r\n\r\n");
        let body = [head.as_bytes(), &photo, b"\r\n--x--\r\n"].concat();
        for path in [&by_photo, &items] {
            let told = server.send("POST", path, &kind, Some(&body)).fails(400, "bad_request");
            let message = told["message"].as_str().expect("words");
            assert!(
                message.contains("field `photo`") || message.contains("photo, item"),
                "{field}: {message}"
            );
        }
    }
    let told = server.form("POST", &by_photo, None, &[("k", "3")]).fails(400, "bad_request");
    assert!(told["message"].as_str().is_some_and(|text| text.contains("field `photo`")), "{told}");
    for coding in ["gzip", "br", "Zstd", "identity, gzip"] {
        let headers = [("content-type", "image/jpeg"), ("content-encoding", coding)];
        for path in [&by_photo, &items, &format!("{SHOP}/search")] {
            let answer = server.send("POST", path, &headers, Some(b"\x1f\x8b compressed"));
            assert_eq!(answer.header("accept-encoding"), "identity");
            let told = answer.fails(415, "unsupported_media_type");
            assert!(told["message"].as_str().is_some_and(|text| text.contains(coding)), "{told}");
        }
    }
    let headers = [("content-type", "image/jpeg"), ("content-encoding", "Identity")];
    server.send("POST", &by_photo, &headers, Some(&photo)).is(200);
}
