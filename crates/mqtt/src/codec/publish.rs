//! PUBLISH (§3.3).
//!
//! ```text
//!  bit      7   6   5   4    3     2   1     0
//!         +---------------+-----+---------+--------+
//! byte 1  |       3       | DUP |   QoS   | RETAIN |
//!         +---------------+-----+---------+--------+
//! then    remaining length, topic name, packet identifier (QoS 1 and 2), properties (5.0), payload
//! ```

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};

use crate::packet::{PacketId, Publish, QoS, Version};
use crate::properties::PublishProperties;
use crate::topic::{TopicError, TopicName};

use super::check;
use super::error::{DecodeError, EncodeError};
use super::frame::{PacketType, integer_len};
use super::property::{
    Properties, PropertyId, WriteProperties, write_binary, write_flag, write_pairs, write_section,
    write_subscription_id, write_text, write_u16, write_u32,
};
use super::read::Reader;
use super::write::{Sink, count};

const DUP: u8 = 0x08;
const QOS_SHIFT: u8 = 1;
const RETAIN: u8 = 0x01;
/// Bytes of the property Topic Alias.
const ALIAS_LEN: usize = 3;

#[inline]
pub(super) fn decode(flags: u8, mut body: Reader, version: Version) -> Result<Publish, DecodeError> {
    // [MQTT-3.3.1-4]
    let qos = QoS::from_bits(flags >> QOS_SHIFT & 3).ok_or(DecodeError::InvalidQoS)?;
    let dup = flags & DUP != 0;
    // [MQTT-3.3.1-2]
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::DupAtQoS0);
    }
    let topic = body.topic_name()?;
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(body.packet_id()?) };
    let properties = if version == Version::V5 { read_properties(&mut body)? } else { None };
    check_topic(&topic, properties.as_deref(), version)?;
    Ok(Publish { dup, qos, retain: flags & RETAIN != 0, topic, packet_id, properties, payload: body.rest() })
}

fn check_topic(topic: &TopicName, properties: Option<&PublishProperties>, version: Version) -> Result<(), DecodeError> {
    if !topic.as_str().is_empty() || properties.is_some_and(|properties| properties.topic_alias.is_some()) {
        return Ok(());
    }
    // §3.3.2.1 calls it a protocol error; before MQTT 5.0 it is an empty topic name ([MQTT-4.7.3-1]).
    match version {
        Version::V5 => Err(DecodeError::NoTopic),
        Version::V3 | Version::V4 => Err(DecodeError::TopicName(TopicError::Empty)),
    }
}

fn read_properties(body: &mut Reader) -> Result<Option<Box<PublishProperties>>, DecodeError> {
    let mut section = Properties::read(body)?;
    if section.is_empty() {
        return Ok(None);
    }
    let mut found = Box::<PublishProperties>::default();
    while let Some(id) = section.next()? {
        match id {
            PropertyId::TopicAlias => match section.once(id)?.u16()? {
                // [MQTT-3.3.2-8], §3.3.4
                0 => return Err(DecodeError::TopicAliasZero),
                alias => found.topic_alias = Some(alias),
            },
            // §3.3.4: one for each matching subscription.
            PropertyId::SubscriptionIdentifier => found.subscription_ids.push(section.subscription_id()?),
            _ => read_publish_property(&mut section, id, &mut found)?,
        }
    }
    Ok(Some(found))
}

/// Reads a property that a PUBLISH and a will share (§3.3.2.3, §3.1.3.2).
pub(super) fn read_publish_property(
    section: &mut Properties<'_>,
    id: PropertyId,
    found: &mut PublishProperties,
) -> Result<(), DecodeError> {
    match id {
        PropertyId::PayloadFormatIndicator => found.payload_is_utf8 = section.flag(id)?,
        PropertyId::MessageExpiryInterval => found.message_expiry = section.u32(id)?,
        PropertyId::ContentType => found.content_type = section.text(id)?,
        // It is a topic name: no wildcards ([MQTT-3.3.2-14]), not empty ([MQTT-4.7.3-1]).
        PropertyId::ResponseTopic => {
            found.response_topic = Some(section.once(id)?.full_topic_name()?.text().clone());
        }
        PropertyId::CorrelationData => found.correlation_data = section.binary(id)?,
        PropertyId::UserProperty => found.user_properties.push(section.pair()?),
        _ => return Err(DecodeError::PropertyNotAllowed(id)),
    }
    Ok(())
}

pub(super) fn flags(publish: &Publish) -> u8 {
    byte_flags(publish.qos, publish.dup, publish.retain)
}

fn byte_flags(qos: QoS, dup: bool, retain: bool) -> u8 {
    // [MQTT-3.3.1-2]: never DUP at QoS 0.
    let dup = if dup && qos != QoS::AtMostOnce { DUP } else { 0 };
    dup | (qos as u8) << QOS_SHIFT | if retain { RETAIN } else { 0 }
}

pub(super) fn encode<S: Sink>(publish: &Publish, version: Version, out: &mut S) {
    encode_header(publish, version, publish.packet_id.map(|id| id.0.get()), out);
    out.slice(&publish.payload);
}

/// Topic name, packet identifier and properties.
fn encode_header<S: Sink>(publish: &Publish, version: Version, packet_id: Option<u16>, out: &mut S) {
    out.text(publish.topic.text());
    if let Some(id) = packet_id {
        out.u16(id);
    }
    if version == Version::V5 {
        match &publish.properties {
            Some(properties) => write_section(out, &**properties),
            None => out.integer(0),
        }
    }
}

/// How a PUBLISH is sent, whatever its own QoS, DUP, RETAIN and packet identifier say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// For this version.
    pub version: Version,
    /// At this QoS.
    pub qos: QoS,
    /// Re-delivery of an earlier attempt; not said at QoS 0.
    pub dup: bool,
    /// Retain.
    pub retain: bool,
    /// Present if and only if `qos` is above 0.
    pub packet_id: Option<PacketId>,
}

/// Appends a PUBLISH for one receiver, without taking a copy of it first.
///
/// # Errors
/// As [`super::encode`].
pub fn encode_publish(publish: &Publish, sent: Sent, out: &mut BytesMut) -> Result<(), EncodeError> {
    // [MQTT-2.2.1-2], [MQTT-2.2.1-3]
    if sent.packet_id.is_some() != (sent.qos != QoS::AtMostOnce) {
        return Err(EncodeError::PacketId);
    }
    check::publish_content(publish, sent.version)?;
    let remaining = check::remaining(remaining_len(publish, sent.version, sent.qos))?;
    out.reserve(5 + remaining as usize);
    out.u8((PacketType::Publish as u8) << 4 | byte_flags(sent.qos, sent.dup, sent.retain));
    out.integer(remaining);
    encode_header(publish, sent.version, sent.packet_id.map(|id| id.0.get()), out);
    out.slice(&publish.payload);
    Ok(())
}

/// How many bytes [`encode_publish`] appends; see [`super::encoded_len`].
#[must_use]
pub fn publish_len(publish: &Publish, version: Version, qos: QoS) -> usize {
    let remaining = remaining_len(publish, version, qos);
    1 + u32::try_from(remaining).map_or(4, integer_len) + remaining
}

fn remaining_len(publish: &Publish, version: Version, qos: QoS) -> usize {
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { 2 };
    let properties = match &publish.properties {
        _ if version != Version::V5 => 0,
        None => 1,
        Some(properties) => count(|counter| write_section(counter, &**properties)),
    };
    2 + publish.topic.as_str().len() + packet_id + properties + publish.payload.len()
}

impl WriteProperties for PublishProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        write_message_properties(self, out);
        for id in &self.subscription_ids {
            write_subscription_id(out, *id);
        }
        write_u16(out, PropertyId::TopicAlias, self.topic_alias);
        write_pairs(out, &self.user_properties);
    }
}

/// Writes what a PUBLISH and a will say of their message, but for the user properties.
pub(super) fn write_message_properties<S: Sink>(properties: &PublishProperties, out: &mut S) {
    write_flag(out, PropertyId::PayloadFormatIndicator, properties.payload_is_utf8);
    write_u32(out, PropertyId::MessageExpiryInterval, properties.message_expiry);
    write_text(out, PropertyId::ContentType, properties.content_type.as_ref());
    write_text(out, PropertyId::ResponseTopic, properties.response_topic.as_ref());
    write_binary(out, PropertyId::CorrelationData, properties.correlation_data.as_ref());
}

/// A PUBLISH encoded once for a version and a QoS, to be sent to many subscribers.
///
/// The payload stays shared until it is copied out; the packet identifier and the flags of byte 1 are patched then.
#[derive(Debug, Clone)]
pub struct PublishFrame {
    /// Fixed header without DUP and RETAIN, and the variable header with a packet identifier of 0.
    head: Bytes,
    payload: Bytes,
    qos: QoS,
    /// Where in `head` the packet identifier stands; `None` at QoS 0.
    packet_id_at: Option<usize>,
    /// Where in `head` the topic name's length stands.
    topic_at: usize,
    /// Where in `head` the first property stands, after the properties' length; `None` before MQTT 5.0.
    properties_at: Option<usize>,
}

/// A topic alias in a packet to a client (§3.3.2.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The alias.
    pub number: NonZeroU16,
    /// The packet sets it and so carries the topic name too; otherwise it stands in the topic name's place.
    pub is_new: bool,
}

impl PublishFrame {
    /// Encodes `publish` at `qos`, whatever its own QoS, DUP, RETAIN and packet identifier say.
    ///
    /// Its properties are taken as they are: subscription identifiers, topic alias and the remaining message expiry
    /// are for the caller to set.
    ///
    /// # Errors
    /// As [`super::encode`], but for the packet identifier.
    pub fn new(publish: &Publish, version: Version, qos: QoS) -> Result<Self, EncodeError> {
        check::publish_content(publish, version)?;
        let packet_id = (qos != QoS::AtMostOnce).then_some(0);
        let remaining = count(|counter| encode_header(publish, version, packet_id, counter)) + publish.payload.len();
        let remaining = check::remaining(remaining)?;
        let mut head = BytesMut::with_capacity(5 + remaining as usize - publish.payload.len());
        head.u8((PacketType::Publish as u8) << 4 | byte_flags(qos, false, false));
        head.integer(remaining);
        let topic_at = head.len();
        let topic_end = topic_at + 2 + publish.topic.as_str().len();
        let packet_id_at = packet_id.map(|_| topic_end);
        let properties_at = (version == Version::V5).then(|| {
            let len = publish.properties.as_deref().map_or(0, |properties| count(|counter| properties.write(counter)));
            // The whole packet fits, so its properties do.
            topic_end + if packet_id.is_some() { 2 } else { 0 } + integer_len(len as u32)
        });
        encode_header(publish, version, packet_id, &mut head);
        let head = head.freeze();
        Ok(Self { head, payload: publish.payload.clone(), qos, packet_id_at, topic_at, properties_at })
    }

    /// Whole packet in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// The QoS that it was encoded for.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// Appends the packet. At QoS 0 `dup` and `packet_id` are left out.
    ///
    /// # Panics
    /// Above QoS 0 without a packet identifier (`[MQTT-2.2.1-3]`).
    pub fn write(&self, out: &mut BytesMut, dup: bool, retain: bool, packet_id: Option<PacketId>) {
        let start = out.len();
        out.reserve(self.len());
        out.extend_from_slice(&self.head);
        out[start] |= byte_flags(self.qos, dup, retain);
        if let Some(at) = self.packet_id_at {
            let id = packet_id.expect("a PUBLISH above QoS 0 has a packet identifier");
            out[start + at..start + at + 2].copy_from_slice(&id.0.get().to_be_bytes());
        }
        out.extend_from_slice(&self.payload);
    }

    /// Appends the packet with a topic alias: only its header is written anew.
    ///
    /// # Errors
    /// The alias makes the packet larger than MQTT allows; nothing is appended.
    ///
    /// # Panics
    /// Before MQTT 5.0, and above QoS 0 without a packet identifier (`[MQTT-2.2.1-3]`).
    pub fn write_aliased(
        &self,
        out: &mut BytesMut,
        dup: bool,
        retain: bool,
        packet_id: Option<PacketId>,
        alias: Alias,
    ) -> Result<(), EncodeError> {
        let properties_at = self.properties_at.expect("a topic alias is for MQTT 5.0");
        let properties = &self.head[properties_at..];
        let topic_len = usize::from(u16::from_be_bytes([self.head[self.topic_at], self.head[self.topic_at + 1]]));
        let topic: &[u8] =
            if alias.is_new { &self.head[self.topic_at..self.topic_at + 2 + topic_len] } else { &[0, 0] };
        let packet_id = self.packet_id_at.map(|_| packet_id.expect("a PUBLISH above QoS 0 has a packet identifier"));
        let properties_len = check::remaining(ALIAS_LEN + properties.len())?;
        let id_len = if packet_id.is_some() { 2 } else { 0 };
        let header = topic.len() + id_len + integer_len(properties_len) + properties_len as usize;
        let remaining = check::remaining(header + self.payload.len())?;
        out.reserve(5 + remaining as usize);
        out.u8(self.head[0] | byte_flags(self.qos, dup, retain));
        out.integer(remaining);
        out.slice(topic);
        if let Some(id) = packet_id {
            out.packet_id(id);
        }
        out.integer(properties_len);
        write_u16(out, PropertyId::TopicAlias, Some(alias.number.get()));
        out.slice(properties);
        out.slice(&self.payload);
        Ok(())
    }
}
