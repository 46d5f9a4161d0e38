//! What a batch of messages leads to, to be done when none of the sessions is locked.

use std::sync::Arc;
use std::task::Waker;

use evermq_store::Position;

use crate::message::{Origin, Shared};
use crate::session::Change;

/// What a batch of messages leads to.
#[derive(Debug, Default)]
pub struct Wakes {
    /// Connections to wake when it is done: they then find all of it at once, and the lock is free.
    wakers: Vec<Waker>,
    /// How far the store has to be before anything of the batch may be acknowledged.
    recorded: Position,
    /// Lent to sessions.
    changes: Vec<Change>,
    /// The message on its way, if its origin matters.
    origin: Option<Arc<Origin>>,
    /// The messages on their way come from this session, which is leaving.
    giver: Option<u64>,
    /// Lent to the router.
    messages: Vec<Arc<Shared>>,
}

impl Wakes {
    /// Remembers a connection that sleeps.
    pub fn add(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    /// Nothing of the batch may be acknowledged before the store is so far.
    pub fn rely_on(&mut self, recorded: Position) {
        self.recorded = self.recorded.max(recorded);
    }

    /// How far it has to be for what came so far.
    #[must_use]
    pub fn recorded(&self) -> Position {
        self.recorded
    }

    /// The batch is over; how far the store has to be for it.
    pub fn take_recorded(&mut self) -> Position {
        std::mem::take(&mut self.recorded)
    }

    /// A message of that origin is on its way.
    pub fn begin(&mut self, origin: Option<Arc<Origin>>) {
        self.complete();
        self.origin = origin;
    }

    /// The origin of the message on its way, if it matters.
    #[must_use]
    pub fn origin(&self) -> Option<Arc<Origin>> {
        self.origin.clone()
    }

    /// It has arrived everywhere, and its sender's session says so too.
    pub fn complete(&mut self) {
        self.complete_at(self.recorded);
    }

    /// The same, and the store has all of that when it is at `at`.
    pub fn complete_at(&mut self, at: Position) {
        if let Some(origin) = self.origin.take() {
            origin.complete(at);
        }
    }

    /// Messages of this session, which is leaving, are on their way; none: of nobody who had them.
    pub fn give_from(&mut self, giver: Option<u64>) {
        self.giver = giver;
    }

    /// The session that has the messages on their way until another one has.
    #[must_use]
    pub fn giver(&self) -> Option<u64> {
        self.giver
    }

    /// The buffer for a session's changes.
    pub fn changes(&mut self) -> &mut Vec<Change> {
        &mut self.changes
    }

    /// The buffer for messages that go to the same subscribers. It is empty.
    pub fn take_messages(&mut self) -> Vec<Arc<Shared>> {
        std::mem::take(&mut self.messages)
    }

    /// Takes it back.
    pub fn return_messages(&mut self, mut messages: Vec<Arc<Shared>>) {
        messages.clear();
        self.messages = messages;
    }

    /// Wakes them all.
    pub fn wake(&mut self) {
        self.complete();
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}
