//! What operators have said of backends by hand, and how the lbs of a cluster agree on it.
//!
//! Whoever spoke last is right: each word carries the wall-clock time at which it was said and the host where, and the
//! greater of the two pairs wins, everywhere. A word is always newer than the one that it replaces, so a host whose clock
//! is ahead cannot have the last word for long.
//!
//! What was said is kept in memory by every lb of the cluster, so it outlives the restart of one of them, not of all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

pub use crate::balance::Admin;

/// Backends that anything can be said of: many times what a cluster has; a peer cannot make it more.
pub const MAX_WORDS: usize = 1024;
/// Of a backend's or a host's name, in bytes.
pub const MAX_NAME: usize = 255;

/// When something was said, and where; the greater one is the later one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub time: u64,
    /// The lb host that was told.
    pub host: String,
}

/// What was said last of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// What it is to do.
    pub admin: Admin,
    /// Connections that a drain moves in a second, if that was said.
    pub rate: Option<u32>,
    /// Its weight, if it is not to be that of the file.
    pub weight: Option<u16>,
    /// When, and where.
    pub stamp: Stamp,
}

/// A change of some of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Another state, with the rate of a drain.
    pub admin: Option<(Admin, Option<u32>)>,
    /// Another weight; `Some(None)`: that of the file again.
    pub weight: Option<Option<u16>>,
}

/// What was said of every backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    by_backend: BTreeMap<String, Word>,
}

impl Words {
    /// What holds for a backend.
    #[must_use]
    pub fn of(&self, backend: &str) -> Word {
        self.by_backend.get(backend).cloned().unwrap_or_default()
    }

    /// All of them, by the backends' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Word)> {
        self.by_backend.iter().map(|(name, word)| (name.as_str(), word))
    }

    /// An operator says something on this `host`. Gives what holds from now on; none where there are too many words.
    pub fn say(&mut self, backend: &str, change: Change, host: &str, time: u64) -> Option<Word> {
        let mut word = self.of(backend);
        if let Some((admin, rate)) = change.admin {
            (word.admin, word.rate) = (admin, rate);
        }
        if let Some(weight) = change.weight {
            word.weight = weight;
        }
        word.stamp = Stamp { time: time.max(word.stamp.time.saturating_add(1)), host: host.to_owned() };
        self.hear(backend, word.clone()).then_some(word)
    }

    /// Another lb has told this. Whether it is news here.
    pub fn hear(&mut self, backend: &str, word: Word) -> bool {
        if backend.len() > MAX_NAME || word.stamp.host.len() > MAX_NAME {
            return false;
        }
        let full = self.by_backend.len() >= MAX_WORDS;
        match self.by_backend.get_mut(backend) {
            Some(held) if word.stamp > held.stamp => *held = word,
            Some(_) => return false,
            None if full => return false,
            None => {
                self.by_backend.insert(backend.to_owned(), word);
            }
        }
        true
    }
}

/// The words, shared by the tasks of the control thread.
#[derive(Debug)]
pub struct Board {
    words: Mutex<Words>,
    changes: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self { words: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Board {
    /// What holds now.
    #[must_use]
    pub fn words(&self) -> Words {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// See [`Words::say`].
    pub fn say(&self, backend: &str, change: Change, host: &str, time: u64) -> Option<Word> {
        let said = self.words.lock().unwrap_or_else(PoisonError::into_inner).say(backend, change, host, time);
        if said.is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
        said
    }

    /// See [`Words::hear`].
    pub fn hear(&self, backend: &str, word: Word) -> bool {
        let news = self.words.lock().unwrap_or_else(PoisonError::into_inner).hear(backend, word);
        if news {
            self.changes.send_modify(|count| *count += 1);
        }
        news
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// One line for what has changed; `told_by` is the lb host that has told this one.
pub(crate) fn log(backend: &str, before: &Word, after: &Word, told_by: &str) {
    let reason = format!("said on {}, told by {told_by}", after.stamp.host);
    if before.admin != after.admin {
        tracing::info!(
            backend,
            from = before.admin.name(),
            to = after.admin.name(),
            rate = after.rate,
            reason,
            "administrative state changed"
        );
    }
    if before.weight != after.weight {
        tracing::info!(backend, from = before.weight, to = after.weight, reason, "weight set by hand changed");
    }
}

#[cfg(test)]
mod tests;
