//! Version 3 (RFC 9568 §5.2).
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-------+-------+---------------+---------------+---------------+
//!  |Version| Type  |     VRID      |   Priority    | Address count |
//!  +-------+-------+---------------+---------------+---------------+
//!  | rsvd  | Max advertise interval|           Checksum            |
//!  +-------+-----------------------+-------------------------------+
//!  |            IPv4 or IPv6 address 1 ... address n               |
//!  +---------------------------------------------------------------+
//! ```
//!
//! The interval counts hundredths of a second.

use std::net::IpAddr;
use std::time::Duration;

use super::{DecodeError, HEADER, Identity, MAX_LENGTH, Received, checksum, start};
use crate::fsm::Advert;

/// Unit of the interval on the wire.
const CENTISECOND: Duration = Duration::from_millis(10);

pub(super) fn encode(
    identity: &Identity,
    priority: u8,
    source: IpAddr,
    destination: IpAddr,
    message: &mut [u8; MAX_LENGTH],
) -> usize {
    let end = identity.write(priority, message);
    message[4..6].copy_from_slice(&centiseconds(identity.interval).to_be_bytes());
    message[6..8].fill(0);
    let checksum = checksum::of_version_3(identity.checksum, source, destination, &message[..end]);
    message[6..8].copy_from_slice(&checksum);
    end
}

pub(super) fn decode(received: &Received<'_>, identity: &Identity) -> Result<Advert, DecodeError> {
    let Received { source, destination, message, .. } = *received;
    let (header, list) = message.split_first_chunk::<HEADER>().ok_or(DecodeError::Length)?;
    let start = start(header)?;
    let width = if source.is_ipv6() { 16 } else { 4 };
    if start.count == 0 || list.len() != usize::from(start.count) * width {
        return Err(DecodeError::Length);
    }
    if !checksum::holds_for_version_3(source, destination, message) {
        return Err(DecodeError::Checksum);
    }
    let priority = start.check(identity)?.priority;
    // A virtual router of the other family may have the same VRID (RFC 9568 §5.2.3).
    if width != identity.width() {
        return Err(DecodeError::AddressList);
    }
    identity.has_primary(list)?;
    // The upper four bits are reserved and ignored (RFC 9568 §5.2.6).
    let interval = CENTISECOND * u32::from(u16::from_be_bytes([header[4] & 0x0f, header[5]]));
    // A master-down interval of nothing would make every backup master.
    if interval.is_zero() {
        return Err(DecodeError::Interval(interval));
    }
    Ok(Advert { source, priority, interval })
}

/// Whole hundredths of a second, in the 12 bits that there are.
fn centiseconds(interval: Duration) -> u16 {
    u16::try_from(interval.as_millis() / CENTISECOND.as_millis()).map_or(0x0fff, |count| count.clamp(1, 0x0fff))
}
