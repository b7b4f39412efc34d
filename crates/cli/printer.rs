//! The only place that writes to the terminal: results on stdout as text or JSON, progress and remarks on stderr.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::hint;

/// How and how much to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    /// Results as JSON instead of text.
    pub(crate) json: bool,
    /// No progress and no remarks.
    pub(crate) quiet: bool,
    /// Threads asked for on the command line.
    pub(crate) threads: Option<u16>,
}

impl Printer {
    /// Writes a command's result to stdout: `value` as JSON, or what `text` makes of it.
    pub(crate) fn result<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut page =
            if self.json { serde_json::to_string_pretty(value)? } else { shown(&text(value)).into_owned() };
        if !page.ends_with('\n') {
            page.push('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(page.as_bytes())?;
        out.flush()
    }

    /// A remark on stderr, unless quiet. A closed stderr is no reason to stop.
    pub(crate) fn note(self, message: impl std::fmt::Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{}", shown(&message.to_string()));
        }
    }

    /// A warning on stderr, even when quiet: something was left out of the result.
    pub(crate) fn warn(self, message: impl std::fmt::Display) {
        let _ = writeln!(io::stderr(), "warning: {}", shown(&message.to_string()));
    }

    /// What stopped the command, with its causes and what helps, on stderr: as text, or as one line of JSON.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let mut message = String::new();
        for cause in error.chain() {
            let text = cause.to_string();
            // Many errors tell their cause themselves.
            if !message.contains(&text) {
                message.push_str(if message.is_empty() { "" } else { ": " });
                message.push_str(&text);
            }
        }
        let hint = hint::of(error);
        let text = match (self.json, &hint) {
            (true, Some(hint)) => json!({ "error": message, "hint": hint }).to_string(),
            (true, None) => json!({ "error": message }).to_string(),
            (false, Some(hint)) => format!("error: {}\nhint: {}", shown(&message), shown(hint)),
            (false, None) => format!("error: {}", shown(&message)),
        };
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A progress bar on stderr; draws nothing when quiet or when stderr is no terminal. A `total` of 0 stands for an
    /// unknown number: [`Bar::set`] may bring it later.
    pub(crate) fn bar(self, what: impl Into<Cow<'static, str>>, total: usize) -> Bar {
        let target =
            if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(4) };
        let bar = Bar::on(target, what, total, !self.quiet);
        // Takes a thread, for nothing where no bar is drawn.
        if !bar.0.is_hidden() {
            bar.0.enable_steady_tick(Duration::from_millis(500));
        }
        bar
    }
}

/// Text for a terminal. Names of files and classes can hold control characters, which would be commands to it: they are
/// written out. Line breaks and tabs stay.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_command) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_command(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown.into()
}

/// A progress bar. When it is dropped, it stays as it is then, with what was done last.
pub(crate) struct Bar(ProgressBar, bool);

impl Bar {
    fn on(target: ProgressDrawTarget, what: impl Into<Cow<'static, str>>, total: usize, told: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let style = ProgressStyle::with_template("{msg:<24} {wide_bar} {pos}/{len} {elapsed}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Self(bar, told)
    }

    /// Done so far, of how many.
    pub(crate) fn set(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }

    /// Says what is being done now.
    pub(crate) fn say(&self, what: impl Into<Cow<'static, str>>) {
        self.0.set_message(what);
    }
}

impl Bar {
    /// A lasting line above the bar.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if self.1 {
            self.0.suspend(|| {
                let _ = writeln!(io::stderr(), "{}", text.as_ref());
            });
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // Draws without regard to the rate, which may have passed over what was done last.
        if self.0.position() > 0 { self.0.abandon() } else { self.0.finish_and_clear() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal that keeps what is written.
    #[derive(Clone, Debug, Default)]
    struct Written(Arc<Mutex<String>>);

    impl TermLike for Written {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().push('\n');
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_state_of_a_bar_is_drawn() {
        for done in [1000, 990] {
            let terminal = Written::default();
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 1);
            let bar = Bar::on(target, "embedding", 1000, true);
            // Quicker than the terminal is drawn to.
            (0..=done).for_each(|done| bar.set(done, 1000));
            drop(bar);
            let written = terminal.0.lock().unwrap();
            let last = written.lines().rfind(|line| !line.trim().is_empty()).unwrap();
            assert!(last.contains(&format!(" {done}/1000 ")), "{last}");
        }
        let terminal = Written::default();
        drop(Bar::on(ProgressDrawTarget::term_like(Box::new(terminal.clone())), "training", 0, true));
        assert!(!terminal.0.lock().unwrap().contains("training 0/0"), "a bar without progress goes away");
    }

    #[test]
    fn commands_to_a_terminal_are_written_out() {
        assert_eq!(shown("shoes/1.jpg\tÄpfel\n"), "shoes/1.jpg\tÄpfel\n");
        assert_eq!(shown("a\u{1b}[31mb\r\u{7}\u{9b}0m"), "a\\u{1b}[31mb\\u{d}\\u{7}\\u{9b}0m");
    }
}
