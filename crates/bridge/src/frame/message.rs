//! ENTRY, ENTRY_BY and RETAINED: frames that hold a message, as an MQTT 5.0 PUBLISH packet.

use std::num::NonZeroU64;

use bytes::{Buf, BufMut, BytesMut};

use super::{HEADER, get_str8, header, put_str8};
use crate::message::Publisher;

/// The kind of ENTRY_BY, and the minor of the protocol from which on it is understood.
pub(super) const ENTRY_BY: u8 = 132;
/// Likewise.
pub(crate) const PUBLISHERS_SINCE_MINOR: u8 = 3;
/// Body of an ENTRY before its PUBLISH packet.
const ENTRY_FIELDS: usize = 24;
/// What ENTRY_BY has besides.
const PUBLISHER: usize = 8;
/// Most that a frame's body holds besides a PUBLISH packet.
pub(crate) const MAX_FIELDS: usize = ENTRY_FIELDS + 256;

/// ENTRY, or ENTRY_BY. The packet is read by [`crate::wire_message`], once it is known that it is no duplicate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What stands before the packet.
    pub(crate) head: Head,
    /// MQTT 5.0 PUBLISH packet, not yet read.
    pub(crate) packet: BytesMut,
}

/// What an ENTRY says of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its place in the origin's log.
    pub(crate) seq: u64,
    /// Milliseconds since the origin received it.
    pub(crate) age: u64,
    /// Time of its stamp; the stamp's origin is the sender of the frame.
    pub(crate) time: u64,
    /// Who published it, if that is said.
    pub(crate) publisher: Option<Publisher>,
}

impl Entry {
    /// Whether it is more than QoS 0, by the flags of its packet's first byte (§3.3.1); see [`crate::log::is_kept`].
    pub(crate) fn is_kept(&self) -> bool {
        self.packet.first().is_some_and(|flags| flags & 0b0111 != 0)
    }
}

/// RETAINED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retained {
    /// Milliseconds since its origin received it.
    pub(crate) age: u64,
    /// Time of its stamp.
    pub(crate) time: u64,
    /// Origin of its stamp.
    pub(crate) origin: String,
    /// MQTT 5.0 PUBLISH packet, not yet read.
    pub(crate) packet: BytesMut,
}

/// Appends an ENTRY up to its packet, which the caller appends: `packet` bytes.
pub(crate) fn entry_head(head: Head, packet: usize, out: &mut BytesMut) {
    let body = entry_body(head.publisher, packet);
    out.reserve(HEADER + body);
    header(body, if head.publisher.is_some() { ENTRY_BY } else { 3 }, out);
    out.put_u64(head.seq);
    out.put_u64(head.age);
    out.put_u64(head.time);
    if let Some(Publisher(publisher)) = head.publisher {
        out.put_u64(publisher.get());
    }
}

/// Length of the body of an ENTRY with a packet of `packet` bytes.
pub(crate) fn entry_body(publisher: Option<Publisher>, packet: usize) -> usize {
    ENTRY_FIELDS + if publisher.is_some() { PUBLISHER } else { 0 } + packet
}

/// Appends a RETAINED up to its packet, which the caller appends: `packet` bytes.
pub(crate) fn retained_head(age: u64, time: u64, origin: &str, packet: usize, out: &mut BytesMut) {
    out.reserve(HEADER + retained_body(origin, packet));
    header(retained_body(origin, packet), 4, out);
    out.put_u64(age);
    out.put_u64(time);
    put_str8(origin, out);
}

/// Length of the body of a RETAINED with a packet of `packet` bytes.
pub(crate) fn retained_body(origin: &str, packet: usize) -> usize {
    17 + origin.len() + packet
}

pub(super) fn get_entry(mut body: BytesMut) -> Option<Entry> {
    let mut fields = &body.first_chunk::<ENTRY_FIELDS>()?[..];
    let head = Head { seq: fields.get_u64(), age: fields.get_u64(), time: fields.get_u64(), publisher: None };
    body.advance(ENTRY_FIELDS);
    Some(Entry { head, packet: body })
}

pub(super) fn get_entry_by(body: BytesMut) -> Option<Entry> {
    let Entry { head, packet: mut rest } = get_entry(body)?;
    // A number that means nobody is no reason to go without the message.
    let publisher = NonZeroU64::new(rest.try_get_u64().ok()?).map(Publisher);
    Some(Entry { head: Head { publisher, ..head }, packet: rest })
}

pub(super) fn get_retained(mut body: BytesMut) -> Option<Retained> {
    let age = body.try_get_u64().ok()?;
    let time = body.try_get_u64().ok()?;
    let origin = get_str8(&mut body)?;
    Some(Retained { age, time, origin, packet: body })
}
