//! What packets of the recordings are made of.

use bytes::Bytes;
use evermq_mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe,
};
use evermq_mqtt::properties::{ConnAckProperties, ConnectProperties, PublishProperties, SubscribeProperties};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version};

pub(super) fn text(string: &str) -> Text {
    Text::new(string).expect("no U+0000")
}

pub(super) fn topic(name: &str) -> TopicName {
    TopicName::new(text(name)).expect("a topic name")
}

pub(super) fn filter(filter: &str) -> TopicFilter {
    TopicFilter::new(text(filter)).expect("a topic filter")
}

pub(super) fn pairs(pairs: &[(&str, &str)]) -> Vec<(Text, Text)> {
    pairs.iter().map(|(name, value)| (text(name), text(value))).collect()
}

pub(super) fn id(value: u16) -> PacketId {
    PacketId(value.try_into().expect("above 0"))
}

pub(super) fn number(value: u32) -> std::num::NonZeroU32 {
    value.try_into().expect("above 0")
}

pub(super) fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

pub(super) fn ack(packet_id: u16) -> Ack {
    Ack { packet_id: id(packet_id), reason: ReasonCode::Success, properties: None }
}

pub(super) fn bye() -> Packet {
    Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None })
}

pub(super) fn connack(reason: ReasonCode) -> Packet {
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties: ConnAckProperties::default() }))
}

/// What mosquitto's clients send where nothing else is asked for.
pub(super) fn plain_connect(client_id: &str) -> Connect {
    Connect {
        version: Version::V4,
        clean_start: true,
        keep_alive: 60,
        client_id: text(client_id),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
        is_bridge: false,
    }
}

pub(super) fn publish(
    qos: QoS,
    retain: bool,
    name: &str,
    payload: &'static str,
    packet_id: u16,
    properties: Option<PublishProperties>,
) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain,
        topic: topic(name),
        packet_id: (packet_id != 0).then(|| id(packet_id)),
        properties: properties.map(Box::new),
        payload: Bytes::from(payload),
    })
}

pub(super) fn subscribe(filters: Vec<SubscribeFilter>, properties: SubscribeProperties) -> Packet {
    Packet::Subscribe(Subscribe { packet_id: id(1), filters, properties })
}

pub(super) fn unsubscribe(packet_id: u16, filters: &[&str], user_properties: &[(&str, &str)]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        filters: filters.iter().map(|name| filter(name)).collect(),
        user_properties: pairs(user_properties),
    })
}
