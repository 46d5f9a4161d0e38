//! What one program on one host takes from the cluster: no other section, nothing left to check.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::cluster::{Broker, Cluster, Host, Lb, Tls, Vip};
use crate::names::{ClusterName, HostName};

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

/// A broker as others reach it.
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
    /// This host's address, the source of its advertisements.
    pub address: Ipv4Addr,
    /// Interface for the VIP, if named.
    pub interface: Option<String>,
    /// This host's VRRP priority.
    pub priority: u8,
    /// The other lb hosts' addresses.
    pub peers: Vec<Ipv4Addr>,
    /// `[vip]`.
    pub vip: Vip,
    /// The control socket of the local `evermq-lb`.
    pub lb_socket: PathBuf,
    /// This program's own control socket.
    pub control_socket: PathBuf,
}

/// What `evermq-lb` on one host needs.
#[derive(Debug, Clone)]
pub struct LbConfig {
    /// This host.
    pub host: HostName,
    /// `[lb]`.
    pub lb: Lb,
    /// Every broker, in the file's order.
    pub backends: Vec<Peer>,
    /// For the standing sessions to the brokers.
    pub tls: TlsFiles,
    /// This program's control socket.
    pub control_socket: PathBuf,
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
    /// Where this broker's peers connect to it.
    pub peer_listen: SocketAddr,
    /// Every other broker.
    pub peers: Vec<Peer>,
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
            interface: me.interface.clone(),
            priority: me.vip_priority,
            peers: self.lbs().filter(|peer| peer.name != me.name).map(|peer| peer.address).collect(),
            vip,
            lb_socket: self.run_dir.join("lb.sock"),
            control_socket: self.run_dir.join("vip.sock"),
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
            lb: self.lb.clone(),
            backends: self.brokers().map(|broker| peer_at(broker, self.broker.listen.port())).collect(),
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
            broker: self.broker.clone(),
            peer_listen: SocketAddr::from((me.address, port)),
            peers: self.brokers().filter(|peer| peer.name != me.name).map(|peer| peer_at(peer, port)).collect(),
            tls: self.tls.for_host(&me.name),
            control_socket: self.run_dir.join("broker.sock"),
        })
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

fn for_host(path: &Path, host: &HostName) -> PathBuf {
    path.to_str().map_or_else(|| path.to_owned(), |path| path.replace("{host}", host.as_str()).into())
}

fn peer_at(host: &Host, port: u16) -> Peer {
    Peer { name: host.name.clone(), address: SocketAddr::from((host.address, port)) }
}
