//! The one virtual router of a host.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use evermq_config::vip::Vip;
use evermq_config::{HostName, VipConfig, Vrid};

/// What the driver works with.
#[derive(Debug)]
pub struct Single {
    pub(crate) host: HostName,
    pub(crate) address: Ipv4Addr,
    pub(crate) interface: Option<String>,
    pub(crate) priority: u8,
    pub(crate) peers: Vec<Ipv4Addr>,
    pub(crate) vip: Vip,
    pub(crate) vip_address: Ipv4Addr,
    pub(crate) prefix_length: u8,
    pub(crate) vrid: Vrid,
    pub(crate) lb_socket: PathBuf,
    pub(crate) control_socket: PathBuf,
}

impl Single {
    pub(crate) fn of(config: VipConfig) -> anyhow::Result<Self> {
        let four = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        let only = config.instances.into_iter().next();
        let only = only.ok_or_else(|| anyhow::anyhow!("no virtual router"))?;
        Ok(Self {
            host: config.host,
            address: config.address,
            interface: only.interface,
            priority: only.priority,
            peers: only.peers.iter().filter_map(four).collect(),
            vip: config.vip,
            vip_address: only.addresses.iter().find_map(four).ok_or_else(|| anyhow::anyhow!("no IPv4 address"))?,
            prefix_length: only.prefix_length,
            vrid: only.vrid,
            lb_socket: config.lb_socket,
            control_socket: config.control_socket,
        })
    }
}
