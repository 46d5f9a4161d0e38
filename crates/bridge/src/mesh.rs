//! What all tasks of one bridge share, and its counters.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evermq_config::BrokerConfig;
use evermq_daemon::listen::SocketOptions;
use evermq_store::{Position, Record, SegmentId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::claim::{Claim, Clients};
use crate::clock::HybridClock;
use crate::fanout::Fanout;
use crate::frame::{self, Hello, MINOR, VERSIONS};
use crate::inbound::Inbound;
use crate::log::{Bounds, Entry, Saved};
use crate::message::{Keeper, Local, Recovered, Stamp};
use crate::spool::Spool;
use crate::state::{BridgeState, PeerState};
use crate::telling::Tellings;
use crate::wire::Traffic;

/// A packet grows by at most this much on its way into the mesh: properties that MQTT 3.1.1 lacks, and a topic name where the
/// client had sent an alias.
const PACKET_GROWTH: u32 = 66_000;

/// One broker's place in the mesh, as its tasks see it.
pub(crate) struct Mesh {
    pub(crate) fanout: Fanout,
    pub(crate) local: Arc<dyn Local>,
    /// Who knows of clients, if anybody does.
    pub(crate) clients: OnceLock<Arc<dyn Clients>>,
    pub(crate) spool: Spool,
    pub(crate) clock: HybridClock,
    /// When this log began, in nanoseconds since 1970.
    epoch: AtomicU64,
    bounds: Bounds,
    pub(crate) socket: SocketOptions,
    pub(crate) max_body: u32,
    /// In the order of [`Fanout::peers`].
    pub(crate) peers: Vec<PeerSlot>,
    pub(crate) strangers: AtomicU64,
}

/// What is shared about one peer.
pub(crate) struct PeerSlot {
    /// What it sends; one lock, so that one connection at a time delivers.
    pub(crate) origin: Mutex<Origin>,
    /// What it is told of our clients.
    pub(crate) claims: Tellings,
    /// It has connected to us: its dialer need not wait any longer.
    pub(crate) seen: Notify,
    pub(crate) counters: Counters,
}

/// What a peer sends.
pub(crate) struct Origin {
    pub(crate) machine: Inbound,
    /// Ends the task of the current link.
    pub(crate) current: CancellationToken,
    /// What was written down and is perhaps not on the disk yet: up to where of the store, and what of which epoch.
    pub(crate) recorded: VecDeque<(Position, u64, u64)>,
}

/// Figures of one peer. Relaxed everywhere: each is read on its own.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connected: AtomicBool,
    pub(crate) receiving: AtomicBool,
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

impl Counters {
    /// Bytes that came and went.
    pub(crate) fn add_bytes(&self, Traffic { received, sent }: Traffic) {
        add(&self.bytes_received, received);
        add(&self.bytes_sent, sent);
    }
}

impl Mesh {
    /// `epoch` is the wall clock in nanoseconds since 1970.
    pub(crate) fn new(config: &BrokerConfig, local: Arc<dyn Local>, epoch: u64) -> Self {
        let broker = &config.broker;
        let bounds =
            Bounds { messages: broker.peer_queue_messages, bytes: broker.peer_queue_bytes, age: broker.peer_queue_age };
        let fields = u32::try_from(frame::MAX_FIELDS).expect("some hundred bytes");
        let max_body = broker.max_packet_size.saturating_add(PACKET_GROWTH).saturating_add(fields);
        let slot = |_: &_| PeerSlot {
            origin: Mutex::new(Origin {
                machine: Inbound::new(epoch, max_body),
                current: CancellationToken::new(),
                recorded: VecDeque::new(),
            }),
            claims: Tellings::default(),
            seen: Notify::new(),
            counters: Counters::default(),
        };
        Self {
            fanout: Fanout::new(config.cluster.clone(), &config.host, config.peers.clone()),
            local,
            clients: OnceLock::new(),
            spool: Spool::new(bounds, config.peers.len()),
            clock: HybridClock::default(),
            epoch: AtomicU64::new(epoch),
            bounds,
            socket: SocketOptions { keepalive: broker.tcp_keepalive, user_timeout: broker.tcp_user_timeout },
            max_body,
            peers: config.peers.iter().map(slot).collect(),
            strangers: AtomicU64::new(0),
        }
    }

    /// Goes on where the store says that the broker was. To be called before anything else.
    pub(crate) fn recover(&self, keeper: Arc<dyn Keeper>, recovered: Recovered) {
        if self.peers.is_empty() {
            return;
        }
        let Recovered { log, is_log_doubtful, messages, cursors, applied } = recovered;
        let epoch = match log {
            Some(log) if !is_log_doubtful => log.epoch,
            // What is lost may have been sent, so what comes now must not be taken for it.
            Some(log) => self.epoch().max(log.epoch + 1),
            None => self.epoch(),
        };
        self.epoch.store(epoch, Ordering::Relaxed);
        let messages =
            messages.into_iter().map(|(seq, message, handle)| (seq, Entry::new(message, Some(handle), None)));
        let entries: Vec<_> = messages.collect();
        let (first, kept, reserved) = log.map_or((1, 0, 0), |log| (log.first, log.kept, log.reserved));
        let last = entries.last().map_or(0, |(seq, _)| *seq).max(reserved);
        let peers: Vec<String> = self.fanout.peers().iter().map(|peer| peer.name.as_str().to_owned()).collect();
        // A peer that was not there before has the snapshot of retained messages, and then what comes from now on.
        let of = |name: &String| cursors.iter().find(|(peer, _)| peer == name).map_or(last, |(_, seq)| *seq);
        let acknowledged = peers.iter().map(of).collect();
        self.spool.recover(keeper, peers, epoch, self.bounds, Saved { first, kept, last, entries, acknowledged });
        for (peer, slot) in self.fanout.peers().iter().zip(&self.peers) {
            let of_peer = applied.iter().filter(|applied| *applied.origin == *peer.name.as_str());
            slot.origin.lock().machine.recover(epoch, of_peer.map(|applied| (applied.epoch, applied.seq)));
        }
    }

    /// The epoch of this broker's log.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// This broker's log was set back, so it is another one from now on.
    pub(crate) fn begin_epoch(&self) {
        let epoch = wall_clock().max(self.epoch() + 1);
        self.spool.begin_epoch(epoch);
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Writes down again what the store has of the mesh in segments before `before`.
    pub(crate) fn checkpoint(&self, before: SegmentId) {
        let Some(keeper) = self.spool.keeper() else { return };
        self.spool.checkpoint(before);
        for (peer, slot) in self.fanout.peers().iter().zip(&self.peers) {
            // Under the lock all that was applied is written down.
            let origin = slot.origin.lock();
            for (epoch, seq) in origin.machine.applied() {
                keeper.store().append(&Record::Applied { origin: peer.name.as_str().into(), epoch, seq });
            }
        }
    }

    /// How this broker begins a connection to a peer.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            oldest: VERSIONS.0,
            newest: VERSIONS.1,
            minor: MINOR,
            instance: self.epoch(),
            cluster: self.fanout.cluster().as_str().to_owned(),
            host: self.fanout.me().to_string(),
        }
    }

    /// A client of this broker's has connected: every peer that can be told is told.
    pub(crate) fn claim(&self, claim: Claim) {
        let claim = Arc::new(claim);
        self.peers.iter().for_each(|peer| peer.claims.add(&claim));
    }

    /// A stamp later than all before it.
    pub(crate) fn next_stamp(&self) -> Stamp {
        Stamp { time: self.clock.next(wall_clock()), origin: Arc::clone(self.fanout.me()) }
    }

    /// The first of so many, each of which is one later than the one before it.
    pub(crate) fn next_stamps(&self, count: u64) -> Stamp {
        Stamp { time: self.clock.next_of(count, wall_clock()), origin: Arc::clone(self.fanout.me()) }
    }

    /// What can be seen from outside.
    pub(crate) fn state(&self) -> BridgeState {
        let log = self.spool.state();
        BridgeState {
            origin: self.fanout.me().to_string(),
            epoch: self.epoch(),
            last_seq: log.last,
            log_messages: log.messages,
            log_bytes: log.bytes,
            log_oldest_seconds: seconds_since(log.oldest),
            pressure: log.high,
            strangers: read(&self.strangers),
            peers: (0..self.peers.len()).map(|index| self.peer_state(index)).collect(),
        }
    }

    fn peer_state(&self, index: usize) -> PeerState {
        let peer = &self.fanout.peers()[index];
        let slot = &self.peers[index];
        let counters = &slot.counters;
        let (lag, lag_bytes, oldest) = self.spool.lag(index);
        PeerState {
            name: peer.name.as_str().to_owned(),
            address: peer.address,
            connected: counters.connected.load(Ordering::Relaxed),
            receiving: counters.receiving.load(Ordering::Relaxed),
            lag,
            lag_bytes,
            lag_seconds: seconds_since(oldest),
            sent: read(&counters.sent),
            acknowledged: read(&counters.acknowledged),
            resent: read(&counters.resent),
            expired: read(&counters.expired),
            is_losing: counters.losing.load(Ordering::Relaxed),
            lost: read(&counters.lost),
            gaps: read(&counters.gaps),
            received: read(&counters.received),
            duplicates: read(&counters.duplicates),
            missed: read(&counters.missed),
            malformed: read(&counters.malformed),
            bytes_sent: read(&counters.bytes_sent),
            bytes_received: read(&counters.bytes_received),
            taken_over: read(&counters.taken_over),
            last_error: counters.last_error.lock().clone(),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn seconds_since(time: Option<Instant>) -> f64 {
    let age = time.map_or(0.0, |time| now().saturating_duration_since(time).as_secs_f64());
    // To the millisecond, for those who read it.
    (age * 1000.0).round() / 1000.0
}

/// The monotonic clock, as the machines get it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the hybrid logical clock follows the wall clock")]
pub(crate) fn wall_clock() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}
