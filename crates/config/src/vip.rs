//! `[vip]` as validated types: the virtual routers, what they have in common, what is tracked, and the quorum.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::names::{HostName, Vrid};

/// `[vip]`: what all virtual routers have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// `mode`: whether addresses are held at all.
    pub mode: VipMode,
    /// `advert_interval`: between two advertisements; 10 ms to 40.95 s in steps of 10 ms, with version 2 whole seconds.
    pub advert_interval: Duration,
    /// `adverts`: to the group of all VRRP routers or to each lb host.
    pub adverts: Adverts,
    /// `auth_pass`: the simple password of version 2 (RFC 2338 §5.3.6.2, which keepalived still speaks).
    pub auth_pass: Option<AuthPass>,
    /// `checksum`: of version 3 advertisements over IPv4.
    pub checksum: Checksum,
    /// `preempt`: whether a host that comes back takes the VIP from a healthy one.
    pub preempt: bool,
    /// `preempt_delay`: how long a better host watches before it takes the VIP from a healthy one.
    pub preempt_delay: Duration,
    /// `start_delay`: how long a program that has started takes no part.
    pub start_delay: Duration,
    /// `accept`: whether a master that is not the owner takes packets for the VIP (RFC 9568 §6.1, Accept_Mode).
    pub accept: bool,
    /// `virtual_mac`: the VIP on a macvlan with the RFC's hardware address (RFC 9568 §7.3).
    pub virtual_mac: bool,
    /// `garp_count`: gratuitous ARPs, or neighbour advertisements, at takeover.
    pub garp_count: u8,
    /// `garp_repeat_delay`: a second burst after this; zero for none.
    pub garp_repeat_delay: Duration,
    /// `garp_refresh`: a burst each time this is over while master; zero for none.
    pub garp_refresh: Duration,
    /// `lb_timeout`: an lb that has not said for this long that it is healthy is taken for dead.
    pub lb_timeout: Duration,
    /// `tickle`: whether a master that takes over tells the clients of the host before it.
    pub tickle: bool,
    /// `realtime`: run under SCHED_RR with locked memory.
    pub realtime: bool,
    /// `metrics`: where Prometheus finds the counters; none unless given.
    pub metrics: Option<SocketAddr>,
    /// `notify`, `notify_master` and their like.
    pub notify: Notify,
}

/// Whether addresses are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VipMode {
    /// By VRRP.
    Vrrp,
    /// Not at all: a cloud's load balancer stands before the lb hosts.
    None,
}

/// Where advertisements go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adverts {
    /// To 224.0.0.18 or ff02::12 (RFC 9568 §5.1.1.2, §5.1.2.2).
    Multicast,
    /// To the address of each other lb host.
    Unicast,
}

/// Version of the protocol on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VrrpVersion {
    /// RFC 3768: IPv4, whole seconds.
    V2,
    /// RFC 9568: IPv4 and IPv6, hundredths of a second.
    V3,
}

/// What the checksum of a version 3 advertisement over IPv4 covers before the message. All three are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The pseudo-header with the packet's destination (RFC 9568 §5.2.8).
    Rfc,
    /// The pseudo-header with the group as destination, whatever the packet's is: keepalived's `old_unicast_checksum`.
    OldUnicast,
    /// Nothing, as in version 2.
    NoPseudoHeader,
}

/// A simple password of VRRP 2, padded with zeros. It is sent in clear, so it keeps out mistakes and nobody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthPass([u8; Self::LENGTH]);

/// One virtual router of the cluster: `[vip]` itself, or one of `[[vip.instances]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualRouter {
    /// `name`; `vip` for `[vip]`.
    pub name: String,
    /// `vrid`: the virtual router identifier, one for each family and network.
    pub vrid: Vrid,
    /// `version`.
    pub version: VrrpVersion,
    /// `address`, then `more_addresses`: at least one, all of one family.
    pub addresses: Vec<IpAddr>,
    /// `prefix_length`: all ones keeps the VIP from becoming a source of the host's own traffic.
    pub prefix_length: u8,
    /// `interface`, on every lb host; the host's own where not given.
    pub interface: Option<String>,
    /// `priorities`: of those lb hosts whose priority is not their `vip_priority`.
    pub priorities: BTreeMap<HostName, u8>,
    /// `sync_group`: virtual routers of one group are master together or not at all.
    pub sync_group: Option<String>,
}

/// One `[[vip.track]]` entry: something whose state moves this host's priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// `name`, unique.
    pub name: String,
    /// `script`, `file`, `interface` or `pid_file`.
    pub what: TrackWhat,
    /// `weight`: negative, added while it fails; positive, added while it is good; zero: while it fails, the host must not
    /// hold the VIP. The number in a file is multiplied with it.
    pub weight: i16,
}

/// What is tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackWhat {
    /// A program whose exit status 0 is good.
    Script(Script),
    /// A file that holds a whole number.
    File {
        /// Where.
        path: PathBuf,
    },
    /// A network interface that must be up.
    Interface {
        /// Its name.
        name: String,
    },
    /// A process that must live.
    Process {
        /// The file that holds its identifier.
        pid_file: PathBuf,
    },
}

/// A program that is run again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// `script`: the program and its arguments.
    pub command: Vec<String>,
    /// `interval`: from start to start.
    pub interval: Duration,
    /// `timeout`: a run that takes longer is killed, and has failed.
    pub timeout: Duration,
    /// `rise`: good runs in a row until it counts as good.
    pub rise: u8,
    /// `fall`: failed runs in a row until it counts as failed.
    pub fall: u8,
    /// `user`: whom it runs as where evermq-vip is root; `nobody` where not given.
    pub user: Option<String>,
    /// `shell`: the one string of `script` is given to /bin/sh.
    pub shell: bool,
}

/// Programs that are told of a change of state. Each is a program and its arguments; an empty one is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// `notify_master`.
    pub master: Vec<String>,
    /// `notify_backup`.
    pub backup: Vec<String>,
    /// `notify_fault`.
    pub fault: Vec<String>,
    /// `notify`: of every change.
    pub any: Vec<String>,
    /// `notify_timeout`: after which one that still runs is killed.
    pub timeout: Duration,
    /// `notify_user`: whom they run as where evermq-vip is root; `nobody` where not given.
    pub user: Option<String>,
}

/// `quorum = true` and its like: the VIP only with the consent of most hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// `quorum_lease`: how long a vote counts.
    pub lease: Duration,
    /// `quorum_gateway`: an address that has to answer, in the place of the majority.
    pub gateway: Option<Ipv4Addr>,
    /// `heartbeat_port`: UDP, on every host's address.
    pub port: u16,
    /// `heartbeat_key`: the file with the key that all hosts share.
    pub key_file: PathBuf,
}

impl AuthPass {
    /// Bytes of the field (RFC 2338 §5.3.10).
    pub const LENGTH: usize = 8;

    /// `text` as a password: 1 to 8 printable ASCII characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=Self::LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| {
            let mut bytes = [0; Self::LENGTH];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Self(bytes)
        })
    }

    /// The field on the wire.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// A secret is not shown.
impl fmt::Debug for AuthPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthPass(..)")
    }
}

impl VirtualRouter {
    /// What the virtual router of `[vip]` is called.
    pub const FIRST: &'static str = "vip";

    /// Whether it is one of IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.addresses.first().is_some_and(IpAddr::is_ipv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_padded_and_never_shown() {
        let password = AuthPass::new("geheim").expect("six letters");
        assert_eq!(password.bytes(), b"geheim\0\0");
        assert!(!format!("{password:?}").contains("geheim"));
        for bad in ["", "neun34567", "zwei w", "ümlaut"] {
            assert_eq!(AuthPass::new(bad), None, "{bad}");
        }
    }
}
