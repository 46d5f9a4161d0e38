//! Topics, subscriptions and packet identifiers that are meant to hurt: bounded time, bounded memory, nothing lost.

use std::time::Duration;

use bytes::BytesMut;
use evermq_broker::connection::clock;
use evermq_mqtt::packet::{Ack, Connect, Subscribe, SubscribeFilter, SubscriptionOptions};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties};
use evermq_mqtt::{Packet, QoS, ReasonCode, TopicFilter, Version, codec};

use crate::client::{Client, connect, id, message, text};
use crate::running::{start, start_with};

/// Every way to put `+` or the name in the first levels, so that one topic matches them all.
fn overlapping(levels: u32) -> Vec<String> {
    let level = |bits: u32, at: u32| if bits >> at & 1 == 1 { "+" } else { "a" };
    (0..1 << levels).map(|bits| (0..levels).map(|at| level(bits, at)).collect::<Vec<_>>().join("/")).collect()
}

#[test]
fn overlapping_wildcards_cost_as_much_as_they_match() {
    const LEVELS: u32 = 10;
    let (_site, broker) = start_with(|config| {
        config.max_subscriptions = 2000;
        config.max_topic_levels = 32;
        config.max_queued_messages = 5000;
    });
    let mut hostile = broker.client("hostile");
    let filters: Vec<_> = overlapping(LEVELS)
        .iter()
        .map(|filter| SubscribeFilter {
            filter: TopicFilter::new(text(filter)).unwrap(),
            options: SubscriptionOptions::default(),
        })
        .collect();
    let count = filters.len();
    hostile.send(&Packet::Subscribe(Subscribe {
        packet_id: id(1),
        filters,
        properties: SubscribeProperties::default(),
    }));
    assert!(matches!(hostile.receive(), Packet::SubAck(_)));
    let mut publisher = broker.client("p");
    let topic = vec!["a"; LEVELS as usize].join("/");
    let started = clock();
    for _ in 0..3 {
        publisher.publish(message(&topic, "x"), QoS::AtLeastOnce);
    }
    // §3.3.4 lets a server send one for each subscription, or one for all of them; at most the former comes.
    let took = clock() - started;
    assert!(took < Duration::from_secs(5), "{took:?} for {count} subscriptions that all match");
    hostile.message();
    // A topic that matches none of them costs no more.
    let started = clock();
    publisher.publish(message(&format!("{topic}/b"), "x"), QoS::AtLeastOnce);
    assert!(clock() - started < Duration::from_secs(1));
}

#[test]
fn many_levels_are_refused_before_they_are_stored() {
    let (_site, broker) = start();
    let mut client = broker.client("c");
    let deep = "/".repeat(60_000);
    assert_eq!(client.subscribe(&deep, SubscriptionOptions::default()), ReasonCode::TopicFilterInvalid);
    assert_eq!(client.publish(message(&deep, "x"), QoS::AtLeastOnce), ReasonCode::TopicNameInvalid);
    client.expect_nothing();
    assert_eq!(broker.state()["subscriptions"], 0);
}

#[test]
fn every_packet_identifier_is_used_and_none_twice() {
    const ALL: usize = 65_535;
    let (_site, broker) = start_with(|config| {
        config.max_inflight = u16::MAX;
        config.max_queued_messages = 100_000;
        config.max_queued_bytes = 64 << 20;
    });
    let mut greedy = broker.client("greedy");
    greedy.subscribe_at("t", QoS::AtLeastOnce);
    let mut publisher = broker.client("p");
    let mut seen = vec![false; ALL + 1];
    let mut received = 0;
    for chunk in 0..66 {
        let mut bytes = BytesMut::new();
        let count = if chunk < 65 { 1000 } else { 635 };
        for number in 1..=count {
            let publish =
                evermq_mqtt::Publish { qos: QoS::AtLeastOnce, packet_id: Some(id(number)), ..message("t", "x") };
            codec::encode(&Packet::Publish(publish), Version::V5, &mut bytes).unwrap();
        }
        publisher.send_bytes(&bytes);
        (0..count).for_each(|_| assert!(matches!(publisher.receive(), Packet::PubAck(_))));
        while received < ALL.min(1000 * (chunk + 1)) {
            let Packet::Publish(publish) = greedy.receive() else { panic!("not a PUBLISH") };
            let number = usize::from(publish.packet_id.unwrap().0.get());
            assert!(!std::mem::replace(&mut seen[number], true), "{number} is in use");
            received += 1;
        }
    }
    // [MQTT-2.2.1-4]: all are in use, so nothing more comes until one is given back, in the order of [MQTT-4.6.0-2].
    greedy.expect_nothing();
    for number in 1..=3 {
        greedy.send(&Packet::PubAck(Ack { packet_id: id(number), reason: ReasonCode::Success, properties: None }));
        let Packet::Publish(publish) = greedy.receive() else { panic!("not a PUBLISH") };
        assert_eq!(publish.packet_id, Some(id(number)));
        greedy.expect_nothing();
    }
}

#[test]
fn subscriptions_of_many_sessions_end_with_them() {
    let (_site, broker) = start_with(|config| config.max_subscriptions = 500);
    for round in 0..4 {
        let asked = Connect {
            properties: ConnectProperties { session_expiry: Some(60), ..ConnectProperties::default() },
            ..connect(&format!("c{round}"))
        };
        let (mut client, _) = Client::open(broker.plain, asked);
        for number in 0..500 {
            client.subscribe_at(&format!("{round}/{number}/+/#"), QoS::AtMostOnce);
        }
        assert_eq!(client.subscribe("one/more", SubscriptionOptions::default()), ReasonCode::QuotaExceeded);
        client.vanish();
        broker.client(&format!("c{round}")).expect_nothing();
    }
    broker.wait_for("no subscriptions", |state| state["subscriptions"] == 0);
}
