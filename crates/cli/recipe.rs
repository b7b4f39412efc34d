//! `semblance train --config recipe.toml`: a file whose keys are the command's flags.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Arg, Command, CommandFactory as _};

use crate::args::Cli;

/// The command line with the flags of the file that `train --config` names put before its own. A flag given on the
/// command line wins: what the file says of it, or of a flag that excludes it, is left out.
pub(crate) fn expand(arguments: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let Some(at) = arguments.iter().position(|a| a == "train") else { return Ok(arguments) };
    let (before, own) = arguments.split_at(at + 1);
    let Some(path) = config(own) else { return Ok(arguments) };
    let path = Path::new(&path);
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cli = Cli::command();
    let train = cli.find_subcommand("train").context("there is no train command")?;
    let from_file = flags(&text, train, own).with_context(|| path.display().to_string())?;
    Ok(before.iter().cloned().chain(from_file).chain(own.iter().cloned()).collect())
}

/// What `--config FILE` or `--config=FILE` says.
fn config(own: &[OsString]) -> Option<OsString> {
    let said = |(i, a): (usize, &OsString)| match a.to_str()? {
        "--config" => own.get(i + 1).cloned(),
        other => other.strip_prefix("--config=").map(OsString::from),
    };
    own.iter().enumerate().find_map(said)
}

fn flags(text: &str, train: &Command, own: &[OsString]) -> anyhow::Result<Vec<OsString>> {
    let table: toml::Table = text.parse()?;
    let by_name = |name: &str| train.get_arguments().find(|arg| arg.get_long() == Some(name));
    let given = |arg: &Arg| {
        let name = format!("--{}", arg.get_long().unwrap_or_default());
        let said = |a: &OsString| a.to_str().is_some_and(|a| a.split('=').next() == Some(name.as_str()));
        own.iter().any(said)
    };
    let known = |key: &str| match by_name(&key.replace('_', "-")) {
        Some(arg) if key != "config" => Ok(arg),
        _ => bail!("unknown key {key}: keys are the flags that `semblance train --help` lists"),
    };
    let mut flags = Vec::new();
    for (key, value) in &table {
        let arg = known(key)?;
        let excludes =
            |a: &Arg, b: &Arg| train.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id());
        let excluded: Vec<&Arg> =
            train.get_arguments().filter(|other| excludes(arg, other) || excludes(other, arg)).collect();
        let also = |other: &&&Arg| table.keys().any(|k| known(k).is_ok_and(|a| a.get_id() == other.get_id()));
        if let Some(other) = excluded.iter().find(also) {
            let other = other.get_long().unwrap_or_default().replace('-', "_");
            bail!("{key} and {other} contradict each other: give one of them");
        }
        if given(arg) || excluded.iter().any(|other| given(other)) {
            continue;
        }
        let name = arg.get_long().unwrap_or_default();
        let takes_value = arg.get_action().takes_values();
        match written(key, value)? {
            text if takes_value => flags.push(format!("--{name}={text}").into()),
            text if text == "true" => flags.push(format!("--{name}").into()),
            text if text == "false" => {}
            text => bail!("{key} is true or false, not {text}"),
        }
    }
    Ok(flags)
}

/// A value as it is written behind a flag.
fn written(key: &str, value: &toml::Value) -> anyhow::Result<String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::Array(all) => {
            all.iter().map(|one| written(key, one)).collect::<anyhow::Result<Vec<_>>>()?.join(",")
        }
        toml::Value::Table(_) => bail!("{key} is a table: recipes have no sections, only keys"),
        toml::Value::Datetime(_) => bail!("{key} is a date, which no flag takes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, own: &[&str]) -> anyhow::Result<Vec<String>> {
        let own: Vec<OsString> = own.iter().map(OsString::from).collect();
        let cli = Cli::command();
        let flags = flags(text, cli.find_subcommand("train").unwrap(), &own)?;
        Ok(flags.into_iter().map(|f| f.into_string().unwrap()).collect())
    }

    #[test]
    fn keys_become_flags_of_every_kind() {
        let text =
            "loss = \"softmax\"\nlr = 0.01\nlr_steps = [15, 25]\nnesterov = true\nresume = false\nbatch = 8";
        let wanted = ["--batch=8", "--loss=softmax", "--lr-steps=15,25", "--lr=0.01", "--nesterov=true"];
        let mut found = expanded(text, &[]).unwrap();
        found.sort();
        assert_eq!(found, wanted);
    }

    #[test]
    fn flags_win_over_the_file_and_over_what_they_exclude() {
        let text = "epochs = 3\nlr = 0.01\nbatch = 8";
        assert_eq!(expanded(text, &["--steps", "5", "--lr=1"]).unwrap(), ["--batch=8"]);
    }

    #[test]
    fn unknown_and_contradictory_keys_are_named() {
        for (text, needle) in [
            ("learning_rate = 1", "learning_rate"),
            ("steps = 3\nepochs = 2", "epochs"),
            ("[loss]\nname = \"softmax\"", "sections"),
            ("resume = 3", "resume"),
            ("lr = ", "TOML"),
        ] {
            let error = format!("{:#}", expanded(text, &[]).unwrap_err());
            assert!(error.contains(needle), "{text}: {error}");
        }
    }
}
