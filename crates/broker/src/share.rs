//! Shared subscriptions (§4.8.2): each message goes to one member of the group.
//!
//! A group stands in the subscription tree as one subscriber. Who is in it is a snapshot, as the tree is, so publishers take
//! no lock but that of the session that gets the message. Members take turns; one with a connection and room in its queue
//! comes before one that falls behind, and that before one without a connection. An absent member still gets messages of
//! QoS 1 and 2 when nobody is there to take them: they are its session's then.
//!
//! What a session has not acknowledged when it ends goes to another member, but for messages of QoS 2 that it was sent:
//! those nobody else may see (`[MQTT-4.8.2-5]`). What a member acknowledges with an error is done with
//! (`[MQTT-4.8.2-6]`). The members of a group are those on this broker.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use evermq_mqtt::{QoS, Text, TopicFilter};
use hashbrown::HashMap;
use imbl::Vector;
use parking_lot::Mutex;

use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Shared};
use crate::router::Subscriber;
use crate::session::Delivered;

/// Keys of groups are above those of mailboxes, with which they share the tree.
const FIRST_KEY: u64 = 1 << 63;
/// Members that are looked at for one message, so that a group of very many absent ones costs a publisher little.
const MAX_SEEN: usize = 1024;
/// Members whose queues are looked into, for the same reason: that takes their locks.
const MAX_ASKED: usize = 16;

/// All groups, by their whole filter. Locked when members come and go, never for a message.
#[derive(Debug, Default)]
pub struct Groups {
    by_filter: Mutex<HashMap<Text, Arc<Group>>>,
    members: AtomicUsize,
    next_key: AtomicU64,
}

/// One group.
#[derive(Debug)]
pub struct Group {
    key: u64,
    /// Ascending by key.
    members: ArcSwap<Vector<(u64, Subscriber)>>,
    /// Who is next.
    turn: AtomicUsize,
}

/// Whom a message is offered to, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Has a connection, and its queue is less than half full.
    Ready,
    /// Has a connection and room.
    Connected,
    /// Has no connection, but keeps messages of this QoS and has room.
    Absent,
    /// Whoever it is: what has no room is dropped there as anywhere else, and counted.
    Anyone,
}

impl Pass {
    fn is_for(self, member: &Subscriber, qos: QoS) -> bool {
        let is_connected = member.mailbox.is_connected();
        let is_kept = qos.min(member.subscription.options.qos) > QoS::AtMostOnce;
        match self {
            Self::Ready | Self::Connected => is_connected,
            Self::Absent => !is_connected && is_kept,
            Self::Anyone => is_connected || is_kept,
        }
    }
}

/// What became of a message for a group.
#[derive(Debug)]
pub struct Taken {
    /// Who has it, or should have had it.
    pub mailbox: Arc<Mailbox>,
    /// What its queue said.
    pub delivered: Delivered,
}

impl Groups {
    /// Groups, and their members in all.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.by_filter.lock().len(), self.members.load(Ordering::Relaxed))
    }

    /// Enters or replaces a member. `found` puts a new group into the tree, before it can be removed again.
    pub fn join(&self, filter: &TopicFilter, subscriber: Subscriber, found: impl FnOnce(u64, Arc<Group>)) {
        let mut by_filter = self.by_filter.lock();
        let is_new = if let Some(group) = by_filter.get(filter.as_str()) {
            group.insert(subscriber)
        } else {
            let key = FIRST_KEY + self.next_key.fetch_add(1, Ordering::Relaxed);
            let group = Arc::new(Group { key, members: ArcSwap::default(), turn: AtomicUsize::new(0) });
            group.insert(subscriber);
            by_filter.insert(filter.text().detached(), Arc::clone(&group));
            found(key, group);
            true
        };
        self.members.fetch_add(usize::from(is_new), Ordering::Relaxed);
    }

    /// Removes a member. `gone` takes a group without members out of the tree.
    pub fn leave(&self, filter: &TopicFilter, member: u64, gone: impl FnOnce(u64)) {
        let mut by_filter = self.by_filter.lock();
        let Some(group) = by_filter.get(filter.as_str()) else { return };
        if group.remove(member) {
            self.members.fetch_sub(1, Ordering::Relaxed);
        }
        if group.members.load().is_empty() {
            let key = group.key;
            by_filter.remove(filter.as_str());
            gone(key);
        }
    }

    /// The group of a filter, if it has members.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter) -> Option<Arc<Group>> {
        self.by_filter.lock().get(filter.as_str()).cloned()
    }

    /// Members beyond one of each group.
    #[must_use]
    pub fn further_members(&self) -> usize {
        let groups = self.by_filter.lock();
        self.members.load(Ordering::Relaxed) - groups.len()
    }
}

impl Group {
    /// Gives the message to one member; `None` if no member wants it, which is so where all are absent and it is of QoS 0.
    /// `except` has just given it back.
    pub fn deliver(self: &Arc<Self>, shared: &Arc<Shared>, except: Option<u64>, wakes: &mut Wakes) -> Option<Taken> {
        let members = self.members.load();
        let count = members.len();
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let qos = shared.message().publish.qos;
        for pass in [Pass::Ready, Pass::Connected, Pass::Absent, Pass::Anyone] {
            let asked = (0..count.min(MAX_SEEN))
                .filter_map(|step| members.get(start.wrapping_add(step) % count))
                .filter(|(key, member)| except != Some(*key) && pass.is_for(member, qos))
                .take(MAX_ASKED);
            for (_, member) in asked {
                if let Some(delivered) = self.offer(member, shared, pass, wakes) {
                    return Some(Taken { mailbox: Arc::clone(&member.mailbox), delivered });
                }
            }
        }
        None
    }

    /// Whether there is a member of this kind, among those that would be looked at.
    #[must_use]
    pub fn any(&self, wanted: impl Fn(&Subscriber) -> bool) -> bool {
        self.members.load().iter().take(MAX_SEEN).any(|(_, member)| wanted(member))
    }

    fn offer(
        self: &Arc<Self>,
        member: &Subscriber,
        shared: &Arc<Shared>,
        pass: Pass,
        wakes: &mut Wakes,
    ) -> Option<Delivered> {
        let publish = &shared.message().publish;
        let options = member.subscription.options;
        let delivery = Delivery {
            message: Arc::clone(shared),
            // [MQTT-4.8.2-3].
            qos: options.qos.min(publish.qos),
            retain: publish.retain && options.retain_as_published,
            ids: member.ids.clone(),
            share: Some(Arc::downgrade(self)),
        };
        let wanted = match pass {
            Pass::Ready => Room::Plenty,
            Pass::Connected | Pass::Absent => Room::Some,
            Pass::Anyone => Room::Any,
        };
        member.mailbox.offer(delivery, wanted, wakes)
    }

    /// Whether the member is new.
    fn insert(&self, subscriber: Subscriber) -> bool {
        let mut members = Vector::clone(&self.members.load());
        let key = subscriber.mailbox.key();
        let place = members.binary_search_by_key(&key, |(key, _)| *key);
        match place {
            Ok(index) => {
                members.set(index, (key, subscriber));
            }
            Err(index) => members.insert(index, (key, subscriber)),
        }
        self.members.store(Arc::new(members));
        place.is_err()
    }

    /// Whether it was there.
    fn remove(&self, key: u64) -> bool {
        let mut members = Vector::clone(&self.members.load());
        let Ok(index) = members.binary_search_by_key(&key, |(key, _)| *key) else { return false };
        members.remove(index);
        self.members.store(Arc::new(members));
        true
    }
}

/// How much room a queue must have to be given a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Half of it at least.
    Plenty,
    /// Enough for the message.
    Some,
    /// None: older messages of QoS 0 may make room, or the message is dropped.
    Any,
}

/// The group that a message came through, as the session that has it knows it.
pub type ShareRef = Weak<Group>;

#[cfg(test)]
mod tests;
