//! The end of a connection, and that of the session.

use std::sync::Arc;
use std::time::Instant;

use super::changes::Change;
use super::inflight::Inflight;
use super::queue::Queue;
use super::{Action, Returned, Session, State};
use std::collections::BTreeMap;

impl Session {
    /// The connection has ended.
    pub(super) fn detach(&mut self, with_will: bool, now: Instant) {
        if !matches!(self.state, State::Connected(_)) {
            return;
        }
        if !with_will {
            self.will = None;
        }
        if self.expiry.is_zero() {
            return self.end();
        }
        // §3.1.3.2.2: the will goes out when its delay has passed or the session ends, whichever is first.
        let mut will_at = None;
        if let Some(will) = self.will.take() {
            if will.delay.is_zero() {
                self.send_will(*will);
            } else {
                will_at = now.checked_add(will.delay.min(self.expiry));
                self.will = Some(will);
            }
        }
        self.queue.clear_qos0();
        self.queue.detach();
        self.inflight.detach();
        self.state = State::Detached { will_at, expires_at: now.checked_add(self.expiry) };
        self.note(Change::State);
    }

    pub(super) fn end(&mut self) {
        if let Some(will) = self.will.take() {
            self.send_will(*will);
        }
        let filters = std::mem::take(&mut self.subscriptions).into_keys().collect();
        self.actions.push_back(Action::End { filters });
        let mut returned = self.inflight.take_shared();
        returned.extend(self.queue.take_shared());
        let leaves = !returned.is_empty();
        if leaves {
            self.actions.push_back(Action::GiveBack(Returned(returned)));
        }
        self.queue = Queue::new(Arc::clone(&self.limits.budget));
        self.inflight = Inflight::default();
        self.received = BTreeMap::new();
        self.place = None;
        self.state = State::Ended;
        self.note_end(leaves);
    }
}
