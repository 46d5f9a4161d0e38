//! One group of a shared subscription.
//!
//! Who is in it is a snapshot, as the subscription tree is, so publishers take no lock but that of the session that gets the message.
//! Members take turns; one with a connection and room in its queue comes before one that falls behind, and that before one
//! without a connection. An absent member still gets messages of QoS 1 and 2 when nobody is there to take them: they are its
//! session's then.
//!
//! What a session has not acknowledged when it ends goes to another member, but for messages of QoS 2 that it was sent:
//! those nobody else may see (`[MQTT-4.8.2-5]`). What a member acknowledges with an error is done with
//! (`[MQTT-4.8.2-6]`). Where the last member at a broker has gone, what is for it goes to another broker.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use evermq_bridge::{Directions, GroupId, Members};
use evermq_mqtt::{QoS, Text};
use imbl::Vector;

use super::cluster::{self, Choice, Holder, Membership};
use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Shared};
use crate::router::Subscriber;
use crate::session::Delivered;

/// Members that are looked at for one message, so that a group of very many absent ones costs a publisher little.
const MAX_SEEN: usize = 1024;
/// Members whose queues are looked into, for the same reason: that takes their locks.
const MAX_ASKED: usize = 16;

/// One group.
#[derive(Debug)]
pub struct Group {
    key: u64,
    id: GroupId,
    filter: Text,
    /// Ascending by key.
    members: ArcSwap<Vector<(u64, Subscriber)>>,
    /// Of these have a connection. Changed under the lock of the member's session.
    connected: AtomicUsize,
    /// See [`Members::since`].
    since: AtomicU64,
    /// Who is next.
    turn: AtomicUsize,
    /// Other brokers with members, by name.
    others: ArcSwap<Vec<Holder>>,
    /// Which broker is next.
    broker_turn: AtomicUsize,
    membership: Arc<Membership>,
    /// That this broker gives it a message.
    here: OnceLock<Directions>,
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

impl Group {
    pub(super) fn new(key: u64, filter: Text, membership: Arc<Membership>) -> Arc<Self> {
        Arc::new(Self {
            key,
            id: cluster::id_of(&filter),
            filter,
            members: ArcSwap::default(),
            connected: AtomicUsize::new(0),
            since: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            others: ArcSwap::default(),
            broker_turn: AtomicUsize::new(0),
            membership,
            here: OnceLock::new(),
        })
    }

    /// Its key in the tree.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The same on every broker.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Its members here.
    #[must_use]
    pub fn members(&self) -> Members {
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Members {
            connected: count(self.connected.load(Ordering::Relaxed)),
            all: count(self.members.load().len()),
            since: self.since.load(Ordering::Relaxed),
        }
    }

    /// Whether it has any here.
    #[must_use]
    pub fn has_members(&self) -> bool {
        !self.members.load().is_empty()
    }

    /// Whether it has any at other brokers.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        !self.others.load().is_empty()
    }

    /// Its members at another broker, as that one has told.
    #[must_use]
    pub fn members_at(&self, broker: &str) -> Members {
        let others = self.others.load();
        others.iter().find(|holder| *holder.broker == *broker).map(|holder| holder.members).unwrap_or_default()
    }

    /// Which broker gives the next message of that QoS to the group; not this one, unless `may_be_here`.
    #[must_use]
    pub fn choose(&self, qos: QoS, may_be_here: bool) -> Option<Choice> {
        let others = self.others.load();
        let own = if may_be_here { self.members() } else { Members::default() };
        cluster::choose(own, &others, qos, || self.broker_turn.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether this broker gives it a message of which `origin`, where it was published, did not know that there is such a
    /// group.
    #[must_use]
    pub fn is_first(&self, me: &str, origin: &str) -> bool {
        cluster::is_first((self.members(), me), &self.others.load(), origin)
    }

    /// That this broker gives it a message.
    #[must_use]
    pub fn here(&self, me: &str) -> &Directions {
        self.here.get_or_init(|| Directions::new(self.id, me))
    }

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

    /// A member's connection has come or gone. The caller holds the lock of its session.
    pub fn note_connected(&self, is_connected: bool) {
        self.count_connected(is_connected);
        self.tell();
    }

    /// Enters or replaces a member. Whether it is new.
    pub(super) fn join(self: &Arc<Self>, subscriber: Subscriber, since: u64) -> bool {
        let mailbox = Arc::clone(&subscriber.mailbox);
        // Its connection neither comes nor goes meanwhile.
        let mut slot = mailbox.lock();
        if !self.has_members() {
            self.since.store(since, Ordering::Relaxed);
        }
        let is_new = self.insert(subscriber);
        if is_new {
            slot.shares.get_or_insert_default().add(Arc::downgrade(self));
            if mailbox.is_connected() {
                self.count_connected(true);
            }
            drop(slot);
            self.tell();
        }
        is_new
    }

    /// Removes a member. Whether it was there.
    pub(super) fn leave(&self, key: u64) -> bool {
        let members = self.members.load_full();
        let Ok(index) = members.binary_search_by_key(&key, |(key, _)| *key) else { return false };
        let Some((_, Subscriber { mailbox, .. })) = members.get(index) else { return false };
        let mut slot = mailbox.lock();
        let mut others = Vector::clone(&members);
        others.remove(index);
        self.members.store(Arc::new(others));
        if let Some(shares) = &mut slot.shares {
            shares.remove(self);
        }
        if mailbox.is_connected() {
            self.count_connected(false);
        }
        drop(slot);
        self.tell();
        true
    }

    /// It has these members at another broker; without any it is not there.
    pub(super) fn set_elsewhere(&self, broker: &Arc<str>, members: Members, is_linked: bool) {
        let mut others = Vec::clone(&self.others.load());
        let place = others.binary_search_by(|holder| holder.broker.cmp(broker));
        match place {
            Ok(index) if members.all == 0 => drop(others.remove(index)),
            Ok(index) => others[index].members = members,
            Err(_) if members.all == 0 => return,
            Err(index) => {
                let directions = Directions::new(self.id, broker);
                others.insert(index, Holder { broker: Arc::clone(broker), members, is_linked, directions });
            }
        }
        self.others.store(Arc::new(others));
    }

    /// Another broker is linked, or is not.
    pub(super) fn set_linked(&self, broker: &str, is_linked: bool) {
        if self.members_at(broker).all > 0 {
            let mut others = Vec::clone(&self.others.load());
            others
                .iter_mut()
                .filter(|holder| *holder.broker == *broker)
                .for_each(|holder| holder.is_linked = is_linked);
            self.others.store(Arc::new(others));
        }
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

    fn count_connected(&self, is_connected: bool) {
        if is_connected {
            self.connected.fetch_add(1, Ordering::Relaxed);
        } else {
            self.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn tell(&self) {
        self.membership.tell(&self.filter);
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

/// The groups that a session is in.
#[derive(Debug, Default)]
pub struct Shares(Vec<ShareRef>);

impl Shares {
    /// Its connection has come or gone.
    pub fn note_connected(&self, is_connected: bool) {
        self.0.iter().filter_map(Weak::upgrade).for_each(|group| group.note_connected(is_connected));
    }

    fn add(&mut self, group: ShareRef) {
        self.0.push(group);
    }

    fn remove(&mut self, group: &Group) {
        self.0.retain(|share| !std::ptr::eq(share.as_ptr(), group));
    }
}
