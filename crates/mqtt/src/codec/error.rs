//! What can be wrong with bytes, one variant for each cause, and with a packet that is to be written.

use crate::reason::ReasonCode;
use crate::text::TextError;
use crate::topic::TopicError;

use super::frame::PacketType;
use super::property::PropertyId;
use super::sender::Sender;

/// Why bytes are no packet. The connection is of no further use: close it, after a CONNACK or DISCONNECT with
/// [`DecodeError::reason`] where version and state allow one (MQTT 5.0 §4.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Type 0, or type 15 before MQTT 5.0 (§2.1.2).
    #[error("packet type {0} is forbidden")]
    ForbiddenType(u8),
    /// Reserved bits of the fixed header (`[MQTT-2.1.3-1]`; 3.1.1 `[MQTT-2.2.2-1]`).
    #[error("{packet} has flags {flags:#06b}, which are reserved")]
    ReservedFlags {
        /// The packet's type.
        packet: PacketType,
        /// Low half of the first byte.
        flags: u8,
    },
    /// A variable byte integer of more than four bytes (§1.5.5).
    #[error("variable byte integer is longer than four bytes")]
    OverlongInteger,
    /// A variable byte integer that fewer bytes could say (`[MQTT-1.5.5-1]`).
    #[error("variable byte integer does not use the minimum number of bytes")]
    NonMinimalInteger,
    /// The packet is larger than the caller's limit (`[MQTT-3.1.2-24]`).
    #[error("packet of {size} bytes exceeds the limit of {limit}")]
    PacketTooLarge {
        /// Whole packet in bytes, as its fixed header says.
        size: u32,
        /// [`super::Limits::max_packet_size`].
        limit: u32,
    },
    /// A field runs past the end of the packet, or of its properties.
    #[error("packet ends inside a field")]
    Truncated,
    /// Bytes after the last field.
    #[error("{0} bytes follow the last field")]
    TrailingBytes(usize),
    /// A string that is no MQTT string (`[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`).
    #[error(transparent)]
    Text(#[from] TextError),
    /// A topic name, will topic or response topic with a wildcard, or empty (`[MQTT-3.3.2-2]`, `[MQTT-3.3.2-14]`).
    #[error("topic name is invalid: {0}")]
    TopicName(#[source] TopicError),
    /// A topic filter that breaks §4.7 or §4.8.2.
    #[error("topic filter is invalid: {0}")]
    TopicFilter(#[source] TopicError),
    /// A PUBLISH with neither topic name nor topic alias (§3.3.2.1).
    #[error("PUBLISH has neither topic name nor topic alias")]
    NoTopic,
    /// A topic alias of 0 (`[MQTT-3.3.2-8]`).
    #[error("topic alias is 0")]
    TopicAliasZero,
    /// A CONNECT that is not MQTT's (`[MQTT-3.1.2-1]`).
    #[error("protocol name is neither MQTT nor MQIsdp")]
    ProtocolName,
    /// A protocol level that this codec does not know (`[MQTT-3.1.2-2]`).
    #[error("protocol level {0} is not supported")]
    ProtocolLevel(u8),
    /// Bit 0 of the connect flags (`[MQTT-3.1.2-3]`).
    #[error("reserved connect flag is set")]
    ReservedConnectFlag,
    /// Will QoS or Will Retain without a will (`[MQTT-3.1.2-11]`, `[MQTT-3.1.2-13]`).
    #[error("connect flags give will QoS or will retain without a will")]
    WillFlags,
    /// A password without a user name before MQTT 5.0 (3.1.1 `[MQTT-3.1.2-22]`).
    #[error("connect flags give a password without a user name")]
    PasswordWithoutUserName,
    /// QoS 3 in a PUBLISH or a will (`[MQTT-3.3.1-4]`, `[MQTT-3.1.2-12]`).
    #[error("QoS is 3")]
    InvalidQoS,
    /// DUP at QoS 0 (`[MQTT-3.3.1-2]`).
    #[error("DUP is set at QoS 0")]
    DupAtQoS0,
    /// Packet identifier 0 (`[MQTT-2.2.1-3]`).
    #[error("packet identifier is 0")]
    PacketIdZero,
    /// SUBSCRIBE or UNSUBSCRIBE without a topic filter (`[MQTT-3.8.3-2]`, `[MQTT-3.10.3-2]`).
    #[error("{0} carries no topic filter")]
    NoFilters(PacketType),
    /// SUBACK or UNSUBACK without a reason code (`[MQTT-3.8.4-6]`, `[MQTT-3.11.3-1]`).
    #[error("{0} carries no reason code")]
    NoReasons(PacketType),
    /// Reserved bits of the subscription options (`[MQTT-3.8.3-5]`; 3.1.1 `[MQTT-3-8.3-4]`).
    #[error("subscription options {0:#04x} use reserved bits")]
    ReservedSubscriptionOptions(u8),
    /// Maximum QoS 3 or Retain Handling 3 (§3.8.3.1).
    #[error("subscription options {0:#04x} hold the value 3")]
    InvalidSubscriptionOptions(u8),
    /// No Local on a shared subscription (`[MQTT-3.8.3-4]`).
    #[error("no local is set on a shared subscription")]
    NoLocalShared,
    /// A reason code or return code that the packet may not carry (such as `[MQTT-3.4.2-1]`).
    #[error("{packet} may not carry reason code {code:#04x}")]
    InvalidReason {
        /// The packet's type.
        packet: PacketType,
        /// The code.
        code: u8,
    },
    /// Reserved bits of the connect acknowledge flags (`[MQTT-3.2.2-1]`).
    #[error("connect acknowledge flags {0:#04x} use reserved bits")]
    ReservedConnAckFlags(u8),
    /// Session Present beside an error (`[MQTT-3.2.2-6]`).
    #[error("CONNACK says session present and reports an error")]
    SessionPresentOnError,
    /// A property identifier that the standard does not know (§2.2.2.2).
    #[error("property {0:#04x} is unknown")]
    UnknownProperty(u32),
    /// A property that the packet may not carry (§2.2.2.2).
    #[error("property {0} is not allowed here")]
    PropertyNotAllowed(PropertyId),
    /// A property that may appear once only.
    #[error("property {0} appears twice")]
    DuplicateProperty(PropertyId),
    /// A property with a value that it may not have.
    #[error("property {property} may not be {value}")]
    PropertyValue {
        /// The property.
        property: PropertyId,
        /// Its value.
        value: u32,
    },
    /// Authentication Data without Authentication Method, or AUTH without the method (§3.1.2.11.10, §3.15.2.2.2).
    #[error("authentication method is missing")]
    NoAuthenticationMethod,
    /// A packet that only the other side may send (§2.1.2).
    #[error("{packet} came from the {sender}")]
    WrongSender {
        /// The packet's type.
        packet: PacketType,
        /// Who sent it.
        sender: Sender,
    },
    /// A property that only the other side may send (such as `[MQTT-3.3.4-6]`, `[MQTT-3.14.2-2]`).
    #[error("property {property} came from the {sender}")]
    WrongSenderProperty {
        /// The property.
        property: PropertyId,
        /// Who sent it.
        sender: Sender,
    },
}

impl DecodeError {
    /// The reason code to close the connection with (MQTT 5.0 §4.13; malformed and protocol error as §1.2 defines
    /// them: what cannot be parsed, and what was parsed but is not allowed).
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::ProtocolName | Self::ProtocolLevel(_) => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::ForbiddenType(_)
            | Self::ReservedFlags { .. }
            | Self::OverlongInteger
            | Self::NonMinimalInteger
            | Self::Truncated
            | Self::TrailingBytes(_)
            | Self::Text(_)
            // Not 0x8F and 0x90: table 3-10 gives those to what is well-formed and yet not accepted.
            | Self::TopicName(_)
            | Self::TopicFilter(_)
            | Self::ReservedConnectFlag
            | Self::WillFlags
            | Self::PasswordWithoutUserName
            | Self::InvalidQoS
            | Self::DupAtQoS0
            | Self::ReservedSubscriptionOptions(_)
            | Self::ReservedConnAckFlags(_)
            | Self::UnknownProperty(_)
            | Self::PropertyNotAllowed(_) => ReasonCode::MalformedPacket,
            Self::NoTopic
            | Self::PacketIdZero
            | Self::NoFilters(_)
            | Self::NoReasons(_)
            | Self::InvalidSubscriptionOptions(_)
            | Self::NoLocalShared
            | Self::InvalidReason { .. }
            | Self::SessionPresentOnError
            | Self::DuplicateProperty(_)
            | Self::PropertyValue { .. }
            | Self::NoAuthenticationMethod
            | Self::WrongSender { .. }
            | Self::WrongSenderProperty { .. } => ReasonCode::ProtocolError,
        }
    }
}

/// Why a packet cannot be written. The caller built it wrong; nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The packet does not exist in the version: AUTH before MQTT 5.0.
    #[error("{0} does not exist in this version of MQTT")]
    NotInVersion(PacketType),
    /// More than a remaining length of 268,435,455 bytes can say (§2.1.4).
    #[error("packet with a remaining length of {0} bytes is larger than MQTT allows")]
    PacketTooLarge(usize),
    /// Binary data of more than 65,535 bytes: a password, a will payload, correlation or authentication data (§1.5.6).
    #[error("binary data of {0} bytes is longer than 65,535")]
    BinaryTooLong(usize),
    /// A subscription identifier above 268,435,455 (§3.8.2.1.2).
    #[error("subscription identifier {0} is above 268,435,455")]
    SubscriptionId(u32),
    /// A packet identifier at QoS 0, or none above (`[MQTT-2.2.1-2]`, `[MQTT-2.2.1-3]`).
    #[error("PUBLISH needs a packet identifier if and only if its QoS is above 0")]
    PacketId,
    /// A PUBLISH with neither topic name nor topic alias, or a will without a topic.
    #[error("{0} has no topic")]
    NoTopic(PacketType),
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, SUBACK or UNSUBACK without a reason code.
    #[error("{0} has no payload")]
    NoPayload(PacketType),
    /// A password without a user name before MQTT 5.0 (3.1.1 `[MQTT-3.1.2-22]`).
    #[error("MQTT 3.1.1 has no password without a user name")]
    PasswordWithoutUserName,
    /// A reason code that the packet may not carry (such as `[MQTT-3.4.2-1]`).
    #[error("{packet} may not carry reason code {code:#04x}")]
    InvalidReason {
        /// The packet's type.
        packet: PacketType,
        /// The code.
        code: u8,
    },
    /// A property of 0 that may not be 0: Receive Maximum, Maximum Packet Size, Topic Alias.
    #[error("property {0} may not be 0")]
    ZeroProperty(PropertyId),
    /// A response topic that is no topic name (`[MQTT-3.3.2-14]`).
    #[error("response topic is empty or contains a wildcard")]
    ResponseTopic,
    /// No Local on a shared subscription (`[MQTT-3.8.3-4]`).
    #[error("no local is set on a shared subscription")]
    NoLocalShared,
    /// Authentication Data without Authentication Method, or AUTH without the method (§3.1.2.11.10, §3.15.2.2.2).
    #[error("authentication method is missing")]
    NoAuthenticationMethod,
}
