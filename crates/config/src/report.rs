//! Problems and how they are shown.
//!
//! ```text
//! evermq.toml:12:19: error: "5ms" is too short for vip.advert_interval
//!     advert_interval = "5ms"
//!                       ^^^^^
//!     write a duration from 10ms to 40950ms, such as "20ms"
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, but the operator should know.
    Warning,
}

/// Where in a file a problem is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The whole line.
    pub source_line: String,
    /// How many characters of it are meant; at least 1.
    pub width: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// Where in it; none where the file could not be read at all.
    pub place: Option<Place>,
    /// The offending text.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to write or do instead.
    pub help: String,
}

/// Everything that is wrong with a file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The problems.
    pub problems: Vec<Problem>,
}

impl Problem {
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "name the cluster file with --config PATH",
            std::io::ErrorKind::PermissionDenied => {
                "let this user read it: chown root:evermq and chmod 0640, as a rule"
            }
            _ => "the cluster file must be a readable UTF-8 text",
        };
        Self {
            severity: Severity::Error,
            file: path.to_owned(),
            place: None,
            text: String::new(),
            message: format!("cannot read the cluster file: {error}"),
            help: help.to_owned(),
        }
    }
}

impl Report {
    /// Whether any problem is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// How many errors there are, and how many warnings.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        (errors, self.problems.len() - errors)
    }
}

impl From<Problem> for Report {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}: {}", self.severity, self.message)?;
        if let Some(place) = &self.place {
            let line = place.source_line.replace('\t', " ");
            let before = place.column - 1;
            write!(f, "\n    {line}\n    {:before$}{}", "", "^".repeat(place.width))?;
        }
        write!(f, "\n    {}", self.help)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
