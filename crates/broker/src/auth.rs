//! Who a client is.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use evermq_daemon::proxy_protocol::{Header, Ssl};
use evermq_daemon::tls;
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;

/// A client's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Came over plain TCP, or without a certificate to a load balancer that allows it.
    Anonymous,
    /// Showed a certificate that chains to the cluster's CA; its common name, empty if it has none.
    Certificate(Arc<str>),
}

/// The other end of a connection, as far as it is known before its CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its own address, also behind a load balancer that says so.
    pub address: SocketAddr,
    /// Who it is.
    pub identity: Identity,
    /// The distinguished name of its certificate (RFC 4514).
    pub dn: Option<Box<str>>,
    /// Version of its TLS, such as `TLSv1.3`.
    pub tls: Option<Box<str>>,
    /// What the load balancer calls the connection.
    pub unique_id: Option<Box<str>>,
    /// The other end of the TCP connection: the load balancer's, for its clients.
    pub peer: SocketAddr,
    /// A load balancer of the cluster itself, on its own behalf.
    pub is_lb: bool,
}

impl Client {
    /// Behind a connection from `from`, perhaps with a load balancer's header before it, as plain TCP.
    #[must_use]
    pub fn new(from: SocketAddr, header: Option<&Header>) -> Self {
        let unique_id = header.and_then(|header| header.unique_id.as_deref());
        Self {
            address: header.and_then(Header::source).unwrap_or(from),
            identity: Identity::Anonymous,
            dn: None,
            tls: None,
            unique_id: unique_id.map(|id| String::from_utf8_lossy(id).into()),
            peer: from,
            is_lb: false,
        }
    }

    /// It ended TLS here. `chain` is what it showed, its own certificate first; the handshake has checked it.
    #[must_use]
    pub fn with_tls(self, version: Option<ProtocolVersion>, chain: Option<&[CertificateDer<'_>]>) -> Self {
        let own = chain.and_then(|chain| chain.first());
        let identity = own
            .map_or(Identity::Anonymous, |own| Identity::Certificate(tls::common_name(own).unwrap_or_default().into()));
        let dn = own.and_then(tls::distinguished_name).map(Box::from);
        Self { identity, dn, tls: version.and_then(version_name).map(Box::from), ..self }
    }

    /// It ended TLS at a load balancer, which says so: the same as if it had ended it here. A certificate that was not
    /// found good is none.
    #[must_use]
    pub fn with_ssl(self, ssl: &Ssl) -> Self {
        let tls = ssl.version.clone();
        if ssl.is_verified() {
            let identity = Identity::Certificate(ssl.cn.as_deref().unwrap_or_default().into());
            Self { identity, dn: ssl.dn.clone(), tls, ..self }
        } else {
            Self { identity: Identity::Anonymous, dn: None, tls, ..self }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Certificate(name) => name,
        })
    }
}

/// As OpenSSL names versions, and thus the PROXY protocol.
const fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssl(shown: bool, verify: u32) -> Ssl {
        Ssl {
            is_tls: true,
            shown,
            verify,
            version: Some("TLSv1.3".into()),
            cn: Some("device-1".into()),
            dn: Some("CN=device-1,O=Plant 7".into()),
            ..Ssl::default()
        }
    }

    #[test]
    fn a_certificate_counts_only_if_it_was_found_good() {
        let (from, source) = ("10.0.0.1:9".parse().unwrap(), "192.0.2.7:40000".parse().unwrap());
        let header = Header { unique_id: Some(Box::from(&b"lb1-5"[..])), ..Header::proxy(source, from) };
        let client = Client::new(from, Some(&header));
        assert_eq!((client.address, client.unique_id.as_deref()), (source, Some("lb1-5")));
        let good = client.clone().with_ssl(&ssl(true, 0));
        assert_eq!(good.identity, Identity::Certificate("device-1".into()));
        assert_eq!((good.dn.as_deref(), good.tls.as_deref()), (Some("CN=device-1,O=Plant 7"), Some("TLSv1.3")));
        for bad in [ssl(false, 0), ssl(true, 18)] {
            let bad = client.clone().with_ssl(&bad);
            assert_eq!((bad.identity, bad.dn, bad.tls.as_deref()), (Identity::Anonymous, None, Some("TLSv1.3")));
        }
    }

    #[test]
    fn who_speaks_for_itself_is_where_it_connects_from() {
        let from = "10.0.0.1:9".parse().unwrap();
        assert_eq!(Client::new(from, Some(&Header::LOCAL)), Client::new(from, None));
        assert_eq!(Client::new(from, None).address, from);
    }
}
