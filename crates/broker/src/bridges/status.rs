//! How a bridge is, for operators.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::identity;
use super::relay::Counts;
use crate::broker::Broker;

/// What a bridge does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Another host keeps the connection.
    Standby,
    /// It tries to connect, or waits until it tries again.
    Connecting,
    /// Messages go over it.
    Connected,
}

/// What is known of one bridge since it was put into the table.
#[derive(Debug)]
pub struct Status(Mutex<Known>);

#[derive(Debug)]
struct Known {
    state: State,
    since: Instant,
    address: Option<String>,
    is_bridge: bool,
    connections: u64,
    failures: u64,
    last_error: Option<String>,
    refused: Vec<String>,
    counts: Counts,
}

impl State {
    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
        }
    }
}

impl Status {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Known {
            state: State::Standby,
            since: now,
            address: None,
            is_bridge: true,
            connections: 0,
            failures: 0,
            last_error: None,
            refused: Vec::new(),
            counts: Counts::default(),
        }))
    }

    /// It does something else from now on; what it did.
    pub(super) fn become_(&self, state: State, now: Instant) -> State {
        let mut known = self.0.lock();
        if known.state != state {
            known.since = now;
        }
        if state != State::Connected {
            known.address = None;
        }
        std::mem::replace(&mut known.state, state)
    }

    /// A connection stands.
    pub(super) fn connected(&self, address: &str, is_bridge: bool) {
        let mut known = self.0.lock();
        known.address = Some(address.to_owned());
        known.is_bridge = is_bridge;
        known.connections += 1;
        known.refused.clear();
    }

    /// A connection ended, or did not come about; whether it is the first in a row.
    pub(super) fn failed(&self, error: String) -> bool {
        let mut known = self.0.lock();
        known.failures += 1;
        let is_new = known.last_error.as_ref() != Some(&error);
        known.last_error = Some(error);
        is_new
    }

    /// The remote broker has refused a subscription.
    pub(super) fn refused(&self, filter: &str, reason: &str) {
        self.0.lock().refused.push(format!("{filter}: {reason}"));
    }

    pub(super) fn add(&self, more: Counts) {
        let counts = &mut self.0.lock().counts;
        counts.sent += more.sent;
        counts.received += more.received;
        counts.refused_there += more.refused_there;
        counts.refused_here += more.refused_here;
        counts.unwanted += more.unwanted;
    }

    /// As the control socket shows it.
    #[must_use]
    pub fn show(&self, name: &str, broker: &Broker, now: Instant) -> Value {
        let (queued, queued_bytes, inflight) = waiting(name, broker);
        let known = self.0.lock();
        let Counts { sent, received, refused_there, refused_here, unwanted } = known.counts;
        json!({
            "name": name,
            "state": known.state.word(),
            "seconds": whole(now.saturating_duration_since(known.since)),
            "address": known.address,
            "known_as_bridge": (known.state == State::Connected).then_some(known.is_bridge),
            "queued": queued,
            "queued_bytes": queued_bytes,
            "inflight": inflight,
            "sent": sent,
            "received": received,
            "refused_there": refused_there,
            "refused_here": refused_here,
            "unwanted": unwanted,
            "connections": known.connections,
            "failures": known.failures,
            "refused_subscriptions": known.refused,
            "last_error": known.last_error,
        })
    }
}

fn whole(duration: Duration) -> u64 {
    duration.as_secs()
}

/// Messages and bytes that wait here for the remote broker, and messages that it has not acknowledged.
fn waiting(name: &str, broker: &Broker) -> (usize, usize, usize) {
    let mailbox = identity::client_id(name).and_then(|id| broker.registry.get(&id));
    let view = mailbox.and_then(|mailbox| mailbox.lock().session.view());
    view.map_or((0, 0, 0), |view| (view.queued, view.queued_bytes, view.inflight))
}
