//! ENTRY and RETAINED: frames that hold a message, as an MQTT 5.0 PUBLISH packet.

use bytes::{Buf, BufMut, BytesMut};

use super::{HEADER, get_str8, header, put_str8};

/// Body of an ENTRY before its PUBLISH packet.
const ENTRY_FIELDS: usize = 24;
/// Most that a frame's body holds besides a PUBLISH packet.
pub(crate) const MAX_FIELDS: usize = ENTRY_FIELDS + 256;

/// ENTRY. The packet is read by [`crate::wire_message`], once it is known that it is no duplicate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place in the origin's log.
    pub(crate) seq: u64,
    /// Milliseconds since the origin received it.
    pub(crate) age: u64,
    /// Time of its stamp; the stamp's origin is the sender of the frame.
    pub(crate) time: u64,
    /// MQTT 5.0 PUBLISH packet, not yet read.
    pub(crate) packet: BytesMut,
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
pub(crate) fn entry_head(seq: u64, age: u64, time: u64, packet: usize, out: &mut BytesMut) {
    out.reserve(HEADER + ENTRY_FIELDS + packet);
    header(ENTRY_FIELDS + packet, 3, out);
    out.put_u64(seq);
    out.put_u64(age);
    out.put_u64(time);
}

/// Length of the body of an ENTRY with a packet of `packet` bytes.
pub(crate) fn entry_body(packet: usize) -> usize {
    ENTRY_FIELDS + packet
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
    let (seq, age, time) = (fields.get_u64(), fields.get_u64(), fields.get_u64());
    body.advance(ENTRY_FIELDS);
    Some(Entry { seq, age, time, packet: body })
}

pub(super) fn get_retained(mut body: BytesMut) -> Option<Retained> {
    let age = body.try_get_u64().ok()?;
    let time = body.try_get_u64().ok()?;
    let origin = get_str8(&mut body)?;
    Some(Retained { age, time, origin, packet: body })
}
