//! Where publishers put messages for a client and its connection takes them: the session behind a lock of its own.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use evermq_bridge::{Publisher, Standing};
use evermq_mqtt::{QoS, ReasonCode, Text};
use evermq_store::{Position, SegmentId};
use parking_lot::{Mutex, MutexGuard};

use crate::journal::{Journal, Owner};
use crate::message::Delivery;
use crate::presence::Presence;
use crate::publisher;
use crate::session::connect::Granted;
use crate::session::{Action, Change, Delivered, Limits, LinkId, Session};
use crate::share::Room;
use crate::share::group::Shares;

mod wakes;

pub use wakes::Wakes;

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// One session that publishers, its connection and the expiry task share. Held for short moments only: no I/O, no
/// encoding, and never while another mailbox is held.
#[derive(Debug)]
pub struct Mailbox {
    key: u64,
    client_id: Text,
    /// Where a durable session's changes go.
    journal: Option<Arc<Journal>>,
    /// Whether the session is durable, for those who do not hold its lock.
    durable: AtomicBool,
    /// Whether it has a connection, likewise.
    connected: AtomicBool,
    /// What other brokers know its client by; 0 until somebody asks.
    publisher: AtomicU64,
    slot: Mutex<Slot>,
}

/// What stands behind the lock.
#[derive(Debug)]
pub struct Slot {
    /// The session.
    pub session: Session,
    /// The connection's task, when it sleeps.
    pub waker: Option<Waker>,
    /// The connection cannot write, so messages need not wake it.
    pub is_blocked: bool,
    /// The connection is to close.
    pub close: Option<Box<Closing>>,
    /// The client at the connection's other end.
    pub presence: Option<Arc<Presence>>,
    /// Since when its client is connected here rather than to another broker.
    pub standing: Standing,
    /// How far the store has to be to have all that was recorded of the session.
    pub recorded: Position,
    /// The store's segment from which on all of the session is written down.
    pub since: SegmentId,
    /// The groups of shared subscriptions that it is in, if it ever was in one.
    pub shares: Option<Box<Shares>>,
}

/// How a connection is to close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// Why.
    pub reason: ReasonCode,
    /// Why, in an operator's words.
    pub text: Option<Box<str>>,
    /// The session ends with it.
    pub ends_session: bool,
}

impl From<ReasonCode> for Closing {
    fn from(reason: ReasonCode) -> Self {
        Self { reason, text: None, ends_session: false }
    }
}

impl Mailbox {
    /// The mailbox of a new session.
    #[must_use]
    pub fn new(client_id: Text, limits: Arc<Limits>, journal: Option<Arc<Journal>>) -> Arc<Self> {
        let key = match &journal {
            Some(journal) => journal.new_key(),
            None => NEXT_KEY.fetch_add(1, Ordering::Relaxed),
        };
        Self::with_key(key, client_id, Session::new(limits), journal, SegmentId::default())
    }

    /// The mailbox of a session out of the store, which has the key that it had.
    #[must_use]
    pub fn recovered(
        key: u64,
        client_id: Text,
        session: Session,
        journal: Arc<Journal>,
        since: SegmentId,
    ) -> Arc<Self> {
        Self::with_key(key, client_id, session, Some(journal), since)
    }

    fn with_key(
        key: u64,
        client_id: Text,
        session: Session,
        journal: Option<Arc<Journal>>,
        since: SegmentId,
    ) -> Arc<Self> {
        let durable = AtomicBool::new(session.is_durable());
        let connected = AtomicBool::new(session.link().is_some());
        let slot = Slot {
            session,
            waker: None,
            is_blocked: false,
            close: None,
            presence: None,
            standing: Standing::Unknown,
            recorded: Position::default(),
            since,
            shares: None,
        };
        let publisher = AtomicU64::new(0);
        Arc::new(Self { key, client_id, journal, durable, connected, publisher, slot: Mutex::new(slot) })
    }

    /// Unique in this process, and in the store.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The client identifier.
    #[must_use]
    pub fn client_id(&self) -> &Text {
        &self.client_id
    }

    /// What other brokers know its client by. Asks with its lock the first time; a session has the same user all the time.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        if let Some(known) = NonZeroU64::new(self.publisher.load(Ordering::Relaxed)) {
            return Publisher(known);
        }
        let publisher = publisher::of(&self.client_id, self.lock().session.user().map(AsRef::as_ref));
        self.publisher.store(publisher.0.get(), Ordering::Relaxed);
        publisher
    }

    /// Whether the session has a connection, as far as can be said without its lock.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The session, locked.
    pub fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock()
    }

    /// Whether the session is this user's, or over, which is nobody's.
    #[must_use]
    pub fn is_of(&self, user: Option<&str>) -> bool {
        let slot = self.slot.lock();
        slot.session.is_ended() || slot.session.user().map(AsRef::as_ref) == user
    }

    /// Whether the session outlives the process, as far as can be said without its lock.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }

    /// Changes the session behind `slot`, which is this mailbox's, and records what the store is to know of that. `changes`
    /// is a buffer.
    pub fn change<R>(&self, slot: &mut Slot, changes: &mut Vec<Change>, change: impl FnOnce(&mut Session) -> R) -> R {
        let Some(journal) = &self.journal else {
            let result = change(&mut slot.session);
            self.note_connected(slot);
            return result;
        };
        slot.session.swap_changes(changes);
        let result = change(&mut slot.session);
        slot.session.swap_changes(changes);
        if let Some(first) = changes.first() {
            let begins = matches!(first, Change::Begin);
            let recorded = journal.record(self.owner(), &slot.session, changes);
            slot.recorded = slot.recorded.max(recorded);
            if begins {
                slot.since = recorded.segment();
            }
            self.durable.store(slot.session.is_durable(), Ordering::Relaxed);
        }
        self.note_connected(slot);
        result
    }

    fn owner(&self) -> Owner<'_> {
        Owner { key: self.key, client_id: &self.client_id }
    }

    /// Written only where it changes: publishers read it.
    fn note_connected(&self, slot: &Slot) {
        let is_connected = slot.session.link().is_some();
        if self.connected.load(Ordering::Relaxed) != is_connected {
            self.connected.store(is_connected, Ordering::Relaxed);
            if let Some(shares) = &slot.shares {
                shares.note_connected(is_connected);
            }
        }
    }

    /// Writes all of the session down again if some of it is in a segment before `before`.
    pub fn write_again(&self, journal: &Journal, before: SegmentId) {
        let mut slot = self.slot.lock();
        if slot.session.is_durable() && slot.since < before {
            let recorded = journal.record_all(self.owner(), &slot.session);
            slot.since = recorded.segment();
            slot.recorded = slot.recorded.max(recorded);
        }
    }

    /// A connection of this client was accepted; `None` if the session is over, otherwise how far the store has to be before
    /// the client may know. What is to be done comes into `actions`. A connection that loses the session learns it when it
    /// looks.
    pub fn resume(&self, granted: &Granted, now: Instant, actions: &mut VecDeque<Action>) -> Option<Position> {
        let mut slot = self.slot.lock();
        // Taking over ends the connection, and with it a session that does not outlive it.
        if slot.session.is_ended() || slot.session.ends_with_connection() {
            return None;
        }
        slot.close = None;
        slot.standing = Standing::Coming;
        slot.is_blocked = false;
        slot.session.swap_actions(actions);
        self.change(&mut slot, &mut Vec::new(), |session| session.handle_connect(granted.clone(), now));
        slot.session.swap_actions(actions);
        let waker = slot.waker.take();
        let recorded = slot.recorded;
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(recorded)
    }

    /// Puts `deliveries` into the session's queue; `each` hears what became of them.
    pub fn deliver(
        &self,
        deliveries: impl IntoIterator<Item = Delivery>,
        wakes: &mut Wakes,
        mut each: impl FnMut(Delivered),
    ) {
        let mut slot = self.slot.lock();
        let mut is_ready = false;
        for delivery in deliveries {
            let delivered = self.put(&mut slot, wakes, delivery, Session::deliver);
            is_ready |= delivered.ready;
            each(delivered);
        }
        if is_ready && !slot.is_blocked {
            wakes.add(slot.waker.take());
        }
    }

    /// Puts `delivery` into the session's queue if that has as much room as `wanted`.
    pub fn offer(&self, delivery: Delivery, wanted: Room, wakes: &mut Wakes) -> Option<Delivered> {
        let mut slot = self.slot.lock();
        if !slot.session.has_room(&delivery, wanted) {
            return None;
        }
        let delivered = self.put(&mut slot, wakes, delivery, Session::deliver);
        if delivered.ready && !slot.is_blocked {
            wakes.add(slot.waker.take());
        }
        Some(delivered)
    }

    /// Puts retained messages that the client's SUBSCRIBE asked for into the session's queue.
    pub fn deliver_retained(
        &self,
        deliveries: impl IntoIterator<Item = Delivery>,
        wakes: &mut Wakes,
        mut each: impl FnMut(Delivered),
    ) {
        let mut slot = self.slot.lock();
        for delivery in deliveries {
            each(self.put(&mut slot, wakes, delivery, Session::deliver_retained));
        }
        wakes.add(slot.waker.take());
    }

    /// What a durable session takes is recorded, but for QoS 0, which it does not keep.
    pub fn put(
        &self,
        slot: &mut Slot,
        wakes: &mut Wakes,
        delivery: Delivery,
        deliver: impl FnOnce(&mut Session, Delivery) -> Delivered,
    ) -> Delivered {
        if delivery.qos == QoS::AtMostOnce || !slot.session.is_durable() {
            return deliver(&mut slot.session, delivery);
        }
        let giver = wakes.giver();
        let delivered = self.change(slot, wakes.changes(), |session| {
            let delivered = deliver(session, delivery);
            if let Some(giver) = giver {
                session.note_moved(giver);
            }
            delivered
        });
        wakes.rely_on(slot.recorded);
        delivered
    }

    /// Tells the connection, if there is one, to close.
    pub fn close(&self, closing: impl Into<Closing>) {
        Self::close_slot(self.slot.lock(), closing.into());
    }

    /// The same if it is still that connection; whether it is.
    pub fn close_link(&self, link: LinkId, reason: ReasonCode) -> bool {
        let slot = self.slot.lock();
        if slot.session.link() != Some(link) {
            return false;
        }
        Self::close_slot(slot, reason.into());
        true
    }

    /// The same for whoever holds the lock.
    pub fn close_slot(mut slot: MutexGuard<'_, Slot>, closing: Closing) {
        slot.close = Some(Box::new(closing));
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// When the session without a connection has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let slot = self.slot.lock();
        if slot.session.link().is_some() { None } else { slot.session.poll_timeout() }
    }
}
