//! What one program on one host takes from the cluster: no other section, nothing left to check.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bridges::BridgeConfig;
use crate::broker::Broker;
use crate::cluster::{Cluster, Host, Tls};
use crate::lb::{BROKERS, Lb, Probe};
use crate::names::{ClusterName, HostName, Vrid};
use crate::vip::{Adverts, Track, Vip, VipMode, VirtualRouter, VrrpVersion};

mod backends;

/// Why a program has no work on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// The name stands in no `[[hosts]]` entry.
    #[error(
        "host \"{host}\" is not in the cluster file (its hosts: {known}); \
         add a [[hosts]] entry, or name one of them with --host"
    )]
    UnknownHost {
        /// The name that was looked for.
        host: String,
        /// The names that the file has.
        known: String,
    },
    /// The host does not have the role.
    #[error(
        "host \"{host}\" does not have the role \"{role}\"; add it to the host's roles, or do not start {program} here"
    )]
    WithoutRole {
        /// The host.
        host: HostName,
        /// The role that the program needs.
        role: &'static str,
        /// The program.
        program: &'static str,
    },
    /// There is no `[vip]` section.
    #[error(
        "the cluster file has no [vip] section, so there is no address to hold; add one, or do not start evermq-vip"
    )]
    NoVip,
}

/// The certificate files of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that the other side must chain to.
    pub ca: PathBuf,
    /// The host's certificate chain.
    pub cert: PathBuf,
    /// The host's private key.
    pub key: PathBuf,
}

/// A broker, or an lb, as others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its host's name.
    pub name: HostName,
    /// Its address and port.
    pub address: SocketAddr,
}

/// What `evermq-vip` on one host needs.
#[derive(Debug, Clone)]
pub struct VipConfig {
    /// This host.
    pub host: HostName,
    /// This host's address.
    pub address: Ipv4Addr,
    /// This host's virtual routers, that of `[vip]` first; none where `mode` is none.
    pub instances: Vec<VipInstance>,
    /// `[[vip.track]]`.
    pub tracks: Vec<Track>,
    /// What the virtual routers have in common.
    pub vip: Vip,
    /// Whose consent the VIP needs; none where it needs none.
    pub quorum: Option<QuorumConfig>,
    /// The control socket of the local `evermq-lb`.
    pub lb_socket: PathBuf,
    /// This program's own control socket.
    pub control_socket: PathBuf,
}

/// One virtual router on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipInstance {
    /// Its name, unique.
    pub name: String,
    /// Its identifier.
    pub vrid: Vrid,
    /// Version of its advertisements.
    pub version: VrrpVersion,
    /// At least one, all of one family; the first one identifies it.
    pub addresses: Vec<IpAddr>,
    /// Of every address.
    pub prefix_length: u8,
    /// Its interface, if named.
    pub interface: Option<String>,
    /// This host's priority, 2 to 255.
    pub priority: u8,
    /// Virtual routers of one group are master together or not at all.
    pub sync_group: Option<String>,
    /// Source of its advertisements; none: the interface's link-local address.
    pub source: Option<IpAddr>,
    /// The other lb hosts, where advertisements go one by one.
    pub peers: Vec<IpAddr>,
}

/// What a host needs to vote on who holds the VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumConfig {
    /// The cluster, which every message names.
    pub cluster: ClusterName,
    /// This host.
    pub host: HostName,
    /// Every host of the file, this one included, in the file's order.
    pub voters: Vec<Voter>,
    /// How long a vote counts.
    pub lease: Duration,
    /// An address that has to answer, in the place of the majority.
    pub gateway: Option<Ipv4Addr>,
    /// The file with the key that all hosts share.
    pub key_file: PathBuf,
}

/// A host that votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its name.
    pub name: HostName,
    /// Where it listens (UDP).
    pub address: SocketAddr,
}

/// What `evermq-lb` on one host needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LbConfig {
    /// This host.
    pub host: HostName,
    /// `[lb]`.
    pub lb: Lb,
    /// The cluster, which peers must name too.
    pub cluster: ClusterName,
    /// Every broker: the cluster's in the file's order, then the others.
    pub backends: Vec<BackendConfig>,
    /// The cluster's hosts with role `lb`, this one included.
    pub lbs: Vec<HostName>,
    /// Where the other lbs connect to this one.
    pub peer_listen: SocketAddr,
    /// Every other lb.
    pub peers: Vec<Peer>,
    /// For the standing sessions to the brokers.
    pub tls: TlsFiles,
    /// This program's control socket.
    pub control_socket: PathBuf,
}

/// A host with role `lb`, as a broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LbHost {
    /// Its name.
    pub name: HostName,
    /// Where its connections come from.
    pub address: Ipv4Addr,
}

/// One broker, as the lb reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its name, unique; its host's for a broker of the cluster.
    pub name: String,
    /// Its host, if that is one of the cluster.
    pub host: Option<HostName>,
    /// Where it speaks MQTT over TLS.
    pub address: Option<SocketAddr>,
    /// Where it speaks plain MQTT.
    pub plain_address: Option<SocketAddr>,
    /// Whether a PROXY protocol header goes before TLS.
    pub send_proxy: bool,
    /// Whether a PROXY protocol header goes before plain MQTT.
    pub send_proxy_plain: bool,
    /// Its group.
    pub group: String,
    /// Its share beside the others'; 0: none.
    pub weight: u16,
    /// Gets clients only when all others of its group are down.
    pub backup: bool,
    /// Connections of this lb host; none for no bound.
    pub max_connections: Option<usize>,
    /// How its health is known.
    pub probe: Probe,
}

impl BackendConfig {
    /// A broker with the settings that the file's defaults give to one of the cluster.
    #[must_use]
    pub fn of_cluster(host: HostName, address: SocketAddr, plain_address: Option<SocketAddr>) -> Self {
        Self {
            name: host.as_str().to_owned(),
            host: Some(host),
            address: Some(address),
            plain_address,
            send_proxy: false,
            send_proxy_plain: true,
            group: BROKERS.to_owned(),
            weight: 1,
            backup: false,
            max_connections: None,
            probe: Probe::Session,
        }
    }
}

/// What `evermq-broker` on one host needs.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// This host.
    pub host: HostName,
    /// The cluster, which peers must name too.
    pub cluster: ClusterName,
    /// `[broker]`.
    pub broker: Broker,
    /// `[[bridges]]` that this host keeps or stands by for.
    pub bridges: Vec<BridgeConfig>,
    /// Where this broker's peers connect to it.
    pub peer_listen: SocketAddr,
    /// Every other broker.
    pub peers: Vec<Peer>,
    /// The cluster's hosts with role `lb`: their PROXY protocol headers are believed.
    pub lbs: Vec<LbHost>,
    /// This host's vote on who holds the VIP; none where none is asked for.
    pub quorum: Option<QuorumConfig>,
    /// Certificates of this host.
    pub tls: TlsFiles,
    /// This program's control socket.
    pub control_socket: PathBuf,
}

impl Cluster {
    /// What `evermq-vip` on `host` needs.
    ///
    /// # Errors
    /// The host is unknown or has no `lb` role, or there is no `[vip]`.
    pub fn vip_for(&self, host: &str) -> Result<VipConfig, RoleError> {
        let me = self.host_with_role(host, "lb", "evermq-vip", |host| host.lb)?;
        let vip = self.vip.clone().ok_or(RoleError::NoVip)?;
        Ok(VipConfig {
            host: me.name.clone(),
            address: me.address,
            instances: match vip.mode {
                VipMode::Vrrp => {
                    self.virtual_routers.iter().map(|router| self.instance(router, vip.adverts, me)).collect()
                }
                VipMode::None => Vec::new(),
            },
            tracks: self.tracks.clone(),
            vip,
            quorum: self.quorum_of(me),
            lb_socket: self.run_dir.join("lb.sock"),
            control_socket: self.run_dir.join("vip.sock"),
        })
    }

    fn instance(&self, router: &VirtualRouter, adverts: Adverts, me: &Host) -> VipInstance {
        let address = |host: &Host| {
            if router.is_ipv6() { host.address6.map(IpAddr::V6) } else { Some(IpAddr::V4(host.address)) }
        };
        VipInstance {
            name: router.name.clone(),
            vrid: router.vrid,
            version: router.version,
            addresses: router.addresses.clone(),
            prefix_length: router.prefix_length,
            interface: router.interface.clone().or_else(|| me.interface.clone()),
            priority: router.priorities.get(&me.name).copied().unwrap_or(me.vip_priority),
            sync_group: router.sync_group.clone(),
            // RFC 9568 §5.1.2.1: to the group an IPv6 router speaks by its link-local address, whichever others it has.
            source: address(me).filter(|source| source.is_ipv4() || adverts == Adverts::Unicast),
            peers: self.lbs().filter(|peer| peer.name != me.name).filter_map(address).collect(),
        }
    }

    fn quorum_of(&self, me: &Host) -> Option<QuorumConfig> {
        let quorum = self.quorum.as_ref()?;
        let voter =
            |host: &Host| Voter { name: host.name.clone(), address: SocketAddr::from((host.address, quorum.port)) };
        Some(QuorumConfig {
            cluster: self.name.clone(),
            host: me.name.clone(),
            voters: self.hosts.iter().map(voter).collect(),
            lease: quorum.lease,
            gateway: quorum.gateway,
            key_file: quorum.key_file.clone(),
        })
    }

    /// What `evermq-lb` on `host` needs.
    ///
    /// # Errors
    /// The host is unknown or has no `lb` role.
    pub fn lb_for(&self, host: &str) -> Result<LbConfig, RoleError> {
        let me = self.host_with_role(host, "lb", "evermq-lb", |host| host.lb)?;
        Ok(LbConfig {
            host: me.name.clone(),
            lb: self.lb_of(me),
            cluster: self.name.clone(),
            peer_listen: SocketAddr::from((me.address, self.lb.peer_port)),
            peers: self
                .lbs()
                .filter(|peer| peer.name != me.name)
                .map(|peer| peer_at(peer, self.lb.peer_port))
                .collect(),
            backends: self.backends(),
            lbs: self.lbs().map(|lb| lb.name.clone()).collect(),
            tls: self.tls.for_host(&me.name),
            control_socket: self.run_dir.join("lb.sock"),
        })
    }

    /// What `evermq-broker` on `host` needs.
    ///
    /// # Errors
    /// The host is unknown or has no `broker` role.
    pub fn broker_for(&self, host: &str) -> Result<BrokerConfig, RoleError> {
        let me = self.host_with_role(host, "broker", "evermq-broker", |host| host.broker)?;
        let port = self.broker.peer_port;
        Ok(BrokerConfig {
            host: me.name.clone(),
            cluster: self.name.clone(),
            broker: self.broker_of(me),
            bridges: self.bridges.iter().filter_map(|bridge| bridge.at(&me.name)).collect(),
            peer_listen: SocketAddr::from((me.address, port)),
            peers: self.brokers().filter(|peer| peer.name != me.name).map(|peer| peer_at(peer, port)).collect(),
            lbs: self.lbs().map(|lb| LbHost { name: lb.name.clone(), address: lb.address }).collect(),
            // A host that is an lb too votes by its evermq-vip.
            quorum: if me.lb { None } else { self.quorum_of(me) },
            tls: self.tls.for_host(&me.name),
            control_socket: self.run_dir.join("broker.sock"),
        })
    }

    /// `[broker]` with the host's name in its paths.
    fn broker_of(&self, me: &Host) -> Broker {
        let mut broker = self.broker.clone();
        broker.store.path = for_host(&broker.store.path, &me.name);
        broker
    }

    fn host_with_role(
        &self,
        name: &str,
        role: &'static str,
        program: &'static str,
        has: impl Fn(&Host) -> bool,
    ) -> Result<&Host, RoleError> {
        let host = self.hosts.iter().find(|host| host.name.as_str() == name).ok_or_else(|| RoleError::UnknownHost {
            host: name.to_owned(),
            known: self.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        if has(host) { Ok(host) } else { Err(RoleError::WithoutRole { host: host.name.clone(), role, program }) }
    }
}

impl Tls {
    /// The files of one host: `{host}` replaced by its name.
    #[must_use]
    pub fn for_host(&self, host: &HostName) -> TlsFiles {
        TlsFiles { ca: for_host(&self.ca, host), cert: for_host(&self.cert, host), key: for_host(&self.key, host) }
    }
}

pub(crate) fn for_host(path: &Path, host: &HostName) -> PathBuf {
    path.to_str().map_or_else(|| path.to_owned(), |path| path.replace("{host}", host.as_str()).into())
}

fn peer_at(host: &Host, port: u16) -> Peer {
    Peer { name: host.name.clone(), address: SocketAddr::from((host.address, port)) }
}
