//! Many topic filters as one matcher: a tree by levels, walked without an allocation.
//!
//! Each filter carries [`Grant`]s. Three questions: which grants has a topic, which has some topic of a filter, which has
//! every topic of a filter (§4.7).

use std::iter::Peekable;
use std::ops::{BitOr, BitOrAssign};
use std::str::Split;

/// Levels of a filter here. No sane rule has more, and the walk is as deep as its filters.
pub const MAX_LEVELS: usize = 128;

/// What a filter says of its topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant(u8);

impl Grant {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Messages may be published.
    pub const PUBLISH: Self = Self(1);
    /// Messages may be received.
    pub const RECEIVE: Self = Self(2);
    /// Neither, whatever else is granted.
    pub const DENY: Self = Self(4);

    /// Whether anything of `other` is in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Grant {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Grant {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// Why a text is no filter for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterError {
    /// There is nothing.
    Empty,
    /// `+` that is not a whole level, or `#` that is not the whole last one.
    Wildcard,
    /// More than [`MAX_LEVELS`].
    TooDeep,
    /// A NUL, or longer than any topic.
    NoTopic,
}

impl FilterError {
    /// What is wrong, and what to write.
    #[must_use]
    pub const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Empty => ("the topic filter is empty", "write a topic filter, such as \"sensors/+/temperature\""),
            Self::Wildcard => (
                "a wildcard must be a whole level, and # the last one",
                "write it between slashes, such as \"sensors/+/temperature\" or \"sensors/#\"",
            ),
            Self::TooDeep => ("the topic filter has more than 128 levels", "end it with # earlier"),
            Self::NoTopic => (
                "no topic can be like this: it has a NUL, or over 65535 bytes",
                "write a topic filter, such as \"a/b/#\"",
            ),
        }
    }
}

/// Whether `filter` may stand in a rule.
///
/// # Errors
/// Why not.
pub fn check(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    if filter.len() > usize::from(u16::MAX) || filter.contains('\0') {
        return Err(FilterError::NoTopic);
    }
    let mut levels = filter.split('/').peekable();
    let mut count = 0;
    while let Some(level) = levels.next() {
        count += 1;
        let is_good = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            other => !other.contains(['+', '#']),
        };
        if !is_good {
            return Err(FilterError::Wildcard);
        }
    }
    if count > MAX_LEVELS { Err(FilterError::TooDeep) } else { Ok(()) }
}

/// The filters, by their levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    /// The first one is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Node {
    /// By level, in order.
    children: Vec<(Box<str>, usize)>,
    /// `+`.
    plus: Option<usize>,
    /// Filters that end here.
    here: Grant,
    /// Filters that end here with `#`.
    below: Grant,
    /// Everything in this node and under it.
    all: Grant,
}

impl Default for Filters {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Filters {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root().all == Grant::NONE
    }

    /// Adds a filter that [`check`] found good. In others a wildcard inside of a level is none and matches nothing, and what
    /// is below [`MAX_LEVELS`] is denied whole or not granted at all.
    pub fn add(&mut self, filter: &str, grant: Grant) {
        let mut at = 0;
        let is_too_deep = filter.split('/').nth(MAX_LEVELS).is_some();
        if is_too_deep && grant != Grant::DENY {
            return;
        }
        self.nodes[at].all |= grant;
        for level in filter.split('/').take(MAX_LEVELS).chain(is_too_deep.then_some("#")) {
            if level == "#" {
                self.nodes[at].below |= grant;
                return;
            }
            at = self.child(at, level);
            self.nodes[at].all |= grant;
        }
        self.nodes[at].here |= grant;
    }

    /// Gives back what the building took too much.
    pub fn shrink(&mut self) {
        for node in &mut self.nodes {
            node.children.shrink_to_fit();
        }
        self.nodes.shrink_to_fit();
    }

    /// What holds for the topic.
    #[must_use]
    pub fn of_topic(&self, topic: &str) -> Grant {
        self.topic(self.root(), topic.split('/'), true)
    }

    /// What holds for at least one topic that `filter` matches.
    #[must_use]
    pub fn of_some(&self, filter: &str) -> Grant {
        self.some(self.root(), filter.split('/').peekable(), true)
    }

    /// What holds, by one filter alone, for every topic that `filter` matches.
    #[must_use]
    pub fn of_every(&self, filter: &str) -> Grant {
        self.every(self.root(), filter.split('/'), true)
    }

    fn root(&self) -> &Node {
        &self.nodes[0]
    }

    fn child(&mut self, at: usize, level: &str) -> usize {
        let new = self.nodes.len();
        let node = &mut self.nodes[at];
        let found = if level == "+" {
            *node.plus.get_or_insert(new)
        } else {
            match node.children.binary_search_by(|(name, _)| (**name).cmp(level)) {
                Ok(found) => node.children[found].1,
                Err(place) => {
                    node.children.insert(place, (level.into(), new));
                    new
                }
            }
        };
        if found == new {
            self.nodes.push(Node::default());
        }
        found
    }

    fn topic(&self, node: &Node, mut rest: Split<'_, char>, is_first: bool) -> Grant {
        let Some(level) = rest.next() else { return node.here | node.below };
        let mut grant = Grant::NONE;
        if let Some(child) = self.named(node, level) {
            grant |= self.topic(child, rest.clone(), false);
        }
        // [MQTT-4.7.2-1]: no wildcard begins where a topic begins with $.
        if !(is_first && level.starts_with('$')) {
            grant |= node.below;
            if let Some(plus) = node.plus {
                grant |= self.topic(&self.nodes[plus], rest, false);
            }
        }
        grant
    }

    fn some(&self, node: &Node, mut rest: Peekable<Split<'_, char>>, is_first: bool) -> Grant {
        let open = |name: &str| !(is_first && name.starts_with('$'));
        match rest.next() {
            None => node.here | node.below,
            Some("#") if is_first => {
                let children = node.children.iter().filter(|(name, _)| open(name)).map(|(_, child)| *child);
                let below = children.chain(node.plus).fold(node.below, |grant, child| grant | self.nodes[child].all);
                below | node.here
            }
            Some("#") => node.all,
            Some("+") => {
                let children = node.children.iter().filter(|(name, _)| open(name)).map(|(_, child)| *child);
                let walk = |grant, child: usize| grant | self.some(&self.nodes[child], rest.clone(), false);
                children.chain(node.plus).fold(node.below, walk)
            }
            Some(level) => {
                let mut grant = Grant::NONE;
                if let Some(child) = self.named(node, level) {
                    grant |= self.some(child, rest.clone(), false);
                }
                if open(level) {
                    grant |= node.below;
                    if let Some(plus) = node.plus {
                        grant |= self.some(&self.nodes[plus], rest, false);
                    }
                }
                grant
            }
        }
    }

    fn every(&self, node: &Node, mut rest: Split<'_, char>, is_first: bool) -> Grant {
        let plus = |rest| node.plus.map_or(Grant::NONE, |plus| self.every(&self.nodes[plus], rest, false));
        match rest.next() {
            None => node.here | node.below,
            Some("#") => node.below,
            Some("+") => node.below | plus(rest),
            Some(level) => {
                let child = self.named(node, level);
                let grant = child.map_or(Grant::NONE, |child| self.every(child, rest.clone(), false));
                if is_first && level.starts_with('$') { grant } else { grant | node.below | plus(rest) }
            }
        }
    }

    fn named(&self, node: &Node, level: &str) -> Option<&Node> {
        let found = node.children.binary_search_by(|(name, _)| (**name).cmp(level)).ok()?;
        Some(&self.nodes[node.children[found].1])
    }
}

#[cfg(test)]
mod tests;
