//! Why a TLS connection ended before its time.

/// Why a TLS connection is of no more use. A client's doing, as a rule.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The other side broke the protocol, is of an unwanted version, or has no good certificate.
    #[error("{0}")]
    Protocol(#[from] rustls::Error),
    /// A resumed session of a certificate that has been revoked since.
    #[error("the client's certificate has been revoked since the session began")]
    Revoked,
    /// A resumed session of a certificate that has expired since.
    #[error("the client's certificate has expired since the session began")]
    Expired,
    /// A handshake message of a size that nobody needs, or in pieces where nobody cuts it up.
    #[error("a handshake message is too large or in too many pieces")]
    TooLarge,
    /// The keys have served for as much as they may.
    #[error("the session's keys are used up")]
    Exhausted,
    /// It had ended before.
    #[error("the TLS connection has ended")]
    Ended,
}
