//! What all tasks of one bridge share, and its counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evermq_config::{BrokerConfig, HostName, Peer};
use evermq_daemon::listen::SocketOptions;
use evermq_mqtt::Text;
use evermq_store::{Record, SegmentId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tracing::info;

use crate::claim::{Claim, Clients};
use crate::clock::HybridClock;
use crate::fanout::Fanout;
use crate::frame::{self, Hello, MINOR, VERSIONS};
use crate::groups::{Groups, Heard};
use crate::inbound::Inbound;
use crate::log::{Bounds, Entry, Saved};
use crate::message::{Keeper, Local, Recovered, Stamp};
use crate::roster::{Links, Origin, PeerSlot, Roster};
use crate::spool::Spool;

/// A packet grows by at most this much on its way into the mesh: properties that MQTT 3.1.1 lacks, and a topic name where the
/// client had sent an alias.
const PACKET_GROWTH: u32 = 66_000;

/// One broker's place in the mesh, as its tasks see it.
pub(crate) struct Mesh {
    /// This broker's name, as its stamps carry it.
    me: Arc<str>,
    roster: RwLock<Arc<Roster>>,
    /// Whether there is any peer, for those who publish.
    has_peers: AtomicBool,
    /// The roster is another one.
    pub(crate) roster_changed: Notify,
    /// What was known of brokers that are no peers any more, for when they come back. Its lock is held while peers change.
    former: Mutex<BTreeMap<HostName, Arc<Mutex<Origin>>>>,
    pub(crate) changes: Changes,
    keeper: OnceLock<Arc<dyn Keeper>>,
    /// The log as the store has it, of a broker without peers: nothing is written down of it until there is one.
    idle: Mutex<Option<Saved>>,
    pub(crate) local: Arc<dyn Local>,
    /// Who knows of clients, if anybody does.
    pub(crate) clients: OnceLock<Arc<dyn Clients>>,
    /// Who knows of groups, if anybody does.
    pub(crate) groups: OnceLock<Arc<dyn Groups>>,
    pub(crate) spool: Spool,
    pub(crate) clock: HybridClock,
    /// When this log began, in nanoseconds since 1970.
    epoch: AtomicU64,
    bounds: Bounds,
    pub(crate) socket: SocketOptions,
    pub(crate) max_body: u32,
    pub(crate) strangers: AtomicU64,
    pub(crate) handed_over: AtomicU64,
}

/// Peers that came and went while the broker ran.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) joined: AtomicU64,
    pub(crate) left: AtomicU64,
    pub(crate) abandoned: AtomicU64,
}

/// What another cluster file has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeersChanged {
    /// Brokers that are peers now.
    pub joined: Vec<String>,
    /// Those that are none any more.
    pub left: Vec<String>,
    /// Those that are somewhere else now.
    pub moved: Vec<String>,
}

impl Mesh {
    /// `epoch` is the wall clock in nanoseconds since 1970.
    pub(crate) fn new(config: &BrokerConfig, local: Arc<dyn Local>, epoch: u64) -> Self {
        let broker = &config.broker;
        let bounds =
            Bounds { messages: broker.peer_queue_messages, bytes: broker.peer_queue_bytes, age: broker.peer_queue_age };
        let fields = u32::try_from(frame::MAX_FIELDS).expect("some hundred bytes");
        let max_body = broker.max_packet_size.saturating_add(PACKET_GROWTH).saturating_add(fields);
        let fanout = Fanout::new(config.cluster.clone(), &config.host, config.peers.clone());
        let slot = |(reader, peer)| PeerSlot::new(peer, reader, Origin::new(Inbound::new(epoch, max_body)));
        let slots = config.peers.iter().enumerate().map(slot).collect();
        Self {
            me: Arc::clone(fanout.me()),
            roster: RwLock::new(Arc::new(Roster { fanout, slots })),
            has_peers: AtomicBool::new(!config.peers.is_empty()),
            roster_changed: Notify::new(),
            former: Mutex::default(),
            changes: Changes::default(),
            keeper: OnceLock::new(),
            idle: Mutex::default(),
            local,
            clients: OnceLock::new(),
            groups: OnceLock::new(),
            spool: Spool::new(bounds, config.peers.len()),
            clock: HybridClock::default(),
            epoch: AtomicU64::new(epoch),
            bounds,
            socket: SocketOptions { keepalive: broker.tcp_keepalive, user_timeout: broker.tcp_user_timeout },
            max_body,
            strangers: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
        }
    }

    /// Goes on where the store says that the broker was. To be called before anything else.
    pub(crate) fn recover(&self, keeper: Arc<dyn Keeper>, recovered: Recovered) {
        let Recovered { log, is_log_doubtful, messages, cursors, applied } = recovered;
        let epoch = match log {
            Some(log) if !is_log_doubtful => log.epoch,
            // What is lost may have been sent, so what comes now must not be taken for it.
            Some(log) => self.epoch().max(log.epoch + 1),
            None => self.epoch(),
        };
        self.epoch.store(epoch, Ordering::Relaxed);
        let messages = messages
            .into_iter()
            .map(|(seq, message, handle, directions)| (seq, Entry::new(message, Some(handle), None, directions)));
        let entries: Vec<_> = messages.collect();
        let (first, kept, reserved) = log.map_or((1, 0, 0), |log| (log.first, log.kept, log.reserved));
        let last = entries.last().map_or(0, |(seq, _)| *seq).max(reserved);
        let roster = self.roster();
        let peers: Vec<String> = roster.slots.iter().map(|slot| slot.name.as_str().to_owned()).collect();
        // A peer that was not there before has the snapshot of retained messages, and then what comes from now on.
        let of = |name: &String| cursors.iter().find(|(peer, _)| peer == name).map_or(last, |(_, seq)| *seq);
        let acknowledged = peers.iter().map(of).collect();
        let saved = Saved { first, kept, last, entries, acknowledged };
        if peers.is_empty() {
            *self.idle.lock() = Some(Saved { entries: Vec::new(), ..saved });
        } else {
            self.spool.recover(Arc::clone(&keeper), peers, epoch, self.bounds, saved);
        }
        // Called once.
        let _ = self.keeper.set(keeper);
        let mut former = self.former.lock();
        let mut by_origin: BTreeMap<HostName, Vec<(u64, u64)>> = BTreeMap::new();
        for applied in &applied {
            if let Some(name) = HostName::new(&applied.origin) {
                by_origin.entry(name).or_default().push((applied.epoch, applied.seq));
            }
        }
        for slot in &roster.slots {
            slot.origin.lock().machine.recover(epoch, by_origin.remove(&slot.name).unwrap_or_default());
        }
        for (name, applied) in by_origin {
            let mut machine = Inbound::new(epoch, self.max_body);
            machine.recover(epoch, applied);
            former.insert(name, Origin::new(machine));
        }
    }

    /// These are the other brokers from now on. The log is held for a new one from here on, and for one that has left not
    /// any longer.
    pub(crate) fn set_peers(&self, peers: &[Peer]) -> PeersChanged {
        let mut former = self.former.lock();
        let before = self.roster();
        let mut changed = PeersChanged::default();
        if let Some(saved) = self.idle.lock().take_if(|_| !peers.is_empty())
            && let Some(keeper) = self.keeper.get()
        {
            self.spool.recover(Arc::clone(keeper), Vec::new(), self.epoch(), self.bounds, saved);
        }
        let mut slots = Vec::with_capacity(peers.len());
        for peer in peers {
            let name = peer.name.as_str();
            if let Some(slot) = before.find(&peer.name) {
                if slot.move_to(peer.address) {
                    info!(peer = name, address = %peer.address, "peer has another address");
                    changed.moved.push(name.to_owned());
                }
                slots.push(Arc::clone(slot));
                continue;
            }
            let known = former.remove(&peer.name);
            let origin = known.unwrap_or_else(|| Origin::new(Inbound::new(self.epoch(), self.max_body)));
            slots.push(PeerSlot::new(peer, self.spool.add_reader(name), origin));
            info!(peer = name, address = %peer.address, "a broker has joined the cluster file");
            changed.joined.push(name.to_owned());
        }
        let gone: Vec<_> = before.slots.iter().filter(|slot| peers.iter().all(|peer| peer.name != slot.name)).collect();
        if changed.joined.is_empty() && changed.moved.is_empty() && gone.is_empty() {
            return changed;
        }
        let fanout = before.fanout.with_peers(peers);
        *self.roster.write() = Arc::new(Roster { fanout, slots });
        self.has_peers.store(!peers.is_empty(), Ordering::SeqCst);
        for slot in gone {
            self.part_with(slot, &mut former);
            changed.left.push(slot.name.as_str().to_owned());
        }
        add(&self.changes.joined, changed.joined.len() as u64);
        add(&self.changes.left, changed.left.len() as u64);
        self.roster_changed.notify_one();
        changed
    }

    fn part_with(&self, slot: &Arc<PeerSlot>, former: &mut BTreeMap<HostName, Arc<Mutex<Origin>>>) {
        slot.left.cancel();
        self.linked(slot, |_| {});
        let abandoned = self.spool.remove_reader(slot.reader);
        add(&self.changes.abandoned, abandoned);
        former.insert(slot.name.clone(), Arc::clone(&slot.origin));
        let received = read(&slot.counters.received);
        info!(
            peer = slot.name.as_str(),
            unacknowledged = abandoned,
            received,
            "a broker has left the cluster file: its links end, and nothing is kept for it any more"
        );
    }

    /// The other brokers as they are now.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.read())
    }

    /// Whether there is any other broker.
    pub(crate) fn has_peers(&self) -> bool {
        self.has_peers.load(Ordering::Relaxed)
    }

    /// This broker's name, as its stamps carry it.
    pub(crate) fn me(&self) -> &Arc<str> {
        &self.me
    }

    /// Whether a message is one of this broker's own: see [`crate::fanout`].
    pub(crate) fn is_own(&self, stamp: &Stamp) -> bool {
        Arc::ptr_eq(&stamp.origin, &self.me) || stamp.origin == self.me
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
        let Some(keeper) = self.keeper.get() else { return };
        self.spool.checkpoint(before);
        // A reload waits meanwhile, so nobody is missed.
        let former = self.former.lock();
        let roster = self.roster();
        let present = roster.slots.iter().map(|slot| (&slot.name, &slot.origin));
        for (name, origin) in present.chain(former.iter()) {
            // Under the lock all that was applied is written down.
            let origin = origin.lock();
            for (epoch, seq) in origin.machine.applied() {
                keeper.store().append(&Record::Applied { origin: name.as_str().into(), epoch, seq });
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
            cluster: self.roster().fanout.cluster().as_str().to_owned(),
            host: self.me.to_string(),
            last: Some(self.spool.state().last),
        }
    }

    /// A client of this broker's has connected: every peer that can be told is told.
    pub(crate) fn claim(&self, claim: Claim) {
        let claim = Arc::new(claim);
        self.roster().slots.iter().for_each(|peer| peer.claims.add(&claim));
    }

    /// The members of a group have changed: every peer that can be told is told.
    pub(crate) fn group_changed(&self, filter: &Text) {
        self.roster().slots.iter().for_each(|peer| peer.claims.add_group(filter));
    }

    /// Something is heard of a peer's groups.
    pub(crate) fn heard(&self, peer: &PeerSlot, heard: Heard) {
        if let Some(groups) = self.groups.get() {
            groups.heard(&Arc::from(peer.name.as_str()), heard);
        }
    }

    /// A link to or from a peer has come up, or is down, or it has left.
    pub(crate) fn linked(&self, peer: &PeerSlot, change: impl Fn(&mut Links)) {
        let mut links = peer.counters.links();
        change(&mut links);
        self.heard(peer, Heard::Linked(links.connected && links.receiving));
        if peer.left.is_cancelled() {
            // It has no groups any more. Said again when its links have ended: one may have brought news of some meanwhile.
            self.heard(peer, Heard::Begin);
            self.heard(peer, Heard::Complete);
        }
        // Behind that: whoever sees it may rely on what follows from it.
        peer.counters.note_links(now(), change);
    }

    /// A stamp later than all before it.
    pub(crate) fn next_stamp(&self) -> Stamp {
        Stamp { time: self.clock.next(wall_clock()), origin: Arc::clone(&self.me) }
    }

    /// The first of so many, each of which is one later than the one before it.
    pub(crate) fn next_stamps(&self, count: u64) -> Stamp {
        Stamp { time: self.clock.next_of(count, wall_clock()), origin: Arc::clone(&self.me) }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// What a counter has come to.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
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
