//! What only a client or only a server may send (§2.1.2 table 2-1, and the property sections of §3).

use std::fmt;

use crate::packet::Packet;
use crate::reason::ReasonCode;

use super::error::DecodeError;
use super::frame::PacketType;
use super::property::PropertyId;

/// Which side of a connection a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The side that sent CONNECT.
    Client,
    /// The side that accepted it.
    Server,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Checks a decoded packet for what its sender may not say: a whole packet, a property or a reason code that is the
/// other side's. Costs next to nothing; the reader of each connection calls it after [`super::decode`].
///
/// # Errors
/// [`DecodeError::WrongSender`], [`DecodeError::WrongSenderProperty`], [`DecodeError::InvalidReason`].
pub fn check_sender(packet: &Packet, sender: Sender) -> Result<(), DecodeError> {
    match sender {
        Sender::Client => check_client(packet),
        Sender::Server => check_server(packet),
    }
}

fn check_client(packet: &Packet) -> Result<(), DecodeError> {
    let wrong = |packet| Err(DecodeError::WrongSender { packet, sender: Sender::Client });
    let property = |property| Err(DecodeError::WrongSenderProperty { property, sender: Sender::Client });
    match packet {
        Packet::ConnAck(_) => wrong(PacketType::ConnAck),
        Packet::SubAck(_) => wrong(PacketType::SubAck),
        Packet::UnsubAck(_) => wrong(PacketType::UnsubAck),
        Packet::PingResp => wrong(PacketType::PingResp),
        // [MQTT-3.3.4-6]
        Packet::Publish(publish) if publish.properties.as_ref().is_some_and(|p| !p.subscription_ids.is_empty()) => {
            property(PropertyId::SubscriptionIdentifier)
        }
        // Tables 3-4 and 3-5: sent by the server only.
        Packet::PubAck(ack) => no_reason(PacketType::PubAck, ack.reason, &[ReasonCode::NoMatchingSubscribers]),
        Packet::PubRec(ack) => no_reason(PacketType::PubRec, ack.reason, &[ReasonCode::NoMatchingSubscribers]),
        // §3.14.2.2.5
        Packet::Disconnect(disconnect)
            if disconnect.properties.as_ref().is_some_and(|p| p.server_reference.is_some()) =>
        {
            property(PropertyId::ServerReference)
        }
        Packet::Disconnect(disconnect) => no_reason(PacketType::Disconnect, disconnect.reason, SERVER_DISCONNECTS),
        // Table 3-11
        Packet::Auth(auth) => no_reason(PacketType::Auth, auth.reason, &[ReasonCode::Success]),
        Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq => Ok(()),
    }
}

fn check_server(packet: &Packet) -> Result<(), DecodeError> {
    let wrong = |packet| Err(DecodeError::WrongSender { packet, sender: Sender::Server });
    match packet {
        Packet::Connect(_) => wrong(PacketType::Connect),
        Packet::Subscribe(_) => wrong(PacketType::Subscribe),
        Packet::Unsubscribe(_) => wrong(PacketType::Unsubscribe),
        Packet::PingReq => wrong(PacketType::PingReq),
        // [MQTT-3.14.2-2]
        Packet::Disconnect(disconnect)
            if disconnect.properties.as_ref().is_some_and(|p| p.session_expiry.is_some()) =>
        {
            Err(DecodeError::WrongSenderProperty {
                property: PropertyId::SessionExpiryInterval,
                sender: Sender::Server,
            })
        }
        // Table 3-10
        Packet::Disconnect(disconnect) => {
            no_reason(PacketType::Disconnect, disconnect.reason, &[ReasonCode::DisconnectWithWill])
        }
        // Table 3-11
        Packet::Auth(auth) => no_reason(PacketType::Auth, auth.reason, &[ReasonCode::ReAuthenticate]),
        Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::SubAck(_)
        | Packet::UnsubAck(_)
        | Packet::PingResp => Ok(()),
    }
}

/// Table 3-10: reasons that a server gives for its DISCONNECT, a client never.
const SERVER_DISCONNECTS: &[ReasonCode] = &[
    ReasonCode::NotAuthorized,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::BadAuthenticationMethod,
    ReasonCode::KeepAliveTimeout,
    ReasonCode::SessionTakenOver,
    ReasonCode::TopicFilterInvalid,
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

fn no_reason(packet: PacketType, reason: ReasonCode, forbidden: &[ReasonCode]) -> Result<(), DecodeError> {
    if forbidden.contains(&reason) {
        return Err(DecodeError::InvalidReason { packet, code: reason as u8 });
    }
    Ok(())
}
