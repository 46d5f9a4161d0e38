//! Sessions that are over and some of whose messages, of shared subscriptions, are on their way to other members.
//!
//! Each of these messages leaves the session and comes to another one in one record of the store, and only then the session's end is
//! written down. Where the broker stops in between, the session is there at the next start with what it still has: it ends once
//! more, because its time is over or its client, which was told nothing, begins anew.

use std::collections::BTreeSet;

use evermq_store::{Position, Record, SessionId, Store};
use parking_lot::Mutex;

/// By number.
#[derive(Debug, Default)]
pub(super) struct Leaving(Mutex<BTreeSet<u64>>);

impl Leaving {
    /// The session is over, and the store is not to know yet.
    pub(super) fn begin(&self, session: SessionId) -> Position {
        self.0.lock().insert(session.0);
        Position::default()
    }

    /// Whether this one is leaving.
    pub(super) fn has(&self, key: u64) -> bool {
        self.0.lock().contains(&key)
    }

    /// Whether any is.
    pub(super) fn has_any(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// It has left. Under the lock, so that who finds nobody here finds its end in the store.
    pub(super) fn end(&self, store: &Store, key: u64) -> Position {
        let mut leaving = self.0.lock();
        if !leaving.remove(&key) {
            return Position::default();
        }
        store.append(&Record::SessionEnd { session: SessionId(key) })
    }
}
