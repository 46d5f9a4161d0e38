//! The Internet checksum (RFC 1071), behind a pseudo-header or without one.
//!
//! RFC 9568 §5.2.8 puts a pseudo-header of source, destination, protocol and length before the message, for IPv4 as for
//! IPv6. Two more forms are in use over IPv4: keepalived's `old_unicast_checksum` has the group as destination though the
//! packet goes to a peer, and some routers have no pseudo-header at all, as in VRRP 2, since RFC 5798 could be read so.

use std::net::IpAddr;

use evermq_config::vip::Checksum;

use super::{GROUP_V4, PROTOCOL};

/// What to put into the checksum field of `message`, which is zero there. Over IPv6 there is one form only.
pub(super) fn of_version_3(form: Checksum, source: IpAddr, destination: IpAddr, message: &[u8]) -> [u8; 2] {
    let before = match form {
        _ if source.is_ipv6() => pseudo_header(source, destination, message.len()),
        Checksum::Rfc => pseudo_header(source, destination, message.len()),
        Checksum::OldUnicast => pseudo_header(source, GROUP_V4.into(), message.len()),
        Checksum::NoPseudoHeader => 0,
    };
    (!fold(before + sum(message))).to_be_bytes()
}

/// Whether the checksum of a version 3 message is right in any form.
pub(super) fn holds_for_version_3(source: IpAddr, destination: IpAddr, message: &[u8]) -> bool {
    let holds = |before| fold(before + sum(message)) == 0xffff;
    holds(pseudo_header(source, destination, message.len()))
        || (source.is_ipv4() && (holds(pseudo_header(source, GROUP_V4.into(), message.len())) || holds(0)))
}

/// What to put into the checksum field of a version 2 `message`, which is zero there (RFC 3768 §5.3.8).
pub(super) fn of_version_2(message: &[u8]) -> [u8; 2] {
    (!fold(sum(message))).to_be_bytes()
}

/// Whether the checksum of a version 2 message is right.
pub(super) fn holds_for_version_2(message: &[u8]) -> bool {
    fold(sum(message)) == 0xffff
}

/// The words of IPv6's longer fields (RFC 8200 §8.1) add up to the same: what they have more is zero.
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> u64 {
    sum_of(source) + sum_of(destination) + u64::from(PROTOCOL) + length as u64
}

fn sum_of(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
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
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_rfc_1071s() {
        // RFC 1071 §3.
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(fold(sum(&[0x12])), 0x1200);
        assert_eq!(fold(0x1_ffff), 1);
    }
}
