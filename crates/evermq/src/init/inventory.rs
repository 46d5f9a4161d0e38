//! An Ansible inventory in INI form: groups, hosts, variables, ranges, children.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// An inventory.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Each group's entries, in the file's order.
    groups: BTreeMap<String, Vec<Entry>>,
    children: BTreeMap<String, Vec<String>>,
    /// Each host's variables, those of its lines in all groups together.
    variables: BTreeMap<String, BTreeMap<String, String>>,
}

/// A line of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What stands there: a host, or in some groups an address or a port.
    pub name: String,
    /// Its line, from 1.
    pub line: usize,
}

/// Why a text is no inventory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// It is YAML.
    #[error(
        "line {line}: this looks like an inventory in YAML; convert it: ansible-inventory -i FILE --list shows its groups, which can be written as INI"
    )]
    Yaml {
        /// The line.
        line: usize,
    },
    /// A header without its bracket.
    #[error("line {line}: \"{text}\" is no group's header; write [group]")]
    Header {
        /// The line.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// Too large a range.
    #[error("line {line}: \"{text}\" is no range of at most {MOST_HOSTS} hosts, such as node[1:4]")]
    Range {
        /// The line.
        line: usize,
        /// What stands there.
        text: String,
    },
}

/// Of one line; far above any cluster's.
const MOST_HOSTS: usize = 1_000;
/// Groups within groups.
const MOST_DEPTH: usize = 16;

impl Inventory {
    /// Reads an inventory.
    ///
    /// # Errors
    /// It is none; the line is named.
    pub fn parse(text: &str) -> Result<Self, InventoryError> {
        let mut inventory = Self::default();
        let mut section = ("ungrouped".to_owned(), String::new());
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let words = words(raw);
            let Some(first) = words.first() else { continue };
            if first == "---" || (index < 3 && raw.trim_end().ends_with(':') && !raw.starts_with('[')) {
                return Err(InventoryError::Yaml { line });
            }
            if let Some(header) = first.strip_prefix('[') {
                let header = header
                    .strip_suffix(']')
                    .ok_or_else(|| InventoryError::Header { line, text: raw.trim().to_owned() })?;
                let (name, kind) = header.split_once(':').unwrap_or((header, ""));
                section = (name.to_owned(), kind.to_owned());
                inventory.groups.entry(name.to_owned()).or_default();
                continue;
            }
            match section.1.as_str() {
                "children" => inventory.children.entry(section.0.clone()).or_default().push(first.clone()),
                "vars" => {}
                _ => inventory.add(&section.0, &words, line)?,
            }
        }
        Ok(inventory)
    }

    fn add(&mut self, group: &str, words: &[String], line: usize) -> Result<(), InventoryError> {
        let variables = words[1..].iter().filter_map(|word| word.split_once('='));
        for name in expand(&words[0]).ok_or_else(|| InventoryError::Range { line, text: words[0].clone() })? {
            let known = self.variables.entry(name.clone()).or_default();
            known.extend(variables.clone().map(|(key, value)| (key.to_owned(), unquoted(value))));
            let group = self.groups.entry(group.to_owned()).or_default();
            if !group.iter().any(|entry| entry.name == name) {
                group.push(Entry { name, line });
            }
        }
        Ok(())
    }

    /// The entries of a group and of the groups in it. `-` and `_` are the same in a group's name.
    #[must_use]
    pub fn group(&self, name: &str) -> Vec<&Entry> {
        let mut found = Vec::new();
        self.collect(name, &mut BTreeSet::new(), &mut found);
        found
    }

    fn collect<'a>(&'a self, name: &str, seen: &mut BTreeSet<String>, found: &mut Vec<&'a Entry>) {
        let same = |other: &&String| other.replace('_', "-") == name.replace('_', "-");
        if seen.len() > MOST_DEPTH || !seen.insert(name.replace('_', "-")) {
            return;
        }
        for (_, entries) in self.groups.iter().filter(|(group, _)| same(group)) {
            found.extend(
                entries
                    .iter()
                    .filter(|entry| !found.iter().any(|known: &&Entry| known.name == entry.name))
                    .collect::<Vec<_>>(),
            );
        }
        for (_, children) in self.children.iter().filter(|(group, _)| same(group)) {
            for child in children {
                self.collect(child, seen, found);
            }
        }
    }

    /// A host's variable, under the first of its names that is set.
    #[must_use]
    pub fn variable(&self, host: &str, names: &[&str]) -> Option<&str> {
        let variables = self.variables.get(host)?;
        names.iter().find_map(|name| variables.get(*name)).map(String::as_str)
    }

    /// The groups that have entries, and that `known` does not name.
    #[must_use]
    pub fn other_groups(&self, known: &[&str]) -> Vec<(&str, usize)> {
        let is_known = |name: &str| known.iter().any(|known| *known == name.replace('_', "-"));
        let mut others: Vec<(&str, usize)> = self
            .groups
            .iter()
            .filter(|(name, entries)| !is_known(name) && !entries.is_empty())
            .map(|(name, entries)| (name.as_str(), entries[0].line))
            .collect();
        others.sort_by_key(|(_, line)| *line);
        others
    }
}

/// The words of a line: `#` and `;` begin a comment at the start of a word, quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (None, '#' | ';') if word.is_empty() => break,
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.push(c);
            }
            (open, c) => {
                if open == Some(c) {
                    quote = None;
                }
                word.push(c);
            }
        }
    }
    if !word.trim().is_empty() {
        words.push(word.trim().to_owned());
    }
    words
}

fn unquoted(text: &str) -> String {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text).to_owned()
}

/// `node[01:03]` as its three hosts, `HOST:PORT` as HOST.
fn expand(word: &str) -> Option<Vec<String>> {
    let word = unquoted(word);
    let Some((before, rest)) = word.split_once('[') else {
        let port = word.rsplit_once(':').filter(|(host, port)| !host.contains(':') && port.parse::<u16>().is_ok());
        return Some(vec![port.map_or(word.as_str(), |(host, _)| host).to_owned()]);
    };
    let (range, after) = rest.split_once(']')?;
    let (first, last) = range.split_once(':')?;
    let after = after.split_once(':').map_or(after, |(after, _)| after);
    let name = |middle: String| format!("{before}{middle}{after}");
    if let ([from], [to]) = (first.as_bytes(), last.as_bytes())
        && from.is_ascii_lowercase()
        && to.is_ascii_lowercase()
    {
        return Some((*from..=*to).map(|letter| name(char::from(letter).to_string())).collect());
    }
    let (from, to): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    let width = if first.starts_with('0') { first.len() } else { 0 };
    (from <= to && to - from < MOST_HOSTS)
        .then(|| (from..=to).map(|number| name(format!("{number:0width$}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(inventory: &Inventory, group: &str) -> Vec<String> {
        inventory.group(group).into_iter().map(|entry| entry.name.clone()).collect()
    }

    #[test]
    fn groups_hosts_and_variables() {
        let text = "lonely\n[web] # comment\nnode[01:03].example ansible_user=root\n\n; comment\nh1:2222 ansible_host=10.0.0.1 note='a b'\n\
                    [all_of:children]\nweb\nweb-two\n[web-two]\nx[a:c]\nnode01.example\n[web:vars]\nkey=value\n";
        let inventory = Inventory::parse(text).unwrap();
        assert_eq!(names(&inventory, "web"), ["node01.example", "node02.example", "node03.example", "h1"]);
        assert_eq!(names(&inventory, "web_two"), ["xa", "xb", "xc", "node01.example"]);
        assert_eq!(names(&inventory, "all-of").len(), 7);
        assert_eq!(names(&inventory, "nothing"), [""; 0]);
        assert_eq!(inventory.variable("h1", &["ansible_ssh_host", "ansible_host"]), Some("10.0.0.1"));
        assert_eq!(inventory.variable("h1", &["note"]), Some("a b"));
        assert_eq!(inventory.variable("node02.example", &["ansible_user"]), Some("root"));
        assert_eq!(inventory.other_groups(&["web", "ungrouped"]), [("web-two", 11)]);
    }

    #[test]
    fn what_is_none_is_named_with_its_line() {
        assert_eq!(Inventory::parse("---\nall:\n").unwrap_err(), InventoryError::Yaml { line: 1 });
        assert_eq!(Inventory::parse("all:\n  hosts:\n").unwrap_err(), InventoryError::Yaml { line: 1 });
        assert!(matches!(Inventory::parse("\n[open\nx\n"), Err(InventoryError::Header { line: 2, .. })));
        assert!(matches!(Inventory::parse("node[1:9999999]\n"), Err(InventoryError::Range { line: 1, .. })));
    }

    #[test]
    fn groups_that_hold_each_other_end() {
        let inventory = Inventory::parse("[a:children]\nb\n[b:children]\na\n[b]\nx\n").unwrap();
        assert_eq!(names(&inventory, "a"), ["x"]);
    }
}
