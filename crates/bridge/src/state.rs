//! What can be seen of the mesh from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;

use crate::mesh::{Mesh, now, read};
use crate::roster::PeerSlot;

/// The mesh as one broker sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BridgeState {
    /// This broker's name, the origin of its log.
    pub origin: String,
    /// The log's epoch: grows at each start that lost the log.
    pub epoch: u64,
    /// Sequence number of the newest message in the log; 0 before the first.
    pub last_seq: u64,
    /// Messages in the log.
    pub log_messages: usize,
    /// Their bytes.
    pub log_bytes: usize,
    /// Age of the oldest in seconds.
    pub log_oldest_seconds: f64,
    /// Whether a connected peer is so far behind that publishers should wait.
    pub pressure: bool,
    /// Connections to the peer port that were refused or given up before they proved to be a peer's.
    pub strangers: u64,
    /// Brokers that have become peers by a reload.
    pub peers_joined: u64,
    /// Brokers that have ceased to be peers by a reload.
    pub peers_left: u64,
    /// Messages that those had not acknowledged then.
    pub abandoned: u64,
    /// Messages of shared subscriptions that were chosen for this broker, or waited here, and were handed over to another one,
    /// because no member was left here to take them.
    pub handed_over: u64,
    /// Every other broker, in the file's order.
    pub peers: Vec<PeerState>,
}

/// How far this broker is with what another one had when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling {
    /// The other one's name.
    pub name: String,
    /// Whether it has been reached, or has reached this broker.
    pub answers: bool,
    /// Whether all of it has come: retained messages, and the log up to then.
    pub is_filled: bool,
}

/// One other broker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerState {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// Whether it has been reached, or has reached this broker, since it is a peer.
    pub answers: bool,
    /// Whether this broker has had all that it had when it connected: retained messages, and the log up to then.
    pub filled: bool,
    /// Whether this broker's messages reach it now.
    pub connected: bool,
    /// Whether its messages reach this broker now.
    pub receiving: bool,
    /// How long one of the two has not been so, in seconds; 0 while both are.
    pub apart_seconds: f64,
    /// Messages published here that it has not acknowledged, those that are lost for it included until it knows of them.
    pub lag: u64,
    /// Their bytes, without what is lost.
    pub lag_bytes: u64,
    /// Age in seconds of the oldest of them that is not lost.
    pub lag_seconds: f64,
    /// Messages sent to it, resends included.
    pub sent: u64,
    /// Messages that it acknowledged.
    pub acknowledged: u64,
    /// Messages sent to it a second time, after a reconnect.
    pub resent: u64,
    /// Messages whose expiry interval had passed before they could be sent.
    pub expired: u64,
    /// Whether it misses messages now: the log could not hold all that it has not got. An alarm until it goes on behind them.
    pub is_losing: bool,
    /// Messages that it will never get: they left the log's end before it could take them.
    pub lost: u64,
    /// Times that such messages were missing.
    pub gaps: u64,
    /// Messages that came from it and were delivered.
    pub received: u64,
    /// Messages that came from it again and were dropped.
    pub duplicates: u64,
    /// Messages of its that this broker will never get, as it said.
    pub missed: u64,
    /// Messages of its that could not be understood and were left out.
    pub malformed: u64,
    /// Bytes sent to it over the links in both directions, before TLS.
    pub bytes_sent: u64,
    /// Bytes that came from it, likewise.
    pub bytes_received: u64,
    /// Connections or sessions of clients that ended here because the client has connected to it.
    pub taken_over: u64,
    /// Members of shared subscriptions that are connected to it, as it has told.
    pub shared_members: u64,
    /// Why the last connection to it, or attempt at one, ended.
    pub last_error: Option<String>,
}

impl Mesh {
    /// How far this broker is with what each peer had.
    pub(crate) fn filling(&self) -> Vec<Filling> {
        let filling = |slot: &Arc<PeerSlot>| Filling {
            name: slot.name.as_str().to_owned(),
            answers: slot.counters.answers.load(Ordering::Relaxed),
            is_filled: slot.counters.filled.load(Ordering::Relaxed),
        };
        self.roster().slots.iter().map(filling).collect()
    }

    /// What can be seen from outside.
    pub(crate) fn state(&self) -> BridgeState {
        let log = self.spool.state();
        BridgeState {
            origin: self.me().to_string(),
            epoch: self.epoch(),
            last_seq: log.last,
            log_messages: log.messages,
            log_bytes: log.bytes,
            log_oldest_seconds: seconds_since(log.oldest),
            pressure: log.high,
            strangers: read(&self.strangers),
            handed_over: read(&self.handed_over),
            peers_joined: read(&self.changes.joined),
            peers_left: read(&self.changes.left),
            abandoned: read(&self.changes.abandoned),
            peers: self.roster().slots.iter().map(|slot| self.peer_state(slot)).collect(),
        }
    }

    fn peer_state(&self, slot: &PeerSlot) -> PeerState {
        let counters = &slot.counters;
        let links = counters.links();
        let (lag, lag_bytes, oldest) = self.spool.lag(slot.reader);
        PeerState {
            name: slot.name.as_str().to_owned(),
            address: slot.address(),
            answers: counters.answers.load(Ordering::Relaxed),
            filled: counters.filled.load(Ordering::Relaxed),
            connected: links.connected,
            receiving: links.receiving,
            apart_seconds: seconds_since(links.apart),
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
            shared_members: self.groups.get().map_or(0, |groups| groups.connected_at(slot.name.as_str())),
            last_error: counters.last_error.lock().clone(),
        }
    }
}

fn seconds_since(time: Option<Instant>) -> f64 {
    let age = time.map_or(0.0, |time| now().saturating_duration_since(time).as_secs_f64());
    // To the millisecond, for those who read it.
    (age * 1000.0).round() / 1000.0
}
