//! Which subscriptions a topic name matches: a tree with one node for each level of the topic filters (§4.7).
//!
//! Readers take a snapshot and walk it without a lock; a writer copies the nodes on its path and puts the new root in
//! place. Writers wait for each other, never readers.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use evermq_mqtt::{TopicFilter, TopicName};
use imbl::{HashMap, OrdMap};
use parking_lot::Mutex;

/// Up to here a sorted vector is smaller and faster than a persistent map.
const FEW: usize = 16;

/// The tree. `T` is what a subscriber stands for; a subscriber has a key and one entry at most for each filter.
#[derive(Debug)]
pub struct Subscriptions<T: Clone> {
    root: ArcSwap<Node<T>>,
    writer: Mutex<usize>,
}

/// The tree as it was at one moment.
#[derive(Debug)]
pub struct Snapshot<T: Clone>(Guard<Arc<Node<T>>>);

/// The filters that match a topic; most often there is one, so that one needs no memory.
#[derive(Debug)]
pub struct Matches<'a, T: Clone> {
    /// The first.
    pub first: Option<&'a Subscribers<T>>,
    /// All others.
    pub others: Vec<&'a Subscribers<T>>,
}

impl<'a, T: Clone> Matches<'a, T> {
    /// The subscribers of each filter.
    pub fn iter(&self) -> impl Iterator<Item = &'a Subscribers<T>> {
        self.first.into_iter().chain(self.others.iter().copied())
    }
}

#[derive(Debug, Clone)]
struct Node<T: Clone> {
    children: Children<T>,
    /// The child for `+`.
    plus: Option<Arc<Node<T>>>,
    /// Filters that end here.
    here: Subscribers<T>,
    /// Filters that end in `#` below this level.
    below: Subscribers<T>,
}

/// The subscribers of one filter, ascending by key.
#[derive(Debug, Clone)]
pub enum Subscribers<T: Clone> {
    /// A vector.
    Few(Vec<(u64, T)>),
    /// A tree.
    Many(OrdMap<u64, T>),
}

#[derive(Debug, Clone)]
enum Children<T: Clone> {
    Few(Vec<(Arc<str>, Arc<Node<T>>)>),
    Many(HashMap<Arc<str>, Arc<Node<T>>>),
}

impl<T: Clone> Default for Subscriptions<T> {
    fn default() -> Self {
        Self { root: ArcSwap::from_pointee(Node::default()), writer: Mutex::new(0) }
    }
}

impl<T: Clone> Subscriptions<T> {
    /// Enters `value` for the subscriber `key`, or replaces what it has for this filter (`[MQTT-3.8.4-3]`).
    pub fn insert(&self, filter: &TopicFilter, key: u64, value: T) {
        self.insert_all([(filter, value)], key);
    }

    /// The same for many filters. What they have in common of the tree is copied once for all of them.
    pub fn insert_all<'a>(&self, entries: impl IntoIterator<Item = (&'a TopicFilter, T)>, key: u64) {
        let mut count = self.writer.lock();
        let mut root = self.root.load_full();
        let mut levels = Vec::new();
        for (filter, value) in entries {
            levels.clear();
            levels.extend(filter.levels());
            *count += usize::from(insert(Arc::make_mut(&mut root), &levels, key, value));
        }
        self.root.store(root);
    }

    /// Removes what `key` has for `filters`.
    pub fn remove<'a>(&self, filters: impl IntoIterator<Item = &'a TopicFilter>, key: u64) {
        let mut count = self.writer.lock();
        let mut root = self.root.load_full();
        for filter in filters {
            let levels: Vec<_> = filter.levels().collect();
            *count -= usize::from(remove(Arc::make_mut(&mut root), &levels, key));
        }
        self.root.store(root);
    }

    /// The tree as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<T> {
        Snapshot(self.root.load())
    }

    /// Subscriptions in all.
    #[must_use]
    pub fn len(&self) -> usize {
        *self.writer.lock()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone> Snapshot<T> {
    /// The subscribers of each filter that matches `topic`.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> Matches<'_, T> {
        let mut matches = Matches { first: None, others: Vec::new() };
        let name = topic.as_str();
        // §4.7.2: a wildcard at the first level does not match a name that begins with $.
        self.0.visit(Some(name), !name.starts_with('$'), &mut |subscribers| match matches.first {
            None => matches.first = Some(subscribers),
            Some(_) => matches.others.push(subscribers),
        });
        matches
    }
}

impl<T: Clone> Default for Node<T> {
    fn default() -> Self {
        Self {
            children: Children::Few(Vec::new()),
            plus: None,
            here: Subscribers::Few(Vec::new()),
            below: Subscribers::Few(Vec::new()),
        }
    }
}

impl<T: Clone> Node<T> {
    /// `rest` is what follows of the topic name; `None` when its last level led here. The depth is that of the longest filter.
    fn visit<'a>(&'a self, rest: Option<&str>, wildcards: bool, found: &mut impl FnMut(&'a Subscribers<T>)) {
        // "sport/#" matches "sport" too (§4.7.1.2).
        if wildcards && !self.below.is_empty() {
            found(&self.below);
        }
        let Some(rest) = rest else {
            if !self.here.is_empty() {
                found(&self.here);
            }
            return;
        };
        // Levels are short: to look at each byte is faster than to begin a search.
        let (level, rest) = match rest.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
            None => (rest, None),
        };
        if let Some(child) = self.children.get(level) {
            child.visit(rest, true, found);
        }
        if let Some(plus) = self.plus.as_deref().filter(|_| wildcards) {
            plus.visit(rest, true, found);
        }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.below.is_empty() && self.plus.is_none() && self.children.is_empty()
    }
}

fn insert<T: Clone>(mut node: &mut Node<T>, levels: &[&str], key: u64, value: T) -> bool {
    for level in levels {
        match *level {
            "#" => return node.below.insert(key, value),
            "+" => node = Arc::make_mut(node.plus.get_or_insert_default()),
            name => node = node.children.get_or_insert(name),
        }
    }
    node.here.insert(key, value)
}

/// The depth is that of the filter, which the session has bounded.
fn remove<T: Clone>(node: &mut Node<T>, levels: &[&str], key: u64) -> bool {
    let Some((level, rest)) = levels.split_first() else { return node.here.remove(key) };
    match *level {
        "#" => node.below.remove(key),
        "+" => {
            let Some(plus) = &mut node.plus else { return false };
            let child = Arc::make_mut(plus);
            let removed = remove(child, rest, key);
            if child.is_empty() {
                node.plus = None;
            }
            removed
        }
        name => {
            if node.children.get(name).is_none() {
                return false;
            }
            let child = node.children.get_or_insert(name);
            let removed = remove(child, rest, key);
            if child.is_empty() {
                node.children.remove(name);
            }
            removed
        }
    }
}

impl<T: Clone> Subscribers<T> {
    /// Key and value of each, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter().map(|(key, value)| (*key, value))), None),
            Self::Many(many) => (None, Some(many.iter().map(|(key, value)| (*key, value)))),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    /// Subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the key is new.
    fn insert(&mut self, key: u64, value: T) -> bool {
        match self {
            Self::Few(few) => match few.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(index) => {
                    few[index].1 = value;
                    false
                }
                Err(index) if few.len() < FEW => {
                    few.insert(index, (key, value));
                    true
                }
                Err(_) => {
                    let mut many: OrdMap<_, _> = std::mem::take(few).into_iter().collect();
                    many.insert(key, value);
                    *self = Self::Many(many);
                    true
                }
            },
            Self::Many(many) => many.insert(key, value).is_none(),
        }
    }

    fn remove(&mut self, key: u64) -> bool {
        match self {
            Self::Few(few) => match few.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(index) => {
                    few.remove(index);
                    true
                }
                Err(_) => false,
            },
            Self::Many(many) => {
                let removed = many.remove(&key).is_some();
                // Well below the bound, so that one subscriber who comes and goes does not rebuild it each time.
                if many.len() <= FEW / 2 {
                    *self = Self::Few(std::mem::take(many).into_iter().collect());
                }
                removed
            }
        }
    }
}

impl<T: Clone> Children<T> {
    fn get(&self, name: &str) -> Option<&Node<T>> {
        match self {
            Self::Few(few) => {
                let index = few.binary_search_by(|(child, _)| (**child).cmp(name)).ok()?;
                Some(&few[index].1)
            }
            Self::Many(many) => many.get(name).map(|child| &**child),
        }
    }

    fn get_or_insert(&mut self, name: &str) -> &mut Node<T> {
        if let Self::Few(few) = self
            && few.len() >= FEW
            && few.binary_search_by(|(child, _)| (**child).cmp(name)).is_err()
        {
            *self = Self::Many(std::mem::take(few).into_iter().collect());
        }
        let child = match self {
            Self::Few(few) => {
                let index = few.binary_search_by(|(child, _)| (**child).cmp(name)).unwrap_or_else(|index| {
                    few.insert(index, (name.into(), Arc::default()));
                    index
                });
                &mut few[index].1
            }
            Self::Many(many) => many.entry(name.into()).or_default(),
        };
        Arc::make_mut(child)
    }

    fn remove(&mut self, name: &str) {
        match self {
            Self::Few(few) => few.retain(|(child, _)| **child != *name),
            Self::Many(many) => {
                many.remove(name);
                if many.len() <= FEW / 2 {
                    let mut few: Vec<_> = std::mem::take(many).into_iter().collect();
                    few.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                    *self = Self::Few(few);
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests;
