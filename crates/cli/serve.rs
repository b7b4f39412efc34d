//! `semblance serve`: the engine over HTTP, with a web page.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use semblance_server::{BatchConfig, IndexSource, Limits, Server, ServerConfig, TlsFiles, Token};
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::Exit;
use crate::printer::Printer;
use crate::serve_args::{AccessArgs, LimitArgs, LogFormat, LogLevel, ServeArgs};
use crate::{catalogue, hint, inputs};

/// Where the token is looked for when no file is named.
pub(crate) const TOKEN_VARIABLE: &str = "SEMBLANCE_TOKEN";

pub(crate) fn run(args: &ServeArgs, printer: Printer) -> anyhow::Result<Exit> {
    start_log(args.log, args.log_level);
    let mut indexes = args
        .index
        .iter()
        .map(|name| source(name, &args.dir.index_dir, printer))
        .collect::<Result<Vec<_>, _>>()?;
    roots(&mut indexes, &args.root);
    let server = Server::open(ServerConfig {
        model: inputs::model(&args.model),
        precision: args.model.precision,
        reports: args.reports.clone(),
        token: token(&args.access)?,
        tls: tls(&args.access),
        read_only: args.read_only,
        allowed_origins: args.access.allow_origin.clone(),
        public_hosts: args.access.public_host.clone(),
        base_path: args.access.base_path.clone().unwrap_or_default(),
        trusted_proxies: args.access.trusted_proxy.clone(),
        request_rate: args.limits.rate_limit,
        threads: printer.threads.map_or(0, usize::from),
        limits: limits(&args.limits),
        batch: BatchConfig { size: args.limits.batch as usize, queue: args.limits.queue as usize },
        advice: hint::for_operators(&args.reports),
        ..ServerConfig::new(args.listen, indexes)
    })?;
    for (name, remark) in server.indexes() {
        if let (Some(remark), false) = (remark, args.read_only) {
            printer.warn(format_args!("{name} is {remark}"));
        }
    }
    for (name, root, survey) in server.catalogues()? {
        if let Some(remark) = catalogue::remark(&root, &survey) {
            printer.warn(format_args!("{name}: {remark}"));
        }
    }
    let names: Vec<String> = server.indexes().into_iter().map(|(name, _)| name).collect();
    let result = json!({ "url": server.url(), "indexes": names });
    printer
        .result(&result, |_| format!("{} serves {}; Ctrl-C stops it\n", server.url(), names.join(", ")))?;
    server.run()?;
    Ok(Exit::Done)
}

/// An index goes by the last part of its path.
fn source(name: &str, indexes: &Path, printer: Printer) -> anyhow::Result<IndexSource> {
    let dir = inputs::index_folder(name, indexes, printer);
    let full = dir.canonicalize().unwrap_or_else(|_| dir.clone());
    let name = full.file_name().with_context(|| format!("{} is no folder of an index", dir.display()))?;
    Ok(IndexSource { name: name.to_string_lossy().into_owned(), dir, root: None })
}

/// Names the folders of pictures: `NAME=DIR` for one index, `DIR` for all others.
fn roots(indexes: &mut [IndexSource], given: &[String]) {
    for root in given {
        // A folder may have an equals sign in its own name.
        let named = root.split_once('=').filter(|(name, _)| indexes.iter().any(|index| index.name == *name));
        for index in indexes.iter_mut() {
            match named {
                Some((name, dir)) if name == index.name => index.root = Some(dir.into()),
                Some(_) => {}
                None => drop(index.root.get_or_insert_with(|| root.into())),
            }
        }
    }
}

fn token(args: &AccessArgs) -> anyhow::Result<Option<Token>> {
    let secret = match &args.token_file {
        Some(file) => Some(std::fs::read_to_string(file).with_context(|| file.display().to_string())?),
        None => std::env::var(TOKEN_VARIABLE).ok().filter(|secret| !secret.is_empty()),
    };
    Ok(secret.map(|secret| Token::new(&secret)).transpose()?)
}

fn tls(args: &AccessArgs) -> Option<TlsFiles> {
    let (certificate, key) = (args.tls_cert.clone()?, args.tls_key.clone()?);
    Some(TlsFiles { certificate, key })
}

fn limits(args: &LimitArgs) -> Limits {
    Limits {
        upload_bytes: (args.max_upload as usize) << 20,
        buffered_bytes: (args.upload_memory.max(args.max_upload) as usize) << 20,
        pixels: u64::from(args.max_pixels) * 1_000_000,
        request_time: Duration::from_secs(args.time_limit.into()),
        waiting: args.queue as usize,
        connections: args.max_connections as usize,
        idle_time: Duration::from_secs(args.idle_time.into()),
        ..Limits::default()
    }
}

fn start_log(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
    };
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => {
            log.json().flatten_event(true).with_current_span(true).with_span_list(false).init()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_pictures_go_to_their_indexes() {
        let served = |given: &[&str]| -> Vec<Option<String>> {
            let mut indexes =
                ["a", "b"].map(|name| IndexSource { name: name.into(), dir: name.into(), root: None });
            roots(&mut indexes, &given.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            indexes.into_iter().map(|index| index.root.map(|root| root.display().to_string())).collect()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(served(&["/p"]), [some("/p"), some("/p")]);
        assert_eq!(served(&["b=/q", "/p"]), [some("/p"), some("/q")]);
        assert_eq!(served(&["/p", "b=/q"]), [some("/p"), some("/q")]);
        assert_eq!(served(&["c=/q"]), [some("c=/q"), some("c=/q")]);
        assert_eq!(served(&["a=/q"]), [some("/q"), None]);
    }
}
