//! What the environment says of the hub, as Hugging Face's own programs read it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Where the hub is, if nothing says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// Seconds for which the hub may send nothing, if nothing says otherwise.
const PATIENCE: u64 = 30;

/// Where the hub and its cache are, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// Address of the hub, without a slash at its end.
    pub(super) endpoint: String,
    /// Folder of downloaded models.
    pub(super) cache: PathBuf,
    /// The token that is sent.
    pub(super) token: Option<Token>,
    /// Whether only the cache may be used.
    pub(super) offline: bool,
    /// How long the hub may send nothing.
    pub(super) patience: Duration,
}

/// What a user is known by.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) value: String,
    /// The variable or file it is from.
    pub(super) source: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Settings {
    /// What the environment of the process says.
    pub(super) fn from_env() -> Result<Self, String> {
        Self::read(&|key| std::env::var(key).ok())
    }

    /// What these variables say; empty ones say nothing.
    pub(super) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |key: &str| variable(key).filter(|value| !value.trim().is_empty());
        let is_set = |key: &str| {
            let value = variable(key).map(|value| value.trim().to_ascii_uppercase());
            value.is_some_and(|value| matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let user = variable("HOME").map(PathBuf::from).or_else(std::env::home_dir);
        let path = |key: &str| {
            let value = variable(key)?;
            match (value.strip_prefix("~/"), &user) {
                (Some(below), Some(user)) => Some(user.join(below)),
                _ => Some(PathBuf::from(value)),
            }
        };
        let cached = || path("XDG_CACHE_HOME").or_else(|| Some(user.as_ref()?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(cached()?.join("huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| Some(home.as_ref()?.join("hub")));
        let cache = cache.ok_or("there is no home folder to keep it in: set HF_HOME")?;

        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if host
            .is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(char::is_whitespace))
        {
            return Err(format!(
                "HF_ENDPOINT is {endpoint:?}, which is no address: give one such as {ENDPOINT}"
            ));
        }
        let from_variable = |key: &str| Some((variable(key)?, key.to_owned()));
        let from_file = || {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")))?;
            Some((fs::read_to_string(&file).ok()?, file.display().to_string()))
        };
        let found = from_variable("HF_TOKEN").or_else(|| from_variable("HUGGING_FACE_HUB_TOKEN"));
        let found = found.or_else(from_file).map(|(value, source)| (value.trim().to_owned(), source));
        let found = found.filter(|(value, _)| !value.is_empty() && !is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        if let Some((_, source)) =
            found.as_ref().filter(|(value, _)| !value.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(format!("the token of {source} has characters that no token has: write it again"));
        }
        let token = found.map(|(value, source)| Token { value, source });
        let offline = is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
        let patience = match variable("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => PATIENCE,
            Some(text) => text.trim().parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                format!("HF_HUB_DOWNLOAD_TIMEOUT is {text:?}: give whole seconds, at least 1")
            })?,
        };
        Ok(Self { endpoint, cache, token, offline, patience: Duration::from_secs(patience) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let all = |key: &str| {
            let found = variables.iter().find(|(name, _)| *name == key)?;
            Some(found.1.to_owned())
        };
        Settings::read(&all)
    }

    #[test]
    fn the_cache_and_the_endpoint_are_where_the_environment_says() {
        let cache = |variables: &[(&str, &str)]| read(variables).unwrap().cache;
        let user = ("HOME", "/home/ann");
        assert_eq!(cache(&[user]), PathBuf::from("/home/ann/.cache/huggingface/hub"));
        assert_eq!(cache(&[user, ("XDG_CACHE_HOME", "/c")]), PathBuf::from("/c/huggingface/hub"));
        assert_eq!(cache(&[user, ("HF_HOME", "~/hf")]), PathBuf::from("/home/ann/hf/hub"));
        assert_eq!(cache(&[user, ("HF_HOME", "/h"), ("HF_HUB_CACHE", "/models")]), PathBuf::from("/models"));
        assert_eq!(cache(&[user, ("HF_HUB_CACHE", ""), ("HF_HOME", "/h")]), PathBuf::from("/h/hub"));
        let endpoint = |address| read(&[user, ("HF_ENDPOINT", address)]).map(|settings| settings.endpoint);
        assert_eq!(read(&[user]).unwrap().endpoint, "https://huggingface.co");
        assert_eq!(endpoint("http://127.0.0.1:8000/").unwrap(), "http://127.0.0.1:8000");
        for bad in ["hub.example", "ftp://hub.example", "https://", "https:///x", "http://a b"] {
            assert!(endpoint(bad).unwrap_err().contains("HF_ENDPOINT"), "{bad}");
        }
    }

    #[test]
    fn the_token_is_the_variables_or_the_one_that_logging_in_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| {
            let all = [&[("HF_HOME", home)], variables].concat();
            read(&all).map(|settings| settings.token.map(|token| (token.value, token.source)))
        };
        assert_eq!(token(&[]).unwrap(), None);
        fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let file = dir.path().join("token").display().to_string();
        assert_eq!(token(&[]).unwrap(), Some(("hf_file".to_owned(), file)));
        // Another cache does not move the token.
        assert_eq!(token(&[("HF_HUB_CACHE", "/models")]).unwrap().unwrap().0, "hf_file");
        let both = [("HF_TOKEN", " hf_own "), ("HUGGING_FACE_HUB_TOKEN", "hf_old")];
        assert_eq!(token(&both).unwrap(), Some(("hf_own".to_owned(), "HF_TOKEN".to_owned())));
        assert_eq!(token(&both[1..]).unwrap().unwrap().0, "hf_old");
        assert_eq!(token(&[both[0], ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap(), None);
        let elsewhere = dir.path().join("other");
        fs::write(&elsewhere, "hf_other").unwrap();
        assert_eq!(token(&[("HF_TOKEN_PATH", elsewhere.to_str().unwrap())]).unwrap().unwrap().0, "hf_other");
        let error = token(&[("HF_TOKEN", "hf_\u{e9}\u{7}")]).unwrap_err();
        assert!(error.contains("HF_TOKEN") && !error.contains("hf_"), "{error}");
        let shown = format!("{:?}", read(&[("HF_HOME", home)]).unwrap());
        assert!(!shown.contains("hf_file"), "{shown}");
    }

    #[test]
    fn offline_is_what_huggingface_takes_for_it() {
        let offline = |value| read(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap().offline;
        assert!(offline("1") && offline("true") && offline("Yes"));
        assert!(!offline("0") && !offline("") && !offline("no"));
        assert!(read(&[("HOME", "/h"), ("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
    }
}
