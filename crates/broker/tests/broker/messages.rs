//! Messages from one client to another.

use std::num::NonZeroU32;

use bytes::Bytes;
use evermq_mqtt::packet::SubscriptionOptions;
use evermq_mqtt::properties::{PublishProperties, SubscribeProperties};
use evermq_mqtt::{Packet, Publish, QoS, Version};

use crate::client::{Client, connect, message, text};
use crate::running::{start, start_with};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[test]
fn each_qos_meets_each_qos_in_each_version() {
    let (_site, broker) = start();
    for (pair, (from, to)) in
        [(Version::V4, Version::V5), (Version::V5, Version::V4), (Version::V3, Version::V3)].into_iter().enumerate()
    {
        let mut publisher =
            Client::open(broker.plain, evermq_mqtt::packet::Connect { version: from, ..connect(&format!("p{pair}")) })
                .0;
        for wanted in QOS {
            let id = format!("s{pair}{wanted:?}");
            let mut subscriber =
                Client::open(broker.plain, evermq_mqtt::packet::Connect { version: to, ..connect(&id) }).0;
            let topic = format!("t/{id}");
            subscriber.subscribe_at(&topic, wanted);
            for qos in QOS {
                publisher.publish(message(&topic, "x"), qos);
                let got = subscriber.receive_message();
                assert_eq!(got.qos, qos.min(wanted), "{from:?} to {to:?}");
                assert_eq!((got.dup, got.retain), (false, false));
                assert_eq!(got.payload, "x");
            }
            subscriber.expect_nothing();
        }
    }
}

#[test]
fn a_publisher_s_order_is_kept() {
    let (_site, broker) = start_with(|config| config.max_queued_messages = 2000);
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("order/#", QoS::AtLeastOnce);
    let mut publisher = broker.client("p");
    let mut bytes = bytes::BytesMut::new();
    for number in 0..2000_u16 {
        let publish = Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(crate::client::id(number + 1)),
            ..message(&format!("order/{}", number % 7), &number.to_string())
        };
        evermq_mqtt::codec::encode(&Packet::Publish(publish), Version::V5, &mut bytes).unwrap();
        // Within the broker's Receive Maximum: acknowledgements are taken before more is sent.
        if number % 20 == 19 {
            publisher.send_bytes(&bytes);
            bytes.clear();
            (0..20).for_each(|_| assert!(matches!(publisher.receive(), Packet::PubAck(_))));
        }
    }
    for number in 0..2000_u16 {
        assert_eq!(subscriber.message().1, number.to_string());
    }
}

#[test]
fn one_copy_for_overlapping_subscriptions() {
    let (_site, broker) = start();
    let mut subscriber = broker.client("s");
    for (number, (filter, qos)) in (1..).zip([
        ("a/+", QoS::AtMostOnce),
        ("a/#", QoS::ExactlyOnce),
        ("a/b", QoS::AtLeastOnce),
        ("c", QoS::AtMostOnce),
    ]) {
        let properties =
            SubscribeProperties { subscription_id: NonZeroU32::new(number), ..SubscribeProperties::default() };
        subscriber.subscribe_with(filter, SubscriptionOptions { qos, ..SubscriptionOptions::default() }, properties);
    }
    let mut publisher = broker.client("p");
    publisher.publish(message("a/b", "x"), QoS::ExactlyOnce);
    let got = subscriber.receive_message();
    assert_eq!(got.qos, QoS::ExactlyOnce);
    let mut ids: Vec<_> = got.properties.unwrap().subscription_ids.iter().map(|id| id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    publisher.publish(message("c", "y"), QoS::AtMostOnce);
    let got = subscriber.receive_message();
    assert_eq!(got.properties.unwrap().subscription_ids, [NonZeroU32::new(4).unwrap()]);
    subscriber.expect_nothing();
}

#[test]
fn no_local() {
    let (_site, broker) = start();
    let mut both = broker.client("both");
    let options = |no_local| SubscriptionOptions { no_local, ..SubscriptionOptions::default() };
    both.subscribe("mine", options(true));
    both.publish(message("mine", "x"), QoS::AtMostOnce);
    both.expect_nothing();
    broker.client("other").publish(message("mine", "from other"), QoS::AtMostOnce);
    assert_eq!(both.message().1, "from other");
    both.subscribe("+", options(false));
    both.send(&Packet::Publish(message("mine", "through +")));
    assert_eq!(both.message().1, "through +");
    both.expect_nothing();
}

#[test]
fn properties_pass_unchanged() {
    let (_site, broker) = start();
    let properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry: Some(1000),
        response_topic: Some(text("answer/here")),
        correlation_data: Some(Bytes::from_static(b"\x00\x01")),
        user_properties: vec![(text("a"), text("1")), (text("a"), text("2")), (text("b"), text(""))],
        content_type: Some(text("text/plain")),
        ..PublishProperties::default()
    };
    let sent = Publish { properties: Some(Box::new(properties.clone())), ..message("t", "x") };
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("t", QoS::AtMostOnce);
    let mut old = Client::open(broker.plain, evermq_mqtt::packet::Connect { version: Version::V4, ..connect("old") }).0;
    old.subscribe_at("t", QoS::AtMostOnce);
    broker.client("p").publish(sent, QoS::AtMostOnce);
    let mut got = *subscriber.receive_message().properties.unwrap();
    assert!(got.message_expiry.is_some_and(|left| (990..=1000).contains(&left)), "{got:?}");
    got.message_expiry = Some(1000);
    assert_eq!(got, properties);
    assert_eq!(old.receive_message().properties, None);
}

#[test]
fn a_large_message_arrives_whole() {
    let (_site, broker) = start();
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("t", QoS::ExactlyOnce);
    let payload: String = (0..90_000).map(|number: u32| char::from(b'a' + (number % 26) as u8)).collect();
    broker.client("p").publish(message("t", &payload), QoS::ExactlyOnce);
    assert_eq!(subscriber.message().1, payload);
}

#[test]
fn packets_may_come_in_single_bytes() {
    let (_site, broker) = start();
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("t", QoS::AtMostOnce);
    let mut publisher = broker.client("p");
    let mut bytes = bytes::BytesMut::new();
    evermq_mqtt::codec::encode(&Packet::Publish(message("t", "bit by bit")), Version::V5, &mut bytes).unwrap();
    for byte in &bytes {
        publisher.send_bytes(&[*byte]);
    }
    assert_eq!(subscriber.message().1, "bit by bit");
}
