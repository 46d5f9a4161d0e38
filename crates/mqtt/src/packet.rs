//! One type for each MQTT control packet (MQTT 5.0 §3, MQTT 3.1.1 §3), the same for both versions.
//!
//! What a version lacks is empty: properties are default, reason codes are the 3.1.1 equivalents.

use std::num::NonZeroU16;

use bytes::Bytes;

use crate::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties,
    SubscribeProperties, WillProperties,
};
use crate::reason::ReasonCode;
use crate::text::Text;
use crate::topic::{TopicFilter, TopicName};

/// The protocol version that a CONNECT names (MQTT 5.0 §3.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3.
    V3,
    /// MQTT 3.1.1, level 4.
    V4,
    /// MQTT 5.0, level 5.
    V5,
}

impl Version {
    /// As people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V3 => "3.1",
            Self::V4 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// Quality of service (MQTT 5.0 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum QoS {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS that two bits say; `None` for 3, which is reserved.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier, never 0 (`[MQTT-2.2.1-3]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub NonZeroU16);

/// A control packet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented by its type")]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Auth),
}

/// CONNECT (§3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Protocol version by name and level.
    pub version: Version,
    /// Clean Start (5.0) or Clean Session (3.1.1).
    pub clean_start: bool,
    /// Keep alive in seconds, 0 for none.
    pub keep_alive: u16,
    /// Client identifier, may be empty.
    pub client_id: Text,
    /// The will, if any.
    pub will: Option<Will>,
    /// User name, if any.
    pub username: Option<Text>,
    /// Password, if any.
    pub password: Option<Bytes>,
    /// Properties (5.0).
    pub properties: ConnectProperties,
    /// The client says by the highest bit of the protocol level that it is a bridge, as mosquitto's do. Never with 5.0, where
    /// subscriptions say what a bridge needs.
    pub is_bridge: bool,
}

/// A will message (§3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Will topic.
    pub topic: TopicName,
    /// Will payload.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: QoS,
    /// Will retain.
    pub retain: bool,
    /// Will properties (5.0).
    pub properties: WillProperties,
}

/// CONNACK (§3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// Connect reason code; encoded as its 3.1.1 return code for versions 3 and 4.
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: ConnAckProperties,
}

/// PUBLISH (§3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Re-delivery of an earlier attempt.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retain.
    pub retain: bool,
    /// Topic name; empty only where a topic alias stands for it (5.0).
    pub topic: TopicName,
    /// Present if and only if `qos` is above 0.
    pub packet_id: Option<PacketId>,
    /// Properties (5.0); `None` where all are absent, so that a plain message stays small.
    pub properties: Option<Box<PublishProperties>>,
    /// Application message.
    pub payload: Bytes,
}

impl Publish {
    /// Bytes that the message holds in memory besides a fixed part: topic, payload and properties.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.as_deref().map_or(0, PublishProperties::weight)
    }
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP (§3.4 to §3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The packet that this answers.
    pub packet_id: PacketId,
    /// Reason code; not sent for versions 3 and 4.
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Option<Box<AckProperties>>,
}

/// SUBSCRIBE (§3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// At least one filter (`[MQTT-3.8.3-2]`).
    pub filters: Vec<SubscribeFilter>,
    /// Properties (5.0).
    pub properties: SubscribeProperties,
}

/// One topic filter of a SUBSCRIBE with its options (§3.8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// Topic filter.
    pub filter: TopicFilter,
    /// Options.
    pub options: SubscriptionOptions,
}

/// Subscription options (§3.8.3.1); versions 3 and 4 carry the QoS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// Do not send a client its own messages.
    pub no_local: bool,
    /// Keep the RETAIN flag as published.
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent at subscribe (§3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every subscribe.
    #[default]
    Send = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// SUBACK (§3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Packet identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter, in order (`[MQTT-3.8.4-6]`).
    pub reasons: Vec<ReasonCode>,
    /// Properties (5.0).
    pub properties: Option<Box<AckProperties>>,
}

/// UNSUBSCRIBE (§3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet identifier.
    pub packet_id: PacketId,
    /// At least one filter (`[MQTT-3.10.3-2]`).
    pub filters: Vec<TopicFilter>,
    /// User properties (5.0).
    pub user_properties: Vec<(Text, Text)>,
}

/// UNSUBACK (§3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// Packet identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter, in order; not sent for versions 3 and 4.
    pub reasons: Vec<ReasonCode>,
    /// Properties (5.0).
    pub properties: Option<Box<AckProperties>>,
}

/// DISCONNECT (§3.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Reason code.
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Option<Box<DisconnectProperties>>,
}

/// AUTH (§3.15), 5.0 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Reason code.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: AuthProperties,
}
