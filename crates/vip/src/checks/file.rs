//! The number in a file.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::libc;

use super::directory::Directory;
use crate::track::Verdict;

/// Where the kernel's notices do not reach.
const POLL: Duration = Duration::from_secs(1);
/// Longer than any number.
const LONGEST: u64 = 64;

pub(super) async fn run(path: &Path, name: &str, tell: impl Fn(Verdict) + Send + Sync) -> Infallible {
    let mut directory = Directory::of(path);
    let mut last = Last::default();
    loop {
        let content = read(path);
        if let Err(error) = &content
            && error.kind() != io::ErrorKind::NotFound
        {
            last.complain(
                || tracing::warn!(track = name, path = %path.display(), %error, "cannot be read; counts as 0"),
            );
        }
        match content.map(|text| number(&text)).unwrap_or(Content::Number(0)) {
            Content::Number(number) => {
                if last.take(Some(number)) {
                    tell(Verdict::Value(number));
                }
            }
            Content::Empty => {
                if last.take(None) {
                    tell(Verdict::Value(0));
                }
            }
            Content::Garbage => {
                last.complain(|| {
                    tracing::warn!(track = name, path = %path.display(), "does not hold a whole number; counts as 0");
                });
                if last.take(Some(0)) {
                    tell(Verdict::Value(0));
                }
            }
        }
        directory.changed(POLL).await;
    }
}

/// What was read last.
#[derive(Debug, Default)]
struct Last {
    number: Option<i32>,
    empty: bool,
    complained: bool,
}

impl Last {
    /// Takes in a number, or that there is none; whether that changes the verdict.
    ///
    /// An empty file is one that is being written, unless it is empty at the next look as well.
    fn take(&mut self, number: Option<i32>) -> bool {
        let again = std::mem::replace(&mut self.empty, number.is_none());
        let number = match number {
            None if !again && self.number.is_some() => return false,
            None => 0,
            Some(number) => number,
        };
        self.number.replace(number) != Some(number)
    }

    /// Once, until there is a number again.
    fn complain(&mut self, warn: impl FnOnce()) {
        if !std::mem::replace(&mut self.complained, true) {
            warn();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Number(i32),
    Empty,
    Garbage,
}

/// A whole number, with a sign or without, that stands alone; one that is too large is the largest one.
fn number(text: &str) -> Content {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text.is_empty() {
        return Content::Empty;
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Content::Garbage;
    }
    Content::Number(text.parse().unwrap_or(if text.starts_with('-') { i32::MIN } else { i32::MAX }))
}

/// The beginning of a small file. Never waits, as opening a FIFO would.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_alone() {
        for (text, expected) in [
            ("0", Content::Number(0)),
            (" -12\n", Content::Number(-12)),
            ("+7", Content::Number(7)),
            ("99999999999", Content::Number(i32::MAX)),
            ("-99999999999", Content::Number(i32::MIN)),
            ("", Content::Empty),
            (" \n", Content::Empty),
            ("-", Content::Garbage),
            ("1 2", Content::Garbage),
            ("0x10", Content::Garbage),
            ("drain", Content::Garbage),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_empty_file_counts_from_the_second_look_on() {
        let mut last = Last::default();
        assert!(last.take(Some(5)));
        assert!(!last.take(Some(5)));
        assert!(!last.take(None), "perhaps it is being written");
        assert!(last.take(Some(6)));
        assert!(!last.take(None));
        assert!(last.take(None), "it is empty");
        assert!(!last.take(Some(0)));
        assert!(Last::default().take(None), "the first look decides");
    }
}
