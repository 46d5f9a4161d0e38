//! What the programs of a host have said lately, kept also when they are no more.

use std::collections::VecDeque;

use evermq_daemon::events::Page;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Lines that are kept.
pub const KEPT: usize = 1000;

/// A line that a program has said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Counts up by one in each journal.
    pub id: u64,
    /// The host; empty in its own journal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The program.
    pub program: String,
    /// When, in milliseconds since 1970, by the host's clock.
    pub time_ms: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened.
    pub message: String,
    /// The particulars.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// A bounded number of lines.
#[derive(Debug, Default)]
pub struct Journal {
    last: u64,
    lines: VecDeque<Said>,
}

/// How far one program's lines have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    process: (u32, u64),
    /// The number of the last line.
    pub last: u64,
}

impl Journal {
    /// Adds a line under the next number; the oldest one goes where there are too many.
    pub fn add(&mut self, said: Said) {
        self.last += 1;
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(Said { id: self.last, ..said });
    }

    /// Adds what a program answered. What another process said before is not asked for again: its numbers begin anew, so the
    /// page may have to be asked for from its beginning, which `false` says.
    #[must_use]
    pub fn add_page(&mut self, program: &str, mark: &mut Mark, page: Page) -> bool {
        if mark.process != page.process {
            let had = std::mem::replace(mark, Mark { process: page.process, last: 0 }).last;
            if had > 0 {
                return false;
            }
        }
        for entry in page.events.into_iter().filter(|entry| entry.id > mark.last) {
            self.add(Said {
                id: 0,
                host: String::new(),
                program: program.to_owned(),
                time_ms: entry.time_ms,
                level: entry.level,
                message: entry.message,
                fields: entry.fields,
            });
        }
        mark.last = page.last;
        true
    }

    /// The number of the last line.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The lines after number `after`, the oldest first.
    #[must_use]
    pub fn after(&self, after: u64) -> Vec<Said> {
        self.lines.iter().filter(|said| said.id > after).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use evermq_daemon::events::Entry;

    use super::*;

    fn page(process: (u32, u64), numbers: std::ops::RangeInclusive<u64>) -> Page {
        let entry = |id| Entry {
            id,
            time_ms: id,
            level: "info".to_owned(),
            target: String::new(),
            message: format!("{process:?} {id}"),
            fields: Map::new(),
        };
        Page { process, last: *numbers.end(), events: numbers.map(entry).collect() }
    }

    #[test]
    fn each_line_of_each_process_comes_once() {
        let (mut journal, mut mark) = (Journal::default(), Mark::default());
        assert!(journal.add_page("p", &mut mark, page((1, 1), 1..=3)));
        assert_eq!(mark.last, 3);
        assert!(journal.add_page("p", &mut mark, page((1, 1), 2..=5)));
        // Asked for what came after 5, a new process has told only a part.
        assert!(!journal.add_page("p", &mut mark, page((2, 9), 6..=7)));
        assert_eq!(mark.last, 0);
        assert!(journal.add_page("p", &mut mark, page((2, 9), 1..=7)));
        let messages: Vec<_> = journal.after(0).into_iter().map(|said| said.message).collect();
        let first = (1..=5).map(|id| format!("(1, 1) {id}"));
        assert_eq!(messages, first.chain((1..=7).map(|id| format!("(2, 9) {id}"))).collect::<Vec<_>>());
        assert_eq!(journal.after(10).iter().map(|said| said.id).collect::<Vec<_>>(), [11, 12]);
        assert_eq!(journal.last(), 12);
    }

    #[test]
    fn it_does_not_grow() {
        let (mut journal, mut mark) = (Journal::default(), Mark::default());
        let most = KEPT as u64;
        assert!(journal.add_page("p", &mut mark, page((1, 1), 1..=most + 10)));
        assert_eq!(journal.after(0).len(), KEPT);
        assert_eq!(journal.after(0)[0].id, 11);
    }
}
