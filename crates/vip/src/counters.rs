//! What was sent, received and discarded, by the names of RFC 8347, and of RFC 2787 for the passwords of VRRP 2.
//!
//! The real-time thread is the only writer; the control thread reads at any time, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::packet::DecodeError;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Every counter of the virtual router.
#[derive(Debug, Default, Serialize)]
pub struct Counters {
    /// Advertisements sent, of any priority.
    pub advertisement_sent: Counter,
    /// Advertisements received that passed every check.
    pub advertisement_rcvd: Counter,
    /// Advertisements sent with priority 0.
    pub priority_zero_pkts_sent: Counter,
    /// Advertisements received with priority 0.
    pub priority_zero_pkts_rcvd: Counter,
    /// Times that this host became master.
    pub master_transitions: Counter,
    /// Discarded: the checksum was wrong.
    pub checksum_errors: Counter,
    /// Discarded: another version of the protocol.
    pub version_errors: Counter,
    /// Discarded: another VRID.
    pub vrid_errors: Counter,
    /// Discarded: TTL below 255.
    pub ip_ttl_errors: Counter,
    /// Discarded: length and address count do not fit.
    pub packet_length_errors: Counter,
    /// Discarded: the VIP is not in the list.
    pub address_list_errors: Counter,
    /// Another interval than this host's (discarded in VRRP 2, accepted in VRRP 3), or none (discarded).
    pub interval_errors: Counter,
    /// Discarded: not an advertisement.
    pub invalid_type_pkts_rcvd: Counter,
    /// Discarded: an authentication type that does not exist (RFC 2787).
    pub invalid_auth_type: Counter,
    /// Discarded: a password where this host has none, or none where it has one (RFC 2787).
    pub auth_type_mismatch: Counter,
    /// Discarded: another password (RFC 2787).
    pub auth_failures: Counter,
    /// Gratuitous ARP frames sent.
    pub garp_sent: Counter,
    /// Advertisements and frames that the kernel would not send.
    pub send_errors: Counter,
    /// Times that someone else removed the VIP from the interface and it was put back.
    pub address_restored: Counter,
    /// Claims of an address of this virtual router by another host.
    pub conflicts: Counter,
}

/// What was done to tell clients that the VIP has moved here, of all virtual routers.
#[derive(Debug, Default, Serialize)]
pub struct TickleCounters {
    /// TCP segments sent to tell clients that the VIP has moved here.
    pub tickles_sent: Counter,
    /// Such segments that the kernel would not send.
    pub tickle_errors: Counter,
    /// Clients of other hosts that were told that the VIP has moved here.
    pub clients_told: Counter,
}

impl Counter {
    /// Counts one more.
    pub fn count(&self) {
        self.add(1);
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// The counter of discarded packets for `error`.
    #[must_use]
    pub fn discarded(&self, error: DecodeError) -> &Counter {
        match error {
            DecodeError::Ttl(_) => &self.ip_ttl_errors,
            DecodeError::Version { .. } => &self.version_errors,
            DecodeError::Type(_) => &self.invalid_type_pkts_rcvd,
            DecodeError::Length => &self.packet_length_errors,
            DecodeError::Checksum => &self.checksum_errors,
            DecodeError::Vrid(_) => &self.vrid_errors,
            DecodeError::AddressList => &self.address_list_errors,
            DecodeError::Interval(_) => &self.interval_errors,
            DecodeError::AuthTypeUnknown(_) => &self.invalid_auth_type,
            DecodeError::AuthType { .. } => &self.auth_type_mismatch,
            DecodeError::AuthFailure => &self.auth_failures,
        }
    }
}

impl Serialize for Counter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}
