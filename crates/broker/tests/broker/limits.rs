//! What happens at each limit.

use std::time::Duration;

use bytes::BytesMut;
use evermq_mqtt::packet::{Connect, Disconnect, SubscriptionOptions};
use evermq_mqtt::{Packet, QoS, ReasonCode, Version, codec};

use crate::client::{Client, connect, message, resume};
use crate::running::{start, start_with};

#[test]
fn a_packet_that_is_too_large_ends_the_connection() {
    let (_site, broker) = start_with(|config| config.max_packet_size = 1000);
    let (mut client, connack) = Client::open(broker.plain, connect("c"));
    assert_eq!(connack.properties.maximum_packet_size, Some(1000));
    // Only its header: it is refused before its body comes.
    client.send_bytes(&[0x30, 0x80, 0x80, 0x80, 0x01]);
    client.expect_disconnect(ReasonCode::PacketTooLarge);
}

#[test]
fn a_client_gets_nothing_larger_than_it_takes() {
    let (_site, broker) = start();
    let mut asked = connect("s");
    asked.properties.maximum_packet_size = Some(50);
    let (mut subscriber, _) = Client::open(broker.plain, asked);
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    let mut publisher = broker.client("p");
    publisher.publish(message("t", &"x".repeat(100)), QoS::AtLeastOnce);
    publisher.publish(message("t", "small"), QoS::AtLeastOnce);
    assert_eq!(subscriber.message().1, "small");
}

#[test]
fn a_full_session_drops_and_counts() {
    let (_site, broker) = start_with(|config| config.max_queued_messages = 10);
    let (mut subscriber, _) = Client::open(broker.plain, resume("s"));
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    subscriber.disconnect(ReasonCode::Success);
    let mut publisher = broker.client("p");
    for number in 0..15 {
        publisher.publish(message("t", &number.to_string()), QoS::AtLeastOnce);
    }
    assert_eq!(broker.state()["messages"]["dropped"], 5);
    let (mut subscriber, _) = Client::open(broker.plain, resume("s"));
    let got: Vec<_> = (0..10).map(|_| subscriber.message().1).collect();
    assert_eq!(got, (0..10).map(|number| number.to_string()).collect::<Vec<_>>(), "the newest were refused");
    subscriber.expect_nothing();
}

#[test]
fn a_reader_that_does_not_read_costs_others_nothing() {
    let (_site, broker) = start_with(|config| config.max_queued_messages = 100);
    let mut stuck = broker.client("stuck");
    stuck.subscribe_at("t", QoS::AtMostOnce);
    let mut reader = broker.client("reader");
    reader.subscribe_at("t", QoS::AtLeastOnce);
    let mut publisher = broker.client("p");
    let payload = "x".repeat(90_000);
    for number in 0..400 {
        publisher.publish(message("t", &format!("{number} {payload}")), QoS::AtLeastOnce);
        assert!(reader.message().1.starts_with(&format!("{number} ")));
    }
    broker.wait_for("dropped messages", |state| {
        state["messages"]["dropped"].as_u64() > Some(0) && state["queued"].as_u64() <= Some(100)
    });
}

#[test]
fn subscriptions_of_one_session() {
    let (_site, broker) = start_with(|config| config.max_subscriptions = 2);
    let mut client = broker.client("c");
    let options = SubscriptionOptions::default();
    assert_eq!(client.subscribe("a", options), ReasonCode::Success);
    assert_eq!(client.subscribe("b", options), ReasonCode::Success);
    assert_eq!(client.subscribe("c", options), ReasonCode::QuotaExceeded);
    assert_eq!(client.subscribe("a", options), ReasonCode::Success);
    assert_eq!(client.subscribe("1/2/3/4/5/6/7/8/9", options), ReasonCode::TopicFilterInvalid);
    assert_eq!(client.publish(message("1/2/3/4/5/6/7/8/9", "x"), QoS::AtLeastOnce), ReasonCode::TopicNameInvalid);
    assert_eq!(client.publish(message("1/2/3/4/5/6/7/8/9", "x"), QoS::ExactlyOnce), ReasonCode::TopicNameInvalid);
}

#[test]
fn sessions_that_outlive_their_connections() {
    let (_site, broker) = start_with(|config| config.max_sessions = 2);
    let lasting = |id: &str, clean_start| {
        let mut connect = Connect { clean_start, ..connect(id) };
        connect.properties.session_expiry = Some(100);
        Client::open(broker.plain, connect)
    };
    let reason = |id: &str| lasting(id, false).1.reason;
    assert_eq!((reason("a"), reason("b")), (ReasonCode::Success, ReasonCode::Success));
    assert_eq!(reason("c"), ReasonCode::QuotaExceeded);
    // What ends with its connection is no session of that kind, and those that are there are taken up or replaced.
    drop(broker.client("d"));
    assert_eq!(reason("a"), ReasonCode::Success);
    let (mut client, connack) = lasting("b", true);
    assert_eq!(connack.reason, ReasonCode::Success);
    assert_eq!(reason("c"), ReasonCode::QuotaExceeded);
    // One that ends makes room.
    let properties = evermq_mqtt::properties::DisconnectProperties { session_expiry: Some(0), ..Default::default() };
    client
        .send(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Some(Box::new(properties)) }));
    broker.wait_for("the end of the session", |state| state["sessions"] == 1);
    assert_eq!(reason("c"), ReasonCode::Success);
}

#[test]
fn a_server_keep_alive_is_told() {
    let (_site, broker) = start_with(|config| config.max_keep_alive = Duration::from_secs(30));
    for (asked, told) in [(0, Some(30)), (10, None), (30, None), (60, Some(30))] {
        let (_client, connack) = Client::open(broker.plain, Connect { keep_alive: asked, ..connect("c") });
        assert_eq!(connack.properties.server_keep_alive, told, "{asked}");
    }
}

#[test]
fn connections_beyond_the_limit_are_closed() {
    let (_site, broker) = start_with(|config| config.admission.connections = 2);
    let one = broker.client("one");
    let mut two = broker.client("two");
    assert_eq!(Client::raw(broker.plain, Version::V5).next(), None);
    two.expect_nothing();
    one.vanish();
    broker.wait_for("a free place", |state| state["connections"] == 1);
    broker.client("three").expect_nothing();
}

#[test]
fn more_unreleased_messages_than_receive_maximum() {
    let (_site, broker) = start();
    let (mut client, connack) = Client::open(broker.plain, connect("c"));
    assert_eq!(connack.properties.receive_maximum, Some(20));
    let mut bytes = BytesMut::new();
    for number in 1..=21 {
        let publish = evermq_mqtt::Publish {
            qos: QoS::ExactlyOnce,
            packet_id: Some(crate::client::id(number)),
            ..message("t", "x")
        };
        codec::encode(&Packet::Publish(publish), Version::V5, &mut bytes).unwrap();
    }
    client.send_bytes(&bytes);
    (0..20).for_each(|_| assert!(matches!(client.receive(), Packet::PubRec(_))));
    client.expect_disconnect(ReasonCode::ReceiveMaximumExceeded);
}
