//! A cluster file that is being written: tables in the order of the shipped example, each key with a comment where it needs one.

use std::fmt::{self, Display, Write as _};
use std::path::Path;

/// The tables of a cluster file in their order.
const ORDER: [&str; 18] = [
    "cluster",
    "vip",
    "vip.track",
    "vip.instances",
    "lb",
    "lb.listeners",
    "lb.certificates",
    "lb.backends",
    "lb.routes",
    "lb.client_ids",
    "broker",
    "broker.store",
    "broker.auth",
    "broker.listeners",
    "bridges",
    "admin",
    "tls",
    "hosts",
];

/// Column in which comments begin, if the line is not longer.
const COMMENTS_AT: usize = 32;

/// A cluster file that is being written.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    preamble: Vec<String>,
    tables: Vec<Table>,
}

/// One table of it.
#[derive(Debug, Clone)]
pub struct Table {
    name: &'static str,
    is_list: bool,
    comment: Vec<String>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: &'static str,
    value: Value,
    comment: String,
}

/// A value as TOML has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(String);

impl Draft {
    /// A comment line on top of the file, below those that were added before.
    pub fn preamble(&mut self, line: impl Into<String>) {
        self.preamble.push(line.into());
    }

    /// The table of that name, such as `broker.auth`; added where it is not there yet.
    pub fn table(&mut self, name: &'static str) -> &mut Table {
        let at = self.tables.iter().position(|table| table.name == name).unwrap_or_else(|| {
            self.tables.push(Table::new(name, false));
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    /// One more entry of a list of tables, such as `hosts`.
    pub fn entry(&mut self, name: &'static str) -> &mut Table {
        self.tables.push(Table::new(name, true));
        self.tables.last_mut().expect("it was pushed just now")
    }

    /// The entry of a list at that place, from 0.
    pub fn nth(&mut self, name: &str, index: usize) -> Option<&mut Table> {
        self.tables.iter_mut().filter(|table| table.name == name).nth(index)
    }

    /// The entry of a list that was added last.
    pub fn last(&mut self, name: &str) -> Option<&mut Table> {
        self.tables.iter_mut().rev().find(|table| table.name == name)
    }

    /// Whether a table of that name has a key of that value.
    #[must_use]
    pub fn any(&self, name: &str, key: &str, value: impl Into<Value>) -> bool {
        let value = value.into();
        self.tables.iter().any(|table| table.name == name && table.is(key, &value))
    }

    /// The string that a table of that name has under a key.
    #[must_use]
    pub fn value(&self, name: &str, key: &str) -> Option<&str> {
        let table = self.tables.iter().find(|table| table.name == name)?;
        let entry = table.entries.iter().find(|entry| entry.key == key)?;
        entry.value.0.strip_prefix('"')?.strip_suffix('"')
    }

    /// Whether there is a table of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.name == name)
    }
}

impl Table {
    fn new(name: &'static str, is_list: bool) -> Self {
        Self { name, is_list, comment: Vec::new(), entries: Vec::new() }
    }

    /// A comment line above it.
    pub fn comment(&mut self, line: impl Into<String>) -> &mut Self {
        self.comment.push(line.into());
        self
    }

    /// Sets a key, in the place of an earlier value.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>, comment: impl Into<String>) -> &mut Self {
        let entry = Entry { key, value: value.into(), comment: comment.into() };
        match self.entries.iter_mut().find(|entry| entry.key == key) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
        self
    }

    /// Whether a key has that value.
    #[must_use]
    pub fn is(&self, key: &str, value: &Value) -> bool {
        self.entries.iter().any(|entry| entry.key == key && entry.value == *value)
    }

    /// Whether a key is set.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }
}

impl Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.preamble {
            writeln!(f, "{}", comment(line))?;
        }
        let place = |table: &&Table| ORDER.iter().position(|name| *name == table.name).unwrap_or(ORDER.len());
        let mut tables: Vec<&Table> = self.tables.iter().collect();
        tables.sort_by_key(place);
        for table in tables {
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.comment {
            writeln!(f, "{}", comment(line))?;
        }
        if self.is_list {
            writeln!(f, "[[{}]]", self.name)?;
        } else {
            writeln!(f, "[{}]", self.name)?;
        }
        for Entry { key, value, comment: text } in &self.entries {
            let line = format!("{key} = {}", value.0);
            if text.is_empty() {
                writeln!(f, "{line}")?;
            } else {
                writeln!(f, "{line:<width$}{}", comment(text), width = COMMENTS_AT.max(line.chars().count() + 1))?;
            }
        }
        Ok(())
    }
}

fn comment(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {clean}").trim_end().to_owned()
}

impl Value {
    /// A number that may be below 0.
    #[must_use]
    pub fn signed(number: i64) -> Self {
        Self(number.to_string())
    }

    /// A list of strings.
    #[must_use]
    pub fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        let items: Vec<String> = items.into_iter().map(|item| Self::from(item.as_ref()).0).collect();
        Self(format!("[{}]", items.join(", ")))
    }

    /// A list of strings, a line each.
    #[must_use]
    pub fn lines<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        let mut text = "[\n".to_owned();
        for item in items {
            let _ = writeln!(text, "  {},", Self::from(item.as_ref()).0);
        }
        Self(text + "]")
    }
}

impl From<&str> for Value {
    /// A basic string (TOML 1.0: quotes, backslashes and control characters escaped), or a literal one where that reads better.
    fn from(text: &str) -> Self {
        if text.contains('"') && !text.contains('\'') && !text.chars().any(char::is_control) {
            return Self(format!("'{text}'"));
        }
        let mut quoted = "\"".to_owned();
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c.is_control() => {
                    let _ = write!(quoted, "\\u{:04X}", u32::from(c));
                }
                c => quoted.push(c),
            }
        }
        Self(quoted + "\"")
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&Path> for Value {
    fn from(path: &Path) -> Self {
        Self::from(path.to_string_lossy().as_ref())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(value.to_string())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_in_the_order_of_the_example() {
        let mut draft = Draft::default();
        draft.preamble("made here");
        draft.entry("hosts").set("name", "lb1", "");
        draft.table("cluster").set("name", "x", "the cluster");
        draft.entry("hosts").set("name", "lb2", "");
        draft.table("cluster").set("name", "y", "the cluster");
        let expected = "# made here\n\n[cluster]\nname = \"y\"                      # the cluster\n\n[[hosts]]\nname = \"lb1\"\n\n\
                        [[hosts]]\nname = \"lb2\"\n";
        assert_eq!(draft.to_string(), expected);
    }

    #[test]
    fn strings_come_back_as_they_were() {
        for text in ["plain", "back\\slash", "\"quoted\"", "both ' and \"", "new\nline\u{7f}", "# no comment", "ü"] {
            let line = format!("key = {}", Value::from(text).0);
            let table: toml::Table = line.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(table["key"].as_str(), Some(text));
        }
        let mut draft = Draft::default();
        draft.table("cluster").comment("one\n[two]").set("name", "x", "three\nfour = 5");
        assert_eq!(draft.to_string(), "\n# one [two]\n[cluster]\nname = \"x\"                      # three four = 5\n");
    }
}
