//! CLAIM: a client has connected to the sender of the frame.
//!
//! ```text
//!  128 CLAIM              | time u64 | flags u8 | length u16 | client identifier | length u16 | user |
//! ```
//!
//! `time` is that of the stamp of the connection, whose origin is the sender of the frame. `flags`: 1, the client began with a clean
//! start just now; 2, its user is known, otherwise that is left empty.

use bytes::{Buf, BufMut, BytesMut};
use evermq_mqtt::Text;

/// The kind of the frame. Who does not know it ignores it.
pub(super) const KIND: u8 = 128;
/// The minor of version 1 that brought it.
pub(crate) const SINCE_MINOR: u8 = 1;

const CLEAN_START: u8 = 1;
const HAS_USER: u8 = 2;

/// CLAIM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Time of its stamp; the stamp's origin is the sender of the frame.
    pub(crate) time: u64,
    /// It began with a clean start, just now.
    pub(crate) clean_start: bool,
    /// Who has connected.
    pub(crate) client_id: Text,
    /// As which user, where that is known.
    pub(crate) user: Option<Text>,
}

/// Appends what follows the frame's header.
pub(super) fn put(claim: &Claim, out: &mut BytesMut) {
    let user = claim.user.as_ref();
    out.put_u64(claim.time);
    out.put_u8(if claim.clean_start { CLEAN_START } else { 0 } | if user.is_some() { HAS_USER } else { 0 });
    put_text(claim.client_id.as_str(), out);
    put_text(user.map_or("", Text::as_str), out);
}

/// Reads a body. Flags that are not known are ignored, like whatever a newer minor has appended.
pub(super) fn get(mut body: BytesMut) -> Option<Claim> {
    let time = body.try_get_u64().ok()?;
    let flags = body.try_get_u8().ok()?;
    let client_id = get_text(&mut body)?;
    let user = get_text(&mut body)?;
    let user = (flags & HAS_USER != 0).then_some(user);
    Some(Claim { time, clean_start: flags & CLEAN_START != 0, client_id, user })
}

/// Length of a body.
pub(crate) fn body(claim: &Claim) -> usize {
    13 + claim.client_id.as_str().len() + claim.user.as_ref().map_or(0, |user| user.as_str().len())
}

pub(super) fn put_text(text: &str, out: &mut BytesMut) {
    out.put_u16(u16::try_from(text.len()).expect("a text of MQTT has at most 65,535 bytes"));
    out.put_slice(text.as_bytes());
}

pub(super) fn get_text(body: &mut BytesMut) -> Option<Text> {
    let length = usize::from(body.try_get_u16().ok()?);
    if body.len() < length {
        return None;
    }
    // Bytes of its own: it may stay for longer than the read buffer should.
    Text::new(std::str::from_utf8(&body.split_to(length)).ok()?).ok()
}
