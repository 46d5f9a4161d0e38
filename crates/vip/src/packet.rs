//! VRRP version 3 advertisements over IPv4, to and from bytes (RFC 9568 §5).
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-------+-------+---------------+---------------+---------------+
//!  |Version| Type  |     VRID      |   Priority    | Address count |
//!  +-------+-------+---------------+---------------+---------------+
//!  | rsvd  | Max advertise interval|           Checksum            |
//!  +-------+-----------------------+-------------------------------+
//!  |                 IPv4 address 1 ... address n                  |
//!  +---------------------------------------------------------------+
//! ```
//!
//! The interval counts hundredths of a second. The checksum covers the message behind a pseudo-header of source,
//! destination, protocol and length (RFC 9568 §5.2.8), as keepalived sends it. Two more forms are in use and accepted:
//! keepalived's `old_unicast_checksum`, which has the group as destination though the packet goes to a peer, and no
//! pseudo-header at all, as in VRRP 2.

use std::net::Ipv4Addr;
use std::time::Duration;

use evermq_config::Vrid;

use crate::fsm::Advert;

/// The IPv4 group of all VRRP routers (RFC 9568 §5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// IP protocol number (RFC 9568 §5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// Every advertisement is sent with this TTL, and no other is accepted: it comes from the same link (RFC 9568 §5.1.1.3).
pub const TTL: u8 = 255;

/// Bytes of an advertisement for one address.
pub const LENGTH: usize = HEADER + 4;

const HEADER: usize = 8;
const VERSION: u8 = 3;
const TYPE_ADVERTISEMENT: u8 = 1;
/// Unit of the interval on the wire.
const CENTISECOND: Duration = Duration::from_millis(10);

/// What a virtual router says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Its identifier in this network.
    pub vrid: Vrid,
    /// Its address.
    pub address: Ipv4Addr,
    /// Advertisement_Interval, 10 ms to 40.95 s.
    pub interval: Duration,
}

/// Why an advertisement was discarded: one for each counter of RFC 8347.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// `ip-ttl-errors`.
    #[error("TTL is {0}, not 255: it was forwarded, or forged from another network")]
    Ttl(u8),
    /// `version-errors`.
    #[error("VRRP version is {0}, not 3; set the other router to version 3")]
    Version(u8),
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
    /// `address-list-errors`.
    #[error("the VIP is not in its address list; two virtual routers use one VRID, or their addresses differ")]
    AddressList,
    /// `interval-errors`.
    #[error("its advertisement interval is zero")]
    Interval,
}

/// The message of `identity` with `priority`, from `source` to `destination`.
#[must_use]
pub fn encode(identity: &Identity, priority: u8, source: Ipv4Addr, destination: Ipv4Addr) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = VERSION << 4 | TYPE_ADVERTISEMENT;
    message[1] = identity.vrid.get();
    message[2] = priority;
    message[3] = 1;
    message[4..6].copy_from_slice(&centiseconds(identity.interval).to_be_bytes());
    message[8..].copy_from_slice(&identity.address.octets());
    let checksum = !fold(pseudo_header(source, destination, LENGTH) + sum(&message));
    message[6..8].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The checks of RFC 9568 §7.1 on `packet`, an IPv4 packet with its header as a raw socket gives it.
///
/// # Errors
/// The first check that failed.
pub fn decode(packet: &[u8], identity: &Identity) -> Result<Advert, DecodeError> {
    let Ip { source, destination, ttl, message } = split(packet)?;
    if ttl != TTL {
        return Err(DecodeError::Ttl(ttl));
    }
    let (header, addresses) = message.split_first_chunk::<HEADER>().ok_or(DecodeError::Length)?;
    let &[version_type, vrid, priority, count, interval_high, interval_low, _, _] = header;
    if version_type >> 4 != VERSION {
        return Err(DecodeError::Version(version_type >> 4));
    }
    if version_type & 0x0f != TYPE_ADVERTISEMENT {
        return Err(DecodeError::Type(version_type & 0x0f));
    }
    if count == 0 || addresses.len() != usize::from(count) * 4 {
        return Err(DecodeError::Length);
    }
    if !checksum_holds(source, destination, message) {
        return Err(DecodeError::Checksum);
    }
    if vrid != identity.vrid.get() {
        return Err(DecodeError::Vrid(vrid));
    }
    // More addresses than ours are another operator's choice; that router is still the master of this one.
    if !addresses.chunks_exact(4).any(|address| address == identity.address.octets()) {
        return Err(DecodeError::AddressList);
    }
    // The upper four bits are reserved and ignored (RFC 9568 §5.2.6).
    let interval = CENTISECOND * u32::from(u16::from_be_bytes([interval_high & 0x0f, interval_low]));
    // A master-down interval of nothing would make every backup master.
    if interval.is_zero() {
        return Err(DecodeError::Interval);
    }
    Ok(Advert { source, priority, interval })
}

/// The sender of an IPv4 packet, for telling whose advertisement was discarded.
#[must_use]
pub fn source(packet: &[u8]) -> Option<Ipv4Addr> {
    packet.get(12..16).and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(Ipv4Addr::from)
}

/// What stands in an IPv4 header that VRRP looks at.
struct Ip<'a> {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    message: &'a [u8],
}

/// ```text
///  |Version|  IHL  |      TOS      |         Total length          |
///  |        Identification         |Flags|     Fragment offset     |
///  |      TTL      |   Protocol    |        Header checksum        |
///  |                            Source                             |
///  |                          Destination                          |
///  |                            Options                            |
/// ```
/// The kernel has checked the header; the length is checked again because the buffer may be shorter than the packet.
fn split(packet: &[u8]) -> Result<Ip<'_>, DecodeError> {
    let header = packet.first_chunk::<20>().ok_or(DecodeError::Length)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let message = packet.get(header_length.max(20)..total_length).ok_or(DecodeError::Length)?;
    Ok(Ip {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
        ttl: header[8],
        message,
    })
}

/// Whole hundredths of a second, in the 12 bits that there are.
fn centiseconds(interval: Duration) -> u16 {
    u16::try_from(interval.as_millis() / CENTISECOND.as_millis()).map_or(0x0fff, |count| count.clamp(1, 0x0fff))
}

fn checksum_holds(source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> bool {
    let message_sum = sum(message);
    [pseudo_header(source, destination, message.len()), pseudo_header(source, GROUP, message.len()), 0]
        .into_iter()
        .any(|pseudo_header| fold(pseudo_header + message_sum) == 0xffff)
}

fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> u64 {
    sum(&source.octets()) + sum(&destination.octets()) + u64::from(PROTOCOL) + length as u64
}

/// Sum of the 16-bit words; an odd byte counts as the upper half of one.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum()
}

/// One's complement sum in 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests;
