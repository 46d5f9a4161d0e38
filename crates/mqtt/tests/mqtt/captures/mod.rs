//! Packets that other programs sent, recorded in `tests/captures/mqtt` of the repository: read as what they mean, and
//! written as the same bytes.

mod build;
mod five;

use bytes::{Bytes, BytesMut};
use evermq_mqtt::codec::{Limits, Sender, check_sender, decode, encode};
use evermq_mqtt::packet::{Connect, SubAck, SubscribeFilter, UnsubAck, Will};
use evermq_mqtt::properties::{SubscribeProperties, WillProperties};
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};

use self::build::{
    ack, bye, connack, filter, id, options, plain_connect, publish, subscribe, text, topic, unsubscribe,
};

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
    let mut session = Session { version: Version::V4, packets: Vec::new() };
    for line in evermq_captures::lines("mqtt", name) {
        let (word, rest) = line.split_once(' ').expect("two columns");
        match word {
            "version" => {
                session.version = match rest {
                    "3" => Version::V3,
                    "4" => Version::V4,
                    "5" => Version::V5,
                    _ => panic!("{name}: version {rest}"),
                }
            }
            "C" => session.packets.push((Sender::Client, evermq_captures::bytes(rest))),
            "S" => session.packets.push((Sender::Server, evermq_captures::bytes(rest))),
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
    let names = evermq_captures::names("mqtt");
    assert_eq!(names.len(), 11);
    for name in names.iter().map(String::as_str) {
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
fn mosquitto_refuses() {
    assert_eq!(decoded("refused-311")[1], connack(ReasonCode::NotAuthorized));
    assert_eq!(decoded("refused-5")[1], connack(ReasonCode::NotAuthorized));
}
