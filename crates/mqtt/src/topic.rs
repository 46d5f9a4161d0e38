//! Topic names and topic filters (MQTT 5.0 §4.7).

use std::fmt;

use crate::text::Text;

/// A topic name: no wildcards (`[MQTT-3.3.2-2]`). Empty only where a topic alias stands for it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TopicName(Text);

/// A topic filter whose wildcards stand where they may (`[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`).
///
/// A shared subscription's filter keeps its `$share/GROUP/` prefix; see [`TopicFilter::share`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Text);

/// Why a string is no topic name or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// A topic name with `+` or `#`.
    #[error("topic name contains a wildcard")]
    Wildcard,
    /// An empty filter or name (`[MQTT-4.7.3-1]`).
    #[error("topic is empty")]
    Empty,
    /// `+` that is not a whole level, `#` that is not the whole last level.
    #[error("wildcard must be a whole level, and # the last one")]
    MisplacedWildcard,
    /// `$share` without a group or without a filter (`[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`).
    #[error("shared subscription must be $share/GROUP/FILTER")]
    BadShare,
}

impl TopicName {
    /// Takes `text` as a topic name. The empty name passes: whether it is allowed depends on the packet.
    ///
    /// # Errors
    /// [`TopicError::Wildcard`].
    pub fn new(text: Text) -> Result<Self, TopicError> {
        if has_wildcard(text.as_bytes()) {
            return Err(TopicError::Wildcard);
        }
        Ok(Self(text))
    }

    /// The name as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name's text, which shares its bytes.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.0
    }

    /// The levels between slashes; at least one.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/')
    }

    /// How many levels there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        // Without an early end, as in `has_wildcard`.
        1 + self.as_str().bytes().map(|byte| usize::from(byte == b'/')).sum::<usize>()
    }
}

impl TopicFilter {
    /// Takes `text` as a topic filter.
    ///
    /// # Errors
    /// Empty, a misplaced wildcard, a shared subscription that is not `$share/GROUP/FILTER`.
    pub fn new(text: Text) -> Result<Self, TopicError> {
        let plain = match text.as_str().strip_prefix("$share/") {
            None if text.as_str() == "$share" => return Err(TopicError::BadShare),
            None => text.as_str(),
            Some(rest) => {
                let (group, filter) = rest.split_once('/').ok_or(TopicError::BadShare)?;
                if group.is_empty() || filter.is_empty() || has_wildcard(group.as_bytes()) {
                    return Err(TopicError::BadShare);
                }
                filter
            }
        };
        if plain.is_empty() {
            return Err(TopicError::Empty);
        }
        if has_wildcard(plain.as_bytes()) && !wildcards_are_levels(plain.as_bytes()) {
            return Err(TopicError::MisplacedWildcard);
        }
        Ok(Self(text))
    }

    /// The whole filter as the client sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The filter's text, which shares its bytes.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.0
    }

    /// Group and plain filter of a shared subscription (§4.8.2).
    #[must_use]
    pub fn share(&self) -> Option<(&str, &str)> {
        self.as_str().strip_prefix("$share/")?.split_once('/')
    }

    /// The levels of the plain filter, without `$share/GROUP/`; at least one.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.share().map_or(self.as_str(), |(_, filter)| filter).split('/')
    }

    /// Whether `topic` matches (§4.7.2: a leading wildcard does not match a name that begins with `$`).
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut filter = self.levels();
        let mut name = topic.levels();
        let mut first = true;
        loop {
            match (filter.next(), name.next()) {
                (Some("#" | "+"), Some(level)) if first && level.starts_with('$') => return false,
                // "sport/#" matches "sport" too: # stands for the parent and any number of children.
                (Some("#"), _) => return true,
                (Some("+"), Some(_)) => {}
                (Some(a), Some(b)) if a == b => {}
                (None, None) => return true,
                _ => return false,
            }
            first = false;
        }
    }
}

/// Without an early end: names are short, and this compiles to a few vector instructions.
fn has_wildcard(name: &[u8]) -> bool {
    name.iter().fold(false, |found, &byte| found | (byte == b'+') | (byte == b'#'))
}

/// `+` is a whole level, `#` the whole last one.
fn wildcards_are_levels(filter: &[u8]) -> bool {
    filter.iter().enumerate().all(|(at, byte)| {
        let begins = at == 0 || filter[at - 1] == b'/';
        match byte {
            b'+' => begins && filter.get(at + 1).is_none_or(|next| *next == b'/'),
            b'#' => begins && at + 1 == filter.len(),
            _ => true,
        }
    })
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
