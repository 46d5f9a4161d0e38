//! What the store is to know of a session that outlives its connection.
//!
//! A session is durable while it has an expiry interval. Each change of it then makes a [`Change`]; whoever holds the
//! session's lock records them before giving it back, so what the store has of a session is always one of its states.

use std::sync::Arc;
use std::time::Instant;

use evermq_mqtt::{PacketId, TopicFilter};

use super::{DueWill, Session, State, Subscription};
use crate::message::{Delivery, Shared};

/// One change of a durable session.
#[derive(Debug)]
pub enum Change {
    /// It is durable from now on: all of it is new to the store.
    Begin,
    /// Its expiry, its will, its user, or whether it is connected.
    State,
    /// Its will is to go out now, and is its own no longer.
    WillDue(Arc<DueWill>),
    /// It is over, or ends with its connection from now on.
    End,
    /// It is over, and others are to have messages of it before the store is told so ([`Journal::record_left`]).
    ///
    /// [`Journal::record_left`]: crate::journal::Journal::record_left
    Leaving,
    /// A subscription was made or replaced.
    Subscribe(TopicFilter, Subscription),
    /// A subscription was removed.
    Unsubscribe(TopicFilter),
    /// A message of QoS 1 or 2 waits.
    Enqueue(Delivery),
    /// The same; it was with the session of this number, which is leaving.
    Moved(Delivery, u64),
    /// It waits no longer, but is on its way under this identifier.
    Sent(Arc<Shared>, PacketId),
    /// It waits no longer, and will not be sent.
    Dropped(Arc<Shared>),
    /// The client has the message of QoS 2 and said so (PUBREC).
    Released(PacketId),
    /// The exchange is complete.
    Done(PacketId),
    /// The client's message of QoS 2 was taken.
    Received(PacketId),
    /// The client has released its identifier (PUBREL).
    ReceivedDone(PacketId),
}

impl Session {
    /// Whether its changes are to be recorded.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Exchanges the list of changes, as [`Session::swap_actions`] does that of actions.
    pub fn swap_changes(&mut self, changes: &mut Vec<Change>) {
        std::mem::swap(&mut self.changes, changes);
    }

    /// When the client was last heard, or when its connection ended: from then on expiry and will delay count.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        match &self.state {
            State::Connected(link) => Some(link.last_received),
            State::Detached { expires_at, .. } => expires_at.and_then(|at| at.checked_sub(self.expiry)),
            State::Ended => None,
        }
    }

    /// Messages of QoS 1 and 2 that wait, in their order, and then those that are out.
    pub fn kept_messages(&self) -> impl Iterator<Item = &Delivery> {
        self.queue.acknowledged().chain(self.inflight.iter().filter_map(|(_, delivery)| delivery))
    }

    /// The client's message of QoS 2 is on its way to all who get it, and the client may be told. That it was taken is
    /// recorded now and not before: if the broker stops in between, the client sends it again, and it is not lost.
    pub fn confirm_received(&mut self, packet_id: PacketId) {
        if let Some(is_recorded) = self.received.get_mut(&packet_id)
            && !std::mem::replace(is_recorded, true)
        {
            self.note(Change::Received(packet_id));
        }
    }

    /// Notes a change, if it is durable.
    pub(super) fn note(&mut self, change: Change) {
        if self.durable {
            self.changes.push(change);
        }
    }

    /// A CONNECT has set the expiry: whether it is durable may be otherwise now.
    pub(super) fn note_connected(&mut self) {
        let is_durable = self.limits.durability.is_there() && !self.expiry.is_zero();
        let was_durable = std::mem::replace(&mut self.durable, is_durable);
        match (was_durable, is_durable) {
            (false, true) => self.changes.push(Change::Begin),
            (true, true) => self.changes.push(Change::State),
            (true, false) => self.changes.push(Change::End),
            (false, false) => {}
        }
    }

    /// It is over; `leaves` if others are to have messages of it.
    pub(super) fn note_end(&mut self, leaves: bool) {
        self.note(if leaves { Change::Leaving } else { Change::End });
        self.durable = false;
    }

    /// What was noted to wait since changes were last taken was with the session `giver` before.
    pub fn note_moved(&mut self, giver: u64) {
        for change in &mut self.changes {
            if let Change::Enqueue(delivery) = change {
                *change = Change::Moved(delivery.clone(), giver);
            }
        }
    }
}
