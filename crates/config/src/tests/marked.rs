//! One mistake, marked in the text, and what it is answered with.

use super::*;

/// The minimal file with `lines` after it. Where they stand in «», that is what a problem must point to.
pub(super) fn marked(lines: &str) -> (String, Option<(usize, usize, String)>) {
    let text = format!("{MINIMAL}\n{lines}");
    let Some((before, rest)) = text.split_once('«') else { return (text, None) };
    let (wrong, after) = rest.split_once('»').unwrap();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    (format!("{before}{wrong}{after}"), Some((line, column, wrong.to_owned())))
}

/// The file has this one mistake, at the marked place; the message and the help hold these words.
#[track_caller]
pub(super) fn wrong(lines: &str, message: &str, help: &str) {
    let (text, place) = marked(lines);
    let report = bad(&text);
    assert_eq!(report.problems.len(), 1, "{report}");
    expect(&report, place, message, help);
}

#[track_caller]
pub(super) fn warned(lines: &str, message: &str, help: &str) {
    let (text, place) = marked(lines);
    let report = good(&text).warnings;
    assert_eq!(report.problems.len(), 1, "{report}");
    expect(&report, place, message, help);
}

#[track_caller]
fn expect(report: &Report, place: Option<(usize, usize, String)>, message: &str, help: &str) {
    let problem = &report.problems[0];
    assert!(problem.message.contains(message), "{problem}");
    assert!(problem.help.contains(help), "{problem}");
    let (line, column, text) = places(report)[0];
    assert_eq!((line, column, text.lines().next().unwrap_or_default().to_owned()), place.expect("a mark"), "{problem}");
}
