//! `docs/conformance.md` names every statement of both standards once, and tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// How many normative statements each section of MQTT 5.0 has. §2.2.1 begins with 2.
const MQTT_5: &[(&str, std::ops::RangeInclusive<u32>)] = &[
    ("1.5.4", 1..=3),
    ("1.5.5", 1..=1),
    ("1.5.7", 1..=1),
    ("2.1.3", 1..=1),
    ("2.2.1", 2..=6),
    ("2.2.2", 1..=1),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=30),
    ("3.1.3", 1..=12),
    ("3.1.4", 1..=6),
    ("3.2.0", 1..=2),
    ("3.2.2", 1..=22),
    ("3.3.1", 1..=13),
    ("3.3.2", 1..=20),
    ("3.3.4", 1..=10),
    ("3.4.2", 1..=3),
    ("3.5.2", 1..=3),
    ("3.6.1", 1..=1),
    ("3.6.2", 1..=3),
    ("3.7.2", 1..=3),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=5),
    ("3.8.4", 1..=8),
    ("3.9.2", 1..=2),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.11.2", 1..=2),
    ("3.11.3", 1..=2),
    ("3.12.4", 1..=1),
    ("3.14.0", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.2", 1..=4),
    ("3.14.4", 1..=3),
    ("3.15.1", 1..=1),
    ("3.15.2", 1..=3),
    ("4.1.0", 1..=2),
    ("4.2", 1..=1),
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=5),
    ("4.3.3", 1..=13),
    ("4.4.0", 1..=2),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.0", 1..=1),
    ("4.7.1", 1..=2),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.2", 1..=6),
    ("4.9.0", 1..=3),
    ("4.12.0", 1..=7),
    ("4.12.1", 1..=2),
    ("4.13.1", 1..=1),
    ("4.13.2", 1..=1),
    ("6.0.0", 1..=4),
];

/// The same for MQTT 3.1.1.
const MQTT_3_1_1: &[(&str, std::ops::RangeInclusive<u32>)] = &[
    ("1.5.3", 1..=3),
    ("2.2.2", 1..=2),
    ("2.3.1", 1..=7),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=24),
    ("3.1.3", 1..=11),
    ("3.1.4", 1..=5),
    ("3.2.0", 1..=1),
    ("3.2.2", 1..=6),
    ("3.3.1", 1..=12),
    ("3.3.2", 1..=3),
    ("3.3.4", 1..=1),
    ("3.3.5", 1..=2),
    ("3.6.1", 1..=1),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=4),
    ("3.8.4", 1..=6),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.12.4", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.4", 1..=3),
    ("4.1.0", 1..=2),
    ("4.2.0", 1..=1),
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=2),
    ("4.3.3", 1..=2),
    ("4.4.0", 1..=1),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.1", 1..=3),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.0", 1..=2),
    ("6.0.0", 1..=4),
    ("7.0.0", 1..=2),
    ("7.1.1", 1..=1),
    ("7.1.2", 1..=1),
];

/// What stands under the heading `## heading`.
fn part<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no part {heading}"));
    let rest = &text[start + 4..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

fn document() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("docs/conformance.md")).unwrap()
}

#[test]
fn every_statement_has_its_place() {
    let text = document();
    for (heading, sections) in [("MQTT 5.0", MQTT_5), ("MQTT 3.1.1", MQTT_3_1_1)] {
        let mut found: Vec<String> = Vec::new();
        for line in part(&text, heading).lines() {
            if let Some(row) = line.strip_prefix("| ") {
                found.extend(row.split(" | ").next().filter(|id| id.contains('-')).map(str::to_owned));
            } else if let Some(list) = line.strip_prefix("Not the server's: ") {
                found.extend(
                    list.split([',', ' '])
                        .map(|id| id.trim_end_matches('.'))
                        .filter(|id| id.contains('-'))
                        .map(str::to_owned),
                );
            }
        }
        found.sort();
        let unique: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!(found.len(), unique.len(), "{heading}: a statement stands there twice");
        let expected: BTreeSet<_> = sections
            .iter()
            .flat_map(|(section, numbers)| numbers.clone().map(move |number| format!("{section}-{number}")))
            .collect();
        assert_eq!(expected.difference(&unique).collect::<Vec<_>>(), Vec::<&String>::new(), "{heading}: missing");
        assert_eq!(unique.difference(&expected).collect::<Vec<_>>(), Vec::<&String>::new(), "{heading}: unknown");
    }
}

/// Whether the file holds the test: a function of that name with an attribute that makes it one.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let is_named = |line: &&str| line.strip_prefix("async ").unwrap_or(line).starts_with(&format!("fn {name}("));
    let is_attribute = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    lines.iter().enumerate().any(|(at, line)| {
        is_named(line) && lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(is_attribute)
    })
}

#[test]
fn every_test_that_is_named_is_there() {
    let text = document();
    let mut named = 0;
    for heading in ["MQTT 5.0", "MQTT 3.1.1", "MQTT 3.1"] {
        for line in part(&text, heading).lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id ")) {
            let cells: Vec<_> = line.trim_matches(['|', ' ']).split(" | ").collect();
            let [id, what, tests] = cells[..] else { panic!("not three cells: {line}") };
            assert!(!what.is_empty() && tests.contains('`'), "{id}: nobody shows it");
            for test in tests.split('`').skip(1).step_by(2) {
                let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{id}: {test} is no test"));
                let path = Path::new(ROOT).join(match file.split_once('/') {
                    Some(("src", _)) => format!("crates/broker/{file}.rs"),
                    Some(("mqtt", _)) => format!("crates/mqtt/tests/{file}.rs"),
                    _ => format!("crates/broker/tests/broker/{file}.rs"),
                });
                let source =
                    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{id}: {}: {error}", path.display()));
                assert!(has_test(&source, name), "{id}: {} has no test {name}", path.display());
                named += 1;
            }
        }
    }
    assert!(named > 300, "{named}");
}
