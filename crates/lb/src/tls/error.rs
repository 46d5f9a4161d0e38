//! Why the lb cannot end TLS.

use std::path::PathBuf;

use evermq_daemon::secret::SecretError;
use evermq_daemon::tls::RevocationError;
use rustls::pki_types::pem;

/// A file that is needed to end TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TerminationError {
    /// A file is missing, unreadable, or holds no PEM of the wanted kind.
    #[error("cannot read {what} from {path}: {source}; correct the path in the cluster file, or who may read the file \
             (root:evermq with mode 0640)", path = path.display())]
    File {
        /// What was wanted.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// A file without a certificate.
    #[error("{path} holds no certificate; put {what} there in PEM", path = path.display())]
    NoCertificate {
        /// What was wanted.
        what: &'static str,
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
    #[error("certificate {cert} and key {key} cannot be used: {source}; name a certificate and its own key",
            cert = cert.display(), key = key.display())]
    Pair {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// A certificate that no client can ask for.
    #[error("certificate {cert} names no DNS name (subject alternative name), so no client would ever get it; make one that \
             does, or take it out of [[lb.certificates]]", cert = cert.display())]
    Nameless {
        /// The certificate file.
        cert: PathBuf,
    },
    /// The revocation lists.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The verifier of clients' certificates cannot be made.
    #[error("clients' certificates cannot be checked: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// There is no key for session tickets.
    #[error(transparent)]
    TicketKey(#[from] SecretError),
    /// The versions and ciphers do not go together.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}
