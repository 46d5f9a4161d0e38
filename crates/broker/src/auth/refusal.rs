//! Why a client does not get in: what it is told, and what the operator is.

use evermq_mqtt::{ReasonCode, Version};

/// A client that may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No user of that name, or another password.
    BadPassword,
    /// Neither a certificate nor a password.
    Nobody,
    /// A certificate without the wanted name.
    Nameless,
    /// The load balancer does not say what the certificate is called.
    Untold,
    /// A certificate that has been revoked.
    Revoked,
    /// A user name, and no password or an empty one.
    NoPassword,
    /// Its address has tried too many passwords.
    TooOften,
    /// A user name, and nothing to check it by.
    Unchecked,
}

pub(super) const REASONS: usize = 8;

impl Refusal {
    /// For the CONNACK: 0x86 and 0x87 (§3.2.2.2). Before MQTT 5.0 5: 4 is for malformed ones (3.1.1 §3.2.2.3), which a user name
    /// without a password is not.
    #[must_use]
    pub const fn reason(self, version: Version) -> ReasonCode {
        match (self, version) {
            (Self::BadPassword | Self::NoPassword | Self::Unchecked, Version::V5) => ReasonCode::BadUserNameOrPassword,
            (Self::TooOften, _) => ReasonCode::ConnectionRateExceeded,
            (Self::BadPassword | Self::NoPassword | Self::Unchecked, Version::V3 | Version::V4)
            | (Self::Nobody | Self::Nameless | Self::Untold | Self::Revoked, _) => ReasonCode::NotAuthorized,
        }
    }

    /// For the log: why, and what to do.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BadPassword => {
                "no user of that name, or another password: `evermq passwd` sets it, `evermq reload` puts it in force"
            }
            Self::Unchecked => {
                "a user name, and no broker.auth.password_file to check it by: name one, give the client a certificate, or set \
                 anonymous for its listener"
            }
            Self::Nobody => {
                "neither a certificate nor a password, and broker.auth.anonymous does not let it in: give it one of them, or set \
                 anonymous for its listener"
            }
            Self::Revoked => "its certificate is in a revocation list of broker.auth.crl: make it another certificate",
            Self::NoPassword => {
                "a user name without a password, or with an empty one: give the client the password that `evermq passwd` was told"
            }
            Self::TooOften => {
                "too many wrong passwords from this address, or too many waiting: correct the client there that tries them; \
                 five in a second are looked at"
            }
            Self::Nameless => {
                "its certificate has no name of the kind that broker.auth.identity asks for, and it has no password: make it \
                 another certificate"
            }
            Self::Untold => {
                "TLS ended at a load balancer that tells the common name and the subject only, or the certificate is too long for \
                 its header: have it send the certificate too (evermq-lb does), let TLS pass through it, or set \
                 broker.auth.identity to \"cn\" or \"subject\""
            }
        }
    }
}
