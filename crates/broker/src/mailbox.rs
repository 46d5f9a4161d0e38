//! Where publishers put messages for a client and its connection takes them: the session behind a lock of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use evermq_mqtt::{ReasonCode, Text};
use parking_lot::{Mutex, MutexGuard};

use crate::message::Delivery;
use crate::session::connect::Granted;
use crate::session::{Action, Delivered, Limits, LinkId, Session};

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// One session that publishers, its connection and the expiry task share. Held for short moments only: no I/O, no
/// encoding, and never while another mailbox is held.
#[derive(Debug)]
pub struct Mailbox {
    key: u64,
    client_id: Text,
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
    /// The connection is to close, for this reason.
    pub close: Option<ReasonCode>,
}

/// Connections to wake when a batch is done: they then find all of it at once, and the lock is free.
#[derive(Debug, Default)]
pub struct Wakes(Vec<Waker>);

impl Mailbox {
    /// The mailbox of a new session.
    #[must_use]
    pub fn new(client_id: Text, limits: Arc<Limits>) -> Arc<Self> {
        let session = Session::new(client_id.clone(), limits);
        Arc::new(Self {
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            client_id,
            slot: Mutex::new(Slot { session, waker: None, is_blocked: false, close: None }),
        })
    }

    /// Unique in this process.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The client identifier.
    #[must_use]
    pub fn client_id(&self) -> &Text {
        &self.client_id
    }

    /// The session, locked.
    pub fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock()
    }

    /// A connection of this client was accepted; false if the session is over. What is to be done comes into `actions`. A
    /// connection that loses the session learns it when it looks.
    pub fn resume(&self, granted: &Granted, now: Instant, actions: &mut VecDeque<Action>) -> bool {
        let mut slot = self.slot.lock();
        if slot.session.is_ended() {
            return false;
        }
        slot.close = None;
        slot.is_blocked = false;
        slot.session.swap_actions(actions);
        slot.session.handle_connect(granted.clone(), now);
        slot.session.swap_actions(actions);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Puts `delivery` into the session's queue.
    pub fn deliver(&self, delivery: Delivery, wakes: &mut Wakes) -> Delivered {
        let mut slot = self.slot.lock();
        let delivered = slot.session.deliver(delivery);
        if delivered.ready && !slot.is_blocked {
            wakes.add(slot.waker.take());
        }
        delivered
    }

    /// Tells the connection, if there is one, to close.
    pub fn close(&self, reason: ReasonCode) {
        let mut slot = self.slot.lock();
        slot.close = Some(reason);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The same if it is still that connection; whether it is.
    pub fn close_link(&self, link: LinkId, reason: ReasonCode) -> bool {
        let mut slot = self.slot.lock();
        if slot.session.link() != Some(link) {
            return false;
        }
        slot.close = Some(reason);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// When the session without a connection has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let slot = self.slot.lock();
        if slot.session.link().is_some() { None } else { slot.session.poll_timeout() }
    }
}

impl Wakes {
    /// Remembers a connection that sleeps.
    pub fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    /// Wakes them all.
    pub fn wake(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake();
    }
}
