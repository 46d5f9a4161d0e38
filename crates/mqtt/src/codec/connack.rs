//! CONNACK (§3.2).
//!
//! ```text
//! byte 1  acknowledge flags: bit 0 session present, the others reserved
//! byte 2  reason code (5.0) or return code (3.1.1)
//! then    properties (5.0)
//! ```

use crate::packet::{ConnAck, QoS, Version};
use crate::properties::ConnAckProperties;
use crate::reason::ReasonCode;

use super::error::DecodeError;
use super::frame::PacketType;
use super::property::{
    Properties, PropertyId, WriteProperties, write_binary, write_flag, write_pairs, write_section, write_text,
    write_u8, write_u16, write_u32,
};
use super::read::Reader;
use super::write::Sink;

/// Table 3-1.
pub(super) const REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerUnavailable,
    ReasonCode::ServerBusy,
    ReasonCode::Banned,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QoSNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::ConnectionRateExceeded,
];

pub(super) fn decode(mut body: Reader, version: Version) -> Result<ConnAck, DecodeError> {
    let flags = body.u8()?;
    // [MQTT-3.2.2-1]; the byte is unused in MQTT 3.1.
    if version != Version::V3 && flags & !1 != 0 {
        return Err(DecodeError::ReservedConnAckFlags(flags));
    }
    let session_present = version != Version::V3 && flags & 1 != 0;
    let reason = match version {
        // [MQTT-3.2.2-8]
        Version::V5 => body.reason(PacketType::ConnAck, REASONS)?,
        Version::V3 | Version::V4 => {
            let code = body.u8()?;
            let packet = PacketType::ConnAck;
            ReasonCode::from_connect_return_code(code).ok_or(DecodeError::InvalidReason { packet, code })?
        }
    };
    // [MQTT-3.2.2-6]; 3.1.1 [MQTT-3.2.2-4]
    if session_present && reason != ReasonCode::Success {
        return Err(DecodeError::SessionPresentOnError);
    }
    let properties = match version {
        Version::V5 => read_properties(&mut body)?,
        Version::V3 | Version::V4 => ConnAckProperties::default(),
    };
    body.finish()?;
    Ok(ConnAck { session_present, reason, properties })
}

fn read_properties(body: &mut Reader) -> Result<ConnAckProperties, DecodeError> {
    let mut found = ConnAckProperties::default();
    let mut section = Properties::read(body)?;
    while let Some(id) = section.next()? {
        match id {
            PropertyId::SessionExpiryInterval => found.session_expiry = section.u32(id)?,
            PropertyId::ReceiveMaximum => found.receive_maximum = section.positive_u16(id)?,
            // §3.2.2.3.4: 0 or 1.
            PropertyId::MaximumQoS => {
                let level = |able| if able { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                found.maximum_qos = section.flag(id)?.map(level);
            }
            PropertyId::RetainAvailable => found.retain_available = section.flag(id)?,
            PropertyId::MaximumPacketSize => found.maximum_packet_size = section.positive_u32(id)?,
            PropertyId::AssignedClientIdentifier => found.assigned_client_id = section.text(id)?,
            PropertyId::TopicAliasMaximum => found.topic_alias_maximum = section.u16(id)?,
            PropertyId::ReasonString => found.reason_string = section.text(id)?,
            PropertyId::UserProperty => found.user_properties.push(section.pair()?),
            PropertyId::WildcardSubscriptionAvailable => {
                found.wildcard_subscription_available = section.flag(id)?;
            }
            PropertyId::SubscriptionIdentifierAvailable => {
                found.subscription_identifiers_available = section.flag(id)?;
            }
            PropertyId::SharedSubscriptionAvailable => found.shared_subscription_available = section.flag(id)?,
            PropertyId::ServerKeepAlive => found.server_keep_alive = section.u16(id)?,
            PropertyId::ResponseInformation => found.response_information = section.text(id)?,
            PropertyId::ServerReference => found.server_reference = section.text(id)?,
            PropertyId::AuthenticationMethod => found.authentication_method = section.text(id)?,
            PropertyId::AuthenticationData => found.authentication_data = section.binary(id)?,
            _ => return Err(DecodeError::PropertyNotAllowed(id)),
        }
    }
    Ok(found)
}

pub(super) fn encode<S: Sink>(connack: &ConnAck, version: Version, out: &mut S) {
    // [MQTT-3.2.2-6]
    let session_present = connack.session_present && connack.reason == ReasonCode::Success;
    match version {
        Version::V5 => {
            out.u8(session_present.into());
            out.u8(connack.reason as u8);
            write_section(out, &connack.properties);
        }
        Version::V4 => {
            out.u8(session_present.into());
            out.u8(connack.reason.connect_return_code());
        }
        // MQTT 3.1 §3.2: the first byte is reserved.
        Version::V3 => {
            out.u8(0);
            out.u8(connack.reason.connect_return_code());
        }
    }
}

impl WriteProperties for ConnAckProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        write_u32(out, PropertyId::SessionExpiryInterval, self.session_expiry);
        write_text(out, PropertyId::AssignedClientIdentifier, self.assigned_client_id.as_ref());
        write_u16(out, PropertyId::ServerKeepAlive, self.server_keep_alive);
        write_text(out, PropertyId::AuthenticationMethod, self.authentication_method.as_ref());
        write_binary(out, PropertyId::AuthenticationData, self.authentication_data.as_ref());
        write_text(out, PropertyId::ResponseInformation, self.response_information.as_ref());
        write_text(out, PropertyId::ServerReference, self.server_reference.as_ref());
        write_text(out, PropertyId::ReasonString, self.reason_string.as_ref());
        write_u16(out, PropertyId::ReceiveMaximum, self.receive_maximum);
        write_u16(out, PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        // §3.2.2.3.4: 2 is said by leaving it out.
        let maximum_qos = self.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce);
        write_u8(out, PropertyId::MaximumQoS, maximum_qos.map(|qos| qos as u8));
        write_flag(out, PropertyId::RetainAvailable, self.retain_available);
        write_pairs(out, &self.user_properties);
        write_u32(out, PropertyId::MaximumPacketSize, self.maximum_packet_size);
        write_flag(out, PropertyId::WildcardSubscriptionAvailable, self.wildcard_subscription_available);
        write_flag(out, PropertyId::SubscriptionIdentifierAvailable, self.subscription_identifiers_available);
        write_flag(out, PropertyId::SharedSubscriptionAvailable, self.shared_subscription_available);
    }
}
