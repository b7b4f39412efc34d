//! Models from the Hugging Face hub, kept in its cache folder.

mod described;
mod download;
mod settings;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo};

use self::download::{Failure, download};
use self::settings::Settings;
use crate::backbone::Arch;
use crate::error::{EmbedError, Result};
use crate::weights::kind;

/// Files that weights are looked for in, the first first: transformers' and timm's, then open_clip's.
const WEIGHTS: [&str; 4] =
    ["model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
/// Files that say which network it is.
const CONFIGS: [&str; 2] = ["config.json", "open_clip_config.json"];

/// Whether a name looks like `owner/model`.
pub fn is_name(name: &str) -> bool {
    let plain = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(fits)
    };
    name.split_once('/').is_some_and(|(owner, model)| plain(owner) && plain(model))
}

/// The weight file of `owner/model`, downloaded unless it is in the cache already, and the architecture its
/// `config.json` names.
///
/// As `huggingface_hub` does, it reads from the environment where the cache is (`HF_HUB_CACHE`, `HF_HOME`), which token
/// is sent (`HF_TOKEN`, or the file that logging in writes), where the hub is (`HF_ENDPOINT`), whether it may be asked at
/// all (`HF_HUB_OFFLINE`), and how many seconds it may send nothing (`HF_HUB_DOWNLOAD_TIMEOUT`, 30 by default).
///
/// # Errors
/// [`EmbedError::Hub`] if the model, or the network, is not there, or the hub does not give it to this user.
pub fn fetch(name: &str) -> Result<(PathBuf, Option<Arch>)> {
    let fetched = Settings::from_env().and_then(|settings| Repository::new(name, settings)?.fetch());
    fetched.map_err(|reason| EmbedError::Hub { model: name.to_owned(), reason })
}

/// A model's files, here and there.
struct Repository<'a> {
    name: &'a str,
    settings: Settings,
    cached: CacheRepo,
    remote: Arc<ApiRepo>,
}

impl<'a> Repository<'a> {
    fn new(name: &'a str, settings: Settings) -> Result<Self, String> {
        let cache = Cache::new(settings.cache.clone());
        let token = settings.token.as_ref().map(|token| token.value.clone());
        let api = ApiBuilder::from_cache(cache.clone()).with_progress(false).with_token(token);
        let api = api.with_endpoint(settings.endpoint.clone()).build().map_err(|error| error.to_string())?;
        let (cached, remote) = (cache.model(name.to_owned()), Arc::new(api.model(name.to_owned())));
        Ok(Self { name, settings, cached, remote })
    }

    fn fetch(&self) -> Result<(PathBuf, Option<Arch>), String> {
        let weights = self.first(&WEIGHTS)?.ok_or_else(|| {
            let files = WEIGHTS.join(", ");
            if self.settings.offline {
                let cache = self.settings.cache.display();
                return format!(
                    "{cache} has none of {files} of it, and HF_HUB_OFFLINE forbids asking for them: unset it"
                );
            }
            format!(
                "it has none of {files}: check the name, or take a model with weights in one of these files"
            )
        })?;
        for config in CONFIGS {
            let path = self.first(&[config])?;
            let arch = path.and_then(|path| fs::read(path).ok()).and_then(|text| described::arch_of(&text));
            if arch.is_some() {
                return Ok((weights, arch));
            }
        }
        Ok((weights, None))
    }

    /// The first of these files that there is: in the cache, or else on the hub.
    fn first(&self, files: &[&str]) -> Result<Option<PathBuf>, String> {
        if let Some(path) = files.iter().find_map(|file| self.cached.get(file)) {
            return Ok(Some(path));
        }
        if self.settings.offline {
            return Ok(None);
        }
        for file in files {
            match download(&self.remote, file, self.settings.patience) {
                Ok(path) => return refuse_pages(&path, file).map(|()| Some(path)),
                Err(Failure::Api(error)) if status(&error) == Some(404) => {}
                Err(Failure::Api(error)) => return Err(self.explain(file, &error)),
                Err(Failure::Panicked) => return Err(format!("{file}: the hub's client failed")),
                Err(Failure::Silent(patience)) => {
                    return Err(format!(
                        "{file}: {} sent nothing for {} s: try again later, or set HF_HUB_DOWNLOAD_TIMEOUT to more \
                         seconds",
                        self.settings.endpoint,
                        patience.as_secs()
                    ));
                }
            }
        }
        Ok(None)
    }

    /// Why a file was not given, and what to do.
    fn explain(&self, file: &str, error: &ApiError) -> String {
        let Settings { endpoint, token, .. } = &self.settings;
        let page = format!("{endpoint}/{}", self.name);
        match (status(error), token) {
            (Some(code @ (401 | 403)), None) => format!(
                "it asks for a login ({code}): the model is gated or private, or does not exist. Ask for access on \
                 {page}, then log in with `hf auth login` or set HF_TOKEN to a token of {endpoint}/settings/tokens"
            ),
            (Some(401), Some(token)) => format!(
                "it does not accept the token of {} (401), or the model does not exist: check the name, or make another \
                 token on {endpoint}/settings/tokens",
                token.source
            ),
            (Some(403), Some(token)) => format!(
                "the account of the token of {} may not read it (403): the model is gated. Ask for access on {page}; a \
                 fine-grained token also needs the right to read gated models",
                token.source
            ),
            (Some(429), _) => "it had too many requests (429): wait some minutes, or log in".to_owned(),
            (Some(code @ 500..), _) => format!("it has trouble ({code}): try again later"),
            _ => format!("{file}: {error}"),
        }
    }
}

/// The status that an error of the client stands for.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Takes a page that came in a file's place, such as a login, out of the cache again, where it would stay for good.
fn refuse_pages(path: &Path, file: &str) -> Result<(), String> {
    let mut start = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    let is_json = file.ends_with(".json") && start.trim_ascii_start().starts_with(b"{");
    if is_json || !kind::is_text(&start) {
        return Ok(());
    }
    let what = kind::describe(&start).unwrap_or_else(|| "it is text".to_owned());
    if let Ok(blob) = fs::canonicalize(path) {
        // What cannot be removed is named again the next time.
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(path);
    Err(format!("what came as {file} is no such file: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_are_told_from_paths() {
        for name in ["timm/resnet50.a1_in1k", "microsoft/resnet-50"] {
            assert!(is_name(name), "{name}");
        }
        for path in ["resnet50", "./timm/resnet50", "../x/y", "a/b/c", "/abs/path", "runs/", "/model"] {
            assert!(!is_name(path), "{path}");
        }
    }

    #[test]
    fn a_page_in_a_files_place_is_named_and_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let page = write("page", b"<!doctype html><html><title>Sign in</title></html>");
        let error = refuse_pages(&page, "model.safetensors").unwrap_err();
        assert!(error.contains("model.safetensors") && error.contains("Sign in"), "{error}");
        assert!(!page.exists());
        let weights = write("weights", b"\x08\0\0\0\0\0\0\0{\"a\":{}}");
        let config = write("config", b"{\"architecture\": \"resnet18\"}");
        refuse_pages(&weights, "model.safetensors").unwrap();
        refuse_pages(&config, "config.json").unwrap();
        assert!(weights.exists() && config.exists());
        assert!(refuse_pages(&config, "model.safetensors").is_err());
    }

    #[test]
    fn refusals_say_how_to_get_in() {
        let dir = tempfile::tempdir().unwrap();
        let explained = |token: Option<&str>, code: u16| {
            let home = dir.path().to_str().unwrap();
            let settings = Settings::read(&|key| match key {
                "HF_HOME" => Some(home.to_owned()),
                "HF_TOKEN" => token.map(str::to_owned),
                _ => None,
            });
            let repository = Repository::new("meta/gated", settings.unwrap()).unwrap();
            let error = ApiError::RequestError(Box::new(ureq::Error::StatusCode(code)));
            repository.explain("model.safetensors", &error)
        };
        for (token, code, words) in [
            (None, 401, &["gated", "hf auth login", "HF_TOKEN", "https://huggingface.co/meta/gated"][..]),
            (None, 403, &["gated", "hf auth login"]),
            (Some("hf_x"), 401, &["token of HF_TOKEN", "settings/tokens"]),
            (Some("hf_x"), 403, &["gated", "Ask for access on https://huggingface.co/meta/gated"]),
            (None, 429, &["429", "wait"]),
            (None, 503, &["503", "later"]),
        ] {
            let said = explained(token, code);
            for word in words {
                assert!(said.contains(word), "{word} is not in: {said}");
            }
            assert!(!said.contains("hf_x"), "the token itself is never printed");
        }
    }
}
