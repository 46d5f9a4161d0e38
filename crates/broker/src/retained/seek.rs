//! Where in an ordered list of topics those stand that a filter matches.
//!
//! All topics that begin with `a/b/` stand together. A topic that does not match says at which level it fails, and so where
//! the next one can be that does: with `a/+/c` and the topic `a/x/d/e`, nothing below `a/x/` follows any more, and with `a/x/b` the
//! next candidate is `a/x/c`. So a search takes one leap for each place that the wildcards leave open, not one step for
//! each topic.

use std::cmp::Ordering;
use std::ops::Bound;

use evermq_mqtt::TopicFilter;

/// The byte after the slash: what a string with the slash in its place sorts behind all that begins with the slash.
const AFTER_SLASH: char = '0';

/// A search.
#[derive(Debug)]
pub(super) struct Seek<'a> {
    levels: Vec<&'a str>,
    /// The filter ends in `#`.
    is_open: bool,
    plain: Option<&'a str>,
    prefix: String,
}

/// What a topic says of the search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It matches.
    Matches,
    /// It does not, but the next one may.
    Fails,
    /// It does not; the next that may is at this place.
    Leap(Place),
    /// It does not, and none after it does.
    Over,
}

/// Where a search goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topic: String,
    /// The topic itself is done with.
    pub(super) after: bool,
}

impl Place {
    /// Behind `topic`.
    pub(super) fn after(topic: &str) -> Self {
        Self { topic: topic.to_owned(), after: true }
    }

    fn at(topic: String) -> Self {
        Self { topic, after: false }
    }

    pub(super) fn bound(&self) -> Bound<&str> {
        if self.after { Bound::Excluded(&self.topic) } else { Bound::Included(&self.topic) }
    }
}

impl<'a> Seek<'a> {
    /// The search for what `filter` matches.
    pub(super) fn new(filter: &'a TopicFilter) -> Self {
        let mut levels: Vec<_> = filter.levels().collect();
        let is_open = levels.last() == Some(&"#");
        if is_open {
            levels.pop();
        }
        let fixed = levels.iter().take_while(|level| **level != "+").count();
        let is_plain = !is_open && fixed == levels.len();
        Self {
            is_open,
            plain: is_plain.then(|| filter.share().map_or(filter.as_str(), |(_, filter)| filter)),
            prefix: levels[..fixed].join("/"),
            levels,
        }
    }

    /// The only topic that can match, if there are no wildcards.
    pub(super) fn only(&self) -> Option<&'a str> {
        self.plain
    }

    /// Where to begin.
    pub(super) fn first(&self) -> Place {
        Place::at(self.prefix.clone())
    }

    /// Whether `topic`, which stands at a place where the search has gone, matches.
    pub(super) fn judge(&self, topic: &str) -> Verdict {
        // §4.7.2: a wildcard at the first level does not match a name that begins with $.
        if topic.starts_with('$') && self.levels.first().is_none_or(|level| *level == "+") {
            // What begins with $ stands together too.
            return Verdict::Leap(Place::at("%".to_owned()));
        }
        // Where the last level that `+` took begins and ends.
        let mut open: Option<usize> = None;
        let mut start = 0;
        for (index, level) in self.levels.iter().enumerate() {
            let end = topic[start..].find('/').map_or(topic.len(), |len| start + len);
            if *level == "+" {
                open = Some(end);
            } else {
                match topic[start..end].cmp(level) {
                    Ordering::Equal => {}
                    Ordering::Less | Ordering::Greater => return self.leap(topic, start, index, open),
                }
            }
            let is_last = index + 1 == self.levels.len();
            if end == topic.len() {
                // "sport/#" matches "sport" too (§4.7.1.2).
                return if is_last { Verdict::Matches } else { self.below(topic, index) };
            }
            if is_last {
                // There are more levels than the filter has.
                return if self.is_open { Verdict::Matches } else { past(topic, open) };
            }
            start = end + 1;
        }
        // The filter is "#".
        Verdict::Matches
    }

    /// `topic` ends at the level `index`, but the filter has more.
    fn below(&self, topic: &str, index: usize) -> Verdict {
        if self.levels[index] == "+" {
            // "a/x-1/c" stands between "a/x" and "a/x/c".
            return Verdict::Fails;
        }
        let mut next = format!("{topic}/");
        next.push_str(
            &self.levels[index + 1..].iter().take_while(|level| **level != "+").copied().collect::<Vec<_>>().join("/"),
        );
        Verdict::Leap(Place::at(next))
    }

    /// The level `index` of `topic`, which begins at `start`, is not the filter's.
    fn leap(&self, topic: &str, start: usize, index: usize, open: Option<usize>) -> Verdict {
        // All that is fixed from there on: nothing before it matches.
        let fixed = self.levels[index..].iter().take_while(|level| **level != "+").count();
        if fixed > 1 {
            let wanted = format!("{}{}", &topic[..start], self.levels[index..index + fixed].join("/"));
            if topic < wanted.as_str() {
                return Verdict::Leap(Place::at(wanted));
            }
        }
        let mut wanted = format!("{}{}", &topic[..start], self.levels[index]);
        // Compared as a whole: "x-1" stands before "x/", though "x" is before "x-1".
        if topic < wanted.as_str() {
            return Verdict::Leap(Place::at(wanted));
        }
        wanted.push('/');
        if topic < wanted.as_str() && (index + 1 < self.levels.len() || self.is_open) {
            return Verdict::Leap(Place::at(wanted));
        }
        past(topic, open)
    }
}

/// Nothing more can match below the level that the last `+` took, which ends at `open`: on to the next one.
fn past(topic: &str, open: Option<usize>) -> Verdict {
    match open {
        Some(open) => Verdict::Leap(Place::at(format!("{}{AFTER_SLASH}", &topic[..open]))),
        None => Verdict::Over,
    }
}
