//! Reads the recordings of other programs that stand beside this file, for the tests of what understands them.
//!
//! A recording is a file of lines; one that begins with `#` says what was recorded. A packet is its bytes in hexadecimal
//! notation, with spaces between. What goes wrong here is a mistake in a recording, and ends the test.

use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The recordings of a folder, in the order of their names.
///
/// # Panics
/// There is no such folder, or none in it.
#[must_use]
pub fn names(of: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder(of)).unwrap_or_else(|error| panic!("{of}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .filter_map(|name| name.strip_suffix(".hex").map(str::to_owned))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no recordings of {of}");
    names
}

/// The lines of a recording, without those that say what it is.
///
/// # Panics
/// There is no such recording.
#[must_use]
pub fn lines(of: &str, name: &str) -> Vec<String> {
    let path = folder(of).join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// What a line, or the rest of one, stands for.
///
/// # Panics
/// It is something else than bytes.
#[must_use]
pub fn bytes(hex: &str) -> Vec<u8> {
    hex.split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|error| panic!("{byte:?}: {error}")))
        .collect()
}

/// A recording that is one packet, over however many lines.
///
/// # Panics
/// There is no such recording, or it is something else.
#[must_use]
pub fn packet(of: &str, name: &str) -> Vec<u8> {
    lines(of, name).iter().flat_map(|line| bytes(line)).collect()
}
