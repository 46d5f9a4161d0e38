//! Wills (§3.1.2.5): when they go out, and that they do so once whatever happens to the broker.
//!
//! The will of a durable session goes out in three steps, each of them a record of the store: it is due, and no longer the
//! session's; its message is with those who get it; it has gone out. Where the broker stops in between, the will is due at the
//! next start, and what of it had reached anybody's queue is taken out there, so nobody has it twice whose queue it was in.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use evermq_mqtt::Publish;

use super::changes::Change;
use super::{Action, Session, State};

/// A will message (§3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// What is published.
    pub publish: Publish,
    /// How long after the connection's end.
    pub delay: Duration,
}

/// The will of a durable session that is to go out now.
#[derive(Debug)]
pub struct DueWill {
    /// What is published.
    pub publish: Publish,
    number: OnceLock<u64>,
}

impl DueWill {
    /// One that the store has not heard of.
    #[must_use]
    pub fn new(publish: Publish) -> Self {
        Self { publish, number: OnceLock::new() }
    }

    /// One out of the store.
    #[must_use]
    pub fn recovered(publish: Publish, number: u64) -> Self {
        Self { publish, number: number.into() }
    }

    /// The number under which the store has it, if it does.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.number.get().copied()
    }

    /// The store has it under this number.
    pub fn is_stored_as(&self, number: u64) {
        // It is written down once: by whoever records the session's changes.
        let _ = self.number.set(number);
    }
}

impl PartialEq for DueWill {
    fn eq(&self, other: &Self) -> bool {
        self.publish == other.publish
    }
}

impl Eq for DueWill {}

impl Session {
    /// The will that is to go out when the connection is lost or its delay has passed.
    #[must_use]
    pub fn will(&self) -> Option<&Will> {
        self.will.as_deref()
    }

    /// The will goes out now.
    pub(super) fn send_will(&mut self, will: Will) {
        if !self.durable {
            return self.actions.push_back(Action::Publish(will.publish));
        }
        let due = Arc::new(DueWill::new(will.publish));
        self.changes.push(Change::WillDue(Arc::clone(&due)));
        self.actions.push_back(Action::SendWill(due));
    }

    /// The client has connected to another broker and goes on there, while this session stays here: a will that is to go out
    /// only if the client does not come back is not to (`[MQTT-3.1.3-9]`). That of a session which ends now goes out.
    pub fn handle_moved(&mut self) {
        if self.ends_with_connection() || self.will.take_if(|will| !will.delay.is_zero()).is_none() {
            return;
        }
        match &mut self.state {
            State::Detached { will_at, .. } => *will_at = None,
            State::Connected(_) | State::Ended => {}
        }
        self.note(Change::State);
    }

    /// The client is back: its will is no longer to go out, unless that was to be while nobody looked
    /// (`[MQTT-3.1.3-9]`).
    pub(super) fn keep_or_send_will(&mut self, now: Instant) {
        let State::Detached { will_at, .. } = &self.state else { return };
        let was_due = will_at.is_some_and(|at| now >= at);
        if let Some(will) = self.will.take().filter(|_| was_due) {
            self.send_will(*will);
        }
    }
}
