//! CONNECT (§3.1).
//!
//! ```text
//! variable header: protocol name, protocol level, connect flags, keep alive, properties (5.0)
//!
//!        bit  7      6      5      4   3   2     1       0
//!           +------+------+------+-------+------+-------+----------+
//!     flags | user | pass | will |  will | will | clean | reserved |
//!           | name | word |retain|  QoS  |      | start |          |
//!           +------+------+------+-------+------+-------+----------+
//!
//! payload: client identifier, will properties (5.0), will topic, will payload, user name, password
//! ```

use crate::packet::{Connect, QoS, Version, Will};
use crate::properties::{ConnectProperties, WillProperties};

use super::error::DecodeError;
use super::frame::{Header, PacketType};
use super::property::{
    Properties, PropertyId, WriteProperties, write_binary, write_flag, write_pairs, write_section, write_text,
    write_u16, write_u32,
};
use super::publish::{read_publish_property, write_message_properties};
use super::read::Reader;
use super::write::Sink;

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS_SHIFT: u8 = 3;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;
/// In the protocol level of 3.1 and 3.1.1: the client is a bridge.
const BRIDGE: u8 = 0x80;

/// The version that the CONNECT at the start of `bytes` names, as far as its first bytes tell.
///
/// For the server that has to answer a CONNECT which [`super::decode`] then refuses.
#[must_use]
pub fn connect_version(bytes: &[u8]) -> Option<Version> {
    let header = Header::parse(bytes, Version::V5).ok()??;
    if header.packet != PacketType::Connect {
        return None;
    }
    let body = bytes.get(header.len..)?;
    let (name, rest) = body.split_at_checked(2 + usize::from(u16::from_be_bytes(*body.first_chunk()?)))?;
    version(Name::of(&name[2..]), *rest.first()?).ok().map(|(version, _)| version)
}

pub(super) fn decode(header: &Header, mut body: Reader) -> Result<Connect, DecodeError> {
    let name = Name::of(body.binary_in_place()?);
    let (version, is_bridge) = version(name, body.u8()?)?;
    header.check_minimal(version)?;
    let flags = body.u8()?;
    check_flags(flags, version)?;
    let keep_alive = body.u16()?;
    let properties = if version == Version::V5 { read_properties(&mut body)? } else { ConnectProperties::default() };

    // [MQTT-3.1.3-1]: client identifier, will, user name, password, in this order.
    let client_id = body.text()?;
    let will = if flags & WILL == 0 { None } else { Some(read_will(&mut body, flags, version)?) };
    let username = if flags & USER_NAME == 0 || is_left_out(&body, version) { None } else { Some(body.text()?) };
    let password = if flags & PASSWORD == 0 || is_left_out(&body, version) { None } else { Some(body.binary()?) };
    // [MQTT-3.1.2-16], [MQTT-3.1.2-18]: what no flag announces is not there.
    body.finish()?;
    let clean_start = flags & CLEAN_START != 0;
    Ok(Connect { version, clean_start, keep_alive, client_id, will, username, password, properties, is_bridge })
}

/// A protocol name.
#[derive(Clone, Copy)]
enum Name {
    Mqtt,
    MqIsdp,
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b"MQTT" => Self::Mqtt,
            b"MQIsdp" => Self::MqIsdp,
            _ => Self::Other,
        }
    }
}

/// The version, and whether the client is a bridge.
fn version(name: Name, level: u8) -> Result<(Version, bool), DecodeError> {
    let is_bridge = level & BRIDGE != 0;
    match (name, level) {
        (Name::Mqtt, 5) => Ok((Version::V5, false)),
        (Name::Mqtt, level) if level & !BRIDGE == 4 => Ok((Version::V4, is_bridge)),
        (Name::MqIsdp, level) if level & !BRIDGE == 3 => Ok((Version::V3, is_bridge)),
        // [MQTT-3.1.2-2]
        (Name::Mqtt | Name::MqIsdp, level) => Err(DecodeError::ProtocolLevel(level)),
        // [MQTT-3.1.2-1]
        (Name::Other, _) => Err(DecodeError::ProtocolName),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // MQTT 3.1 §3.1 leaves bit 0 unused and will QoS and will retain without meaning if there is no will.
    if version != Version::V3 {
        // [MQTT-3.1.2-3]
        if flags & RESERVED != 0 {
            return Err(DecodeError::ReservedConnectFlag);
        }
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]; 3.1.1 [MQTT-3.1.2-13], [MQTT-3.1.2-15]
        if flags & WILL == 0 && flags & (WILL_RETAIN | 3 << WILL_QOS_SHIFT) != 0 {
            return Err(DecodeError::WillFlags);
        }
    }
    // 3.1.1 [MQTT-3.1.2-22]; MQTT 5.0 §3.1.2.9 allows it.
    if version != Version::V5 && flags & USER_NAME == 0 && flags & PASSWORD != 0 {
        return Err(DecodeError::PasswordWithoutUserName);
    }
    Ok(())
}

/// MQTT 3.1 §3.1: the remaining length takes precedence over the user name and password flags.
fn is_left_out(body: &Reader, version: Version) -> bool {
    version == Version::V3 && body.is_empty()
}

fn read_will(body: &mut Reader, flags: u8, version: Version) -> Result<Will, DecodeError> {
    // [MQTT-3.1.2-12]; 3.1.1 [MQTT-3.1.2-14]
    let qos = QoS::from_bits(flags >> WILL_QOS_SHIFT & 3).ok_or(DecodeError::InvalidQoS)?;
    let properties = if version == Version::V5 { read_will_properties(body)? } else { WillProperties::default() };
    Ok(Will {
        topic: body.full_topic_name()?,
        payload: body.binary()?,
        qos,
        retain: flags & WILL_RETAIN != 0,
        properties,
    })
}

fn read_properties(body: &mut Reader) -> Result<ConnectProperties, DecodeError> {
    let mut found = ConnectProperties::default();
    let mut section = Properties::read(body)?;
    while let Some(id) = section.next()? {
        match id {
            PropertyId::SessionExpiryInterval => found.session_expiry = section.u32(id)?,
            PropertyId::ReceiveMaximum => found.receive_maximum = section.positive_u16(id)?,
            PropertyId::MaximumPacketSize => found.maximum_packet_size = section.positive_u32(id)?,
            PropertyId::TopicAliasMaximum => found.topic_alias_maximum = section.u16(id)?,
            PropertyId::RequestResponseInformation => found.request_response_information = section.flag(id)?,
            PropertyId::RequestProblemInformation => found.request_problem_information = section.flag(id)?,
            PropertyId::UserProperty => found.user_properties.push(section.pair()?),
            PropertyId::AuthenticationMethod => found.authentication_method = section.text(id)?,
            PropertyId::AuthenticationData => found.authentication_data = section.binary(id)?,
            _ => return Err(DecodeError::PropertyNotAllowed(id)),
        }
    }
    // §3.1.2.11.10
    if found.authentication_data.is_some() && found.authentication_method.is_none() {
        return Err(DecodeError::NoAuthenticationMethod);
    }
    Ok(found)
}

fn read_will_properties(body: &mut Reader) -> Result<WillProperties, DecodeError> {
    let mut found = WillProperties::default();
    let mut section = Properties::read(body)?;
    while let Some(id) = section.next()? {
        match id {
            PropertyId::WillDelayInterval => found.delay = section.u32(id)?,
            // §3.1.3.2 gives a will the properties of a PUBLISH but these.
            PropertyId::TopicAlias | PropertyId::SubscriptionIdentifier => {
                return Err(DecodeError::PropertyNotAllowed(id));
            }
            _ => read_publish_property(&mut section, id, &mut found.publish)?,
        }
    }
    Ok(found)
}

pub(super) fn encode<S: Sink>(connect: &Connect, out: &mut S) {
    let (name, level): (&[u8], _) = match connect.version {
        Version::V3 => (b"MQIsdp", 3),
        Version::V4 => (b"MQTT", 4),
        Version::V5 => (b"MQTT", 5),
    };
    let is_v5 = connect.version == Version::V5;
    out.binary(name);
    out.u8(if connect.is_bridge && !is_v5 { level | BRIDGE } else { level });
    out.u8(flags(connect));
    out.u16(connect.keep_alive);
    if is_v5 {
        write_section(out, &connect.properties);
    }
    out.text(&connect.client_id);
    if let Some(will) = &connect.will {
        if is_v5 {
            write_section(out, &will.properties);
        }
        out.text(will.topic.text());
        out.binary(&will.payload);
    }
    if let Some(username) = &connect.username {
        out.text(username);
    }
    if let Some(password) = &connect.password {
        out.binary(password);
    }
}

fn flags(connect: &Connect) -> u8 {
    let will = connect
        .will
        .as_ref()
        .map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | if will.retain { WILL_RETAIN } else { 0 });
    will | if connect.clean_start { CLEAN_START } else { 0 }
        | if connect.username.is_some() { USER_NAME } else { 0 }
        | if connect.password.is_some() { PASSWORD } else { 0 }
}

impl WriteProperties for ConnectProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        write_u32(out, PropertyId::SessionExpiryInterval, self.session_expiry);
        write_text(out, PropertyId::AuthenticationMethod, self.authentication_method.as_ref());
        write_binary(out, PropertyId::AuthenticationData, self.authentication_data.as_ref());
        write_flag(out, PropertyId::RequestProblemInformation, self.request_problem_information);
        write_flag(out, PropertyId::RequestResponseInformation, self.request_response_information);
        write_u16(out, PropertyId::ReceiveMaximum, self.receive_maximum);
        write_u16(out, PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        write_pairs(out, &self.user_properties);
        write_u32(out, PropertyId::MaximumPacketSize, self.maximum_packet_size);
    }
}

impl WriteProperties for WillProperties {
    fn write<S: Sink>(&self, out: &mut S) {
        write_message_properties(&self.publish, out);
        write_u32(out, PropertyId::WillDelayInterval, self.delay);
        write_pairs(out, &self.publish.user_properties);
    }
}
