//! How many connections the process has descriptors for.

/// Descriptors kept for indexes, pictures and uploads: a share of all, within bounds.
const KEPT: (u64, u64) = (64, 512);

/// Raises the limit on open files as far as the system lets us, and gives the number of connections that fit below it,
/// at most `wanted`.
pub(crate) fn connections(wanted: usize) -> usize {
    let most = within(limit(), wanted);
    if most < wanted {
        tracing::warn!(wanted, most, "the limit on open files (RLIMIT_NOFILE) allows fewer connections");
    }
    most
}

fn within(limit: Option<u64>, wanted: usize) -> usize {
    let Some(limit) = limit else { return wanted.max(1) };
    let kept = (limit / 4).clamp(KEPT.0, KEPT.1);
    let left = limit.saturating_sub(kept).max(limit / 4).max(1);
    wanted.clamp(1, usize::try_from(left).unwrap_or(usize::MAX))
}

/// The number of files that may be open, if there is a limit.
#[cfg(unix)]
fn limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Some systems call more than this unlimited and then refuse it.
    let raised = maximum.unwrap_or(1 << 16).min(1 << 16);
    match current {
        Some(current) if current < raised => {
            let raise = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
            Some(if raise.is_ok() { raised } else { current })
        }
        current => current,
    }
}

#[cfg(not(unix))]
fn limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_for_files() {
        assert_eq!(within(Some(1 << 20), 1024), 1024);
        assert_eq!(within(Some(1024), 1024), 768);
        assert_eq!(within(Some(256), 1024), 192);
        assert_eq!(within(Some(64), 1024), 16);
        assert_eq!(within(Some(1), 1024), 1);
        assert_eq!(within(None, 1024), 1024);
    }
}
