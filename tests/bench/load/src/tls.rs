//! Certificates of a client, as mosquitto's clients name them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// With all three: mutual TLS. With none: plain TCP.
#[derive(Debug, Clone, Args)]
pub(crate) struct TlsArgs {
    /// CA certificates, PEM
    #[arg(long, requires = "cert", requires = "key")]
    cafile: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long)]
    cert: Option<PathBuf>,
    /// Client key, PEM
    #[arg(long)]
    key: Option<PathBuf>,
}

/// Makes TLS connections; none for plain TCP.
pub(crate) type Connector = Option<tokio_rustls::TlsConnector>;

impl TlsArgs {
    pub(crate) fn connector(&self) -> anyhow::Result<Connector> {
        let (Some(ca), Some(cert), Some(key)) = (&self.cafile, &self.cert, &self.key) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate)?;
        }
        let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(cert)?, key)?;
        Ok(Some(Arc::new(config).into()))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.with_context(|| path.display().to_string())
}

pub(crate) fn server_name(address: SocketAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.ip().into())
}
