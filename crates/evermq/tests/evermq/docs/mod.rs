//! The documentation says what is so: links lead somewhere, commands and keys are there.

mod commands;
mod keys;
mod links;

use std::fs;
use std::path::{Path, PathBuf};

/// A page, by its path from the top of the tree.
struct Page {
    path: PathBuf,
    text: String,
}

/// A block of code in a page.
struct Block {
    /// What stands behind the opening fence.
    language: String,
    /// The line of the page that the first line of the text is in, from 1.
    line: usize,
    text: String,
}

/// All pages that the project has.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    for directory in ["", "certs", "config", "deploy", "docs", "docs/adr", "docs/zh", "tests/hosts"] {
        for entry in fs::read_dir(top().join(directory)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = Path::new(directory).join(name);
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(Page { text: fs::read_to_string(top().join(&path)).unwrap(), path });
            }
        }
    }
    assert!(pages.len() > 30, "{}", pages.len());
    pages
}

/// The top of the tree.
fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

impl Page {
    /// The lines outside of blocks of code, with their numbers from 1.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut in_block = false;
        self.text.lines().enumerate().filter_map(move |(index, line)| {
            let is_fence = line.trim_start().starts_with("```");
            in_block ^= is_fence;
            (!in_block && !is_fence).then_some((index + 1, line))
        })
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), open.take()) {
                (Some(language), None) => {
                    open = Some(Block { language: language.to_owned(), line: index + 2, text: String::new() });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text += line;
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block of code does not end", self.path.display());
        blocks
    }
}
