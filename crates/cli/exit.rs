//! The program's exit codes, as a type: converted to a number in one place.

use std::process::ExitCode;

/// How a command ended. An error that stopped it is an `Err` of the command and always [`FAILED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done,
    /// The command ran to its end, but not everything asked for came out well: `data check`, `doctor` or `index verify`
    /// found something wrong (such as pictures that are missing, unreadable or left out) or could not check everything, or
    /// some of the photographs to search with could not be read.
    Incomplete,
    /// Stopped by Ctrl-C after saving.
    Interrupted,
}

/// The code of a command that could not do its work: bad usage (clap uses the same), bad input, a failed write.
pub(crate) const FAILED: u8 = 2;

/// The table for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    everything asked for was done (images skipped as broken are counted in the summary)
  1    ran to the end, but found problems: data check, doctor or index verify found something wrong or
       could not check everything, or some of the photographs to search with could not be read
  2    could not do it: bad usage, bad input, or an error; the message names the culprit
  130  stopped by Ctrl-C, after saving";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Incomplete => Self::from(1),
            Exit::Interrupted => Self::from(130),
        }
    }
}
