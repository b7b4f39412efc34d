//! The server as a process of its own on a free port, and a small client.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::util::Dir;

/// A running `semblance serve`; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    pub(crate) url: String,
    agent: ureq::Agent,
    token: Option<String>,
    log: Arc<Mutex<String>>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Serving {
    /// Serves the index `shop` of the folder.
    pub(crate) fn start(dir: &Dir, more: &[&str]) -> Self {
        Self::start_in(&dir.path(""), more)
    }

    pub(crate) fn start_in(dir: &Path, more: &[&str]) -> Self {
        Self::start_as(dir, more, |_| {})
    }

    /// With a last word on how the program is started.
    pub(crate) fn start_as(dir: &Path, more: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_semblance"));
        command.args(["serve", "--index", "shop", "--listen", "127.0.0.1:0"]).args(more).current_dir(dir);
        command
            .env_remove("SEMBLANCE_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().expect("the binary starts");
        let (mut stderr, log) = (child.stderr.take().expect("stderr"), Arc::new(Mutex::new(String::new())));
        let kept = log.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                kept.lock().expect("the log").push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let Some((url, _)) = line.split_once(" serves ") else {
            let _ = child.wait();
            std::thread::sleep(Duration::from_millis(100));
            panic!("the server did not start: {line}{}", log.lock().expect("the log"));
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            // A server that answers before it has read a body closes the connection, perhaps just when it is used again.
            .max_idle_connections(0)
            .build();
        Self { child, url: url.to_owned(), agent: config.into(), token: None, log }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").expect("a URL").1
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// A request with whatever headers.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = match body {
            Some(body) => self.agent.run(request.body(body).expect("a request")),
            None => self.agent.run(request.body(()).expect("a request")),
        };
        let mut response =
            response.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()));
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().expect("a body");
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.send(method, path, &[("content-type", "application/json")], Some(body.as_bytes()))
    }

    /// A form with a photograph and other fields.
    pub(crate) fn form(
        &self,
        method: &str,
        path: &str,
        photo: Option<&[u8]>,
        fields: &[(&str, &str)],
    ) -> Answer {
        self.form_of(method, path, photo.as_slice(), fields)
    }

    /// A form with any number of photographs.
    pub(crate) fn form_of(
        &self,
        method: &str,
        path: &str,
        photos: &[&[u8]],
        fields: &[(&str, &str)],
    ) -> Answer {
        const BOUNDARY: &str = "----a-boundary-that-no-photograph-has";
        let mut body = Vec::new();
        for (name, value) in fields {
            let part =
                format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        for photo in photos {
            let head = format!(
                "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"photo\"; filename=\"a.jpg\"\r\ncontent-type: \
                 image/jpeg\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(photo);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.send(method, path, &[("content-type", &kind)], Some(&body))
    }

    /// Asks the process to stop and gives its exit code.
    #[cfg(unix)]
    pub(crate) fn stop(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not stop: {}", self.log());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Insists on an error of this status and word.
    #[track_caller]
    pub(crate) fn fails(self, status: u16, code: &str) -> Value {
        let answer = self.is(status);
        let body = answer.json();
        assert_eq!(body["code"], code, "{body}");
        assert!(body["message"].as_str().is_some_and(|message| message.len() > 10), "{body}");
        body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of text"))
    }
}
