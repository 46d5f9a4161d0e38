//! `[broker]` as validated types: listeners, limits, who gets in and may do what, the store.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[broker]`: the MQTT broker.
#[derive(Debug, Clone)]
pub struct Broker {
    /// `listen`: MQTT over mutual TLS.
    pub listen: SocketAddr,
    /// `listen_plain`: MQTT over plain TCP, if any.
    pub listen_plain: Option<SocketAddr>,
    /// `listen_proxy`: MQTT over plain TCP behind a PROXY protocol header, from the cluster's lb hosts only, if any.
    pub listen_proxy: Option<SocketAddr>,
    /// `[[broker.listeners]]`: further listeners; names are unique.
    pub listeners: Vec<Listener>,
    /// `peer_port`: where the other brokers connect, on the host's address.
    pub peer_port: u16,
    /// `connect_timeout`: for TLS and CONNECT together.
    pub connect_timeout: Duration,
    /// How many may be connected, and what each may send.
    pub admission: Admission,
    /// `max_packet_size`: bytes, from the fixed header on.
    pub max_packet_size: u32,
    /// `max_inflight`: unacknowledged QoS 1 and 2 messages, each way and client (Receive Maximum).
    pub max_inflight: u16,
    /// `max_queued_messages`: waiting messages of one session.
    pub max_queued_messages: usize,
    /// `max_queued_bytes`: of one session's waiting messages, topics, payloads and properties.
    pub max_queued_bytes: usize,
    /// `max_queued_total`: the same bytes in all sessions, a message that waits in several counted in each.
    pub max_queued_total: usize,
    /// `max_sessions`: sessions that outlive their connections, of clients that are connected or away.
    pub max_sessions: usize,
    /// `max_session_expiry`: a session without a connection is forgotten after this, or earlier if its client asked so.
    pub max_session_expiry: Duration,
    /// `max_keep_alive`: longest keep alive that is granted; zero for no limit.
    pub max_keep_alive: Duration,
    /// `max_subscriptions`: of one session.
    pub max_subscriptions: usize,
    /// `max_topic_levels`: of a topic name or filter.
    pub max_topic_levels: usize,
    /// `max_topic_alias`: topic aliases each way and connection (Topic Alias Maximum); zero for none.
    pub max_topic_alias: u16,
    /// `max_retained_messages`: in all.
    pub max_retained_messages: usize,
    /// `max_retained_bytes`: their topics, payloads and properties.
    pub max_retained_bytes: usize,
    /// `peer_queue_messages`: messages kept for a peer that is away.
    pub peer_queue_messages: usize,
    /// `peer_queue_bytes`: payload bytes kept for a peer that is away.
    pub peer_queue_bytes: usize,
    /// `peer_queue_age`: how long messages are kept for a peer that is away.
    pub peer_queue_age: Duration,
    /// `join_timeout`: how long a broker that is new to its cluster waits at most for what the others have.
    pub join_timeout: Duration,
    /// `tcp_keepalive`: idle time before the kernel probes a client.
    pub tcp_keepalive: Duration,
    /// `tcp_user_timeout`: sent data unacknowledged for this long ends the connection.
    pub tcp_user_timeout: Duration,
    /// `drain_timeout`: how long SIGTERM waits until every client has its DISCONNECT.
    pub drain_timeout: Duration,
    /// `workers`: threads; 0 for one per core.
    pub workers: usize,
    /// `metrics`: where Prometheus asks, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// `sys_interval`: how often `$SYS` topics are published; none for never.
    pub sys_interval: Option<Duration>,
    /// `[broker.store]`.
    pub store: Store,
    /// `[broker.auth]` and `[[broker.acl]]`.
    pub auth: Auth,
}

impl Default for Broker {
    /// As a file that says nothing of it.
    fn default() -> Self {
        crate::decode::broker_by_default()
    }
}

/// How many may be connected, and what each may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// `max_connections`: of one broker.
    pub connections: usize,
    /// `max_connections_per_address`: of one client address; the lbs' own addresses, which stand for many clients, are exempt.
    pub per_address: Option<usize>,
    /// `max_connections_per_user`: of one user name.
    pub per_user: Option<usize>,
    /// `max_handshakes`: connections that have not been let in yet, TLS handshakes above all.
    pub handshakes: usize,
    /// `max_publish_rate`: messages of one client in a second; it is read from more slowly.
    pub publish_rate: Option<u32>,
    /// `max_publish_bytes`: bytes of one client in a second, likewise.
    pub publish_bytes: Option<u64>,
}

/// One `[[broker.listeners]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `name`.
    pub name: String,
    /// `listen` or `path`.
    pub address: ListenAddress,
    /// `protocol`.
    pub protocol: Protocol,
    /// `tls`.
    pub tls: bool,
    /// `client_certificates`, where there is TLS.
    pub client_certificates: ClientCertificates,
    /// `anonymous`: as [`Auth::anonymous`], which it stands in the place of.
    pub anonymous: Option<Anonymous>,
    /// `max_connections`: through this listener.
    pub max_connections: Option<usize>,
    /// `max_packet_size`: in the place of the broker's, never above it.
    pub max_packet_size: Option<u32>,
    /// `protocol_versions`: MQTT versions that are served here; 3 is 3.1, 4 is 3.1.1.
    pub protocol_versions: Vec<u8>,
}

/// Where a listener waits for connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What carries MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes as they are.
    Mqtt,
    /// WebSocket, subprotocol `mqtt` (§6).
    WebSocket,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nobody gets in without.
    Required,
    /// Who shows one is known by it.
    Optional,
    /// None is asked for.
    Off,
}

/// `[broker.store]`: what survives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// `path`: the directory.
    pub path: PathBuf,
    /// `sync`, with `sync_interval`.
    pub sync: Sync,
    /// `segment_size`: of one file.
    pub segment_size: u64,
    /// `max_size`: of all files; beyond it is as if the disk were full.
    pub max_size: u64,
}

/// When what is written is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before it is acknowledged.
    Always,
    /// At the latest after this time; a power failure may take what came in it, a crash of the broker nothing older than its last write.
    Interval(Duration),
    /// When the system does it.
    Never,
}

/// `[broker.auth]`: who gets in, and `[[broker.acl]]`: who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// `identity`: which part of a certificate is the user name.
    pub identity: CertificateIdentity,
    /// `anonymous`: clients with neither a certificate nor a password.
    pub anonymous: Anonymous,
    /// `password_file`: user names and hashes.
    pub password_file: Option<PathBuf>,
    /// `acl_file`: rules in mosquitto's format.
    pub acl_file: Option<PathBuf>,
    /// `tell_denied`: a client of MQTT 5.0 is told that the rules deny what it asks for, and not only that it does not get it.
    pub tell_denied: bool,
    /// `[[broker.acl]]`, in the file's order.
    pub rules: Vec<AclRule>,
    /// `crl`: lists of revoked certificates (PEM).
    pub crl: Vec<PathBuf>,
}

/// Which part of a certificate is the user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateIdentity {
    /// The subject's common name.
    CommonName,
    /// The first subjectAltName that is a URI.
    SanUri,
    /// The first subjectAltName that is a DNS name.
    SanDns,
    /// The whole subject (RFC 4514).
    Subject,
}

/// Who needs to be nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// No one gets in without an identity.
    Off,
    /// Who comes from this host does.
    Loopback,
    /// Everyone does.
    On,
}

/// One `[[broker.acl]]` entry: whom it concerns, and what they may do. It allows; what no rule allows is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRule {
    /// `users`: names, with `*` for any characters; empty: everyone, also who has no name.
    pub users: Vec<String>,
    /// `clients`: client identifiers, likewise.
    pub clients: Vec<String>,
    /// `publish`: topic filters, in which `%u` stands for the user name and `%c` for the client identifier.
    pub publish: Vec<String>,
    /// `subscribe`: likewise; what comes through a subscription must match one of them too.
    pub subscribe: Vec<String>,
    /// `deny`: topic filters that are neither for publishing nor for subscribing, whatever else allows them.
    pub deny: Vec<String>,
}
