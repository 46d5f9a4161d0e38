//! Certificates of this host, and who the other side is.
//!
//! Both sides always prove themselves: a server asks for a certificate that chains to the cluster's CA, and a client checks
//! that the server's certificate is that of the host it meant. TLS 1.2 and 1.3.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use evermq_config::broker::ClientCertificates;
use evermq_config::{HostName, TlsFiles};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

mod fault;
mod name;
mod output;
mod records;
mod revocation;

pub use fault::TlsFault;
pub use name::{distinguished_name, first_dns_name, first_uri};
pub use output::Output;
pub use records::{MAX_HANDSHAKE, Received, Records, Unbuffered};
pub use revocation::{CertificateId, RevocationError, Revocations};

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable, or holds no PEM of the wanted kind.
    #[error("cannot read {what} from {path}: {source}; `evermq check` shows every problem of this kind", path = path.display())]
    File {
        /// What was wanted.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// The CA file has no certificate.
    #[error("{path} holds no CA certificate; put the cluster's CA there in PEM", path = path.display())]
    NoCa {
        /// Where.
        path: PathBuf,
    },
    /// A CA certificate that is none.
    #[error("{path} holds a CA certificate that cannot be used: {source}", path = path.display())]
    BadCa {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Certificate and key are refused, as a rule because they do not belong together.
    #[error("certificate {cert} and key {key} cannot be used: {source}", cert = cert.display(), key = key.display())]
    Pair {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The revocation lists.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The verifier cannot be built.
    #[error("cannot build the certificate verifier: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// When the host's certificate that was loaded last ends, in seconds since 1970.
static UNTIL: AtomicI64 = AtomicI64::new(NEVER);
const NEVER: i64 = i64::MIN;

/// When this host's certificate ends, as this process has read it last: in seconds since 1970. None where it has read none.
#[must_use]
pub fn certificate_until() -> Option<i64> {
    Some(UNTIL.load(Ordering::Relaxed)).filter(|until| *until != NEVER)
}

/// When a certificate ends, in seconds since 1970.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// The CA, this host's certificate chain and its key.
pub struct Material {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    revocations: Arc<Revocations>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Material {
    /// Reads the three files.
    ///
    /// # Errors
    /// A file is missing or unreadable or holds something else.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca, "the CA certificates")? {
            roots.add(certificate).map_err(|source| TlsError::BadCa { path: files.ca.clone(), source })?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoCa { path: files.ca.clone() });
        }
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
            what: "the private key",
            path: files.key.clone(),
            source,
        })?;
        let chain = certificates(&files.cert, "the host's certificate")?;
        if let Some(until) = chain.first().and_then(not_after) {
            UNTIL.store(until, Ordering::Relaxed);
        }
        Ok(Self {
            files: files.clone(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            roots: Arc::new(roots),
            chain,
            key,
            revocations: Arc::default(),
        })
    }

    /// With lists of certificates that clients may show no more. `setting` is where the cluster file names them, `wall` the
    /// time since 1970.
    ///
    /// # Errors
    /// A list cannot be used or has expired, or one of the authorities has none.
    pub fn revoking(self, setting: &'static str, lists: &[PathBuf], wall: Duration) -> Result<Self, TlsError> {
        let revocations = Revocations::load(setting, lists, wall)?;
        revocations.check_covered(&certificates(&self.files.ca, "the CA certificates")?, &self.files.ca)?;
        Ok(Self { revocations: Arc::new(revocations), ..self })
    }

    /// The lists.
    #[must_use]
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// For a server that only talks to those whose certificate chains to the CA.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        self.server_config_for(ClientCertificates::Required)
    }

    /// For a server that asks its clients for certificates, or does not. One that is shown must chain to the CA.
    ///
    /// Every handshake is a full one: a resumed session would bring back a certificate that may have expired or been revoked
    /// since.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn server_config_for(&self, clients: ClientCertificates) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = self.client_verifier(clients)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_client_cert_verifier(verifier).with_single_cert(self.chain.clone(), self.key.clone_key())
            })
            .map_err(|source| self.bad_pair(source))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn client_verifier(&self, clients: ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = || {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider))
                .with_crls(self.revocations.lists().iter().cloned())
        };
        Ok(match clients {
            ClientCertificates::Required => builder().build()?,
            ClientCertificates::Optional => builder().allow_unauthenticated().build()?,
            ClientCertificates::Off => Arc::new(NoClientAuth),
        })
    }

    /// For a client that shows this host's certificate and only talks to `host`, known by its name or by `address`.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn client_config_for(&self, host: &HostName, address: IpAddr) -> Result<Arc<ClientConfig>, TlsError> {
        tracing::trace!(%host, %address, "client certificate verifier ready");
        self.client_config_at(address)
    }

    /// The same for a server that is no host of the cluster: known by the name that the connection asks for, or by
    /// `address`.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn client_config_at(&self, address: IpAddr) -> Result<Arc<ClientConfig>, TlsError> {
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider)).build()?;
        let verifier = HostVerifier { chain, address: ServerName::IpAddress(address.into()) };
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
                    .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            })
            .map_err(|source| self.bad_pair(source))?;
        Ok(Arc::new(config))
    }

    fn bad_pair(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair { cert: self.files.cert.clone(), key: self.files.key.clone(), source }
    }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File { what, path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)
}

/// The name to ask a host for.
#[must_use]
pub fn server_name(host: &HostName) -> ServerName<'static> {
    ServerName::try_from(host.as_str().to_owned()).expect("a host name is a DNS label")
}

/// Whether `certificate` was made for `host`: its subject alternative names hold the name or the address. Says nothing of
/// who signed it: the handshake has checked that.
#[must_use]
pub fn is_certificate_of(certificate: &CertificateDer<'_>, host: &HostName, address: IpAddr) -> bool {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return false };
    [server_name(host), ServerName::IpAddress(address.into())]
        .iter()
        .any(|name| parsed.verify_is_valid_for_subject_name(name).is_ok())
}

/// The certificate's first common name (RFC 5280 §4.1.2.6): how devices are named.
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// Accepts a server's certificate that is valid for the name asked for or for the address connected to, so that
/// certificates made elsewhere need carry only one of the two.
#[derive(Debug)]
struct HostVerifier {
    chain: Arc<WebPkiServerVerifier>,
    address: ServerName<'static>,
}

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by =
            |name: &ServerName<'_>| self.chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        match by(server_name) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => by(&self.address),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
