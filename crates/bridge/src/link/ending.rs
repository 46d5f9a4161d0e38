//! How a link ends: this broker stops, or the peer is one no longer. And how it goes to where the peer is now.

use std::time::Instant;

use super::{DRAIN_TIMEOUT, Link, State};
use crate::frame::Frame;

impl Link {
    /// Send what is left of the log, whose newest entry is `last`, then stop.
    pub(crate) fn handle_shutdown(&mut self, last: u64, now: Instant) {
        self.stop_at.get_or_insert(now + DRAIN_TIMEOUT);
        let nothing_left = last == self.cursor.acknowledged();
        match self.state {
            State::Idle | State::Backoff { .. } => self.change(State::Stopped, "shutdown".into(), false),
            State::Connecting { .. } | State::Greeting { .. } | State::Snapshot { .. } if nothing_left => {
                self.down("shutdown, nothing is left to send".into(), false, now);
            }
            State::Connecting { .. } | State::Greeting { .. } | State::Snapshot { .. } | State::Stopped => {}
            State::Streaming => {
                // Appended since the last read: its news may still be on the way.
                if last >= self.cursor.next() {
                    self.handle_news();
                }
                self.stop_if_done(now);
            }
        }
    }

    /// The peer is one no longer: nothing more goes there.
    pub(crate) fn handle_removed(&mut self, now: Instant) {
        self.stop_at = Some(now);
        let reason = "it has left the cluster file";
        match self.state {
            State::Idle | State::Backoff { .. } => self.change(State::Stopped, reason.into(), false),
            State::Connecting { .. } | State::Greeting { .. } => self.down(reason.into(), false, now),
            State::Snapshot { .. } | State::Streaming => {
                self.down_with(Some(Frame::Bye), reason.into(), false, now);
            }
            State::Stopped => {}
        }
    }

    /// The peer has another address: what stands leads to the old one.
    pub(crate) fn handle_moved(&mut self, now: Instant) {
        let reason = "its address has changed";
        match self.state {
            State::Connecting { .. } | State::Greeting { .. } | State::Snapshot { .. } | State::Streaming => {
                self.down(reason.into(), false, now);
            }
            State::Idle | State::Backoff { .. } | State::Stopped => {}
        }
        if matches!(self.state, State::Backoff { .. }) {
            self.backoff.reset();
            self.connect(reason, now);
        }
    }

    pub(super) fn stop_if_done(&mut self, now: Instant) {
        let done = self.at_end && !self.held && self.cursor.acknowledged() + 1 == self.cursor.next();
        if self.stop_at.is_some() && self.state == State::Streaming && done {
            self.down_with(Some(Frame::Bye), "shutdown, everything is acknowledged".into(), false, now);
        }
    }
}
