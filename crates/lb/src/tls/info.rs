//! What a TLS connection is, for logs and for the PROXY protocol header.

use evermq_daemon::tls;
use rustls::pki_types::CertificateDer;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsInfo<'a> {
    /// `TLSv1.3`, as OpenSSL and HAProxy write it.
    pub version: &'static str,
    /// Its registered name (RFC 8446 §B.4), such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// The protocol that was agreed on within it (RFC 7301).
    pub alpn: Option<&'a [u8]>,
    /// Whether it goes on with an earlier session.
    pub resumed: bool,
    /// Whether the client has shown a certificate; it was checked then.
    pub verified: bool,
}

/// Who a client is by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The common name.
    pub cn: Option<String>,
    /// The whole subject (RFC 4514), as `CN=device-7,O=plant`.
    pub dn: String,
}

impl<'a> TlsInfo<'a> {
    pub(super) fn of(state: &'a CommonState) -> Self {
        Self {
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(_) | None => "",
            },
            cipher: state
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .map_or("", |name| name.strip_prefix("TLS13_").map_or(name, tls13_name)),
            alpn: state.alpn_protocol(),
            resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
            verified: state.peer_certificates().is_some_and(|chain| !chain.is_empty()),
        }
    }
}

/// rustls marks the suites of TLS 1.3, the registry does not.
fn tls13_name(rest: &'static str) -> &'static str {
    match rest {
        "AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}

impl Identity {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        Some(Self { cn: tls::common_name(certificate), dn: tls::distinguished_name(certificate)? })
    }
}
