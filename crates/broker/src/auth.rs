//! Who a client is, and what it may do.
//!
//! | module | subject |
//! |---|---|
//! | [`access`] | who gets in, by what is in force; what a reload puts in its place |
//! | [`certificate`] | what a client's certificate says of it |
//! | [`introduction`] | from a CONNECT to who its client is, the cheap questions first |
//! | [`refusal`] | why a client does not get in, and what is said of it |
//! | [`verify`] | passwords, off the event loop |
//! | [`attempts`] | how often an address may try |
//! | [`tls`] | what TLS listeners show, and whom they ask for certificates |

pub mod access;
pub mod attempts;
pub mod certificate;
pub mod introduction;
pub mod refusal;
pub mod tls;
pub mod verify;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evermq_config::BrokerConfig;
use evermq_daemon::proxy_protocol::{Header, Ssl};
use evermq_daemon::tls::{Material, TlsError};
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;

pub use access::{Access, Login};
pub use certificate::Certificate;
pub use refusal::Refusal;

use crate::listener::Door;

/// Where the cluster file names revocation lists.
const CRL: &str = "broker.auth.crl";

/// This host's certificate, the authorities, and what they have revoked.
///
/// # Errors
/// A file is missing, is not what it should be, or is out of date.
pub fn material(config: &BrokerConfig) -> Result<Material, TlsError> {
    Material::load(&config.tls)?.revoking(CRL, &config.broker.auth.crl, since_1970())
}

#[expect(clippy::disallowed_methods, reason = "revocation lists expire by wall time")]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The other end of a connection, as far as it is known before its CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its own address, also behind a load balancer that says so.
    pub address: SocketAddr,
    /// Its certificate, which was found good; none over plain TCP, or where a load balancer or a listener does without.
    pub certificate: Option<Arc<Certificate>>,
    /// Version of its TLS, such as `TLSv1.3`.
    pub tls: Option<Box<str>>,
    /// What the load balancer calls the connection.
    pub unique_id: Option<Box<str>>,
    /// The other end of the TCP connection: the load balancer's, for its clients.
    pub peer: SocketAddr,
    /// A load balancer of the cluster itself, on its own behalf.
    pub is_lb: bool,
    /// It came through a Unix socket.
    pub is_unix: bool,
    /// The name of the listener that it came through.
    pub listener: Arc<str>,
    /// Bytes of a packet that it may send, if that listener has a limit of its own.
    pub max_packet_size: Option<u32>,
}

impl Client {
    /// Behind a connection from `from`, perhaps with a load balancer's header before it, as plain TCP.
    #[must_use]
    pub fn new(from: SocketAddr, header: Option<&Header>) -> Self {
        let unique_id = header.and_then(|header| header.unique_id.as_deref());
        Self {
            address: header.and_then(Header::source).unwrap_or(from),
            certificate: None,
            tls: None,
            unique_id: unique_id.map(|id| String::from_utf8_lossy(id).into()),
            peer: from,
            is_lb: false,
            is_unix: false,
            listener: Arc::default(),
            max_packet_size: None,
        }
    }

    /// One that is on this host, for tests and for the broker itself.
    #[must_use]
    pub fn local() -> Self {
        Self::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None)
    }

    /// It came through this listener.
    #[must_use]
    pub fn at(self, door: &Door, is_unix: bool) -> Self {
        let listener = Arc::clone(&door.name);
        Self { is_unix, listener, max_packet_size: door.max_packet_size, ..self }
    }

    /// Whether it is on this host: nobody between, and no address but this host's own.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let addresses = [self.address, self.peer];
        self.is_unix || addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
    }

    /// It ended TLS here. `chain` is what it showed, its own certificate first; the handshake has checked it.
    #[must_use]
    pub fn with_tls(self, version: Option<ProtocolVersion>, chain: Option<&[CertificateDer<'_>]>) -> Self {
        let certificate = chain.and_then(Certificate::shown).map(Arc::new);
        Self { certificate, tls: version.and_then(version_name).map(Box::from), ..self }
    }

    /// It ended TLS at a load balancer, which says so: the same as if it had ended it here. A certificate that was not
    /// found good is none.
    #[must_use]
    pub fn with_ssl(self, ssl: &Ssl) -> Self {
        let certificate = ssl.is_verified().then(|| Arc::new(Certificate::told(ssl)));
        Self { certificate, tls: ssl.version.clone(), ..self }
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
        let subject = good.certificate.as_ref().and_then(|certificate| certificate.subject());
        assert_eq!((subject, good.tls.as_deref()), (Some("CN=device-1,O=Plant 7"), Some("TLSv1.3")));
        for bad in [ssl(false, 0), ssl(true, 18)] {
            let bad = client.clone().with_ssl(&bad);
            assert_eq!((bad.certificate, bad.tls.as_deref()), (None, Some("TLSv1.3")));
        }
    }

    #[test]
    fn only_who_is_on_this_host_is_local() {
        let at = |address: &str, peer: &str| Client {
            address: address.parse().unwrap(),
            ..Client::new(peer.parse().unwrap(), None)
        };
        assert!(at("127.0.0.1:1", "127.0.0.1:1").is_local());
        assert!(at("[::1]:1", "[::ffff:127.0.0.1]:1").is_local());
        assert!(!at("192.0.2.1:1", "127.0.0.1:1").is_local(), "behind a proxy on this host");
        assert!(!at("127.0.0.1:1", "192.0.2.1:1").is_local(), "a proxy elsewhere calls it local");
    }

    #[test]
    fn who_speaks_for_itself_is_where_it_connects_from() {
        let from = "10.0.0.1:9".parse().unwrap();
        assert_eq!(Client::new(from, Some(&Header::LOCAL)), Client::new(from, None));
        assert_eq!(Client::new(from, None).address, from);
    }
}
