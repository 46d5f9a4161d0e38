//! What the log is told, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use super::Entry;
#[cfg(doc)]
use super::OriginLog;

/// How much the log holds at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Messages.
    pub(crate) messages: usize,
    /// Bytes, as [`Entry::bytes`] counts them.
    pub(crate) bytes: usize,
    /// Age of the oldest.
    pub(crate) age: Duration,
}

/// What an append brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// The entry's number.
    pub(crate) seq: u64,
    /// Whether readers wait for an entry: wake those of [`OriginLog::take_waiting`].
    pub(crate) wake: bool,
    /// Whether a connected reader is too far behind.
    pub(crate) high: bool,
}

/// A place of the log.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Its number; a hole's last one.
    pub(crate) last: u64,
    /// `None` is a hole: there is nothing from the item before up to `last`.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// What a read gave.
#[derive(Debug)]
pub(crate) enum Read {
    /// What stands from the asked number on, at least one item.
    Items(Vec<Item>),
    /// The asked entry may not be read yet.
    Held {
        /// Its number.
        seq: u64,
        /// It.
        entry: Arc<Entry>,
    },
    /// The asked entry has left the log; `first` is the oldest that can be had.
    Gone {
        /// The oldest entry, or the next one if the log is empty.
        first: u64,
    },
    /// There is none yet. The reader is woken when there is.
    End,
}

/// A log as it was before the process began.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// The oldest number that may be needed.
    pub(crate) first: u64,
    /// The newest before it that was more than QoS 0.
    pub(crate) kept: u64,
    /// No number beyond this one was ever given to a peer.
    pub(crate) last: u64,
    /// Entries in their order.
    pub(crate) entries: Vec<(u64, Arc<Entry>)>,
    /// What each reader has acknowledged.
    pub(crate) acknowledged: Vec<u64>,
}
