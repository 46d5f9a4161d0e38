//! MQTT 5.0.

use bytes::Bytes;
use evermq_mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, RetainHandling, SubAck, SubscribeFilter, SubscriptionOptions, UnsubAck, Will,
};
use evermq_mqtt::properties::{
    ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, WillProperties,
};
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};

use super::build::{
    ack, bye, filter, id, number, options, pairs, plain_connect, publish, subscribe, text, topic, unsubscribe,
};
use super::decoded;

#[test]
fn mosquitto_pub_of_mqtt_5() {
    let will = Will {
        topic: topic("will/t"),
        payload: Bytes::from("bye"),
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: WillProperties {
            delay: Some(7),
            publish: PublishProperties {
                payload_is_utf8: Some(true),
                message_expiry: Some(9),
                content_type: Some(text("x")),
                user_properties: pairs(&[("w", "1")]),
                ..PublishProperties::default()
            },
        },
    };
    let connect = Connect {
        version: Version::V5,
        keep_alive: 30,
        will: Some(will),
        password: Some(Bytes::from("alone")),
        properties: ConnectProperties {
            session_expiry: Some(120),
            receive_maximum: Some(20),
            maximum_packet_size: Some(100_000),
            topic_alias_maximum: Some(5),
            request_problem_information: Some(true),
            user_properties: pairs(&[("c", "1")]),
            ..ConnectProperties::default()
        },
        ..plain_connect("pub5")
    };
    let message = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry: Some(3_600),
        topic_alias: Some(3),
        response_topic: Some(text("five/answer")),
        correlation_data: Some(Bytes::from("abc")),
        user_properties: pairs(&[("k", "v"), ("k", "w")]),
        content_type: Some(text("text/plain")),
        ..PublishProperties::default()
    };
    let goodbye = DisconnectProperties {
        reason_string: Some(text("end")),
        user_properties: pairs(&[("d", "1")]),
        ..DisconnectProperties::default()
    };
    let expected = [
        Packet::Connect(Box::new(connect)),
        connack_of_mosquitto_5(),
        publish(QoS::ExactlyOnce, false, "five/props", "hello", 1, Some(message)),
        Packet::PubRec(ack(1)),
        Packet::PubRel(ack(1)),
        Packet::PubComp(ack(1)),
        Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Some(Box::new(goodbye)) }),
    ];
    assert_eq!(decoded("pub-5"), expected);
}

#[test]
fn mosquitto_sub_of_mqtt_5() {
    let properties =
        ConnectProperties { session_expiry: Some(u32::MAX), receive_maximum: Some(3), ..ConnectProperties::default() };
    let connect = Connect { version: Version::V5, clean_start: false, properties, ..plain_connect("sub5") };
    let all = SubscribeFilter {
        filter: filter("s/#"),
        options: SubscriptionOptions { retain_as_published: true, ..options(QoS::ExactlyOnce) },
    };
    let numbered = SubscribeProperties { subscription_id: Some(number(77)), user_properties: pairs(&[("s", "1")]) };
    let message = |qos, payload, id| {
        let properties = PublishProperties {
            user_properties: pairs(&[("k", "v")]),
            subscription_ids: vec![number(77)],
            ..PublishProperties::default()
        };
        publish(qos, true, "s/a", payload, id, Some(properties))
    };
    let none_there = vec![ReasonCode::NoSubscriptionExisted];
    let expected = [
        Packet::Connect(Box::new(connect)),
        connack_of_mosquitto_5(),
        subscribe(vec![all], numbered),
        Packet::SubAck(SubAck { packet_id: id(1), reasons: vec![ReasonCode::GrantedQoS2], properties: None }),
        unsubscribe(2, &["never"], &[("u", "1")]),
        Packet::UnsubAck(UnsubAck { packet_id: id(2), reasons: none_there, properties: None }),
        message(QoS::AtMostOnce, "qos 0", 0),
        message(QoS::AtLeastOnce, "qos 1", 1),
        message(QoS::ExactlyOnce, "qos 2", 2),
        Packet::PubAck(ack(1)),
        Packet::PubRec(ack(2)),
        Packet::PubRel(ack(2)),
        Packet::PubComp(ack(2)),
        bye(),
    ];
    assert_eq!(decoded("sub-5"), expected);
}

#[test]
fn paho_of_mqtt_5() {
    let packets = decoded("paho-5");
    let will = Will {
        topic: topic("paho/will"),
        payload: Bytes::from_static(&[0, 1]),
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: WillProperties {
            delay: Some(5),
            publish: PublishProperties {
                content_type: Some(text("bin")),
                user_properties: pairs(&[("w", "1")]),
                ..PublishProperties::default()
            },
        },
    };
    let properties = ConnectProperties {
        session_expiry: Some(60),
        receive_maximum: Some(10),
        maximum_packet_size: Some(65_536),
        topic_alias_maximum: Some(8),
        request_problem_information: Some(true),
        user_properties: pairs(&[("a", "1"), ("a", "2")]),
        ..ConnectProperties::default()
    };
    let connect =
        Connect { version: Version::V5, keep_alive: 60, will: Some(will), properties, ..plain_connect("paho-5") };
    assert_eq!(packets[0], Packet::Connect(Box::new(connect)));

    let five = SubscriptionOptions {
        retain_as_published: true,
        retain_handling: RetainHandling::SendIfNew,
        ..options(QoS::ExactlyOnce)
    };
    let mine =
        SubscriptionOptions { no_local: true, retain_handling: RetainHandling::DoNotSend, ..options(QoS::AtLeastOnce) };
    let filters = [("five/#", five), ("$share/g/other", options(QoS::AtLeastOnce)), ("mine", mine)];
    let filters = filters.map(|(name, options)| SubscribeFilter { filter: filter(name), options });
    let numbered = SubscribeProperties { subscription_id: Some(number(300)), user_properties: pairs(&[("s", "ü")]) };
    assert_eq!(packets[2], subscribe(filters.to_vec(), numbered));

    let mut message = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry: Some(90),
        response_topic: Some(text("five/answer")),
        correlation_data: Some(Bytes::from_static(&[1, 2])),
        user_properties: pairs(&[("k", "v")]),
        content_type: Some(text("text/plain")),
        ..PublishProperties::default()
    };
    assert_eq!(packets[4], publish(QoS::AtMostOnce, false, "five/x", "qos 0", 0, Some(message.clone())));
    message.subscription_ids = vec![number(300)];
    assert_eq!(packets[7], publish(QoS::AtLeastOnce, true, "five/x", "qos 1", 1, Some(message)));

    let unheard = Ack { reason: ReasonCode::NoMatchingSubscribers, ..ack(5) };
    assert!(packets.contains(&Packet::PubAck(unheard)));
    assert!(packets.contains(&unsubscribe(6, &["five/#", "never"], &[("u", "1")])));
    let goodbye = DisconnectProperties {
        session_expiry: Some(0),
        reason_string: Some(text("done")),
        ..DisconnectProperties::default()
    };
    let goodbye = Disconnect { reason: ReasonCode::DisconnectWithWill, properties: Some(Box::new(goodbye)) };
    assert_eq!(packets.last(), Some(&Packet::Disconnect(goodbye)));
}

fn connack_of_mosquitto_5() -> Packet {
    let properties =
        ConnAckProperties { receive_maximum: Some(20), topic_alias_maximum: Some(10), ..ConnAckProperties::default() };
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason: ReasonCode::Success, properties }))
}
