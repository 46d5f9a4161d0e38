//! The other brokers, as the cluster file has them now, and what the tasks of one of them share.
//!
//! A [`Roster`] never changes: a reload puts another one in its place ([`Mesh::set_peers`](crate::mesh::Mesh::set_peers)).
//! Tasks hold their peer's [`PeerSlot`], which goes on to be valid when the peer has left; then it says so.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use evermq_config::{HostName, Peer};
use evermq_store::Position;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::fanout::Fanout;
use crate::inbound::Inbound;
use crate::mesh::{add, now};
use crate::telling::Tellings;
use crate::wire::Traffic;

/// Who is there.
pub(crate) struct Roster {
    pub(crate) fanout: Fanout,
    /// In the order of [`Fanout::peers`].
    pub(crate) slots: Vec<Arc<PeerSlot>>,
}

/// What is shared about one peer.
pub(crate) struct PeerSlot {
    pub(crate) name: HostName,
    /// Its place among the log's readers, which is never another one's.
    pub(crate) reader: usize,
    address: Mutex<SocketAddr>,
    /// It has another address: the link there is made anew.
    pub(crate) moved: Notify,
    /// It is no peer any more: its links end.
    pub(crate) left: CancellationToken,
    /// What it sends; one lock, so that one connection at a time delivers.
    pub(crate) origin: Arc<Mutex<Origin>>,
    /// What it is told of our clients.
    pub(crate) claims: Tellings,
    /// It has connected to us: its dialer need not wait any longer.
    pub(crate) seen: Notify,
    pub(crate) counters: Counters,
}

/// What a peer sends. It outlives its place in the file: one that comes back goes on where it was.
pub(crate) struct Origin {
    pub(crate) machine: Inbound,
    /// Ends the task of the current link.
    pub(crate) current: CancellationToken,
    /// What was written down and is perhaps not on the disk yet: up to where of the store, and what of which epoch.
    pub(crate) recorded: VecDeque<(Position, u64, u64)>,
}

/// Which links with a peer are up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Links {
    /// Our messages reach it.
    pub(crate) connected: bool,
    /// Its messages reach us.
    pub(crate) receiving: bool,
    /// Since when one of the two is not so.
    pub(crate) apart: Option<Instant>,
}

/// Figures of one peer. Relaxed everywhere: each is read on its own.
#[derive(Default)]
pub(crate) struct Counters {
    links: Mutex<Links>,
    /// It has been reached, by whichever side, since it is a peer.
    pub(crate) answers: AtomicBool,
    /// This broker has had all that the peer had when it connected.
    pub(crate) filled: AtomicBool,
    pub(crate) sent: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) resent: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) losing: AtomicBool,
    pub(crate) lost: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) taken_over: AtomicU64,
    pub(crate) last_error: Mutex<Option<String>>,
}

impl Roster {
    /// The peer of that name.
    pub(crate) fn find(&self, name: &HostName) -> Option<&Arc<PeerSlot>> {
        self.slots.iter().find(|slot| slot.name == *name)
    }
}

impl PeerSlot {
    pub(crate) fn new(peer: &Peer, reader: usize, origin: Arc<Mutex<Origin>>) -> Arc<Self> {
        let counters = Counters::default();
        counters.note_links(now(), |_| {});
        Arc::new(Self {
            name: peer.name.clone(),
            reader,
            address: Mutex::new(peer.address),
            moved: Notify::new(),
            left: CancellationToken::new(),
            origin,
            claims: Tellings::default(),
            seen: Notify::new(),
            counters,
        })
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        *self.address.lock()
    }

    /// It is reached there from now on. Whether that is another place.
    pub(crate) fn move_to(&self, address: SocketAddr) -> bool {
        let is_other = std::mem::replace(&mut *self.address.lock(), address) != address;
        if is_other {
            self.moved.notify_one();
        }
        is_other
    }
}

impl Origin {
    /// Nothing is known of what it sends.
    pub(crate) fn new(machine: Inbound) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { machine, current: CancellationToken::new(), recorded: VecDeque::new() }))
    }
}

impl Counters {
    /// Bytes that came and went.
    pub(crate) fn add_bytes(&self, Traffic { received, sent }: Traffic) {
        add(&self.bytes_received, received);
        add(&self.bytes_sent, sent);
    }

    /// How the links are.
    pub(crate) fn links(&self) -> Links {
        *self.links.lock()
    }

    /// The links have become as `change` says.
    pub(crate) fn note_links(&self, now: Instant, change: impl FnOnce(&mut Links)) {
        let mut links = self.links.lock();
        change(&mut links);
        links.apart = if links.connected && links.receiving { None } else { links.apart.or(Some(now)) };
    }

    /// The peer was reached, or has reached this broker.
    pub(crate) fn note_answer(&self) {
        self.answers.store(true, Ordering::Relaxed);
    }
}
