//! The few MQTT packets that a probe sends.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use evermq_daemon::cluster_topics;
use evermq_mqtt::packet::{Connect, Disconnect, Subscribe, SubscribeFilter, SubscriptionOptions};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version};

/// MQTT 3.1.1, which every broker speaks.
pub(super) const VERSION: Version = Version::V4;
/// The keep alive is for the broker, which is to forget a dead lb; some refuse shorter ones.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Brokers that know each other end the older one of two sessions under one identifier, so there is one for each backend.
pub(super) fn connect(lb: &Text, backend: &str, health_timeout: Duration) -> Packet {
    let keep_alive = (health_timeout * 2).max(SHORTEST_KEEP_ALIVE).as_secs();
    let client_id = Text::new(&format!("{lb}-{backend}")).unwrap_or_else(|_| lb.clone());
    Packet::Connect(Box::new(Connect {
        version: VERSION,
        clean_start: true,
        keep_alive: u16::try_from(keep_alive).unwrap_or(u16::MAX),
        client_id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
        is_bridge: false,
    }))
}

pub(super) fn subscribe_state() -> Packet {
    let filter = TopicFilter::new(text(cluster_topics::STATE)).expect("the topic is a filter");
    Packet::Subscribe(Subscribe {
        packet_id: PacketId(NonZeroU16::MIN),
        filters: vec![SubscribeFilter { filter, options: SubscriptionOptions::default() }],
        properties: SubscribeProperties::default(),
    })
}

/// One for each [`cluster_topics::MAX_ADDRESSES`] of them.
pub(super) fn disconnect_clients(addresses: &[SocketAddr]) -> impl Iterator<Item = Packet> {
    addresses.chunks(cluster_topics::MAX_ADDRESSES).map(|some| {
        Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: TopicName::new(text(cluster_topics::DISCONNECT)).expect("the topic is a name"),
            packet_id: None,
            properties: None,
            payload: cluster_topics::disconnect_payload(some).into(),
        })
    })
}

pub(super) const fn farewell() -> Packet {
    Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None })
}

fn text(topic: &str) -> Text {
    Text::new(topic).expect("the topic is short and has no control characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_has_a_session_of_its_own() {
        let id = |backend| match connect(&text("evermq-lb-a-1"), backend, Duration::from_secs(1)) {
            Packet::Connect(connect) => connect.client_id.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!([id("b1"), id("b2")], ["evermq-lb-a-1-b1", "evermq-lb-a-1-b2"]);
    }
}
