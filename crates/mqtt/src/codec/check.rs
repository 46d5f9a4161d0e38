//! What a packet must be before it can be written: whatever passes here, a peer that follows the standard accepts.

use bytes::Bytes;

use crate::packet::{Ack, Auth, ConnAck, Connect, Packet, Publish, QoS, SubAck, Subscribe, UnsubAck, Version, Will};
use crate::properties::PublishProperties;
use crate::reason::ReasonCode;

use super::error::EncodeError;
use super::frame::{MAX_INTEGER, PacketType};
use super::property::PropertyId;
use super::{ack, connack, disconnect, subscribe};

pub(super) fn packet(packet: &Packet, version: Version) -> Result<(), EncodeError> {
    let is_v5 = version == Version::V5;
    match packet {
        Packet::Connect(connect) => check_connect(connect),
        Packet::Publish(publish) => check_publish(publish, version),
        Packet::Subscribe(subscribe) => check_subscribe(subscribe, version),
        Packet::SubAck(suback) => check_suback(suback, version),
        Packet::Unsubscribe(unsubscribe) if unsubscribe.filters.is_empty() => {
            Err(EncodeError::NoPayload(PacketType::Unsubscribe))
        }
        Packet::Auth(_) if !is_v5 => Err(EncodeError::NotInVersion(PacketType::Auth)),
        Packet::Auth(auth) => check_auth(auth),
        Packet::ConnAck(connack) if is_v5 => check_connack(connack),
        Packet::PubAck(ack) if is_v5 => check_ack(PacketType::PubAck, ack),
        Packet::PubRec(ack) if is_v5 => check_ack(PacketType::PubRec, ack),
        Packet::PubRel(ack) if is_v5 => check_ack(PacketType::PubRel, ack),
        Packet::PubComp(ack) if is_v5 => check_ack(PacketType::PubComp, ack),
        Packet::UnsubAck(unsuback) if is_v5 => check_unsuback(unsuback),
        Packet::Disconnect(packet) if is_v5 => {
            reason(PacketType::Disconnect, packet.reason, disconnect::DISCONNECT_REASONS)
        }
        // Nothing of what could be wrong is written before MQTT 5.0.
        Packet::ConnAck(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_) => Ok(()),
    }
}

/// A remaining length that four bytes can say (§2.1.4).
pub(super) fn remaining(len: usize) -> Result<u32, EncodeError> {
    u32::try_from(len).ok().filter(|len| *len <= MAX_INTEGER).ok_or(EncodeError::PacketTooLarge(len))
}

/// All of a PUBLISH but its packet identifier.
pub(super) fn publish_content(publish: &Publish, version: Version) -> Result<(), EncodeError> {
    let properties = publish.properties.as_deref().filter(|_| version == Version::V5);
    let alias = properties.and_then(|properties| properties.topic_alias);
    // §3.3.2.1, [MQTT-4.7.3-1]
    if publish.topic.as_str().is_empty() && alias.is_none() {
        return Err(EncodeError::NoTopic(PacketType::Publish));
    }
    // [MQTT-3.3.2-8]
    if alias == Some(0) {
        return Err(EncodeError::ZeroProperty(PropertyId::TopicAlias));
    }
    let Some(properties) = properties else { return Ok(()) };
    properties.subscription_ids.iter().try_for_each(|id| subscription_id(id.get()))?;
    publish_properties(properties)
}

fn check_publish(publish: &Publish, version: Version) -> Result<(), EncodeError> {
    // [MQTT-2.2.1-2], [MQTT-2.2.1-3]
    if publish.packet_id.is_some() != (publish.qos != QoS::AtMostOnce) {
        return Err(EncodeError::PacketId);
    }
    publish_content(publish, version)
}

/// The properties that a PUBLISH and a will share.
fn publish_properties(properties: &PublishProperties) -> Result<(), EncodeError> {
    binary(properties.correlation_data.as_ref())?;
    match &properties.response_topic {
        // [MQTT-3.3.2-14], [MQTT-4.7.3-1]
        Some(topic) if topic.is_empty() || topic.contains(['+', '#']) => Err(EncodeError::ResponseTopic),
        _ => Ok(()),
    }
}

fn check_connect(connect: &Connect) -> Result<(), EncodeError> {
    let properties = &connect.properties;
    binary(connect.password.as_ref())?;
    if let Some(will) = &connect.will {
        check_will(will, connect.version)?;
    }
    if connect.version != Version::V5 {
        // 3.1.1 [MQTT-3.1.2-22]
        let is_alone = connect.password.is_some() && connect.username.is_none();
        return if is_alone { Err(EncodeError::PasswordWithoutUserName) } else { Ok(()) };
    }
    limits(properties.receive_maximum, properties.maximum_packet_size)?;
    binary(properties.authentication_data.as_ref())?;
    // §3.1.2.11.10
    if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
        return Err(EncodeError::NoAuthenticationMethod);
    }
    Ok(())
}

fn check_will(will: &Will, version: Version) -> Result<(), EncodeError> {
    // [MQTT-4.7.3-1]
    if will.topic.as_str().is_empty() {
        return Err(EncodeError::NoTopic(PacketType::Connect));
    }
    binary(Some(&will.payload))?;
    if version == Version::V5 { publish_properties(&will.properties.publish) } else { Ok(()) }
}

fn check_connack(packet: &ConnAck) -> Result<(), EncodeError> {
    reason(PacketType::ConnAck, packet.reason, connack::REASONS)?;
    limits(packet.properties.receive_maximum, packet.properties.maximum_packet_size)?;
    binary(packet.properties.authentication_data.as_ref())
}

/// §3.1.2.11.3, §3.1.2.11.4
fn limits(receive_maximum: Option<u16>, maximum_packet_size: Option<u32>) -> Result<(), EncodeError> {
    if receive_maximum == Some(0) {
        return Err(EncodeError::ZeroProperty(PropertyId::ReceiveMaximum));
    }
    if maximum_packet_size == Some(0) {
        return Err(EncodeError::ZeroProperty(PropertyId::MaximumPacketSize));
    }
    Ok(())
}

fn check_ack(packet: PacketType, ack: &Ack) -> Result<(), EncodeError> {
    reason(packet, ack.reason, ack::reasons(packet))
}

fn check_subscribe(subscribe: &Subscribe, version: Version) -> Result<(), EncodeError> {
    // [MQTT-3.8.3-2]
    if subscribe.filters.is_empty() {
        return Err(EncodeError::NoPayload(PacketType::Subscribe));
    }
    if version != Version::V5 {
        return Ok(());
    }
    // [MQTT-3.8.3-4]
    if subscribe.filters.iter().any(|filter| filter.options.no_local && filter.filter.share().is_some()) {
        return Err(EncodeError::NoLocalShared);
    }
    subscribe.properties.subscription_id.map_or(Ok(()), |id| subscription_id(id.get()))
}

fn check_suback(suback: &SubAck, version: Version) -> Result<(), EncodeError> {
    // [MQTT-3.8.4-6]
    if suback.reasons.is_empty() {
        return Err(EncodeError::NoPayload(PacketType::SubAck));
    }
    suback.reasons.iter().try_for_each(|code| match version {
        Version::V5 => reason(PacketType::SubAck, *code, subscribe::SUBACK_REASONS),
        // Every error is written as the one that 3.1.1 knows.
        Version::V3 | Version::V4 if code.is_error() => Ok(()),
        Version::V3 | Version::V4 => reason(PacketType::SubAck, *code, subscribe::SUBACK_RETURN_CODES),
    })
}

fn check_unsuback(unsuback: &UnsubAck) -> Result<(), EncodeError> {
    // [MQTT-3.11.3-1]
    if unsuback.reasons.is_empty() {
        return Err(EncodeError::NoPayload(PacketType::UnsubAck));
    }
    unsuback.reasons.iter().try_for_each(|code| reason(PacketType::UnsubAck, *code, subscribe::UNSUBACK_REASONS))
}

fn check_auth(auth: &Auth) -> Result<(), EncodeError> {
    reason(PacketType::Auth, auth.reason, disconnect::AUTH_REASONS)?;
    binary(auth.properties.authentication_data.as_ref())?;
    if disconnect::lacks_method(auth) { Err(EncodeError::NoAuthenticationMethod) } else { Ok(()) }
}

fn reason(packet: PacketType, reason: ReasonCode, allowed: &[ReasonCode]) -> Result<(), EncodeError> {
    if allowed.contains(&reason) { Ok(()) } else { Err(EncodeError::InvalidReason { packet, code: reason as u8 }) }
}

fn binary(data: Option<&Bytes>) -> Result<(), EncodeError> {
    match data {
        Some(data) if data.len() > usize::from(u16::MAX) => Err(EncodeError::BinaryTooLong(data.len())),
        _ => Ok(()),
    }
}

fn subscription_id(id: u32) -> Result<(), EncodeError> {
    if id > MAX_INTEGER { Err(EncodeError::SubscriptionId(id)) } else { Ok(()) }
}
