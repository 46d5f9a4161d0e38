//! `[admin]` as validated types: the endpoint where a host says how it is.

use std::net::SocketAddr;

/// `[admin]`: the endpoint of each host for operators, over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `listen`: where; nowhere unless given.
    pub listen: Option<SocketAddr>,
    /// `admins`: common names of certificates that may see and act.
    pub admins: Vec<String>,
    /// `readers`: common names of certificates that may see. Hosts of the cluster may anyway.
    pub readers: Vec<String>,
    /// `anonymous_read`: whether seeing needs no certificate at all.
    pub anonymous_read: bool,
}

impl Admin {
    /// Where a host is asked: its own address, unless all hosts are told to listen at one.
    #[must_use]
    pub fn of_host(&self, host: &crate::cluster::Host) -> Option<SocketAddr> {
        self.listen.map(|listen| SocketAddr::from((host.address, listen.port())))
    }
}
