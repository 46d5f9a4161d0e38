//! Reads one table key by key, collecting problems: a bad value is noted and its default taken, so that one run shows all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::lb::IpNetwork;
use crate::report::{Place, Problem, Severity};
use crate::value;

mod nearest;

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

    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let value = self.read(key, "true or false", DeValue::as_bool);
        self.or_default(key, value, default)
    }

    pub(crate) fn integer<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        let value = self.optional_integer(key, &range, default);
        self.or_default(key, value, default)
    }

    pub(crate) fn optional_integer<T>(&mut self, key: &'static str, range: &RangeInclusive<T>, example: T) -> Option<T>
    where
        T: Copy + Display + PartialOrd + TryFrom<i64>,
    {
        let wanted = format!("a whole number from {} to {}, such as {example}", range.start(), range.end());
        self.read(key, &wanted, |value| {
            let integer = value.as_integer()?;
            let number = T::try_from(i64::from_str_radix(integer.as_str(), integer.radix()).ok()?).ok()?;
            range.contains(&number).then_some(number)
        })
    }

    pub(crate) fn duration(&mut self, key: &'static str, default: &str, range: RangeInclusive<&str>) -> Duration {
        let parse = |text| value::duration(text).expect("defaults are durations");
        let (least, most) = (parse(range.start()), parse(range.end()));
        let wanted = format!(
            "a duration from {} to {}, such as \"{default}\" (units: ms, s, m, h, d)",
            range.start(),
            range.end()
        );
        let value = self.read(key, &wanted, |value| {
            value::duration(value.as_str()?).filter(|duration| (least..=most).contains(duration))
        });
        self.or_default(key, value, parse(default))
    }

    pub(crate) fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let wanted = format!(
            "a size from {} to {}, such as \"{}\" (units: B, KiB, MiB, GiB)",
            value::show_size(*range.start()),
            value::show_size(*range.end()),
            value::show_size(default)
        );
        let value = self.read(key, &wanted, |value| value::size(value.as_str()?).filter(|size| range.contains(size)));
        self.or_default(key, value, default)
    }

    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let value = self.optional_choice(key, choices);
        let default = choices.first().expect("the first choice is the default").1;
        self.or_default(key, value, default)
    }

    /// One of `choices`; none where the key is left out.
    pub(crate) fn optional_choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.read(key, &names.join(" or "), |value| {
            let text = value.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        })
    }

    /// A number that stands for one of `choices`, the first of which is the default.
    pub(crate) fn choice_of<T: Copy>(&mut self, key: &'static str, choices: &[(u8, T)]) -> T {
        let numbers: Vec<_> = choices.iter().map(|(number, _)| number.to_string()).collect();
        let value = self.read(key, &numbers.join(" or "), |value| {
            let integer = value.as_integer()?;
            let number = u8::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            choices.iter().find(|(choice, _)| *choice == number).map(|(_, choice)| *choice)
        });
        let default = choices.first().expect("the first choice is the default").1;
        self.or_default(key, value, default)
    }

    /// A list of at least one string, of which the first is not empty.
    pub(crate) fn strings(&mut self, key: &'static str, wanted: &str) -> Option<Vec<String>> {
        self.read(key, wanted, |value| {
            let strings = value.as_array()?.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned));
            let strings: Vec<String> = strings.collect::<Option<_>>()?;
            let good =
                strings.first().is_some_and(|first| !first.is_empty()) && !strings.iter().any(|s| s.contains('\0'));
            good.then_some(strings)
        })
    }

    /// A list of at least one string, all of which are good.
    pub(crate) fn names(&mut self, key: &'static str, wanted: &str, is_good: fn(&str) -> bool) -> Option<Vec<String>> {
        self.read(key, wanted, |value| {
            let names = value.as_array()?.iter().map(|entry| entry.get_ref().as_str().filter(|name| is_good(name)));
            let names: Vec<String> = names.map(|name| name.map(str::to_owned)).collect::<Option<_>>()?;
            (!names.is_empty()).then_some(names)
        })
    }

    /// A string that `parse` takes.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.read(key, wanted, |value| parse(value.as_str()?))
    }

    pub(crate) fn address(&mut self, key: &'static str, example: &str) -> Option<Ipv4Addr> {
        let wanted = format!("an IPv4 address of a host, such as \"{example}\"");
        let value = self.parsed(key, &wanted, |text| {
            text.parse().ok().filter(|address: &Ipv4Addr| is_a_hosts(IpAddr::V4(*address)))
        });
        self.required(key, value, &format!("\"{example}\""))
    }

    pub(crate) fn optional_address(&mut self, key: &'static str, example: &str) -> Option<Ipv4Addr> {
        let wanted = format!("an IPv4 address of a host, such as \"{example}\"");
        self.parsed(key, &wanted, |text| text.parse().ok().filter(|address| is_a_hosts(IpAddr::V4(*address))))
    }

    pub(crate) fn optional_address6(&mut self, key: &'static str, example: &str) -> Option<Ipv6Addr> {
        let wanted = format!("an IPv6 address of a host, such as \"{example}\"");
        self.parsed(key, &wanted, |text| text.parse().ok().filter(|address| is_a_hosts(IpAddr::V6(*address))))
    }

    /// A virtual address of either family.
    pub(crate) fn virtual_address(&mut self, key: &'static str, example: &str) -> Option<IpAddr> {
        let wanted = format!("an IPv4 or IPv6 address of a host, such as \"{example}\"");
        self.parsed(key, &wanted, virtual_address)
    }

    /// At most `most` of them.
    pub(crate) fn virtual_addresses(&mut self, key: &'static str, example: &str, most: usize) -> Option<Vec<IpAddr>> {
        let wanted = format!("a list of at most {most} addresses, such as {example}");
        self.read(key, &wanted, |value| {
            let addresses = value.as_array()?.iter().map(|entry| virtual_address(entry.get_ref().as_str()?));
            addresses.collect::<Option<Vec<_>>>().filter(|addresses| addresses.len() <= most)
        })
    }

    pub(crate) fn socket_address(&mut self, key: &'static str, default: &str) -> SocketAddr {
        let value = self.optional_socket_address(key, default);
        self.or_default(key, value, default.parse().expect("defaults are addresses"))
    }

    pub(crate) fn optional_socket_address(&mut self, key: &'static str, example: &str) -> Option<SocketAddr> {
        let wanted = format!("an address and a port, such as \"{example}\"");
        self.parsed(key, &wanted, |text| text.parse().ok().filter(|address: &SocketAddr| address.port() != 0))
    }

    /// A list of networks of either family, empty where it is left out.
    pub(crate) fn networks(&mut self, key: &'static str, example: &str) -> Vec<IpNetwork> {
        let wanted = format!("a list of addresses or networks, such as {example}");
        let networks = self.read(key, &wanted, |value| {
            value.as_array()?.iter().map(|entry| IpNetwork::parse(entry.get_ref().as_str()?)).collect()
        });
        self.or_default(key, networks, Vec::new())
    }

    /// A path, taken from the file's directory where it is relative.
    pub(crate) fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        let wanted = format!("a path, such as \"{default}\"");
        let value = self.parsed(key, &wanted, |text| (!text.is_empty()).then(|| text.to_owned()));
        let path = self.or_default(key, value, default.to_owned());
        self.absolute(&path)
    }

    /// Likewise, for a key that may be left out.
    pub(crate) fn optional_path(&mut self, key: &'static str, example: &str) -> Option<PathBuf> {
        let wanted = format!("a path, such as \"{example}\"");
        let path = self.parsed(key, &wanted, |text| (!text.is_empty()).then(|| text.to_owned()))?;
        Some(self.absolute(&path))
    }

    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        let directory = self.source.path.parent().unwrap_or_else(|| Path::new(""));
        let directory = if directory.is_absolute() {
            directory.to_owned()
        } else {
            std::env::current_dir().unwrap_or_default().join(directory)
        };
        directory.join(path)
    }

    /// Notes that an optional key was left out.
    pub(crate) fn note_if_absent(&mut self, key: &'static str) {
        if !self.spans.contains_key(key) {
            self.defaulted.push(self.path_of(key));
        }
    }
}

fn virtual_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address| is_a_hosts(*address))
}

/// Whether one host can have the address.
fn is_a_hosts(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !broadcast
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
