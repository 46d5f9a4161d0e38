//! Reading the files, and those that they include.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::mosquitto::{self, Line};
use super::statements::{self, Grammar, Statement, SyntaxError};

/// A file, whichever it is.
#[derive(Debug)]
pub enum Content {
    /// mosquitto.conf
    Mosquitto(Vec<Line>),
    /// keepalived.conf
    Keepalived(Vec<Statement>),
    /// nginx.conf
    Nginx(Vec<Statement>),
}

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("cannot read {}; check the path and who may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// It is none.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// Files that include each other.
    #[error("{} is included too deep; files may include each other {MOST_DEPTH} times", path.display())]
    Deep {
        /// The file.
        path: PathBuf,
    },
}

/// Files within files.
const MOST_DEPTH: usize = 8;

/// What a file is by what it says: keepalived's blocks, nginx's, or lines alone.
#[must_use]
pub fn kind_of(text: &str) -> Kind {
    let bare: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])).collect();
    let begins = |words: &[&str]| {
        bare.iter().any(|line| line.split([' ', '\t', '{']).next().is_some_and(|word| words.contains(&word)))
    };
    let keepalived = [
        "vrrp_instance",
        "vrrp_sync_group",
        "vrrp_script",
        "global_defs",
        "virtual_server",
        "virtual_server_group",
        "static_routes",
    ];
    if begins(&keepalived) {
        Kind::Keepalived
    } else if bare.iter().any(|line| line.ends_with(';') || line.ends_with('{')) {
        Kind::Nginx
    } else {
        Kind::Mosquitto
    }
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Mosquitto,
    Keepalived,
    Nginx,
}

/// Reads the files with all that they include.
///
/// # Errors
/// One cannot be read, or is none.
pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Content>, ImportError> {
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Content, ImportError> {
    let text = text_of(path)?;
    Ok(match kind_of(&text) {
        Kind::Mosquitto => Content::Mosquitto(mosquitto_lines(path, &text, 0)?),
        Kind::Keepalived => Content::Keepalived(with_included(path, &text, Grammar::Keepalived, 0)?),
        Kind::Nginx => Content::Nginx(with_included(path, &text, Grammar::Nginx, 0)?),
    })
}

fn text_of(path: &Path) -> Result<String, ImportError> {
    let bytes = fs::read(path).map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
    // Comments may be in any encoding.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn mosquitto_lines(path: &Path, text: &str, depth: usize) -> Result<Vec<Line>, ImportError> {
    if depth > MOST_DEPTH {
        return Err(ImportError::Deep { path: path.to_owned() });
    }
    let mut lines = Vec::new();
    for line in mosquitto::lines(&Rc::from(path), text) {
        match (line.key.as_str(), fs::read_dir(&line.value)) {
            ("include_dir", Ok(entries)) => {
                let is_conf = |path: &PathBuf| path.extension() == Some("conf".as_ref());
                let mut files: Vec<PathBuf> =
                    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_conf).collect();
                files.sort();
                for file in files {
                    lines.extend(mosquitto_lines(&file, &text_of(&file)?, depth + 1)?);
                }
            }
            _ => lines.push(line),
        }
    }
    Ok(lines)
}

fn with_included(path: &Path, text: &str, grammar: Grammar, depth: usize) -> Result<Vec<Statement>, ImportError> {
    if depth > MOST_DEPTH {
        return Err(ImportError::Deep { path: path.to_owned() });
    }
    let statements = statements::parse(&Rc::from(path), text, grammar)?;
    expand(path, statements, grammar, depth)
}

fn expand(
    path: &Path,
    statements: Vec<Statement>,
    grammar: Grammar,
    depth: usize,
) -> Result<Vec<Statement>, ImportError> {
    let mut all = Vec::new();
    for mut statement in statements {
        // What an http block includes is no more of interest than the block.
        if matches!(statement.name(), "http" | "mail") {
            all.push(statement);
        } else if statement.name() == "include" && statement.block.is_none() {
            let files = matching(path, statement.argument());
            if files.is_empty() {
                all.push(statement);
            }
            for file in files {
                all.extend(with_included(&file, &text_of(&file)?, grammar, depth + 1)?);
            }
        } else {
            statement.block = statement.block.take().map(|block| expand(path, block, grammar, depth)).transpose()?;
            all.push(statement);
        }
    }
    Ok(all)
}

/// The files that an include names; `*` may stand in its last part.
fn matching(from: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = from.parent().unwrap_or(Path::new(".")).join(pattern);
    let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.contains('*') {
        return if pattern.is_file() { vec![pattern] } else { Vec::new() };
    }
    let entries = pattern.parent().and_then(|directory| fs::read_dir(directory).ok());
    let paths = entries.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let fits = |path: &PathBuf| path.is_file() && glob(&name, &path.file_name().unwrap_or_default().to_string_lossy());
    let mut files: Vec<PathBuf> = paths.filter(fits).collect();
    files.sort();
    files
}

/// `*.conf` and its like.
fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_what_they_say() {
        for (text, kind) in [
            ("! x\nvrrp_instance VI_1 {\n}\n", Kind::Keepalived),
            ("global_defs\n{\n}\n", Kind::Keepalived),
            ("user www;\n", Kind::Nginx),
            ("stream {\n}\n", Kind::Nginx),
            ("listener 1883\n# vrrp_instance {\n", Kind::Mosquitto),
            ("", Kind::Mosquitto),
        ] {
            assert_eq!(kind_of(text), kind, "{text:?}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, fits) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "ac", false),
            ("plain", "plain", true),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
        }
    }
}
