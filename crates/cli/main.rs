//! The `semblance` binary: reads the command line, calls the libraries, prints.

mod allocator;
mod answer_args;
mod args;
mod catalogue;
mod compare;
mod condition_args;
mod curves;
mod data;
mod demo;
mod derive;
mod doctor;
mod embed;
mod eval;
mod eval_model;
mod exit;
mod export;
mod export_args;
mod head_args;
mod hint;
mod index;
mod inputs;
mod loss_args;
mod maintain;
mod maintain_args;
mod pictures;
mod printer;
mod recipe;
mod report;
mod report_args;
mod search;
mod search_item;
mod search_page;
mod serve;
mod serve_args;
mod start;
mod train;
mod train_args;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Cli, Command, GlobalArgs};
use crate::exit::Exit;
use crate::printer::Printer;

fn main() -> ExitCode {
    let cli = match recipe::expand(std::env::args_os().collect()) {
        Ok(arguments) => Cli::parse_from(arguments),
        Err(error) => {
            Printer { json: false, quiet: false, threads: None }.error(&error);
            return ExitCode::from(exit::FAILED);
        }
    };
    let GlobalArgs { json, quiet, threads } = cli.global;
    let printer = Printer { json, quiet, threads };
    match run(&cli.command, printer) {
        Ok(exit) => exit.into(),
        // The reader closed the pipe, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error);
            ExitCode::from(exit::FAILED)
        }
    }
}

fn run(command: &Command, printer: Printer) -> anyhow::Result<Exit> {
    // The libraries would panic where the system has no thread left.
    let threads = printer.threads.map_or(0, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.context(
        "cannot start the threads for computing: ask for fewer with --threads, or end other programs",
    )?;
    match command {
        Command::Demo(args) => demo::run(args, printer),
        Command::Data(args) => data::run(args, printer),
        Command::Embed(args) => embed::run(args, printer),
        Command::Export(args) => export::run(args, printer),
        Command::Train(args) => train::run(args, printer),
        Command::Index(args) => index::run(args, printer),
        Command::Search(args) => search::run(args, printer),
        Command::Eval(args) => eval::run(args, printer),
        Command::Serve(args) => serve::run(args, printer),
        Command::Doctor(args) => doctor::run(args, printer),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    error.chain().any(io)
}
