//! Links between pages, and to files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::{Page, pages, top};

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let headings: BTreeMap<&Path, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_path(), anchors(page))).collect();
    let mut broken = Vec::new();
    for page in &pages {
        for (line, target) in page.prose().flat_map(|(line, text)| links(text).map(move |link| (line, link))) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { page.path.clone() } else { beside(&page.path, path) };
            let is_there = top().join(&path).exists();
            let has_anchor = |known: &BTreeSet<String>| anchor.is_empty() || known.contains(anchor);
            if !is_there || !headings.get(path.as_path()).is_none_or(has_anchor) {
                broken.push(format!("{}:{line}: {target}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links to what is not there:\n{}", broken.join("\n"));
}

#[test]
fn every_page_of_the_documentation_is_in_its_index() {
    let pages = pages();
    let index = pages.iter().find(|page| page.path == Path::new("docs/README.md")).unwrap();
    for page in &pages {
        let name = page.path.strip_prefix("docs").unwrap_or(Path::new("README.md"));
        let is_listed = name.components().count() > 1 || name == Path::new("README.md");
        assert!(is_listed || index.text.contains(&format!("({})", name.display())), "{}", page.path.display());
    }
}

/// Where the links of this line lead, but for those to other sites.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains("://"))
}

fn beside(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().unwrap().to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::ParentDir => assert!(path.pop(), "{}: {target}", page.display()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// The names under which a page's headings are reached.
fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page.prose().filter_map(|(_, line)| line.strip_prefix('#'));
    headings
        .map(|heading| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
