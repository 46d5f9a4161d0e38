//! What a command prints: to standard output, which its reader may close early (`evermq status | head -1`).

use std::io::{self, Write};

/// Writes `text` to standard output. A reader that has gone is no error: it has seen what it wanted.
///
/// # Errors
/// Standard output cannot be written, for example because its disk is full.
pub fn print(text: &str) -> io::Result<()> {
    offer(text).map(|_| ())
}

/// The same for one part of many; whether there is still a reader who wants more.
///
/// # Errors
/// As [`print`].
pub fn offer(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) => ignore_closed_pipe(Err(error)).map(|()| false),
    }
}

/// Writes `value` as indented JSON and a newline to standard output.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Writes `text` and a newline to standard error; nothing can be said of a failure there.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// Takes the result of a write as a success where only the reader has gone.
///
/// # Errors
/// Every other failed write.
pub fn ignore_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
