//! PUBACK, PUBREC, PUBREL and PUBCOMP (§3.4 to §3.7), and the properties that all acknowledgements share.
//!
//! ```text
//! bytes 1, 2  packet identifier
//! byte 3      reason code (5.0), may be left out with all that follows if it is 0
//! then        properties (5.0), may be left out if there are none
//! ```

use std::num::NonZeroU16;

use crate::packet::{Ack, Packet, PacketId, Version};
use crate::properties::AckProperties;
use crate::reason::ReasonCode;

use super::error::DecodeError;
use super::frame::PacketType;
use super::property::{Properties, PropertyId, WriteProperties, write_pairs, write_section, write_text};
use super::read::Reader;
use super::write::Sink;

/// Tables 3-4 and 3-5.
const RECEIVED: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
];

/// Tables 3-6 and 3-7.
const RELEASED: &[ReasonCode] = &[ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];

/// Reason codes of PUBACK and PUBREC, or of PUBREL and PUBCOMP (`[MQTT-3.4.2-1]`, `[MQTT-3.5.2-1]`, `[MQTT-3.6.2-1]`,
/// `[MQTT-3.7.2-1]`).
pub(super) const fn reasons(packet: PacketType) -> &'static [ReasonCode] {
    match packet {
        PacketType::PubAck | PacketType::PubRec => RECEIVED,
        _ => RELEASED,
    }
}

/// An acknowledgement that is nothing but its packet identifier, without taking a share of the buffer.
pub(super) fn decode_short(packet: PacketType, id: [u8; 2]) -> Result<Packet, DecodeError> {
    // [MQTT-2.2.1-3]
    let id = NonZeroU16::new(u16::from_be_bytes(id)).ok_or(DecodeError::PacketIdZero)?;
    let ack = Ack { packet_id: PacketId(id), reason: ReasonCode::Success, properties: None };
    Ok(match packet {
        PacketType::PubAck => Packet::PubAck(ack),
        PacketType::PubRec => Packet::PubRec(ack),
        PacketType::PubRel => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    })
}

/// The same the other way.
pub(super) fn encode_short(packet: &Packet) -> Option<[u8; 4]> {
    let (kind, ack) = match packet {
        Packet::PubAck(ack) => (PacketType::PubAck, ack),
        Packet::PubRec(ack) => (PacketType::PubRec, ack),
        Packet::PubRel(ack) => (PacketType::PubRel, ack),
        Packet::PubComp(ack) => (PacketType::PubComp, ack),
        _ => return None,
    };
    if ack.reason != ReasonCode::Success || ack.properties.is_some() {
        return None;
    }
    let [high, low] = ack.packet_id.0.get().to_be_bytes();
    Some([(kind as u8) << 4 | kind.fixed_flags(), 2, high, low])
}

pub(super) fn decode(packet: PacketType, mut body: Reader, version: Version) -> Result<Ack, DecodeError> {
    let packet_id = body.packet_id()?;
    let mut ack = Ack { packet_id, reason: ReasonCode::Success, properties: None };
    if version == Version::V5 {
        // §3.4.2.1: a remaining length of 2 means Success.
        if !body.is_empty() {
            ack.reason = body.reason(packet, reasons(packet))?;
        }
        // §3.4.2.2.1: below 4 there is no property length.
        if !body.is_empty() {
            ack.properties = read_properties(&mut body)?;
        }
    }
    body.finish()?;
    Ok(ack)
}

/// Reads a section of Reason String and User Property; `None` where it is empty.
pub(super) fn read_properties(body: &mut Reader) -> Result<Option<Box<AckProperties>>, DecodeError> {
    let mut section = Properties::read(body)?;
    if section.is_empty() {
        return Ok(None);
    }
    let mut found = Box::<AckProperties>::default();
    while let Some(id) = section.next()? {
        match id {
            PropertyId::ReasonString => found.reason_string = section.text(id)?,
            PropertyId::UserProperty => found.user_properties.push(section.pair()?),
            _ => return Err(DecodeError::PropertyNotAllowed(id)),
        }
    }
    Ok(Some(found))
}

pub(super) fn encode<S: Sink>(ack: &Ack, version: Version, out: &mut S) {
    out.packet_id(ack.packet_id);
    if version != Version::V5 {
        return;
    }
    let properties = ack.properties.as_deref().filter(|properties| **properties != AckProperties::default());
    if ack.reason != ReasonCode::Success || properties.is_some() {
        out.u8(ack.reason as u8);
    }
    if let Some(properties) = properties {
        write_section(out, properties);
    }
}

/// Writes a section where the packet always has one.
pub(super) fn write_properties<S: Sink>(properties: Option<&AckProperties>, out: &mut S) {
    match properties {
        Some(properties) => write_section(out, properties),
        None => out.integer(0),
    }
}

impl WriteProperties for AckProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        write_text(out, PropertyId::ReasonString, self.reason_string.as_ref());
        write_pairs(out, &self.user_properties);
    }
}
