//! TLS from PEM files, and what to do about a handshake that failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore,
    SignatureScheme,
};

use super::failure::Failure;

/// How to speak TLS with the server.
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    ca: PathBuf,
    cert: Option<PathBuf>,
}

impl Tls {
    /// Reads the files. `pair` is the client's certificate chain and its key.
    pub(super) fn load(ca: &Path, pair: Option<(&Path, &Path)>, host: &str, insecure: bool) -> Result<Self, Failure> {
        let server_name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::Usage(format!("-h: {host} is neither a host name nor an address")))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, "--cafile")? {
            roots.add(certificate).map_err(|error| usage("--cafile", ca, &error))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| usage("--cafile", ca, &error))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let builder = if insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
        } else {
            builder.with_webpki_verifier(verifier)
        };
        let config = match pair {
            Some((cert, key)) => {
                let chain = certificates(cert, "--cert")?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| usage("--key", key, &error))?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| {
                    let (cert, key) = (cert.display(), key.display());
                    Failure::Usage(format!("certificate {cert} and key {key} do not go together: {error}"))
                })?
            }
            None => builder.with_no_client_auth(),
        };
        let cert = pair.map(|(cert, _)| cert.to_owned());
        Ok(Self { config: Arc::new(config), server_name, ca: ca.to_owned(), cert })
    }

    /// The failure that an I/O error on this connection means, if it is about TLS.
    ///
    /// With TLS 1.3 a server refuses a client's certificate only after the client has finished its handshake, so errors
    /// of the first reads belong here too.
    pub(super) fn failure(&self, server: &str, error: &io::Error) -> Option<Failure> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(Failure::Tls { server: server.to_owned(), text: self.explain(error) })
    }

    fn explain(&self, error: &rustls::Error) -> String {
        match error {
            rustls::Error::InvalidCertificate(error) => self.explain_certificate(error),
            rustls::Error::AlertReceived(alert) => self.explain_alert(*alert),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                "the server does not speak TLS there; leave out --cafile, or choose its TLS port with -p".to_owned()
            }
            other => other.to_string(),
        }
    }

    fn explain_certificate(&self, error: &CertificateError) -> String {
        let ca = self.ca.display();
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("the server's certificate is not signed by the CA in {ca}; give its CA with --cafile")
            }
            CertificateError::NotValidForName => {
                format!("the server's certificate is not for {}; connect by its name with -h", self.name())
            }
            CertificateError::NotValidForNameContext { presented, .. } => format!(
                "the server's certificate is not for {} but for {}; connect by one of these with -h",
                self.name(),
                presented.join(", ")
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired; the server needs a new one (is this host's clock right?)"
                    .to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet; is this host's clock right?".to_owned()
            }
            other => format!("the server's certificate is not accepted: {other}"),
        }
    }

    fn explain_alert(&self, alert: AlertDescription) -> String {
        let Some(cert) = &self.cert else {
            return match alert {
                AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                    "the server asks for a client certificate; give one with --cert and --key".to_owned()
                }
                other => format!("the server refused the handshake: {other:?}"),
            };
        };
        let cert = cert.display();
        match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                format!("the server does not trust the CA that signed {cert}; give another with --cert and --key")
            }
            AlertDescription::CertificateExpired => format!("{cert} has expired; make a new one"),
            AlertDescription::CertificateRevoked => format!("{cert} has been revoked; make a new one"),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => {
                format!("the server refused {cert}: {alert:?}; is it a client's certificate of the server's CA?")
            }
            other => format!("the server refused the handshake: {other:?}"),
        }
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.server_name.to_str()
    }
}

fn certificates(path: &Path, flag: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| usage(flag, path, &error))?;
    if found.is_empty() {
        return Err(Failure::Usage(format!("{flag}: {} holds no certificate in PEM", path.display())));
    }
    Ok(found)
}

fn usage(flag: &str, path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::Usage(format!("{flag}: cannot use {}: {error}", path.display()))
}

/// `--insecure`: checks all of a certificate but its name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is the last thing that the verifier checks: chain and dates are good by then.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
