//! `[lb]` as validated types: listeners, backends, routes, limits.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The group of the cluster's own brokers.
pub const BROKERS: &str = "brokers";

/// `[lb]`: the load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lb {
    /// `listen` with `mode`, called `main`, then `[[lb.listeners]]`.
    pub listeners: Vec<Listener>,
    /// `balance`: how a broker is chosen for a new connection.
    pub balance: Balance,
    /// `send_proxy`: say in a PROXY protocol header (version 2) who the client is, also on connections that stay encrypted.
    pub send_proxy: bool,
    /// `accept_proxy_from`: who may say in a PROXY protocol header whom it speaks for, and must.
    pub accept_proxy_from: Vec<IpNetwork>,
    /// `max_connections`: client connections of one lb host; more wait in the kernel's queue.
    pub max_connections: usize,
    /// `greeting_timeout`: for PROXY header, ClientHello or CONNECT, and, where the lb ends TLS, the handshake, together.
    pub greeting_timeout: Duration,
    /// `idle_timeout`: nothing either way for this long ends a connection; none for "0s".
    pub idle_timeout: Option<Duration>,
    /// `connect_timeout`: for a connection to one broker, before the next one is tried.
    pub connect_timeout: Duration,
    /// Storms of new connections.
    pub handshakes: Handshakes,
    /// Who waits for a broker.
    pub queue: Queue,
    /// What one client address may take.
    pub source: SourceLimits,
    /// Health of the backends.
    pub health: HealthSettings,
    /// Moving connections to where there are too few.
    pub rebalance: Rebalance,
    /// `tcp_keepalive`: idle time before the kernel probes a client or broker.
    pub tcp_keepalive: Duration,
    /// `tcp_user_timeout`: sent data unacknowledged for this long ends the connection.
    pub tcp_user_timeout: Duration,
    /// `drain_timeout`: how long SIGTERM, or an upgrade, waits for clients to leave.
    pub drain_timeout: Duration,
    /// `peer_port`: where the other lbs connect, on the host's address.
    pub peer_port: u16,
    /// `reconnect_rate`: clients that are told in a second to connect again when the VIP has moved here.
    pub reconnect_rate: u32,
    /// `access_log`: where a line goes when a connection ends.
    pub access_log: AccessLog,
    /// `metrics`: where Prometheus asks, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// `workers`: threads; 0 for one per core.
    pub workers: usize,
    /// `[[lb.backends]]`: settings of the cluster's brokers, and brokers that are not of the cluster.
    pub backends: Vec<Backend>,
    /// `[[lb.routes]]`: the first that matches counts.
    pub routes: Vec<Route>,
    /// `[[lb.client_ids]]`: the first that matches counts.
    pub client_ids: Vec<ClientIdRule>,
    /// For listeners that end TLS.
    pub tls: Termination,
}

impl Lb {
    /// `listen`: where clients reach the VIP.
    ///
    /// # Panics
    /// Never for what was read from a file: `main` is always there.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listeners.first().expect("main is always there").address
    }
}

/// One address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, unique; `main` for that of `[lb]`.
    pub name: String,
    /// Address and port that every lb host listens on, master or not.
    pub address: SocketAddr,
    /// What the lb does with TLS.
    pub mode: Mode,
    /// The group of clients that no route sends elsewhere.
    pub group: String,
}

/// What the lb does with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Between client and broker; the lb looks at the ClientHello only.
    Passthrough,
    /// It ends here; plain MQTT to the brokers.
    Terminate,
    /// It ends here, and another one begins towards the brokers.
    Reencrypt,
    /// There is none.
    Plain,
}

impl Mode {
    /// Whether the lb itself speaks TLS with clients.
    #[must_use]
    pub const fn terminates(self) -> bool {
        match self {
            Self::Terminate | Self::Reencrypt => true,
            Self::Passthrough | Self::Plain => false,
        }
    }

    /// Whether the lb sees MQTT.
    #[must_use]
    pub const fn sees_mqtt(self) -> bool {
        match self {
            Self::Terminate | Self::Reencrypt | Self::Plain => true,
            Self::Passthrough => false,
        }
    }

    /// Whether the broker gets plain MQTT.
    #[must_use]
    pub const fn plain_to_backends(self) -> bool {
        match self {
            Self::Terminate | Self::Plain => true,
            Self::Passthrough | Self::Reencrypt => false,
        }
    }

    /// As the file writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Terminate => "terminate",
            Self::Reencrypt => "reencrypt",
            Self::Plain => "plain",
        }
    }
}

/// How a broker is chosen for a new connection (HAProxy's `balance`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest connections for its weight.
    LeastConn,
    /// Each in turn, by weight.
    RoundRobin,
    /// The better of two that are drawn by weight.
    RandomTwo,
    /// By the client's address: consistent, with a bounded load.
    SourceIp,
    /// By the MQTT client identifier, likewise; by the address where the lb does not see MQTT.
    ClientId,
}

impl Balance {
    /// As the file writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeastConn => "least_conn",
            Self::RoundRobin => "round_robin",
            Self::RandomTwo => "random_two",
            Self::SourceIp => "source_ip",
            Self::ClientId => "client_id",
        }
    }
}

/// Bounds for new connections, so that a storm fells no broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshakes {
    /// `max_handshake_rate`: new connections in a second to all brokers together; none for 0.
    pub rate: Option<u32>,
    /// `max_handshake_rate_per_broker`: to one broker; none for 0.
    pub rate_per_backend: Option<u32>,
    /// `max_handshakes`: under way at once, with all brokers together; where the lb ends TLS, also with clients.
    pub concurrent: usize,
    /// `max_handshakes_per_broker`: under way at once with one broker.
    pub concurrent_per_backend: usize,
}

/// Clients that have said who they are and wait for a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// `queue_size`: at most so many; more are refused at once.
    pub size: usize,
    /// `queue_timeout`: who has waited for this long is refused.
    pub timeout: Duration,
}

/// What one client address may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// `max_connections_per_source`; none for 0.
    pub connections: Option<usize>,
    /// `max_rate_per_source`: new connections in a second; none for 0.
    pub rate: Option<u32>,
}

/// Health of the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
    /// `health_interval`: between two PINGREQ on the standing session, or two probes.
    pub interval: Duration,
    /// `health_timeout`: without an answer for this long a broker is down, or a probe has failed.
    pub timeout: Duration,
    /// `health_rise`: good probes in a row until a broker is up.
    pub rise: u32,
    /// `health_fall`: failed probes in a row until it is down.
    pub fall: u32,
    /// `max_ejected`: percent of a group's backends that may be ejected at once because clients were refused there.
    pub max_ejected: u8,
    /// `slow_start`: a broker that is back gets its full share only after this.
    pub slow_start: Duration,
}

/// Moving connections to where there are too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// `rebalance_rate`: connections that are closed in a second so that they come back elsewhere; none by itself for 0.
    pub rate: Option<u32>,
    /// `rebalance_threshold`: percent above its share that a broker may have before that begins.
    pub threshold: u8,
    /// `rebalance_delay`: the brokers must have been as they are for this long.
    pub delay: Duration,
}

/// Where a line goes when a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To the program's own log, level info, target `access`.
    Log,
    /// To a file, which is opened again on reload.
    File(PathBuf),
}

/// One `[[lb.backends]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `name`: a broker host's of the cluster, or a new one.
    pub name: String,
    /// `address`: where it speaks MQTT over TLS; none for a host of the cluster.
    pub address: Option<SocketAddr>,
    /// `plain_address`: where it speaks plain MQTT.
    pub plain_address: Option<SocketAddr>,
    /// `group`.
    pub group: String,
    /// `weight`: its share beside the others'; 0: none.
    pub weight: u16,
    /// `backup`: gets clients only when all others of its group are down.
    pub backup: bool,
    /// `max_connections`: of this lb host; none for 0.
    pub max_connections: Option<usize>,
    /// `probe`: how its health is known.
    pub probe: Probe,
    /// `send_proxy`: whether it understands a PROXY protocol header.
    pub send_proxy: bool,
}

/// How a backend's health is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// A standing MQTT session with the host's certificate.
    Session,
    /// Again and again TCP, TLS where the backend has it, CONNECT, CONNACK, DISCONNECT.
    Mqtt,
    /// Again and again TCP and a TLS handshake.
    Tls,
    /// Again and again a TCP connection.
    Tcp,
    /// Not probed: always up, but for what clients meet there.
    None,
}

/// One `[[lb.routes]]` entry: clients that ask for these names go to that group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `sni`: lower-case names, or `*.` and a domain (one label more, or several).
    pub sni: Vec<String>,
    /// `group`.
    pub group: String,
}

/// One `[[lb.client_ids]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdRule {
    /// `match`: a client identifier in which `*` stands for any characters.
    pub pattern: String,
    /// `action` and `group`.
    pub action: ClientIdAction,
}

/// What happens to clients with such an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdAction {
    /// They are let in as any other.
    Allow,
    /// CONNACK refuses them (not authorized).
    Deny,
    /// They go to this group.
    Group(String),
}

/// For listeners that end TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// `[[lb.certificates]]`: chosen by the name that the client asks for; the host's own (`[tls]`) where none suits.
    pub certificates: Vec<CertificateFiles>,
    /// `client_certificates`: whether clients must have one.
    pub client_auth: ClientAuth,
    /// `client_ca`: what clients' certificates must chain to; that of `[tls]` where not given.
    pub client_ca: Option<PathBuf>,
    /// `crl`: files of revocation lists (PEM).
    pub crl: Vec<PathBuf>,
    /// `tls_min_version`.
    pub min_version: TlsVersion,
    /// `ticket_key`: the secret from which all lbs make the keys of session tickets.
    pub ticket_key: PathBuf,
    /// `ticket_rotation`: how long a ticket key is used; tickets of the one before are still taken.
    pub ticket_rotation: Duration,
}

/// A certificate chain and its key, `{host}` not yet replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// `cert`.
    pub cert: PathBuf,
    /// `key`.
    pub key: PathBuf,
}

/// Whether clients must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They must.
    Required,
    /// They are asked for one; it must be good if there is one.
    Optional,
    /// They are not asked.
    Off,
}

/// The lowest TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// A network of either family, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    prefix_length: u8,
}

impl IpNetwork {
    /// `192.168.10.0/24`, `2001:db8::/32`, `10.0.0.1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_length = length.map_or(Some(most), |length| length.parse().ok())?;
        let network = Self { address, prefix_length };
        (prefix_length <= most && network.masked(address) == bits(address)).then_some(network)
    }

    /// Whether `address` is of it; an IPv4 address that is written as an IPv6 one counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && self.masked(address) == bits(self.address)
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let host_bits = width - u32::from(self.prefix_length);
        bits(address).checked_shr(host_bits).and_then(|bits| bits.checked_shl(host_bits)).unwrap_or(0)
    }
}

impl std::fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_knows_its_own() {
        let cases = [
            ("192.168.10.0/24", "192.168.10.255", true),
            ("192.168.10.0/24", "192.168.11.0", false),
            ("192.168.10.0/24", "::ffff:192.168.10.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("::/0", "2001:db8:1::1", true),
        ];
        for (network, address, expected) in cases {
            let network = IpNetwork::parse(network).expect("a network");
            assert_eq!(network.contains(address.parse().expect("an address")), expected, "{network} {address}");
        }
        for bad in ["192.168.10.1/24", "10.0.0.0/33", "10.0.0", "::/129", "/8", "10.0.0.0/-1"] {
            assert_eq!(IpNetwork::parse(bad), None, "{bad}");
        }
    }
}
