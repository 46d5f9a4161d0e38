//! Files of lines, and where in them something is wrong.

use std::path::Path;

use evermq_config::report::Place;
use evermq_config::{Problem, Severity};

/// One line of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) path: &'a Path,
    /// From 1.
    pub(crate) number: usize,
    /// Without its end.
    pub(crate) text: &'a str,
}

impl<'a> Line<'a> {
    /// The file's lines; what is not UTF-8 in them is a problem of its own.
    pub(crate) fn all(path: &'a Path, bytes: &'a [u8]) -> impl Iterator<Item = Result<Self, Box<Problem>>> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        bytes.split(|byte| *byte == b'\n').enumerate().map(move |(index, line)| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let number = index + 1;
            match std::str::from_utf8(line) {
                Ok(text) => Ok(Line { path, number, text }),
                Err(_) => Err(Box::new(not_text(path, number, line))),
            }
        })
    }

    /// `part`, which is of this line, is wrong.
    pub(crate) fn error(&self, part: &str, message: impl Into<String>, help: impl Into<String>) -> Problem {
        self.problem(Severity::Error, part, message.into(), help.into())
    }

    /// `part`, which is of this line, should perhaps not be there.
    pub(crate) fn warning(&self, part: &str, message: impl Into<String>, help: impl Into<String>) -> Problem {
        self.problem(Severity::Warning, part, message.into(), help.into())
    }

    fn problem(&self, severity: Severity, part: &str, message: String, help: String) -> Problem {
        let before = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize);
        let before = before.and_then(|at| self.text.get(..at)).unwrap_or_default();
        let place = Place {
            line: self.number,
            column: before.chars().count() + 1,
            source_line: self.text.to_owned(),
            width: part.chars().count().max(1),
        };
        Problem { severity, file: self.path.to_owned(), place: Some(place), text: part.to_owned(), message, help }
    }
}

fn not_text(path: &Path, number: usize, line: &[u8]) -> Problem {
    let source_line = String::from_utf8_lossy(line).into_owned();
    let place = Place { line: number, column: 1, width: source_line.chars().count().max(1), source_line };
    Problem {
        severity: Severity::Error,
        file: path.to_owned(),
        place: Some(place),
        text: String::new(),
        message: "the line is not UTF-8".to_owned(),
        help: "write the file in UTF-8: names and topics of MQTT are".to_owned(),
    }
}

/// A file that cannot be read.
pub(crate) fn unreadable(path: &Path, what: &str, error: &std::io::Error, help: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        file: path.to_owned(),
        place: None,
        text: String::new(),
        message: format!("cannot read {what}: {error}"),
        help: help.to_owned(),
    }
}
