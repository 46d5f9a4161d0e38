//! What the broker counts.
//!
//! What happens for each packet is counted by each thread for itself, in cache lines that no other one writes, once for each
//! turn of a connection ([`Tally`]); whoever shows it adds up ([`Counters::traffic`]). What is rare is counted in one place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use evermq_daemon::metrics::{Counts, Histogram};
use evermq_mqtt::{ReasonCode, Version};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::mailbox::Mailbox;
use crate::session::Delivered;

mod tally;

use tally::FIGURES;
pub use tally::{Tally, Traffic};

/// Threads with figures of their own; those beyond share the first place, which costs them more.
const SHARDS: usize = 64;

/// Counters since the start.
#[derive(Debug)]
pub struct Counters {
    shards: Box<[Shard]>,
    /// Messages that other brokers sent.
    pub from_peers: AtomicU64,
    /// Messages that a session did not get because its queue was full.
    pub dropped: AtomicU64,
    /// Those among them for which there was no room in all sessions together.
    pub exhausted: AtomicU64,
    /// Messages that waited in a session when the rules changed, so that its client may not have them any more.
    pub withdrawn: AtomicU64,
    /// Messages of shared subscriptions that went from broker to broker so often without finding a member that they were given up.
    pub without_member: AtomicU64,
    /// Messages of clients that were not accepted.
    pub refused: AtomicU64,
    /// The same by reason.
    pub refusals: ByReason,
    /// Retained messages that were not kept because the store was full.
    pub retained_refused: AtomicU64,
    /// Clients that were sent to another broker at an lb's word.
    pub sent_away: AtomicU64,
    /// Connections that were accepted, before anything is known of them.
    pub sockets: AtomicU64,
    /// Connections that sent a CONNECT and got in.
    pub accepted: AtomicU64,
    /// The same by version: 3.1, 3.1.1, 5.0.
    pub accepted_versions: [AtomicU64; 3],
    /// CONNECT packets that were refused, by reason.
    pub connect_refusals: ByReason,
    /// Connections of clients that have ended, by reason: theirs if they sent DISCONNECT, ours otherwise.
    pub ended: ByReason,
    /// Those that ended without a DISCONNECT from either side.
    pub lost: AtomicU64,
    /// Sessions that ended because their client did not come back in time.
    pub expired: AtomicU64,
    /// Connections that ended without: no or a bad certificate, no or a bad CONNECT, too many connections.
    pub strangers: AtomicU64,
    /// Those of them whose TLS failed.
    pub tls_failures: AtomicU64,
    /// Connections that a load balancer's PROXY protocol header came before.
    pub proxied: AtomicU64,
    /// Those of the strangers that were refused for such a header, or for the lack of one.
    pub proxy_refused: AtomicU64,
    /// Connections beyond `max_connections`.
    pub refused_connections: AtomicU64,
    /// Connections beyond a listener's `max_connections`.
    pub refused_listener: AtomicU64,
    /// Connections beyond `max_connections_per_address`.
    pub refused_address: AtomicU64,
    /// Connections beyond `max_connections_per_user`.
    pub refused_user: AtomicU64,
    /// Silent strangers that made room for others, `max_handshakes` being there.
    pub evicted: AtomicU64,
    /// Times that no connection could be accepted, as a rule for lack of open files.
    pub accept_failures: AtomicU64,
    /// Times that a client was not read from for a while because of `max_publish_rate` or `max_publish_bytes`.
    pub slowed: AtomicU64,
    /// Clients that are connected now.
    pub clients: AtomicUsize,
    /// Clients that got in, by listener.
    listeners: Mutex<BTreeMap<Arc<str>, u64>>,
    /// How long TLS handshakes took.
    pub handshakes: Histogram,
}

/// One thread's figures.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    traffic: [AtomicU64; FIGURES],
    latency: Histogram,
}

/// Counters by reason code.
#[derive(Debug)]
pub struct ByReason(Box<[AtomicU64; 256]>);

thread_local! {
    /// This thread's place: of all brokers in the process, which are more than one in tests only.
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let place = NEXT.fetch_add(1, Ordering::Relaxed);
        if place < SHARDS { place } else { 0 }
    };
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            from_peers: AtomicU64::default(),
            dropped: AtomicU64::default(),
            exhausted: AtomicU64::default(),
            withdrawn: AtomicU64::default(),
            without_member: AtomicU64::default(),
            refused: AtomicU64::default(),
            refusals: ByReason::default(),
            retained_refused: AtomicU64::default(),
            sent_away: AtomicU64::default(),
            sockets: AtomicU64::default(),
            accepted: AtomicU64::default(),
            accepted_versions: Default::default(),
            connect_refusals: ByReason::default(),
            ended: ByReason::default(),
            lost: AtomicU64::default(),
            expired: AtomicU64::default(),
            strangers: AtomicU64::default(),
            tls_failures: AtomicU64::default(),
            proxied: AtomicU64::default(),
            proxy_refused: AtomicU64::default(),
            refused_connections: AtomicU64::default(),
            refused_listener: AtomicU64::default(),
            refused_address: AtomicU64::default(),
            refused_user: AtomicU64::default(),
            evicted: AtomicU64::default(),
            accept_failures: AtomicU64::default(),
            slowed: AtomicU64::default(),
            clients: AtomicUsize::default(),
            listeners: Mutex::default(),
            handshakes: Histogram::default(),
        }
    }
}

impl Counters {
    /// Adds what a turn has brought, and empties it.
    pub fn add(&self, tally: &mut Tally) {
        let traffic = std::mem::take(&mut tally.0);
        let place = PLACE.with(|place| *place);
        for (counter, more) in self.shards[place].traffic.iter().zip(traffic.figures()) {
            if more == 0 {
                continue;
            }
            // Nobody else writes here, so nothing can come between.
            if place == 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            } else {
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
            }
        }
    }

    /// Counts how long a message took from its publisher to a subscriber's socket.
    pub fn observe_latency(&self, time: std::time::Duration) {
        self.shards[PLACE.with(|place| *place)].latency.observe(time);
    }

    /// All threads' figures together.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let mut sums = [0_u64; FIGURES];
        for shard in &self.shards {
            for (sum, counter) in sums.iter_mut().zip(&shard.traffic) {
                *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        Traffic::of(sums)
    }

    /// From PUBLISH to subscriber, of all threads.
    #[must_use]
    pub fn latency(&self) -> Counts {
        self.shards.iter().fold(Counts::default(), |sum, shard| sum.plus(shard.latency.counts()))
    }

    /// Counts the messages that a session will not get, and says so once for each session.
    pub fn count_drops(&self, mailbox: &Mailbox, delivered: Delivered) {
        if delivered.dropped == 0 {
            return;
        }
        self.dropped.fetch_add(u64::try_from(delivered.dropped).unwrap_or(u64::MAX), Ordering::Relaxed);
        if delivered.exhausted {
            if self.exhausted.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    client = %mailbox.client_id(),
                    "the sessions' queues together are full: messages of QoS 0 make room first, then new ones are not queued: raise broker.max_queued_total, or see who does not read"
                );
            }
        } else if delivered.overflowed {
            tracing::warn!(
                client = %mailbox.client_id(),
                "a session's queue is full: messages of QoS 0 make room first, then new ones are not queued; this is said once for each session"
            );
        }
    }

    /// A client got in through `listener`.
    pub fn count_through(&self, listener: &Arc<str>) {
        *self.listeners.lock().entry(Arc::clone(listener)).or_default() += 1;
    }

    /// Clients that got in, by listener.
    #[must_use]
    pub fn listeners(&self) -> Vec<(Arc<str>, u64)> {
        self.listeners.lock().iter().map(|(name, count)| (Arc::clone(name), *count)).collect()
    }

    /// A client got in.
    pub fn count_accepted(&self, version: Version) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.accepted_versions[version as usize % 3].fetch_add(1, Ordering::Relaxed);
    }

    /// A message was not accepted.
    pub fn count_refused(&self, reason: ReasonCode) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.refusals.count(reason);
    }

    /// As the control socket shows them.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let traffic = self.traffic();
        json!({
            "from_clients": traffic.messages,
            "from_peers": read(&self.from_peers),
            "to_clients": traffic.publishes_out.iter().sum::<u64>(),
            "dropped": read(&self.dropped),
            "dropped_by_total": read(&self.exhausted),
            "dropped_by_rules": read(&self.withdrawn),
            "dropped_without_member": read(&self.without_member),
            "refused": read(&self.refused),
            "retained_refused": read(&self.retained_refused),
            "sent_away": read(&self.sent_away),
            "accepted": read(&self.accepted),
            "strangers": read(&self.strangers),
            "proxied": read(&self.proxied),
            "proxy_refused": read(&self.proxy_refused),
            "refused_connections": read(&self.refused_connections),
            "refused_listener": read(&self.refused_listener),
            "refused_address": read(&self.refused_address),
            "refused_user": read(&self.refused_user),
            "evicted": read(&self.evicted),
            "accept_failures": read(&self.accept_failures),
            "slowed": read(&self.slowed),
        })
    }
}

impl Default for ByReason {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl ByReason {
    /// Counts one.
    pub fn count(&self, reason: ReasonCode) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that came at least once, in the order of their codes.
    pub fn iter(&self) -> impl Iterator<Item = (ReasonCode, u64)> {
        let read = |reason: ReasonCode| (reason, self.0[reason as usize].load(Ordering::Relaxed));
        ReasonCode::ALL.iter().copied().map(read).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use evermq_mqtt::Packet;

    use super::*;

    #[test]
    fn every_figure_has_its_place() {
        let mut number = 0;
        let figures = std::array::from_fn(|_| {
            number += 1;
            number
        });
        assert_eq!(Traffic::of(figures).figures(), figures);
    }

    #[test]
    fn threads_add_up() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            // More than have a place of their own.
            for _ in 0..SHARDS + 8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let mut tally = Tally::default();
                        tally.read(2);
                        tally.received(&Packet::PingReq);
                        counters.add(&mut tally);
                        assert_eq!(tally.traffic(), &Traffic::default());
                    }
                });
            }
        });
        let all = 1000 * (SHARDS as u64 + 8);
        let expected = Traffic { bytes_in: 2 * all, packets_in: all, ..Traffic::default() };
        assert_eq!(counters.traffic(), expected);
    }

    #[test]
    fn reasons_are_counted_apart() {
        let reasons = ByReason::default();
        reasons.count(ReasonCode::MaximumConnectTime);
        reasons.count(ReasonCode::Success);
        reasons.count(ReasonCode::Success);
        let all: Vec<_> = reasons.iter().collect();
        assert_eq!(all, [(ReasonCode::Success, 2), (ReasonCode::MaximumConnectTime, 1)]);
    }
}
