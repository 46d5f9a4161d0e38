//! What a relay is told of its ends, and what it asks for.

use std::time::Duration;

use evermq_mqtt::packet::SubscribeFilter;
use evermq_mqtt::{Packet, QoS, ReasonCode, Version, codec};

/// What the other ends take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The remote broker's.
    pub version: Version,
    /// Bytes of a packet to the remote broker.
    pub max_packet_size: u32,
    /// Bytes of a packet to the broker here.
    pub max_packet_size_here: u32,
    /// Highest QoS that the remote broker takes.
    pub max_qos: QoS,
    /// Whether the remote broker takes retained messages.
    pub takes_retained: bool,
    /// Zero for none.
    pub keep_alive: Duration,
}

/// What the driver is to do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the packet to the remote broker.
    Remote(Packet),
    /// Write the packet to the broker here.
    Local(Packet),
    /// All is subscribed at the remote broker.
    Subscribed,
    /// A subscription was refused; the others hold.
    Refused(SubscribeFilter, ReasonCode),
    /// It is over: close both.
    End(Ended),
}

/// Why a relay ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The remote broker closed, and said why.
    #[error("the remote broker closed the connection: {0}")]
    Remote(&'static str),
    /// The broker here closed, and said why.
    #[error("this broker closed the bridge's session: {0}")]
    Local(&'static str),
    /// The remote broker sent what only a client sends, or what belongs to no exchange.
    #[error("the remote broker sent {0} out of turn")]
    OutOfTurn(codec::PacketType),
    /// No PINGRESP.
    #[error("the remote broker has not answered for keep_alive")]
    Silent,
    /// A message was not taken here, and is to come again later.
    #[error("this broker has no room for messages now")]
    NoRoom,
}

/// What has gone over the bridge, and what has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages to the remote broker, those sent again included.
    pub sent: u64,
    /// Messages from it, likewise.
    pub received: u64,
    /// Messages that the remote broker does not take: too large, nothing left of the topic, or it said so.
    pub refused_there: u64,
    /// Messages that the broker here does not take, likewise.
    pub refused_here: u64,
    /// Messages through subscriptions that are not the bridge's any more.
    pub unwanted: u64,
}
