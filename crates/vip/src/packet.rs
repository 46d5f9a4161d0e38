//! VRRP advertisements to and from bytes: version 3 over IPv4 and IPv6 (RFC 9568 §5), version 2 over IPv4 (RFC 3768 §5).
//!
//! | file | subject |
//! |---|---|
//! | `ip.rs` | what is taken from the IP header |
//! | `v2.rs`, `v3.rs` | one version's layout and its own checks |
//! | `checksum.rs` | the Internet checksum and the forms of it that routers send |
//! | `error.rs` | why an advertisement is discarded |
//!
//! Nothing here allocates: the real-time thread calls it for every packet.

mod checksum;
mod error;
mod ip;
mod v2;
mod v3;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use evermq_config::Vrid;
use evermq_config::vip::{AuthPass, Checksum, VrrpVersion};

pub use self::error::DecodeError;
pub use self::ip::{Received, split_ipv4};
use crate::fsm::Advert;

/// The IPv4 group of all VRRP routers (RFC 9568 §5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// The IPv6 group of all VRRP routers, of the link (RFC 9568 §5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// IP protocol number, and next header of IPv6 (RFC 9568 §5.1.1.4, §5.1.2.4).
pub const PROTOCOL: u8 = 112;

/// Every advertisement is sent with this TTL or hop limit, to a peer as to the group, and no other is accepted: it comes
/// from the same link (RFC 9568 §5.1.1.3, §5.1.2.3).
pub const TTL: u8 = 255;

/// Addresses that one virtual router may have.
pub const MAX_ADDRESSES: usize = 20;

/// Room for the longest advertisement that is sent: [`MAX_ADDRESSES`] of IPv6, or of IPv4 and a password.
pub const MAX_LENGTH: usize = HEADER + MAX_ADDRESSES * 16 + AuthPass::LENGTH;

/// Of both versions.
const HEADER: usize = 8;
const TYPE_ADVERTISEMENT: u8 = 1;

/// What the routers of one virtual router have to agree on.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its identifier in this network.
    pub vrid: Vrid,
    /// Version of the protocol on the wire.
    pub version: VrrpVersion,
    /// Its addresses, 1 to [`MAX_ADDRESSES`] of one family; the first one identifies it.
    pub addresses: Vec<IpAddr>,
    /// Advertisement_Interval: 10 ms to 40.95 s, or 1 s to 255 s in version 2.
    pub interval: Duration,
    /// The simple password of version 2.
    pub auth_pass: Option<AuthPass>,
    /// What the checksum of version 3 over IPv4 covers, as it is sent.
    pub checksum: Checksum,
}

/// The four bytes that both versions begin with.
#[derive(Debug, Clone, Copy)]
struct Start {
    vrid: u8,
    priority: u8,
    count: u8,
}

/// Writes the message of `identity` with `priority`, from `source` to `destination`. Gives its length.
pub fn encode(
    identity: &Identity,
    priority: u8,
    source: IpAddr,
    destination: IpAddr,
    message: &mut [u8; MAX_LENGTH],
) -> usize {
    match identity.version {
        VrrpVersion::V2 => v2::encode(identity, priority, message),
        VrrpVersion::V3 => v3::encode(identity, priority, source, destination, message),
    }
}

/// The checks of RFC 9568 §7.1, or RFC 3768 §7.1 for version 2.
///
/// # Errors
/// The first check that failed.
pub fn decode(received: &Received<'_>, identity: &Identity) -> Result<Advert, DecodeError> {
    if received.ttl != TTL {
        return Err(DecodeError::Ttl(received.ttl));
    }
    let (version, wanted) = (received.message.first().ok_or(DecodeError::Length)? >> 4, identity.number());
    if version != wanted {
        return Err(DecodeError::Version { theirs: version, ours: wanted });
    }
    match identity.version {
        VrrpVersion::V2 => v2::decode(received, identity),
        VrrpVersion::V3 => v3::decode(received, identity),
    }
}

impl Identity {
    fn number(&self) -> u8 {
        match self.version {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        }
    }

    /// Version, type, VRID, priority and count, and all addresses behind the header. Gives the length up to their end.
    fn write(&self, priority: u8, message: &mut [u8; MAX_LENGTH]) -> usize {
        let mut end = HEADER;
        let mut count = 0;
        for address in self.addresses.iter().take(MAX_ADDRESSES) {
            end = match address {
                IpAddr::V4(address) => put(message, end, &address.octets()),
                IpAddr::V6(address) => put(message, end, &address.octets()),
            };
            count += 1;
        }
        message[..4].copy_from_slice(&[self.number() << 4 | TYPE_ADVERTISEMENT, self.vrid.get(), priority, count]);
        end
    }

    /// More addresses than ours, or fewer, are another operator's choice; a router that has our first one is the master of
    /// this virtual router.
    fn has_primary(&self, list: &[u8]) -> Result<(), DecodeError> {
        let listed = match self.addresses.first() {
            Some(IpAddr::V4(primary)) => list.chunks_exact(4).any(|address| address == primary.octets()),
            Some(IpAddr::V6(primary)) => list.chunks_exact(16).any(|address| address == primary.octets()),
            None => false,
        };
        if listed { Ok(()) } else { Err(DecodeError::AddressList) }
    }

    /// Bytes of one address.
    fn width(&self) -> usize {
        if self.addresses.first().is_some_and(IpAddr::is_ipv6) { 16 } else { 4 }
    }
}

impl Start {
    fn check(self, identity: &Identity) -> Result<Self, DecodeError> {
        if self.vrid == identity.vrid.get() { Ok(self) } else { Err(DecodeError::Vrid(self.vrid)) }
    }
}

/// Type, VRID, priority and count; the version has been looked at.
fn start(header: &[u8; HEADER]) -> Result<Start, DecodeError> {
    let &[version_type, vrid, priority, count, ..] = header;
    match version_type & 0x0f {
        TYPE_ADVERTISEMENT => Ok(Start { vrid, priority, count }),
        other => Err(DecodeError::Type(other)),
    }
}

fn put(message: &mut [u8; MAX_LENGTH], at: usize, bytes: &[u8]) -> usize {
    message[at..at + bytes.len()].copy_from_slice(bytes);
    at + bytes.len()
}

#[cfg(test)]
mod tests;
