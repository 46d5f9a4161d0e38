//! Packets that other programs sent, recorded in `tests/captures/mqtt` of the repository: read as what they mean, and
//! written as the same bytes.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use evermq_mqtt::codec::{Limits, Sender, check_sender, decode, encode};
use evermq_mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions,
    UnsubAck, Unsubscribe, Will,
};
use evermq_mqtt::properties::{
    ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, WillProperties,
};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version};

const SESSIONS: [&str; 11] = [
    "paho-311",
    "paho-5",
    "pub-31",
    "pub-311-qos0",
    "pub-311-qos1",
    "pub-311-qos2",
    "pub-5",
    "refused-311",
    "refused-5",
    "sub-311",
    "sub-5",
];

/// Packets whose sender orders properties otherwise than by identifier, by session and index.
const OTHER_ORDER: [(&str, usize); 9] = [
    ("paho-5", 1),
    ("paho-5", 5),
    ("paho-5", 7),
    ("paho-5", 13),
    ("pub-5", 0),
    ("pub-5", 1),
    ("pub-5", 2),
    ("pub-5", 6),
    ("sub-5", 1),
];

struct Session {
    version: Version,
    packets: Vec<(Sender, Vec<u8>)>,
}

fn session(name: &str) -> Session {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/captures/mqtt/{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut session = Session { version: Version::V4, packets: Vec::new() };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').expect("two columns");
        let hex = || rest.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect();
        match word {
            "version" => {
                session.version = match rest {
                    "3" => Version::V3,
                    "4" => Version::V4,
                    "5" => Version::V5,
                    _ => panic!("{name}: version {rest}"),
                }
            }
            "C" => session.packets.push((Sender::Client, hex())),
            "S" => session.packets.push((Sender::Server, hex())),
            _ => panic!("{name}: {line}"),
        }
    }
    session
}

fn decoded(name: &str) -> Vec<Packet> {
    let Session { version, packets } = session(name);
    let decode_one = |(_, bytes): &(Sender, Vec<u8>)| {
        let mut buffer = BytesMut::from(&bytes[..]);
        let packet = decode(&mut buffer, version, &Limits::default()).expect("a well-formed packet");
        assert!(buffer.is_empty());
        packet.expect("a whole packet")
    };
    packets.iter().map(decode_one).collect()
}

#[test]
fn every_packet_is_written_as_its_sender_wrote_it() {
    for name in SESSIONS {
        let Session { version, packets } = session(name);
        assert!(packets.len() >= 2, "{name} holds {} packets", packets.len());
        for (index, (packet, (sender, bytes))) in decoded(name).iter().zip(&packets).enumerate() {
            assert_eq!(check_sender(packet, *sender), Ok(()), "{name} {index}");
            let mut out = BytesMut::new();
            encode(packet, version, &mut out).expect("a packet that was decoded");
            let is_reordered = OTHER_ORDER.contains(&(name, index));
            assert_eq!(out == bytes[..], !is_reordered, "{name} {index}: {packet:?}");
            assert_eq!(out.len(), bytes.len(), "{name} {index}");
            assert_eq!(decode(&mut out, version, &Limits::default()).as_ref(), Ok(&Some(packet.clone())));
        }
    }
}

#[test]
fn every_recording_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures/mqtt");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder of recordings")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .filter_map(|name| name.strip_suffix(".hex").map(str::to_owned))
        .collect();
    found.sort();
    assert_eq!(found, SESSIONS);
}

#[test]
fn mosquitto_pub_of_mqtt_3_1() {
    let expected = [
        Packet::Connect(Box::new(Connect { version: Version::V3, ..plain_connect("old") })),
        connack(ReasonCode::Success),
        publish(QoS::ExactlyOnce, false, "a/b", "old", 1, None),
        Packet::PubRec(ack(1)),
        Packet::PubRel(ack(1)),
        Packet::PubComp(ack(1)),
        bye(),
    ];
    assert_eq!(decoded("pub-31"), expected);
}

#[test]
fn mosquitto_pub_of_mqtt_3_1_1() {
    let connect = |id: &str| {
        let will = Will {
            topic: topic("will/t"),
            payload: Bytes::from("bye"),
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: WillProperties::default(),
        };
        let (username, password) = (Some(text("user")), Some(Bytes::from("secret")));
        Packet::Connect(Box::new(Connect { will: Some(will), username, password, ..plain_connect(id) }))
    };
    let ok = || connack(ReasonCode::Success);
    let message = |qos, payload, id| publish(qos, true, "a/b", payload, id, None);
    let qos_0 = [connect("pub0"), ok(), message(QoS::AtMostOnce, "qos 0", 0), bye()];
    assert_eq!(decoded("pub-311-qos0"), qos_0);
    let qos_1 = [connect("pub1"), ok(), message(QoS::AtLeastOnce, "qos 1", 1), Packet::PubAck(ack(1)), bye()];
    assert_eq!(decoded("pub-311-qos1"), qos_1);
    let qos_2 = [
        connect("pub2"),
        ok(),
        message(QoS::ExactlyOnce, "qos 2", 1),
        Packet::PubRec(ack(1)),
        Packet::PubRel(ack(1)),
        Packet::PubComp(ack(1)),
        bye(),
    ];
    assert_eq!(decoded("pub-311-qos2"), qos_2);
}

#[test]
fn mosquitto_sub_of_mqtt_3_1_1() {
    let filter = |name| SubscribeFilter { filter: filter(name), options: options(QoS::ExactlyOnce) };
    let granted = vec![ReasonCode::GrantedQoS2, ReasonCode::GrantedQoS2];
    let expected = [
        Packet::Connect(Box::new(Connect { clean_start: false, ..plain_connect("sub311") })),
        connack(ReasonCode::Success),
        subscribe(vec![filter("s/+"), filter("other/#")], SubscribeProperties::default()),
        Packet::SubAck(SubAck { packet_id: id(1), reasons: granted, properties: None }),
        unsubscribe(2, &["never"], &[]),
        Packet::UnsubAck(UnsubAck { packet_id: id(2), reasons: vec![], properties: None }),
        publish(QoS::AtMostOnce, false, "s/a", "qos 0", 0, None),
        publish(QoS::AtLeastOnce, false, "s/a", "qos 1", 1, None),
        publish(QoS::ExactlyOnce, false, "s/a", "qos 2", 2, None),
        Packet::PubAck(ack(1)),
        Packet::PubRec(ack(2)),
        Packet::PubRel(ack(2)),
        Packet::PubComp(ack(2)),
        bye(),
    ];
    assert_eq!(decoded("sub-311"), expected);
}

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

#[test]
fn mosquitto_refuses() {
    assert_eq!(decoded("refused-311")[1], connack(ReasonCode::NotAuthorized));
    assert_eq!(decoded("refused-5")[1], connack(ReasonCode::NotAuthorized));
}

fn text(string: &str) -> Text {
    Text::new(string).expect("no U+0000")
}

fn topic(name: &str) -> TopicName {
    TopicName::new(text(name)).expect("a topic name")
}

fn filter(filter: &str) -> TopicFilter {
    TopicFilter::new(text(filter)).expect("a topic filter")
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(Text, Text)> {
    pairs.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn id(value: u16) -> PacketId {
    PacketId(value.try_into().expect("above 0"))
}

fn number(value: u32) -> std::num::NonZeroU32 {
    value.try_into().expect("above 0")
}

fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

fn ack(packet_id: u16) -> Ack {
    Ack { packet_id: id(packet_id), reason: ReasonCode::Success, properties: None }
}

fn bye() -> Packet {
    Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None })
}

fn connack(reason: ReasonCode) -> Packet {
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties: ConnAckProperties::default() }))
}

fn connack_of_mosquitto_5() -> Packet {
    let properties =
        ConnAckProperties { receive_maximum: Some(20), topic_alias_maximum: Some(10), ..ConnAckProperties::default() };
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason: ReasonCode::Success, properties }))
}

/// What mosquitto's clients send where nothing else is asked for.
fn plain_connect(client_id: &str) -> Connect {
    Connect {
        version: Version::V4,
        clean_start: true,
        keep_alive: 60,
        client_id: text(client_id),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn publish(
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

fn subscribe(filters: Vec<SubscribeFilter>, properties: SubscribeProperties) -> Packet {
    Packet::Subscribe(Subscribe { packet_id: id(1), filters, properties })
}

fn unsubscribe(packet_id: u16, filters: &[&str], user_properties: &[(&str, &str)]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        filters: filters.iter().map(|name| filter(name)).collect(),
        user_properties: pairs(user_properties),
    })
}
