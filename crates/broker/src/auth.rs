//! Who a client is.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

/// A client's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Came over plain TCP.
    Anonymous,
    /// Showed a certificate that chains to the cluster's CA; its common name, empty if it has none.
    Certificate(Arc<str>),
}

impl Identity {
    /// Whose certificate it is. `chain` is what the client showed, its own first; the handshake has checked it.
    #[must_use]
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        match chain.and_then(|chain| chain.first()) {
            Some(own) => Self::Certificate(evermq_daemon::tls::common_name(own).unwrap_or_default().into()),
            None => Self::Anonymous,
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
