//! What VRRP looks at in an IP header.

use std::net::{IpAddr, Ipv4Addr};

use super::DecodeError;

/// A message with what its IP header said.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom: a group or this host.
    pub destination: IpAddr,
    /// TTL or hop limit on arrival.
    pub ttl: u8,
    /// What comes after the IP header.
    pub message: &'a [u8],
}

/// Takes an IPv4 packet with its header, as a raw socket of IPv4 gives it, apart. One of IPv6 gives the message alone.
///
/// ```text
///  |Version|  IHL  |      TOS      |         Total length          |
///  |        Identification         |Flags|     Fragment offset     |
///  |      TTL      |   Protocol    |        Header checksum        |
///  |                            Source                             |
///  |                          Destination                          |
///  |                            Options                            |
/// ```
///
/// The kernel has checked the header; the length is checked again because the buffer may be shorter than the packet.
///
/// # Errors
/// The packet is shorter than it says.
pub fn split_ipv4(packet: &[u8]) -> Result<Received<'_>, DecodeError> {
    let header = packet.first_chunk::<20>().ok_or(DecodeError::Length)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let message = packet.get(header_length.max(20)..total_length).ok_or(DecodeError::Length)?;
    Ok(Received {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        ttl: header[8],
        message,
    })
}
