//! PROXY protocol headers of the cluster's load balancers: who the client behind one is.
//!
//! Believed only from the address of a host with role `lb`. On `listen_proxy` nobody else gets in and a header is required;
//! on `listen` one may come before TLS, and whoever else sends one is refused. Version 2 only, for it says who the client is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use evermq_config::LbHost;
use evermq_daemon::proxy_protocol::{self, Header, Invalid, Parsed};
use evermq_daemon::tls;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// First byte of a header of version 2; TLS and MQTT begin otherwise.
const FIRST: u8 = b'\r';

/// Why a connection was refused for its header, or for the lack of one.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// `listen_proxy`, from elsewhere.
    #[error("broker.listen_proxy is for the cluster's lb hosts only")]
    NotLb,
    /// `listen`, from elsewhere.
    #[error("a PROXY protocol header from an address that is no lb host's of the cluster")]
    Unasked,
    /// What came is none.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It ended before.
    #[error("connection ended in a PROXY protocol header")]
    Ended,
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The cluster's hosts with role `lb`.
#[derive(Debug, Clone)]
pub struct LoadBalancers(Arc<[LbHost]>);

impl LoadBalancers {
    /// Those of the config.
    #[must_use]
    pub fn new(lbs: &[LbHost]) -> Self {
        Self(lbs.into())
    }

    /// Reads the header that must come first on `listen_proxy`.
    ///
    /// # Errors
    /// `from` is no lb host's, or there is no header. The connection is to be ended.
    pub async fn require(&self, stream: &mut TcpStream, from: SocketAddr) -> Result<Header, ProxyError> {
        if !self.is_one(from.ip()) {
            return Err(ProxyError::NotLb);
        }
        read(stream).await
    }

    /// Reads the header that may come before TLS. Nothing else is taken from the stream.
    ///
    /// # Errors
    /// There is one, but not from an lb host, or a malformed one. The connection is to be ended.
    pub async fn accept(&self, stream: &mut TcpStream, from: SocketAddr) -> Result<Option<Header>, ProxyError> {
        let mut first = [0];
        match stream.peek(&mut first).await? {
            0 => Err(ProxyError::Ended),
            _ if first[0] != FIRST => Ok(None),
            _ if !self.is_one(from.ip()) => Err(ProxyError::Unasked),
            _ => read(stream).await.map(Some),
        }
    }

    /// Whether `certificate` is that of the lb host at `from`: then the client is not at the other end of this TLS.
    #[must_use]
    pub fn is_certificate_of_one(&self, certificate: &CertificateDer<'_>, from: IpAddr) -> bool {
        self.at(from).any(|lb| tls::is_certificate_of(certificate, &lb.name, lb.address.into()))
    }

    /// Whether `from` is the address of one.
    #[must_use]
    pub fn is_one(&self, from: IpAddr) -> bool {
        self.at(from).next().is_some()
    }

    fn at(&self, from: IpAddr) -> impl Iterator<Item = &LbHost> {
        let from = from.to_canonical();
        self.0.iter().filter(move |lb| IpAddr::V4(lb.address) == from)
    }
}

/// Takes the header, and no byte behind it.
async fn read(stream: &mut TcpStream) -> Result<Header, ProxyError> {
    let mut bytes = Vec::new();
    loop {
        match proxy_protocol::parse_v2(&bytes) {
            Parsed::Header { header, .. } => return Ok(header),
            Parsed::Invalid(invalid) => return Err(invalid.into()),
            Parsed::NeedMore => {}
        }
        // Bounded: a header that announces more than 4 kB is refused before that is read.
        let missing = proxy_protocol::length_v2(&bytes) - bytes.len();
        if stream.take(missing as u64).read_buf(&mut bytes).await? == 0 {
            return Err(ProxyError::Ended);
        }
    }
}
