//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (§3.8 to §3.11).
//!
//! ```text
//! packet identifier, properties (5.0), then for each filter
//!   SUBSCRIBE    topic filter, options      UNSUBSCRIBE  topic filter
//!   SUBACK       reason code                UNSUBACK     reason code (5.0)
//!
//!      bit  7   6   5    4     3      2     1   0
//!         +-------+----------+-------+-----+-------+
//! options | rsvd  |  retain  |retain |  no |maximum|
//!         |       | handling |as publ|local|  QoS  |
//!         +-------+----------+-------+-----+-------+
//! ```

use crate::packet::{
    QoS, RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions, UnsubAck, Unsubscribe, Version,
};
use crate::properties::SubscribeProperties;
use crate::reason::ReasonCode;

use super::ack::{read_properties as read_ack_properties, write_properties as write_ack_properties};
use super::error::DecodeError;
use super::frame::PacketType;
use super::property::{Properties, PropertyId, WriteProperties, write_pairs, write_section, write_subscription_id};
use super::read::Reader;
use super::write::Sink;

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u8 = 4;

/// Table 3-8.
pub(super) const SUBACK_REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::GrantedQoS1,
    ReasonCode::GrantedQoS2,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];

/// 3.1.1 `[MQTT-3.9.3-2]`.
pub(super) const SUBACK_RETURN_CODES: &[ReasonCode] =
    &[ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2, ReasonCode::UnspecifiedError];

/// Table 3-9.
pub(super) const UNSUBACK_REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoSubscriptionExisted,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::PacketIdentifierInUse,
];

pub(super) fn decode_subscribe(mut body: Reader, version: Version) -> Result<Subscribe, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = match version {
        Version::V5 => read_properties(&mut body)?,
        Version::V3 | Version::V4 => SubscribeProperties::default(),
    };
    // [MQTT-3.8.3-2]; 3.1.1 [MQTT-3.8.3-3]
    if body.is_empty() {
        return Err(DecodeError::NoFilters(PacketType::Subscribe));
    }
    let mut filters = Vec::new();
    while !body.is_empty() {
        let filter = body.topic_filter()?;
        let options = read_options(body.u8()?, version)?;
        // [MQTT-3.8.3-4]
        if options.no_local && filter.share().is_some() {
            return Err(DecodeError::NoLocalShared);
        }
        filters.push(SubscribeFilter { filter, options });
    }
    Ok(Subscribe { packet_id, filters, properties })
}

fn read_options(byte: u8, version: Version) -> Result<SubscriptionOptions, DecodeError> {
    if version != Version::V5 {
        // 3.1.1 [MQTT-3-8.3-4]: malformed, be it a reserved bit or QoS 3.
        let qos = QoS::from_bits(byte).ok_or(DecodeError::ReservedSubscriptionOptions(byte))?;
        return Ok(SubscriptionOptions { qos, ..SubscriptionOptions::default() });
    }
    // [MQTT-3.8.3-5]
    if byte & 0xC0 != 0 {
        return Err(DecodeError::ReservedSubscriptionOptions(byte));
    }
    let qos = QoS::from_bits(byte & 3).ok_or(DecodeError::InvalidSubscriptionOptions(byte))?;
    let retain_handling = match byte >> RETAIN_HANDLING_SHIFT & 3 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(DecodeError::InvalidSubscriptionOptions(byte)),
    };
    Ok(SubscriptionOptions {
        qos,
        no_local: byte & NO_LOCAL != 0,
        retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
        retain_handling,
    })
}

fn read_properties(body: &mut Reader) -> Result<SubscribeProperties, DecodeError> {
    let mut found = SubscribeProperties::default();
    let mut section = Properties::read(body)?;
    while let Some(id) = section.next()? {
        match id {
            PropertyId::SubscriptionIdentifier => {
                section.once(id)?;
                found.subscription_id = Some(section.subscription_id()?);
            }
            PropertyId::UserProperty => found.user_properties.push(section.pair()?),
            _ => return Err(DecodeError::PropertyNotAllowed(id)),
        }
    }
    Ok(found)
}

pub(super) fn decode_suback(mut body: Reader, version: Version) -> Result<SubAck, DecodeError> {
    let packet_id = body.packet_id()?;
    let (properties, allowed) = match version {
        Version::V5 => (read_ack_properties(&mut body)?, SUBACK_REASONS),
        Version::V3 | Version::V4 => (None, SUBACK_RETURN_CODES),
    };
    // [MQTT-3.9.3-2]
    let reasons = read_reasons(body, PacketType::SubAck, allowed)?;
    Ok(SubAck { packet_id, reasons, properties })
}

fn read_reasons(mut body: Reader, packet: PacketType, allowed: &[ReasonCode]) -> Result<Vec<ReasonCode>, DecodeError> {
    // One for each filter, of which there is at least one ([MQTT-3.8.4-6], [MQTT-3.11.3-1]).
    if body.is_empty() {
        return Err(DecodeError::NoReasons(packet));
    }
    let mut reasons = Vec::new();
    while !body.is_empty() {
        reasons.push(body.reason(packet, allowed)?);
    }
    Ok(reasons)
}

pub(super) fn decode_unsubscribe(mut body: Reader, version: Version) -> Result<Unsubscribe, DecodeError> {
    let packet_id = body.packet_id()?;
    let mut user_properties = Vec::new();
    if version == Version::V5 {
        let mut section = Properties::read(&mut body)?;
        while let Some(id) = section.next()? {
            match id {
                PropertyId::UserProperty => user_properties.push(section.pair()?),
                _ => return Err(DecodeError::PropertyNotAllowed(id)),
            }
        }
    }
    // [MQTT-3.10.3-2]
    if body.is_empty() {
        return Err(DecodeError::NoFilters(PacketType::Unsubscribe));
    }
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(body.topic_filter()?);
    }
    Ok(Unsubscribe { packet_id, filters, user_properties })
}

pub(super) fn decode_unsuback(mut body: Reader, version: Version) -> Result<UnsubAck, DecodeError> {
    let packet_id = body.packet_id()?;
    let mut unsuback = UnsubAck { packet_id, reasons: Vec::new(), properties: None };
    if version == Version::V5 {
        unsuback.properties = read_ack_properties(&mut body)?;
        // [MQTT-3.11.3-2]
        unsuback.reasons = read_reasons(body, PacketType::UnsubAck, UNSUBACK_REASONS)?;
    } else {
        // 3.1.1 §3.11.3: no payload.
        body.finish()?;
    }
    Ok(unsuback)
}

pub(super) fn encode_subscribe<S: Sink>(subscribe: &Subscribe, version: Version, out: &mut S) {
    out.packet_id(subscribe.packet_id);
    if version == Version::V5 {
        write_section(out, &subscribe.properties);
    }
    for SubscribeFilter { filter, options } in &subscribe.filters {
        out.text(filter.text());
        out.u8(options_byte(*options, version));
    }
}

fn options_byte(options: SubscriptionOptions, version: Version) -> u8 {
    let qos = options.qos as u8;
    if version != Version::V5 {
        return qos;
    }
    qos | if options.no_local { NO_LOCAL } else { 0 }
        | if options.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 }
        | (options.retain_handling as u8) << RETAIN_HANDLING_SHIFT
}

pub(super) fn encode_suback<S: Sink>(suback: &SubAck, version: Version, out: &mut S) {
    out.packet_id(suback.packet_id);
    if version == Version::V5 {
        write_ack_properties(suback.properties.as_deref(), out);
    }
    for reason in &suback.reasons {
        match version {
            // 3.1.1 §3.9.3 knows one failure.
            Version::V3 | Version::V4 if reason.is_error() => out.u8(ReasonCode::UnspecifiedError as u8),
            _ => out.u8(*reason as u8),
        }
    }
}

pub(super) fn encode_unsubscribe<S: Sink>(unsubscribe: &Unsubscribe, version: Version, out: &mut S) {
    out.packet_id(unsubscribe.packet_id);
    if version == Version::V5 {
        write_section(out, &UserProperties(&unsubscribe.user_properties));
    }
    for filter in &unsubscribe.filters {
        out.text(filter.text());
    }
}

pub(super) fn encode_unsuback<S: Sink>(unsuback: &UnsubAck, version: Version, out: &mut S) {
    out.packet_id(unsuback.packet_id);
    if version == Version::V5 {
        write_ack_properties(unsuback.properties.as_deref(), out);
        for reason in &unsuback.reasons {
            out.u8(*reason as u8);
        }
    }
}

impl WriteProperties for SubscribeProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        if let Some(id) = self.subscription_id {
            write_subscription_id(out, id);
        }
        write_pairs(out, &self.user_properties);
    }
}

/// The section of an UNSUBSCRIBE, which knows user properties only (§3.10.2.1).
struct UserProperties<'a>(&'a crate::properties::UserProperties);

impl WriteProperties for UserProperties<'_> {
    fn write<S: Sink>(&self, out: &mut S) {
        write_pairs(out, self.0);
    }
}
