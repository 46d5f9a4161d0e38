//! Every packet in every version survives encode and decode, and hostile bytes do no harm.

use crate::strategy;
use bytes::{Bytes, BytesMut};
use evermq_mqtt::codec::{
    Limits, PublishFrame, Sender, Sent, check_sender, decode, encode, encode_publish, encoded_len, packet_len,
    publish_len,
};
use evermq_mqtt::packet::{Connect, SubscriptionOptions};
use evermq_mqtt::{Packet, QoS, ReasonCode, TopicName, Version};
use proptest::prelude::*;

const VERSIONS: [Version; 3] = [Version::V3, Version::V4, Version::V5];

/// The packet as `version` can say it.
fn as_said_in(mut packet: Packet, version: Version) -> Packet {
    if version == Version::V5 {
        return packet;
    }
    match &mut packet {
        Packet::Connect(connect) => plain_connect(connect),
        Packet::ConnAck(connack) => {
            connack.session_present &= version == Version::V4;
            let code = connack.reason.connect_return_code();
            connack.reason = ReasonCode::from_connect_return_code(code).expect("a return code of 3.1.1");
            connack.properties = Default::default();
        }
        Packet::Publish(publish) => publish.properties = None,
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.reason = ReasonCode::Success;
            ack.properties = None;
        }
        Packet::Subscribe(subscribe) => {
            subscribe.properties = Default::default();
            for filter in &mut subscribe.filters {
                filter.options = SubscriptionOptions { qos: filter.options.qos, ..Default::default() };
            }
        }
        Packet::SubAck(suback) => {
            suback.properties = None;
            for reason in suback.reasons.iter_mut().filter(|reason| reason.is_error()) {
                *reason = ReasonCode::UnspecifiedError;
            }
        }
        Packet::Unsubscribe(unsubscribe) => unsubscribe.user_properties.clear(),
        Packet::UnsubAck(unsuback) => {
            unsuback.reasons.clear();
            unsuback.properties = None;
        }
        Packet::Disconnect(disconnect) => {
            disconnect.reason = ReasonCode::Success;
            disconnect.properties = None;
        }
        Packet::PingReq | Packet::PingResp | Packet::Auth(_) => {}
    }
    packet
}

fn plain_connect(connect: &mut Connect) {
    connect.properties = Default::default();
    if let Some(will) = &mut connect.will {
        will.properties = Default::default();
    }
}

fn encoded(packet: &Packet, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).expect("a valid packet");
    out
}

fn decode_one(bytes: &[u8], version: Version) -> Packet {
    let mut buffer = BytesMut::from(bytes);
    let packet = decode(&mut buffer, version, &Limits::default()).expect("valid bytes").expect("a whole packet");
    assert!(buffer.is_empty(), "bytes left over: {buffer:?}");
    packet
}

fn any_version() -> impl Strategy<Value = Version> {
    proptest::sample::select(&VERSIONS[..])
}

/// A packet and a version that has it.
fn packet_and_version() -> impl Strategy<Value = (Packet, Version)> {
    let parts = (strategy::packet(), any_version(), any::<bool>());
    parts.prop_filter_map("AUTH is 5.0 only", |(mut packet, version, by_alias)| {
        if version != Version::V5 && matches!(packet, Packet::Auth(_)) {
            return None;
        }
        if let Packet::Publish(publish) = &mut packet {
            let has_alias = publish.properties.as_ref().is_some_and(|properties| properties.topic_alias.is_some());
            if version == Version::V5 && by_alias && has_alias {
                publish.topic = TopicName::default();
            }
        }
        if let Packet::Connect(connect) = &mut packet {
            connect.version = version;
            if version != Version::V5 && connect.username.is_none() {
                connect.password = None;
            }
        }
        Some((packet, version))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decode_returns_what_was_encoded((packet, version) in packet_and_version()) {
        let bytes = encoded(&packet, version);
        prop_assert_eq!(bytes.len(), encoded_len(&packet, version));
        prop_assert_eq!(decode_one(&bytes, version), as_said_in(packet, version));
    }

    #[test]
    fn a_packet_is_as_long_as_its_header_says((packet, version) in packet_and_version()) {
        let bytes = encoded(&packet, version);
        prop_assert_eq!(packet_len(&bytes, version), Some(bytes.len()));
        // One byte of type and flags, then a length whose last byte is below 128.
        let header = 2 + bytes[1..].iter().take_while(|byte| **byte >= 0x80).count();
        prop_assert_eq!(packet_len(&bytes[..header], version), Some(bytes.len()));
        prop_assert_eq!(packet_len(&bytes[..header - 1], version), None);
    }

    #[test]
    fn packets_follow_each_other_in_one_buffer(packets in prop::collection::vec(strategy::packet(), 1..6)) {
        let mut buffer = BytesMut::new();
        for packet in &packets {
            encode(packet, Version::V5, &mut buffer).expect("a valid packet");
        }
        for packet in packets {
            prop_assert_eq!(decode(&mut buffer, Version::V5, &Limits::default()), Ok(Some(packet)));
        }
        prop_assert_eq!(decode(&mut buffer, Version::V5, &Limits::default()), Ok(None));
    }

    #[test]
    fn a_packet_in_pieces_waits_for_its_last_byte((packet, version) in packet_and_version()) {
        let bytes = encoded(&packet, version);
        let mut buffer = BytesMut::new();
        for (arrived, byte) in bytes.iter().enumerate() {
            let decoded = decode(&mut buffer, version, &Limits::default());
            prop_assert!(decoded == Ok(None), "{decoded:?} after {arrived} bytes");
            prop_assert!(buffer.len() == arrived, "nothing is consumed");
            buffer.extend_from_slice(&[*byte]);
        }
        let decoded = decode(&mut buffer, version, &Limits::default());
        prop_assert_eq!(decoded, Ok(Some(as_said_in(packet, version))));
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any_version()) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(packet)) = decode(&mut buffer, version, &Limits::default()) {
            let version = spoken(&packet, version);
            prop_assert_eq!(&decode_one(&encoded(&packet, version), version), &packet);
        }
    }

    /// What decode accepts, encode can say, and it means the same.
    #[test]
    fn damaged_packets_are_refused_or_mean_something(
        (packet, version) in packet_and_version(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&packet, version);
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(Some(packet)) = decode(&mut bytes, version, &Limits::default()) {
            let version = spoken(&packet, version);
            prop_assert_eq!(&decode_one(&encoded(&packet, version), version), &packet);
        }
    }

    #[test]
    fn a_packet_above_the_limit_is_refused_from_its_header((packet, version) in packet_and_version()) {
        let bytes = encoded(&packet, version);
        let size = bytes.len() as u32;
        let fits = decode(&mut bytes.clone(), version, &Limits { max_packet_size: size });
        prop_assert!(matches!(fits, Ok(Some(_))));
        let mut header = BytesMut::from(&bytes[..5.min(bytes.len())]);
        let refused = decode(&mut header, version, &Limits { max_packet_size: size - 1 });
        let reason = refused.map_err(|error| error.reason());
        prop_assert_eq!(reason, Err(ReasonCode::PacketTooLarge));
    }

    #[test]
    fn a_frame_writes_what_encode_writes(
        publish in strategy::publish(),
        qos in strategy::qos(),
        version in any_version(),
        dup: bool,
        retain: bool,
        id in strategy::packet_id(),
    ) {
        let frame = PublishFrame::new(&publish, version, qos).expect("a valid packet");
        let mut written = BytesMut::from(&b"before"[..]);
        frame.write(&mut written, dup, retain, Some(id));
        let packet_id = (qos != QoS::AtMostOnce).then_some(id);
        let mut alone = BytesMut::from(&b"before"[..]);
        encode_publish(&publish, Sent { version, qos, dup, retain, packet_id }, &mut alone).expect("a valid packet");
        prop_assert_eq!(&alone, &written);
        prop_assert_eq!(publish_len(&publish, version, qos), frame.len());
        let sent = evermq_mqtt::Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            packet_id,
            ..publish
        };
        let expected = encoded(&Packet::Publish(sent), version);
        prop_assert_eq!(frame.len(), expected.len());
        prop_assert_eq!(&written[6..], &expected[..]);
    }

    #[test]
    fn each_packet_has_a_sender(packet in strategy::packet()) {
        let refused = [Sender::Client, Sender::Server].map(|sender| check_sender(&packet, sender).is_err());
        let only_side = match packet {
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => [false, true],
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => [true, false],
            _ => refused,
        };
        prop_assert_eq!(refused, only_side);
    }
}

/// A CONNECT is written in its own version.
fn spoken(packet: &Packet, version: Version) -> Version {
    match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    }
}

#[test]
fn strings_and_payload_share_the_frame() {
    let mut buffer = BytesMut::from(&b"\x30\x07\x00\x03a/bhi"[..]);
    let start = buffer.as_ptr();
    let Ok(Some(Packet::Publish(publish))) = decode(&mut buffer, Version::V4, &Limits::default()) else {
        panic!("a PUBLISH");
    };
    let frame = start as usize..start as usize + 9;
    assert!(frame.contains(&(publish.payload.as_ptr() as usize)));
    assert!(frame.contains(&(publish.topic.as_str().as_ptr() as usize)));
    assert_eq!(publish.payload, Bytes::from_static(b"hi"));
}

#[test]
fn the_largest_payload_fits_and_one_byte_more_does_not() {
    let publish = |len| evermq_mqtt::Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: strategy::topic("t"),
        packet_id: None,
        properties: None,
        payload: Bytes::from(vec![0; len]),
    };
    let largest = 268_435_455 - 3;
    assert_eq!(encoded_len(&Packet::Publish(publish(largest)), Version::V4), 268_435_460);
    let mut out = BytesMut::new();
    let refused = encode(&Packet::Publish(publish(largest + 1)), Version::V4, &mut out);
    assert_eq!(refused, Err(evermq_mqtt::codec::EncodeError::PacketTooLarge(268_435_456)));
    assert!(out.is_empty());
}
