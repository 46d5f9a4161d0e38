//! What is known of a connection when it ends, and who wants to know.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_config::lb::Mode;

use crate::pool::Member;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Why {
    /// The client closed it, and the backend after it.
    ClientClosed,
    /// The backend closed it, and the client after it.
    BackendClosed,
    /// The client's side failed first.
    ClientReset,
    /// The backend's side failed first.
    BackendReset,
    /// The backend is down.
    BackendDown,
    /// Nothing came either way for `idle_timeout`.
    Idle,
    /// The client did not say in time what it wants.
    GreetingTimeout,
    /// The client left before it had said what it wants.
    NoGreeting,
    /// What came is no TLS ClientHello.
    NotTls,
    /// What came is no MQTT CONNECT.
    NotConnect,
    /// A balancer in `accept_proxy_from` did not say whom it speaks for.
    NoProxyHeader,
    /// A rule refuses its client identifier.
    Denied,
    /// The TLS handshake with it failed, or it broke the protocol later.
    TlsFailed,
    /// TLS with the backend failed.
    BackendTlsFailed,
    /// No backend takes it.
    NoBackend,
    /// It would have had to wait for a backend, and too many do.
    QueueFull,
    /// It waited for a backend for `queue_timeout`.
    QueueTimeout,
    /// Its address has too many connections, or makes them too fast.
    SourceLimit,
    /// It had not said what it wants, and others wanted its place.
    Evicted,
    /// The lb stops.
    Stopping,
    /// This system lacks what it needs.
    Shortage,
    /// Its backend drains.
    Drain,
    /// Its backend has more than its share.
    Rebalance,
    /// Its backend is in maintenance.
    Maintenance,
    /// An operator closed it.
    ClosedByHand,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::ClientClosed,
        Self::BackendClosed,
        Self::ClientReset,
        Self::BackendReset,
        Self::BackendDown,
        Self::Idle,
        Self::GreetingTimeout,
        Self::NoGreeting,
        Self::NotTls,
        Self::NotConnect,
        Self::NoProxyHeader,
        Self::Denied,
        Self::TlsFailed,
        Self::BackendTlsFailed,
        Self::NoBackend,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::SourceLimit,
        Self::Evicted,
        Self::Stopping,
        Self::Shortage,
        Self::Drain,
        Self::Rebalance,
        Self::Maintenance,
        Self::ClosedByHand,
    ];

    /// The one of that [`Why::name`].
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.name() == name)
    }

    /// As logs and metrics write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::BackendClosed => "backend_closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::BackendDown => "backend_down",
            Self::Idle => "idle",
            Self::GreetingTimeout => "greeting_timeout",
            Self::NoGreeting => "no_greeting",
            Self::NotTls => "not_tls",
            Self::TlsFailed => "tls_failed",
            Self::BackendTlsFailed => "backend_tls_failed",
            Self::NotConnect => "not_connect",
            Self::NoProxyHeader => "no_proxy_header",
            Self::Denied => "denied",
            Self::NoBackend => "no_backend",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::SourceLimit => "source_limit",
            Self::Evicted => "evicted",
            Self::Stopping => "lb_stops",
            Self::Shortage => "shortage",
            Self::Drain => "drain",
            Self::Rebalance => "rebalance",
            Self::Maintenance => "maintenance",
            Self::ClosedByHand => "closed_by_hand",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A connection that has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    /// Its number, unique on this host, over restarts too.
    pub id: u64,
    /// Which listener it came to, counted in the file's order.
    pub listener: usize,
    /// The listener's name.
    pub listener_name: &'a str,
    /// What was done with TLS.
    pub mode: Mode,
    /// The client's address.
    pub client: SocketAddr,
    /// The name that it asked for.
    pub sni: Option<&'a str>,
    /// Its MQTT client identifier, where it was seen.
    pub client_id: Option<&'a str>,
    /// The backend that it had, or that was tried last.
    pub backend: Option<&'a Arc<Member>>,
    /// Why it ended.
    pub why: Why,
    /// Bytes that the backend took.
    pub to_backend: u64,
    /// Bytes that the client took.
    pub to_client: u64,
    /// When it was accepted.
    pub accepted: Instant,
    /// When it ended.
    pub ended: Instant,
    /// From accepting until the client had said what it wants.
    pub greeted: Option<Duration>,
    /// From accepting until a backend was chosen, the last time that one was.
    pub placed: Option<Duration>,
    /// From accepting until the connection to the backend stood.
    pub connected: Option<Duration>,
    /// From accepting until the handshake with the backend was through.
    pub handshaken: Option<Duration>,
    /// The client's TLS version, where the lb ends TLS.
    pub tls_version: Option<&'static str>,
    /// Whether that session was resumed.
    pub tls_resumed: bool,
    /// The common name of the client's certificate, where the lb ends TLS.
    pub common_name: Option<&'a str>,
}

/// A connection whose handshake with its backend is through.
#[derive(Debug)]
pub struct Begun<'a> {
    /// Its number.
    pub id: u64,
    /// The listener's name.
    pub listener_name: &'a str,
    /// The backend.
    pub backend: &'a Arc<Member>,
    /// From accepting until the client had said what it wants.
    pub greeted: Option<Duration>,
    /// From accepting until a backend was chosen.
    pub placed: Option<Duration>,
    /// From accepting until the connection to the backend stood.
    pub connected: Option<Duration>,
    /// From accepting until now.
    pub handshaken: Option<Duration>,
}

/// Who is told of every connection that ends, on the worker's thread: it must not wait for anything.
pub trait Sink: fmt::Debug + Send + Sync {
    /// A connection has ended.
    fn ended(&self, ended: &Ended<'_>);

    /// The handshake of one with its backend is through.
    fn begun(&self, _: &Begun<'_>) {}
}

/// Tells the program's own log, level debug.
#[derive(Debug, Clone, Copy)]
pub struct DebugLog;

impl Sink for DebugLog {
    fn ended(&self, ended: &Ended<'_>) {
        tracing::debug!(
            client = %ended.client,
            listener = ended.listener_name,
            backend = ended.backend.map(|member| member.name()),
            why = ended.why.name(),
            to_backend = ended.to_backend,
            to_client = ended.to_client,
            "connection ended"
        );
    }
}
