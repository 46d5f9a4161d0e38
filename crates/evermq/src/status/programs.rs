//! A host's status as one table. Nothing is assumed of a program's state but that it is JSON: a newer program may show more.

use evermq_admin::report::{HostReport, ProgramReport, word};
use serde_json::Value;

use crate::table::Table;

/// What the titles or other columns say already.
const SHOWN_ELSEWHERE: [&str; 4] = ["host", "program", "health", "version"];
/// What an entry of a list may be called by.
const NAMES: [&str; 5] = ["name", "host", "peer", "address", "id"];
/// What may say how an entry of a list is.
const CONDITIONS: [&str; 3] = ["health", "state", "connected"];
/// The virtual routers of evermq-vip.
const INSTANCES: &str = "instances";
/// What an operator looks for first.
const FIRST: [&str; 6] = ["trouble", "state", "reason", "vip", "master", "listen"];

/// The table, then what to do about programs that do not answer.
pub(super) fn text(status: &HostReport) -> String {
    let mut table = Table::titled(&["PROGRAM", "HEALTH", "DETAILS"]);
    table.row([format!("host {}", status.host).as_str(), word(status.health)]);
    let mut advice = String::new();
    for program in &status.programs {
        rows_of(&mut table, program);
        if let Some(help) = &program.help {
            advice.push_str(&format!("{}: {help}\n", program.program));
        }
    }
    let separator = if advice.is_empty() { "" } else { "\n" };
    format!("{table}{separator}{advice}")
}

fn rows_of(table: &mut Table, program: &ProgramReport) {
    let health = word(program.health);
    match (&program.error, &program.state) {
        (Some(error), _) => table.row([&program.program, health, error]),
        (None, Value::Object(state)) => {
            let shown = |key: &String| !SHOWN_ELSEWHERE.contains(&key.as_str());
            let state = state.iter().filter(|(key, _)| shown(key)).collect();
            rows(table, 0, &program.program, health, &state, Zeros::Show);
        }
        (None, other) => table.row([&program.program, health, &scalar(other)]),
    }
}

type Fields<'a> = Vec<(&'a String, &'a Value)>;

/// A row of an object's plain values; below it, one for each object in it and for each entry of a list of objects.
fn rows(table: &mut Table, depth: usize, title: &str, condition: &str, fields: &Fields<'_>, zeros: Zeros) {
    table.row([format!("{:indent$}{title}", "", indent = depth * 2).as_str(), condition, &details(fields, zeros)]);
    for (key, value) in fields {
        match value {
            Value::Object(group) => {
                rows(table, depth + 1, &words(key), "", &group.iter().collect(), Zeros::Hide);
            }
            Value::Array(entries) if !is_flat(value) => list(table, depth + 1, key, entries),
            _ => {}
        }
    }
}

/// The entries of a list, such as backends or peers. Where they have no names it is a history, and its end counts.
fn list(table: &mut Table, depth: usize, key: &str, entries: &[Value]) {
    // The first virtual router is the program's own row.
    let entries = if key == INSTANCES { entries.get(1..).unwrap_or_default() } else { entries };
    let named = entries.iter().any(|entry| named_by(entry, &NAMES).is_some());
    let shown = if named { entries } else { &entries[entries.len().saturating_sub(1)..] };
    for entry in shown {
        let name = named_by(entry, &NAMES);
        let condition = named_by(entry, &CONDITIONS);
        let title = match name {
            Some((_, name)) => format!("{} {}", words(singular(key)), scalar(name)),
            None => format!("last {}", words(singular(key))),
        };
        let Value::Object(fields) = entry else { continue };
        let used = [name, condition].map(|used| used.map(|(key, _)| key));
        let rest = fields.iter().filter(|(key, _)| !used.contains(&Some(key.as_str()))).collect();
        rows(
            table,
            depth,
            &title,
            &condition.map_or_else(String::new, |(_, value)| in_words(value)),
            &rest,
            Zeros::Hide,
        );
    }
}

/// The first of `keys` that an object has a plain value for, with that value.
fn named_by<'a>(entry: &'a Value, keys: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    let plain = |value: &&Value| value.is_string() || value.is_number() || value.is_boolean();
    keys.iter().find_map(|key| entry.get(key).filter(plain).map(|value| (*key, value)))
}

/// Whether numbers that are zero are worth their place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zeros {
    Show,
    Hide,
}

/// `key value, key value` of the plain values, those that say most first.
fn details(fields: &Fields<'_>, zeros: Zeros) -> String {
    let worth = |value: &Value| match value {
        Value::Null => false,
        Value::Number(number) => zeros == Zeros::Show || number.as_f64() != Some(0.0),
        other => is_flat(other),
    };
    let mut fields: Fields<'_> = fields.iter().filter(|(_, value)| worth(value)).copied().collect();
    fields.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
    fields.iter().map(|(key, value)| format!("{} {}", words(key), scalar(value))).collect::<Vec<_>>().join(", ")
}

/// Whether a value can stand in a line: no object, no list of objects.
fn is_flat(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(entries) => entries.iter().all(|entry| !entry.is_object() && !entry.is_array()),
        _ => true,
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Bool(true) => "up".to_owned(),
        Value::Bool(false) => "down".to_owned(),
        other => scalar(other),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(entries) if entries.is_empty() => "none".to_owned(),
        Value::Array(entries) => entries.iter().map(scalar).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn words(key: &str) -> String {
    key.replace('_', " ")
}

fn singular(key: &str) -> &str {
    key.strip_suffix('s').unwrap_or(key)
}
