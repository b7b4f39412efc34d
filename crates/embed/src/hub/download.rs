//! A download that is given up when the hub falls silent: its client waits without end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiError, ApiRepo};

/// Why there is no file.
pub(super) enum Failure {
    /// The client's error.
    Api(ApiError),
    /// Nothing came for so long.
    Silent(Duration),
    /// The client panicked.
    Panicked,
}

/// What the downloading thread tells.
enum News {
    Bytes,
    Done(Result<PathBuf, ApiError>),
}

/// Tells of bytes that came.
struct Listener(SyncSender<News>);

impl Progress for Listener {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.update(0);
    }

    fn update(&mut self, _size: usize) {
        // A full channel holds news enough.
        let _ = self.0.try_send(News::Bytes);
    }

    fn finish(&mut self) {
        self.update(0);
    }
}

/// Downloads a file into the cache, unless nothing comes for `patience`. The thread of a download that was given up waits on
/// until its connection ends or the program does.
pub(super) fn download(repo: &Arc<ApiRepo>, file: &str, patience: Duration) -> Result<PathBuf, Failure> {
    let (sender, news) = sync_channel(64);
    let (repo, name) = (Arc::clone(repo), file.to_owned());
    std::thread::spawn(move || {
        let result = repo.download_with_progress(&name, Listener(sender.clone()));
        // Nobody listens to what was given up.
        let _ = sender.send(News::Done(result));
    });
    loop {
        match news.recv_timeout(patience) {
            Ok(News::Bytes) => {}
            Ok(News::Done(result)) => return result.map_err(Failure::Api),
            Err(RecvTimeoutError::Timeout) => return Err(Failure::Silent(patience)),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Panicked),
        }
    }
}
