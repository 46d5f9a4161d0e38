//! The whole file as validated types: one struct for each section, values that cannot be wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::lb::Lb;
use crate::names::{ClusterName, HostName};
use crate::report::Place;
use crate::vip::{Quorum, Track, Vip, VirtualRouter};

/// The whole cluster, as every host reads it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// `cluster.name`: brokers refuse peers of another cluster.
    pub name: ClusterName,
    /// `cluster.run_dir`: where control sockets live.
    pub run_dir: PathBuf,
    /// `cluster.log_level` and `cluster.log_format`.
    pub log: Log,
    /// `[vip]`; none where the section is missing (behind a cloud's load balancer).
    pub vip: Option<Vip>,
    /// The virtual router of `[vip]`, then `[[vip.instances]]`; each has at least one address.
    pub virtual_routers: Vec<VirtualRouter>,
    /// `[[vip.track]]`.
    pub tracks: Vec<Track>,
    /// `vip.quorum` and its like; none where it is off.
    pub quorum: Option<Quorum>,
    /// `[lb]`.
    pub lb: Lb,
    /// `[broker]`.
    pub broker: Broker,
    /// `[tls]`, paths made absolute, `{host}` not yet replaced.
    pub tls: Tls,
    /// `[[hosts]]`, in the file's order; names and addresses are unique.
    pub hosts: Vec<Host>,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Least severe level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object.
    Json,
}

/// `[broker]`: the MQTT broker.
#[derive(Debug, Clone)]
pub struct Broker {
    /// `listen`: MQTT over mutual TLS.
    pub listen: SocketAddr,
    /// `listen_plain`: MQTT over plain TCP, if any.
    pub listen_plain: Option<SocketAddr>,
    /// `listen_proxy`: MQTT over plain TCP behind a PROXY protocol header, from the cluster's lb hosts only, if any.
    pub listen_proxy: Option<SocketAddr>,
    /// `peer_port`: where the other brokers connect, on the host's address.
    pub peer_port: u16,
    /// `max_connections`: clients of one broker.
    pub max_connections: usize,
    /// `connect_timeout`: for TLS and CONNECT together.
    pub connect_timeout: Duration,
    /// `max_packet_size`: bytes, from the fixed header on.
    pub max_packet_size: u32,
    /// `max_inflight`: unacknowledged QoS 1 and 2 messages, each way and client (Receive Maximum).
    pub max_inflight: u16,
    /// `max_queued_messages`: waiting messages of one session.
    pub max_queued_messages: usize,
    /// `max_queued_bytes`: waiting payload bytes of one session.
    pub max_queued_bytes: usize,
    /// `max_session_expiry`: a session without a connection is forgotten after this, or earlier if its client asked so.
    pub max_session_expiry: Duration,
    /// `max_keep_alive`: longest keep alive that is granted; zero for no limit.
    pub max_keep_alive: Duration,
    /// `max_subscriptions`: of one session.
    pub max_subscriptions: usize,
    /// `max_topic_levels`: of a topic name or filter.
    pub max_topic_levels: usize,
    /// `max_retained_messages`: in all.
    pub max_retained_messages: usize,
    /// `peer_queue_messages`: messages kept for a peer that is away.
    pub peer_queue_messages: usize,
    /// `peer_queue_bytes`: payload bytes kept for a peer that is away.
    pub peer_queue_bytes: usize,
    /// `tcp_keepalive`: idle time before the kernel probes a client.
    pub tcp_keepalive: Duration,
    /// `tcp_user_timeout`: sent data unacknowledged for this long ends the connection.
    pub tcp_user_timeout: Duration,
    /// `drain_timeout`: how long SIGTERM waits until every client has its DISCONNECT.
    pub drain_timeout: Duration,
    /// `workers`: threads; 0 for one per core.
    pub workers: usize,
}

/// `[tls]`: certificates, `{host}` stands for the host's name.
#[derive(Debug, Clone)]
pub struct Tls {
    /// `ca`: certificates that clients, brokers and probes must chain to.
    pub ca: PathBuf,
    /// `cert`: the host's certificate, with any intermediates.
    pub cert: PathBuf,
    /// `key`: the host's private key.
    pub key: PathBuf,
    /// Where each of them stands in the file, for problems with the files that they name.
    pub(crate) places: BTreeMap<&'static str, Place>,
    /// The cluster file.
    pub(crate) file: PathBuf,
}

/// One `[[hosts]]` entry.
#[derive(Debug, Clone)]
pub struct Host {
    /// `name`.
    pub name: HostName,
    /// `address`: where the other hosts reach it.
    pub address: Ipv4Addr,
    /// `address6`: source and destination of unicast advertisements over IPv6.
    pub address6: Option<Ipv6Addr>,
    /// `roles` contains `"lb"`: runs evermq-lb and evermq-vip.
    pub lb: bool,
    /// `roles` contains `"broker"`: runs evermq-broker.
    pub broker: bool,
    /// `vip_priority`: 2 to 255, which is the owner's; 200, 190, ... in the file's order where not given.
    pub vip_priority: u8,
    /// `interface`: for the VIP; the one that holds `address` where not given.
    pub interface: Option<String>,
}

impl Cluster {
    /// The host of that name.
    #[must_use]
    pub fn host(&self, name: &HostName) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == *name)
    }

    /// Every virtual address, the first one first.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.virtual_routers.iter().flat_map(|router| router.addresses.iter().copied())
    }

    /// The hosts with role `lb`, in the file's order.
    pub fn lbs(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.lb)
    }

    /// The hosts with role `broker`, in the file's order.
    pub fn brokers(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.broker)
    }
}
