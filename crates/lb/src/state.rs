//! What the control socket shows: one JSON object, read by `evermq status`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evermq_daemon::health::Health;
use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::desk::Desk;
pub use crate::peers::PeerState;
use crate::peers::Peers;
use crate::pool::Member;

/// The answer to `{"request":"state"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// This host's name.
    pub host: String,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// What evermq-vip is told.
    pub health: Health,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// Worker threads.
    pub workers: usize,
    /// Client connections.
    pub connections: Connections,
    /// One for each broker, in the file's order.
    pub backends: Vec<BackendState>,
    /// One for each other lb, in the file's order.
    pub peers: Vec<PeerState>,
    /// Why the cluster file as it is now is not in force, since it was last read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_in_force: Option<String>,
}

/// Client connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Now.
    pub current: usize,
    /// Since the start.
    pub total: u64,
    /// Closed because no broker took them, since the start.
    pub refused: u64,
    /// Closed at once because their address was at a limit, since the start.
    pub over_source_limit: u64,
    /// Those of them that wait for a broker now.
    pub waiting: usize,
    /// At most at once: `max_connections`, or fewer if there are not descriptors enough.
    pub limit: usize,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendState {
    /// Its host's name.
    pub name: String,
    /// Where clients are passed on to.
    pub address: SocketAddr,
    /// `up`, `unproven`, `suspect`, `rejecting` or `down`: see [`crate::backend::Standing`].
    pub state: String,
    /// What operators say of it: `ready`, `drain` or `maint`.
    pub admin: String,
    /// Its share beside the others'.
    pub weight: u16,
    /// Milliseconds in this state.
    pub since_ms: u64,
    /// Client connections now, those being made included.
    pub connections: usize,
    /// Client connections since the start.
    pub total: u64,
    /// Clients that it did not let in since the start.
    pub refused: u64,
    /// Bytes from clients since the start.
    pub bytes_in: u64,
    /// Bytes to clients since the start.
    pub bytes_out: u64,
    /// From PINGREQ to PINGRESP on the standing session, in microseconds, while it stands.
    pub health_rtt_us: Option<u64>,
    /// Why there was no session, the last time there was none.
    pub last_error: Option<String>,
}

impl State {
    pub(crate) fn new(desk: &Desk, now: Instant) -> Self {
        let now_in_force = desk.in_force();
        let workers = &desk.workers;
        let admission = workers.first().map(|worker| &worker.gate.admission);
        let members = now_in_force.pool.members();
        Self {
            host: now_in_force.config.host.as_str().to_owned(),
            listen: now_in_force.listen(),
            health: *desk.health.borrow(),
            uptime_ms: millis(now.duration_since(desk.started)),
            workers: workers.len(),
            connections: Connections {
                current: admission.map_or(0, Admission::current),
                total: workers.iter().map(|worker| worker.total()).sum(),
                refused: workers.iter().map(|worker| worker.turned_away()).sum(),
                over_source_limit: workers.iter().map(|worker| worker.over_source_limit()).sum(),
                waiting: workers.iter().map(|worker| worker.waiting()).sum(),
                limit: admission.map_or(0, Admission::limit),
            },
            backends: members
                .iter()
                .map(|member| {
                    let traffic = workers.iter().map(|worker| worker.traffic(member.id()));
                    BackendState::new(member, traffic.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)), now)
                })
                .collect(),
            peers: desk.peers.as_deref().map(Peers::state).unwrap_or_default(),
            not_in_force: now_in_force.refused.clone(),
        }
    }
}

impl BackendState {
    fn new(member: &Member, (bytes_in, bytes_out): (u64, u64), now: Instant) -> Self {
        let report = member.report().clone();
        Self {
            name: member.name().to_owned(),
            address: member.address(),
            state: member.standing().name().to_owned(),
            admin: member.admin().name().to_owned(),
            weight: member.weight(),
            since_ms: report.since.map_or(0, |since| millis(now.saturating_duration_since(since))),
            connections: member.connections(),
            total: member.total(),
            refused: member.refusals(),
            bytes_in,
            bytes_out,
            health_rtt_us: report.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            last_error: report.last_error,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
