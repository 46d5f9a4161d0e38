//! What a session shows of itself to an operator.

use std::time::{Duration, Instant};

use evermq_mqtt::Version;

use super::{Session, State};

/// A session at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What is known of its connection, if it has one.
    pub connected: Option<Connected>,
    /// Messages that wait.
    pub queued: usize,
    /// Bytes of their topics, payloads and properties.
    pub queued_bytes: usize,
    /// Messages that were sent and are not acknowledged.
    pub inflight: usize,
    /// Messages of QoS 2 that were taken and not released.
    pub received: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// How long it outlives a connection.
    pub expiry: Duration,
    /// When it ends, if it has no connection and ends at all.
    pub expires_at: Option<Instant>,
    /// Whether there is a will.
    pub has_will: bool,
}

/// What a session knows of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// Protocol version.
    pub version: Version,
    /// Zero for none.
    pub keep_alive: Duration,
    /// When the client was heard last.
    pub last_received: Instant,
}

impl Session {
    /// What it shows of itself; none if it has ended.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        let (connected, expires_at) = match &self.state {
            State::Connected(link) => {
                let (version, keep_alive, last_received) = (link.version, link.keep_alive(), link.last_received);
                (Some(Connected { version, keep_alive, last_received }), None)
            }
            State::Detached { expires_at, .. } => (None, *expires_at),
            State::Ended => return None,
        };
        Some(View {
            connected,
            queued: self.queue.len(),
            queued_bytes: self.queue.bytes(),
            inflight: self.inflight.len(),
            received: self.received.len(),
            subscriptions: self.subscriptions.len(),
            expiry: self.expiry,
            expires_at,
            has_will: self.will.is_some(),
        })
    }
}
