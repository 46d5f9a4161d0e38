//! Who may see, and who may act.

use std::net::IpAddr;

use evermq_config::admin::Admin;
use evermq_config::{Cluster, HostName};
use evermq_daemon::tls;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

/// What one may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Nothing.
    None,
    /// See.
    Read,
    /// See and act.
    Act,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// The certificate's common name, or the host's name; empty for nobody in particular.
    pub name: String,
    /// What he may do.
    pub may: Right,
    /// Whether that is by his name, and not what everybody may.
    #[serde(skip)]
    pub by_name: bool,
}

/// The cluster file's word on it.
#[derive(Debug, Clone)]
pub struct Access {
    admin: Admin,
    hosts: Vec<(HostName, IpAddr)>,
}

impl Access {
    /// Of `[admin]` and the hosts.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        let hosts = cluster.hosts.iter().map(|host| (host.name.clone(), IpAddr::V4(host.address))).collect();
        Self { admin: cluster.admin.clone(), hosts }
    }

    /// Whether a client must show a certificate before it can ask at all.
    #[must_use]
    pub fn needs_certificate(&self) -> bool {
        !self.admin.anonymous_read
    }

    /// Who shows this certificate, which chains to the cluster's CA, or none.
    #[must_use]
    pub fn caller(&self, certificate: Option<&CertificateDer<'_>>) -> Caller {
        let anonymous = if self.admin.anonymous_read { Right::Read } else { Right::None };
        let Some(certificate) = certificate else {
            return Caller { name: String::new(), may: anonymous, by_name: false };
        };
        let name = tls::common_name(certificate).unwrap_or_default();
        let is_one_of = |names: &[String]| names.contains(&name);
        if is_one_of(&self.admin.admins) {
            return Caller { name, may: Right::Act, by_name: true };
        }
        let host = self.hosts.iter().find(|(host, address)| tls::is_certificate_of(certificate, host, *address));
        let by_name = is_one_of(&self.admin.readers) || host.is_some();
        let may = if by_name { Right::Read } else { anonymous };
        Caller { name: host.map_or(name, |(host, _)| host.to_string()), may, by_name }
    }
}
