//! Reads one table key by key, collecting problems: a bad value is noted and its default taken, so that one run shows all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::report::{Place, Problem, Severity};

mod nearest;
mod values;

use nearest::nearest;

/// Every list of tables: the section that it stands in, its key, and both together.
const LISTS: &[(&str, &str, &str)] = &[
    ("", "hosts", "hosts"),
    ("", "bridges", "bridges"),
    ("vip", "instances", "vip.instances"),
    ("vip", "track", "vip.track"),
    ("lb", "listeners", "lb.listeners"),
    ("lb", "backends", "lb.backends"),
    ("lb", "routes", "lb.routes"),
    ("lb", "client_ids", "lb.client_ids"),
    ("lb", "certificates", "lb.certificates"),
    ("broker", "listeners", "broker.listeners"),
    ("broker", "acl", "broker.acl"),
];

/// The text of the file, and what has been found wrong with it.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, problems: RefCell::default() }
    }

    /// All problems in the order of the file.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(offset, _)| *offset);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    pub(crate) fn error(&self, span: Range<usize>, message: impl Display, help: impl Display) {
        self.add(Severity::Error, span, &message, &help);
    }

    pub(crate) fn warning(&self, span: Range<usize>, message: impl Display, help: impl Display) {
        self.add(Severity::Warning, span, &message, &help);
    }

    fn add(&self, severity: Severity, span: Range<usize>, message: &dyn Display, help: &dyn Display) {
        let problem = Problem {
            severity,
            file: self.path.to_owned(),
            place: Some(self.place(&span)),
            text: self.text.get(span.clone()).unwrap_or_default().to_owned(),
            message: message.to_string(),
            help: help.to_string(),
        };
        self.problems.borrow_mut().push((span.start, problem));
    }

    /// Line and column of a span; its width ends with its first line.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        let start = floor(self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let end = floor(self.text, span.end).clamp(start, line_end);
        Place {
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            source_line: self.text[line_start..line_end].trim_end().to_owned(),
            width: self.text[start..end].chars().count().max(1),
        }
    }
}

/// The character boundary at or before `offset`.
fn floor(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// One table of the file, or one that the file leaves out.
pub(crate) struct Section<'a> {
    source: &'a Source<'a>,
    /// `vip`, or `hosts` for each entry of `[[hosts]]`.
    name: &'a str,
    table: Option<&'a DeTable<'a>>,
    /// Where a missing key is reported: the table's header.
    header: Range<usize>,
    known: Vec<&'static str>,
    spans: BTreeMap<&'static str, Range<usize>>,
    defaulted: Vec<String>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(
        source: &'a Source<'a>,
        name: &'a str,
        table: Option<&'a DeTable<'a>>,
        header: Range<usize>,
    ) -> Self {
        Self { source, name, table, header, known: Vec::new(), spans: BTreeMap::new(), defaulted: Vec::new() }
    }

    /// Where the value of `key` stands; the table's header where it does not.
    pub(crate) fn span(&self, key: &str) -> Range<usize> {
        self.spans.get(key).cloned().unwrap_or_else(|| self.header.clone())
    }

    pub(crate) fn present(&self, key: &str) -> bool {
        self.spans.contains_key(key)
    }

    /// Reports the keys that nobody asked for, and hands over those that were left to their defaults.
    pub(crate) fn finish(self) -> Vec<String> {
        for (key, _) in self.table.into_iter().flatten() {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let help = match nearest(key.get_ref(), &self.known) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("the keys here are: {}", self.known.join(", ")),
                };
                self.source.error(key.span(), format_args!("{} has no key \"{}\"", self.title(), key.get_ref()), help);
            }
        }
        self.defaulted
    }

    fn title(&self) -> String {
        match self.name {
            "" => "the cluster file".to_owned(),
            list if LISTS.iter().any(|(.., name)| *name == list) => format!("[[{list}]]"),
            name => format!("[{name}]"),
        }
    }

    /// The entries of a list of tables, `[[vip.track]]` for the key `track` of `[vip]`; none where there is no such list.
    pub(crate) fn entries(&mut self, key: &'static str, most: usize) -> Vec<Section<'a>> {
        let is_it = |(section, list, _): &&(&str, &str, &str)| (*section, *list) == (self.name, key);
        let name = LISTS.iter().find(is_it).map_or(key, |(.., name)| *name);
        let Some(value) = self.raw(key) else { return Vec::new() };
        let entries = value.get_ref().as_array().map_or(&[][..], |array| &array[..]);
        let tables = entries.iter().all(|entry| entry.get_ref().is_table());
        if value.get_ref().as_array().is_none() || !tables {
            self.source.error(
                value.span(),
                format_args!("{name} must be a list of tables"),
                format_args!("write [[{name}]], with two brackets, before each entry"),
            );
            return Vec::new();
        }
        if entries.len() > most {
            self.source.error(value.span(), format_args!("more than {most} [[{name}]] entries"), "delete some");
        }
        let section =
            |entry: &'a Spanned<DeValue<'a>>| Section::new(self.source, name, entry.get_ref().as_table(), entry.span());
        entries.iter().take(most).map(section).collect()
    }

    /// The table `key` of this one, `name` in the file; an empty one where it is missing or no table.
    pub(crate) fn table(&mut self, key: &'static str, name: &'static str) -> Section<'a> {
        let source = self.source;
        let value = self.raw(key);
        let table = value.and_then(|value| value.get_ref().as_table());
        let header = value.map_or(0..0, Spanned::span);
        if value.is_some() && table.is_none() {
            source.error(
                header.clone(),
                format_args!("{name} must be a table"),
                format_args!("write [{name}] on a line of its own"),
            );
        }
        Section::new(source, name, table, header)
    }

    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The value of `key`, if it stands there.
    pub(crate) fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        self.spans.insert(key, value.span());
        Some(value)
    }

    /// The value of `key` as `read` understands it; none, with a problem noted, where it does not.
    fn read<T>(&mut self, key: &'static str, wanted: &str, read: impl FnOnce(&DeValue<'a>) -> Option<T>) -> Option<T> {
        let value = self.raw(key)?;
        let result = read(value.get_ref());
        if result.is_none() {
            let text = self.source.text.get(value.span()).unwrap_or_default().lines().next().unwrap_or_default();
            self.source.error(
                value.span(),
                format_args!("{text} is no value for {}", self.path_of(key)),
                format_args!("write {wanted}"),
            );
        }
        result
    }

    fn or_default<T>(&mut self, key: &'static str, value: Option<T>, default: T) -> T {
        if !self.spans.contains_key(key) {
            self.defaulted.push(self.path_of(key));
        }
        value.unwrap_or(default)
    }

    /// Notes a missing key. Returns `value` unchanged.
    pub(crate) fn required<T>(&self, key: &'static str, value: Option<T>, example: &str) -> Option<T> {
        if value.is_none() && !self.spans.contains_key(key) {
            self.source.error(
                self.header.clone(),
                format_args!("{} needs \"{key}\"", self.title()),
                format_args!("add a line such as: {key} = {example}"),
            );
        }
        value
    }

    /// Notes that an optional key was left out.
    pub(crate) fn note_if_absent(&mut self, key: &'static str) {
        if !self.spans.contains_key(key) {
            self.defaulted.push(self.path_of(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_counts_characters() {
        let source = Source::new(Path::new("x.toml"), "a = 1\nü = \"bad\"\n");
        let start = source.text.find("\"bad\"").expect("there");
        let place = source.place(&(start..start + 5));
        assert_eq!((place.line, place.column, place.width), (2, 5, 5));
        assert_eq!(place.source_line, "ü = \"bad\"");
    }
}
