//! The whole file as validated types: one struct for each section, values that cannot be wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::admin::Admin;
use crate::bridges::Bridge;
use crate::broker::Broker;
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
    /// `[[bridges]]`, in the file's order; names are unique. Each has at least one host.
    pub bridges: Vec<Bridge>,
    /// `[admin]`
    pub admin: Admin,
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
