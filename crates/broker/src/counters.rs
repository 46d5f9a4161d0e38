//! What the broker counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::mailbox::Mailbox;
use crate::session::Delivered;

/// Counters since the start. Connections add what they have done once for each batch of packets.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that this broker's own clients published, wills included.
    pub from_clients: AtomicU64,
    /// Messages that other brokers sent.
    pub from_peers: AtomicU64,
    /// PUBLISH packets to clients.
    pub to_clients: AtomicU64,
    /// Messages that a session did not get because its queue was full.
    pub dropped: AtomicU64,
    /// Messages of clients that were not accepted.
    pub refused: AtomicU64,
    /// Retained messages that were not kept because the store was full.
    pub retained_refused: AtomicU64,
    /// Clients that were sent to another broker at an lb's word.
    pub sent_away: AtomicU64,
    /// Connections that sent a CONNECT and got in.
    pub accepted: AtomicU64,
    /// Connections that ended without: no or a bad certificate, no or a bad CONNECT, too many connections.
    pub strangers: AtomicU64,
    /// Connections that a load balancer's PROXY protocol header came before.
    pub proxied: AtomicU64,
    /// Those of the strangers that were refused for such a header, or for the lack of one.
    pub proxy_refused: AtomicU64,
}

impl Counters {
    /// Counts the messages that a session will not get, and says so once for each session.
    pub fn count_drops(&self, mailbox: &Mailbox, delivered: Delivered) {
        if delivered.dropped == 0 {
            return;
        }
        self.dropped.fetch_add(u64::try_from(delivered.dropped).unwrap_or(u64::MAX), Ordering::Relaxed);
        if delivered.overflowed {
            tracing::warn!(
                client = %mailbox.client_id(),
                "a session's queue is full: messages of QoS 0 make room first, then new ones are not queued; this is said once for each session"
            );
        }
    }

    /// As the control socket shows them.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "from_clients": read(&self.from_clients),
            "from_peers": read(&self.from_peers),
            "to_clients": read(&self.to_clients),
            "dropped": read(&self.dropped),
            "refused": read(&self.refused),
            "retained_refused": read(&self.retained_refused),
            "sent_away": read(&self.sent_away),
            "accepted": read(&self.accepted),
            "strangers": read(&self.strangers),
            "proxied": read(&self.proxied),
            "proxy_refused": read(&self.proxy_refused),
        })
    }
}
