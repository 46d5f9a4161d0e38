//! DISCONNECT and AUTH (§3.14, §3.15).
//!
//! ```text
//! byte 1  reason code (5.0), may be left out with all that follows if it is 0
//! then    properties (5.0), may be left out if there are none
//! ```

use crate::packet::{Auth, Disconnect, Version};
use crate::properties::{AuthProperties, DisconnectProperties};
use crate::reason::ReasonCode;

use super::error::DecodeError;
use super::frame::PacketType;
use super::property::{
    Properties, PropertyId, WriteProperties, write_binary, write_pairs, write_section, write_text, write_u32,
};
use super::read::Reader;
use super::write::Sink;

/// Table 3-10, and Bad authentication method, which table 2-6 and §4.12 give to DISCONNECT too.
pub(super) const DISCONNECT_REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::DisconnectWithWill,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::KeepAliveTimeout,
    ReasonCode::SessionTakenOver,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::TopicNameInvalid,
    ReasonCode::ReceiveMaximumExceeded,
    ReasonCode::TopicAliasInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::MessageRateTooHigh,
    ReasonCode::QuotaExceeded,
    ReasonCode::AdministrativeAction,
    ReasonCode::PayloadFormatInvalid,
    ReasonCode::RetainNotSupported,
    ReasonCode::QoSNotSupported,
    ReasonCode::UseAnotherServer,
    ReasonCode::ServerMoved,
    ReasonCode::SharedSubscriptionsNotSupported,
    ReasonCode::ConnectionRateExceeded,
    ReasonCode::MaximumConnectTime,
    ReasonCode::SubscriptionIdentifiersNotSupported,
    ReasonCode::WildcardSubscriptionsNotSupported,
];

/// Table 3-11.
pub(super) const AUTH_REASONS: &[ReasonCode] =
    &[ReasonCode::Success, ReasonCode::ContinueAuthentication, ReasonCode::ReAuthenticate];

pub(super) fn decode_disconnect(mut body: Reader, version: Version) -> Result<Disconnect, DecodeError> {
    let mut disconnect = Disconnect { reason: ReasonCode::Success, properties: None };
    if version == Version::V5 {
        // §3.14.2.1: a remaining length of 0 means Normal disconnection.
        if !body.is_empty() {
            // [MQTT-3.14.2-1]
            disconnect.reason = body.reason(PacketType::Disconnect, DISCONNECT_REASONS)?;
        }
        // §3.14.2.2.1: below 2 there is no property length.
        if !body.is_empty() {
            disconnect.properties = read_disconnect_properties(&mut body)?;
        }
    }
    body.finish()?;
    Ok(disconnect)
}

fn read_disconnect_properties(body: &mut Reader) -> Result<Option<Box<DisconnectProperties>>, DecodeError> {
    let mut section = Properties::read(body)?;
    if section.is_empty() {
        return Ok(None);
    }
    let mut found = Box::<DisconnectProperties>::default();
    while let Some(id) = section.next()? {
        match id {
            PropertyId::SessionExpiryInterval => found.session_expiry = section.u32(id)?,
            PropertyId::ReasonString => found.reason_string = section.text(id)?,
            PropertyId::UserProperty => found.user_properties.push(section.pair()?),
            PropertyId::ServerReference => found.server_reference = section.text(id)?,
            _ => return Err(DecodeError::PropertyNotAllowed(id)),
        }
    }
    Ok(Some(found))
}

pub(super) fn decode_auth(mut body: Reader) -> Result<Auth, DecodeError> {
    // §3.15.2.1: a remaining length of 0 means Success without properties.
    if body.is_empty() {
        return Ok(Auth { reason: ReasonCode::Success, properties: AuthProperties::default() });
    }
    // [MQTT-3.15.2-1]
    let reason = body.reason(PacketType::Auth, AUTH_REASONS)?;
    let mut properties = AuthProperties::default();
    let mut section = Properties::read(&mut body)?;
    while let Some(id) = section.next()? {
        match id {
            PropertyId::AuthenticationMethod => properties.authentication_method = section.text(id)?,
            PropertyId::AuthenticationData => properties.authentication_data = section.binary(id)?,
            PropertyId::ReasonString => properties.reason_string = section.text(id)?,
            PropertyId::UserProperty => properties.user_properties.push(section.pair()?),
            _ => return Err(DecodeError::PropertyNotAllowed(id)),
        }
    }
    drop(section);
    body.finish()?;
    let auth = Auth { reason, properties };
    if lacks_method(&auth) {
        return Err(DecodeError::NoAuthenticationMethod);
    }
    Ok(auth)
}

/// §3.15.2.2.2 demands the method; Success without any property is the one packet that goes without (§3.15.2.1).
pub(super) fn lacks_method(auth: &Auth) -> bool {
    auth.properties.authentication_method.is_none() && !is_bare(auth)
}

fn is_bare(auth: &Auth) -> bool {
    auth.reason == ReasonCode::Success && auth.properties == AuthProperties::default()
}

pub(super) fn encode_disconnect<S: Sink>(disconnect: &Disconnect, version: Version, out: &mut S) {
    if version != Version::V5 {
        return;
    }
    let properties = disconnect.properties.as_deref().filter(|found| **found != DisconnectProperties::default());
    if disconnect.reason != ReasonCode::Success || properties.is_some() {
        out.u8(disconnect.reason as u8);
    }
    if let Some(properties) = properties {
        write_section(out, properties);
    }
}

pub(super) fn encode_auth<S: Sink>(auth: &Auth, out: &mut S) {
    if !is_bare(auth) {
        out.u8(auth.reason as u8);
        write_section(out, &auth.properties);
    }
}

impl WriteProperties for DisconnectProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        write_u32(out, PropertyId::SessionExpiryInterval, self.session_expiry);
        write_text(out, PropertyId::ServerReference, self.server_reference.as_ref());
        write_text(out, PropertyId::ReasonString, self.reason_string.as_ref());
        write_pairs(out, &self.user_properties);
    }
}

impl WriteProperties for AuthProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        write_text(out, PropertyId::AuthenticationMethod, self.authentication_method.as_ref());
        write_binary(out, PropertyId::AuthenticationData, self.authentication_data.as_ref());
        write_text(out, PropertyId::ReasonString, self.reason_string.as_ref());
        write_pairs(out, &self.user_properties);
    }
}
