//! What can be seen of the mesh from outside.

use std::net::SocketAddr;

use serde::Serialize;

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
    /// Every other broker, in the file's order.
    pub peers: Vec<PeerState>,
}

/// One other broker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerState {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// Whether this broker's messages reach it now.
    pub connected: bool,
    /// Whether its messages reach this broker now.
    pub receiving: bool,
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
    /// Why the last connection to it, or attempt at one, ended.
    pub last_error: Option<String>,
}
