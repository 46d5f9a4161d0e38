//! Why an advertisement was discarded: one for each counter of RFC 9568's MIB (RFC 8347), and of RFC 2787 for version 2.

use std::time::Duration;

/// Why an advertisement was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// `ip-ttl-errors`.
    #[error(
        "TTL is {0}, not 255: it was forwarded, forged from another network, or sent by a keepalived that needs \
         unicast_ttl 255"
    )]
    Ttl(u8),
    /// `version-errors`.
    #[error("VRRP version is {theirs}, not {ours}; set both routers to one version")]
    Version {
        /// On the wire.
        theirs: u8,
        /// This virtual router's.
        ours: u8,
    },
    /// `invalid-type-pkts-rcvd`.
    #[error("packet type is {0}, not 1 (advertisement)")]
    Type(u8),
    /// `packet-length-errors`.
    #[error("packet length does not fit its address count")]
    Length,
    /// `checksum-errors`.
    #[error("checksum is wrong")]
    Checksum,
    /// `vrid-errors`.
    #[error("VRID {0} is another virtual router's")]
    Vrid(u8),
    /// RFC 2787 `vrrpStatsInvalidAuthType`.
    #[error("authentication type {0} is unknown; set none or a simple password on the other router")]
    AuthTypeUnknown(u8),
    /// RFC 2787 `vrrpStatsAuthTypeMismatch`.
    #[error("authentication type is {theirs}, not {ours}; set one password on all routers, or on none")]
    AuthType {
        /// On the wire.
        theirs: u8,
        /// This virtual router's: 0 for none, 1 for a simple password.
        ours: u8,
    },
    /// RFC 2787 `vrrpStatsAuthFailures`.
    #[error("password is another one; set one password on all routers")]
    AuthFailure,
    /// `address-list-errors`.
    #[error("the VIP is not in its address list; two virtual routers use one VRID, or their addresses differ")]
    AddressList,
    /// `interval-errors`.
    #[error("its advertisement interval is {0:?}: zero is none, and in VRRP 2 all routers must have the same")]
    Interval(Duration),
}

impl DecodeError {
    /// How many causes there are.
    pub const KINDS: usize = 11;

    /// Which one it is, below [`Self::KINDS`], whatever its details.
    #[must_use]
    pub fn kind(self) -> usize {
        match self {
            Self::Ttl(_) => 0,
            Self::Version { .. } => 1,
            Self::Type(_) => 2,
            Self::Length => 3,
            Self::Checksum => 4,
            Self::Vrid(_) => 5,
            Self::AuthTypeUnknown(_) => 6,
            Self::AuthType { .. } => 7,
            Self::AuthFailure => 8,
            Self::AddressList => 9,
            Self::Interval(_) => 10,
        }
    }
}
