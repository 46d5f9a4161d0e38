//! Keys of the cluster file in blocks of TOML: each is one that the example file has.

use std::collections::BTreeSet;

use toml::Value;

use super::pages;

const EXAMPLE: &str = include_str!("../../../../../config/evermq.toml");

#[test]
fn every_key_is_one_of_the_cluster_file() {
    let known = known();
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "toml") {
            let place = format!("{}:{}", page.path.display(), block.line);
            let table: toml::Table = block.text.parse().unwrap_or_else(|error| panic!("{place}: {error}"));
            let mut keys = BTreeSet::new();
            collect("", &Value::Table(table), &mut keys);
            seen += keys.len();
            wrong.extend(keys.iter().filter(|key| !known.contains(*key)).map(|key| format!("{place}: {key}")));
        }
    }
    assert!(wrong.is_empty(), "not in config/evermq.toml:\n{}", wrong.join("\n"));
    assert!(seen > 60, "{seen} keys were found");
}

/// Every key of the example file, also where it is commented out.
fn known() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_start_matches('[');
            if let Some((name, _)) = name.split_once(']') {
                name.clone_into(&mut section);
                keys.insert(section.clone());
            }
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

fn collect(path: &str, value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                keys.insert(path.clone());
                collect(&path, value, keys);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(path, value, keys)),
        _ => {}
    }
}
