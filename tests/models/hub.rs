//! Models from a hub that stands on loopback.

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::util::{Dir, draw_catalogue};

/// What the hub gives.
#[derive(Clone, Copy, PartialEq)]
enum Hub {
    /// Files, to those who send a token.
    Gated,
    /// Nothing to anyone.
    Forbidden,
    /// A page in the place of every file.
    Page,
    /// The first half of the weights, and then nothing.
    Stalling,
}

/// The paths asked for, and whether the token came with them.
type Log = Mutex<Vec<(String, bool)>>;

/// Starts a hub with these weights; its address, and what it was asked for.
fn hub(kind: Hub, weights: Vec<u8>) -> (String, Arc<Log>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, weights) = (Arc::clone(&seen), Arc::new(weights));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (log, weights) = (Arc::clone(&log), Arc::clone(&weights));
            std::thread::spawn(move || answer(stream, kind, &weights, &log));
        }
    });
    (address, seen)
}

fn answer(stream: TcpStream, kind: Hub, weights: &[u8], log: &Log) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_lowercase())
        .collect();
    let path = request.split(' ').nth(1)?.to_owned();
    let has_token = headers.iter().any(|header| header == "authorization: bearer hf_secret");
    log.lock().expect("the log").push((path.clone(), has_token));
    let file = path.rsplit('/').next()?;
    let body: &[u8] = match (kind, file) {
        (Hub::Page, _) => b"<!doctype html><html><title>Sign in</title></html>",
        (_, "model.safetensors") => weights,
        (_, "config.json") => br#"{"architecture":"resnet10_tiny"}"#,
        _ => b"",
    };
    let status = match kind {
        Hub::Gated if !has_token => "401 Unauthorized",
        Hub::Forbidden => "403 Forbidden",
        _ if body.is_empty() => "404 Not Found",
        _ => "206 Partial Content",
    };
    let range = headers.iter().find_map(|header| header.strip_prefix("range: bytes=")).unwrap_or("0-");
    let (from, to) = range.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = to.parse().map_or(body.len(), |to: usize| to + 1).min(body.len());
    let part = if status.starts_with("206") { body.get(from..to)? } else { b"no" };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: \"{}\"\r\nX-Repo-Commit: {}\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: \
         {}\r\nConnection: close\r\n\r\n",
        body.len(),
        "a".repeat(40),
        to.saturating_sub(1),
        body.len(),
        part.len()
    )
    .ok()?;
    if kind == Hub::Stalling && part.len() > 1 {
        stream.write_all(&part[..part.len() / 2]).ok()?;
        // Until the other side hangs up.
        return stream.read_to_end(&mut Vec::new()).map(drop).ok();
    }
    stream.write_all(part).ok()
}

/// Embeds the catalogue by the hub's model.
fn embed(dir: &Dir, variables: &[(&str, &str)], out: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_semblance"));
    for key in [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(key);
    }
    let args = ["embed", "--data", "cat", "--model", "shop/gated", "--crop", "48", "--out", out];
    command.args(args).envs(variables.iter().copied()).current_dir(dir.path("")).stdin(Stdio::null());
    command.output().expect("the binary starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A catalogue, and the weights of a network that was trained on it for a step.
fn trained() -> (Dir, Vec<u8>) {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let train = ["train", "-q", "--data", "cat", "--arch", "resnet10_tiny", "--crop", "32", "--resize", "32"];
    dir.run(train.into_iter().chain(["--batch", "4", "--steps", "1", "--holdout", "0", "--out", "run"]))
        .exits(0);
    let weights = std::fs::read(dir.path("run/last/model.safetensors")).expect("the weights");
    (dir, weights)
}

#[test]
fn a_gated_model_is_fetched_with_the_token_and_kept_where_the_environment_says() {
    let (dir, weights) = trained();
    let (address, seen) = hub(Hub::Gated, weights);
    let home: PathBuf = dir.path("home");
    let (home, cache) = (home.to_str().expect("text").to_owned(), dir.path("cache"));
    let cache = cache.to_str().expect("text");
    let basic = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", address.as_str()), ("HF_HUB_CACHE", cache)];

    let refused = embed(&dir, &basic, "a.jsonl");
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(2), "{words}");
    for word in ["shop/gated", "401", "gated", "hf auth login", "HF_TOKEN", &format!("{address}/shop/gated")]
    {
        assert!(words.contains(word), "{word} is not in: {words}");
    }
    assert!(seen.lock().unwrap().iter().all(|(_, token)| !token));

    let token = [&basic[..], &[("HF_TOKEN", "hf_secret")]].concat();
    let fetched = embed(&dir, &token, "b.jsonl");
    assert!(fetched.status.success(), "{}", said(&fetched));
    assert!(!said(&fetched).contains("hf_secret"));
    assert!(dir.path("cache/models--shop--gated").is_dir() && !dir.path("home/hub").exists());

    // Without a network it is the cache's; without either it says so.
    let asked = seen.lock().unwrap().len();
    let offline = [&basic[..], &[("HF_HUB_OFFLINE", "1")]].concat();
    let cached = embed(&dir, &offline, "c.jsonl");
    assert!(cached.status.success(), "{}", said(&cached));
    let none = [("HF_HOME", home.as_str()), ("HF_HUB_OFFLINE", "1")];
    let words = said(&embed(&dir, &none, "d.jsonl"));
    assert!(words.contains("HF_HUB_OFFLINE"), "{words}");
    assert_eq!(seen.lock().unwrap().len(), asked);
    let read = |name| std::fs::read(dir.path(name)).expect("vectors");
    assert!(read("b.jsonl") == read("c.jsonl"));

    // The token that logging in wrote does as well.
    std::fs::create_dir_all(&home).unwrap();
    dir.write("home/token", "hf_secret\n");
    let stored = embed(&dir, &[("HF_HOME", home.as_str()), ("HF_ENDPOINT", address.as_str())], "e.jsonl");
    assert!(stored.status.success(), "{}", said(&stored));
}

#[test]
fn a_refusal_and_a_page_are_explained() {
    let dir = Dir::new();
    draw_catalogue(&dir, "cat");
    let home = dir.path("home");
    let home = home.to_str().expect("text");
    for (kind, words) in [
        (Hub::Forbidden, &["403", "gated", "HF_TOKEN"][..]),
        (Hub::Page, &["web page", "Sign in", "model.safetensors"]),
    ] {
        let (address, _) = hub(kind, Vec::new());
        let variables = [("HF_HOME", home), ("HF_ENDPOINT", address.as_str()), ("HF_TOKEN", "hf_secret")];
        for _again in 0..2 {
            let output = embed(&dir, &variables, "out.jsonl");
            let said = said(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            for word in words {
                assert!(said.contains(word), "{word} is not in: {said}");
            }
        }
    }
}

#[test]
fn a_hub_that_falls_silent_is_given_up() {
    let (dir, weights) = trained();
    let (address, _) = hub(Hub::Stalling, weights);
    let variables =
        [("HF_ENDPOINT", address.as_str()), ("HF_HOME", "home"), ("HF_HUB_DOWNLOAD_TIMEOUT", "1")];
    let output = embed(&dir, &variables, "out");
    let error = said(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("sent nothing for 1 s") && error.contains(&address), "{error}");
}
