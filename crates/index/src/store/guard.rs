//! sled's errors, and its panics, as this crate's errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sled::transaction::TransactionError;

use crate::error::{IndexError, Result};

/// The error of a transaction that never aborts.
pub(super) fn store_error(error: TransactionError<std::convert::Infallible>) -> sled::Error {
    match error {
        TransactionError::Abort(never) => match never {},
        TransactionError::Storage(error) => error,
    }
}

/// Runs work on sled, and nothing else: sled panics on some kinds of damage where it should return an error, so a
/// panic is taken for damage.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(e))) if e.kind() == std::io::ErrorKind::Other => {
            Err(IndexError::Store { path: path.into(), what: e.to_string() })
        }
        Ok(Err(sled::Error::Io(e))) => Err(IndexError::io(path, e)),
        Ok(Err(e @ sled::Error::Corruption { .. })) => {
            Err(IndexError::StoreDamaged { path: path.into(), what: e.to_string() })
        }
        Ok(Err(e)) => Err(IndexError::Store { path: path.into(), what: e.to_string() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            let what = format!("it could not be read: {text}");
            Err(IndexError::StoreDamaged { path: path.into(), what })
        }
    }
}
