//! What became of each line of a file that was imported.

use std::path::Path;
use std::rc::Rc;

use serde_json::{Value, json};

use crate::table::Table;

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its file, as it was named.
    pub file: Rc<Path>,
    /// Its line, from 1.
    pub line: usize,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the cluster file.
    Kept {
        /// Under these keys.
        key: String,
    },
    /// It is so without being said.
    Usual {
        /// Why.
        why: String,
    },
    /// It is in the cluster file, or is so without being said, but not quite as it was.
    Differs {
        /// How, and what to do about it.
        why: String,
    },
    /// It has no counterpart.
    Left {
        /// Why, and what to do instead.
        why: String,
    },
}

/// A line, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands.
    pub place: Place,
    /// The line, without its secrets.
    pub text: String,
    /// What became of it.
    pub outcome: Outcome,
}

impl Outcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::Kept { .. } => "kept",
            Self::Usual { .. } => "as usual",
            Self::Differs { .. } => "differs",
            Self::Left { .. } => "left out",
        }
    }

    fn why(&self) -> &str {
        match self {
            Self::Kept { key } => key,
            Self::Usual { why } | Self::Differs { why } | Self::Left { why } => why,
        }
    }

    /// Whether an operator should look at it.
    #[must_use]
    pub const fn is_notable(&self) -> bool {
        matches!(self, Self::Differs { .. } | Self::Left { .. })
    }
}

impl Finding {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "file": &*self.place.file,
            "line": self.place.line,
            "text": self.text,
            "outcome": self.outcome.name().replace(' ', "_"),
            "why": self.outcome.why(),
        })
    }
}

/// The findings as a table: those that an operator should look at, or all.
#[must_use]
pub fn table(findings: &[Finding], all: bool) -> Table {
    let mut table = Table::titled(&["LINE", "TEXT", "", "WHY"]);
    for finding in findings.iter().filter(|finding| all || finding.outcome.is_notable()) {
        let place = format!("{}:{}", finding.place.file.display(), finding.place.line);
        let why = finding.outcome.why();
        table.row([&place, &shortened(&finding.text), finding.outcome.name(), why]);
    }
    table
}

/// Longest text of a line in a table.
const WIDTH: usize = 48;

fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= WIDTH { text } else { text.chars().take(WIDTH - 1).chain(['…']).collect() }
}
