//! Version 2 (RFC 3768 §5.3), with the simple password of its predecessor (RFC 2338 §5.3.6) as keepalived sends it.
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-------+-------+---------------+---------------+---------------+
//!  |Version| Type  |     VRID      |   Priority    | Address count |
//!  +-------+-------+---------------+---------------+---------------+
//!  |   Auth type   |Advert interval|           Checksum            |
//!  +---------------+---------------+-------------------------------+
//!  |                 IPv4 address 1 ... address n                  |
//!  +---------------------------------------------------------------+
//!  |                 Authentication data, 8 bytes                  |
//!  +---------------------------------------------------------------+
//! ```
//!
//! The interval counts seconds, and all routers must have the same. The checksum covers the message, authentication data
//! included, and nothing else, whether it goes to the group or to a peer. The password is readable to everyone on the link:
//! it keeps virtual routers of the same number apart, and nobody out.

use std::time::Duration;

use evermq_config::vip::AuthPass;

use super::{DecodeError, HEADER, Identity, MAX_LENGTH, Received, checksum, put, start};
use crate::fsm::Advert;

/// RFC 3768 §5.3.6.
const AUTH_NONE: u8 = 0;
/// RFC 2338 §5.3.6, which RFC 3768 no longer has.
const AUTH_SIMPLE: u8 = 1;

pub(super) fn encode(identity: &Identity, priority: u8, message: &mut [u8; MAX_LENGTH]) -> usize {
    let addresses_end = identity.write(priority, message);
    let (auth_type, auth_data) = expected(identity);
    message[4..8].copy_from_slice(&[auth_type, seconds(identity.interval), 0, 0]);
    let end = put(message, addresses_end, &auth_data);
    let checksum = checksum::of_version_2(&message[..end]);
    message[6..8].copy_from_slice(&checksum);
    end
}

pub(super) fn decode(received: &Received<'_>, identity: &Identity) -> Result<Advert, DecodeError> {
    let Received { source, message, .. } = *received;
    let (header, rest) = message.split_first_chunk::<HEADER>().ok_or(DecodeError::Length)?;
    let start = start(header)?;
    let (list, auth_data) = rest.split_last_chunk::<{ AuthPass::LENGTH }>().ok_or(DecodeError::Length)?;
    if source.is_ipv6() || start.count == 0 || list.len() != usize::from(start.count) * 4 {
        return Err(DecodeError::Length);
    }
    if !checksum::holds_for_version_2(message) {
        return Err(DecodeError::Checksum);
    }
    let priority = start.check(identity)?.priority;
    authenticate(header[4], auth_data, identity)?;
    identity.has_primary(list)?;
    // RFC 3768 §7.1: a router of another interval is discarded, for its silence could not be told.
    let interval = Duration::from_secs(header[5].into());
    if header[5] != seconds(identity.interval) {
        return Err(DecodeError::Interval(interval));
    }
    Ok(Advert { source, priority, interval })
}

/// RFC 3768 §7.1, RFC 2338 §7.1. Without a password the authentication data is ignored (RFC 3768 §5.3.6).
fn authenticate(theirs: u8, data: &[u8; AuthPass::LENGTH], identity: &Identity) -> Result<(), DecodeError> {
    let (ours, password) = expected(identity);
    if !matches!(theirs, AUTH_NONE | AUTH_SIMPLE) {
        return Err(DecodeError::AuthTypeUnknown(theirs));
    }
    if theirs != ours {
        return Err(DecodeError::AuthType { theirs, ours });
    }
    // All bytes, whichever differ: the time says nothing about how many were right.
    let difference = data.iter().zip(&password).fold(0, |difference, (theirs, ours)| difference | (theirs ^ ours));
    if ours == AUTH_SIMPLE && difference != 0 {
        return Err(DecodeError::AuthFailure);
    }
    Ok(())
}

fn expected(identity: &Identity) -> (u8, [u8; AuthPass::LENGTH]) {
    identity.auth_pass.as_ref().map_or((AUTH_NONE, [0; AuthPass::LENGTH]), |password| (AUTH_SIMPLE, *password.bytes()))
}

/// Whole seconds, in the byte that there is.
fn seconds(interval: Duration) -> u8 {
    u8::try_from(interval.as_secs()).map_or(u8::MAX, |count| count.max(1))
}
