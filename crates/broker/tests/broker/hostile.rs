//! Strangers and nonsense.

use std::time::Duration;

use evermq_mqtt::packet::Connect;
use evermq_mqtt::{Packet, ReasonCode, Version};

use crate::client::{Client, connect, text};
use crate::running::{start, start_with};

#[test]
fn the_first_packet_must_be_connect() {
    let (_site, broker) = start();
    for bytes in [&[0xC0, 0x00][..], &[0x00], b"GET / HTTP/1.1\r\n\r\n", &[0x30, 0x03, 0x00, 0x01, 0x61]] {
        let mut client = Client::raw(broker.plain, Version::V5);
        client.send_bytes(bytes);
        assert_eq!(client.next(), None, "{bytes:?}");
    }
    broker.wait_for("counted strangers", |state| state["messages"]["strangers"] == 4 && state["connections"] == 0);
}

#[test]
fn a_silent_stranger_has_to_go_and_holds_up_nobody() {
    let (_site, broker) = start_with(|config| config.connect_timeout = Duration::from_millis(500));
    let mut silent: Vec<_> = (0..40).map(|_| Client::raw(broker.plain, Version::V5)).collect();
    silent.extend((0..40).map(|_| Client::raw(broker.tls, Version::V5)));
    // Half a CONNECT.
    silent[0].send_bytes(&[0x10, 0x20, 0x00]);
    broker.client("c").expect_nothing();
    for mut silent in silent {
        assert_eq!(silent.next(), None);
    }
}

#[test]
fn a_connect_may_not_be_huge() {
    let (_site, broker) = start();
    let mut client = Client::raw(broker.plain, Version::V5);
    // 256 MB are announced; the refusal does not wait for them.
    client.send_bytes(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0x00, 0x04, b'M', b'Q', b'T', b'T', 5]);
    match client.next() {
        None => {}
        Some(Packet::ConnAck(connack)) => assert_eq!(connack.reason, ReasonCode::PacketTooLarge),
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn what_a_connect_is_told() {
    let (_site, broker) = start();
    let mut asked = connect("c");
    asked.properties.authentication_method = Some(text("SCRAM-SHA-1"));
    let (mut client, connack) = Client::open(broker.plain, asked);
    assert_eq!(connack.reason, ReasonCode::BadAuthenticationMethod);
    assert_eq!(client.next(), None);

    // Protocol level 6, and bit 0 of the connect flags in MQTT 5.0 and 3.1.1.
    let connect = |level, flags| {
        let mut bytes = vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 0];
        if level == 5 {
            bytes.push(0);
        }
        bytes.extend([0, 1, b'c']);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        bytes
    };
    let mut client = Client::raw(broker.plain, Version::V4);
    client.send_bytes(&connect(6, 2));
    assert_eq!(client.receive(), crate::hostile::refusal(ReasonCode::UnsupportedProtocolVersion));
    assert_eq!(client.next(), None);
    let mut client = Client::raw(broker.plain, Version::V5);
    client.send_bytes(&connect(5, 3));
    assert_eq!(client.receive(), refusal(ReasonCode::MalformedPacket));
    assert_eq!(client.next(), None);
    let mut client = Client::raw(broker.plain, Version::V4);
    client.send_bytes(&connect(4, 3));
    assert_eq!(client.next(), None);
}

fn refusal(reason: ReasonCode) -> Packet {
    Packet::ConnAck(Box::new(evermq_mqtt::packet::ConnAck {
        session_present: false,
        reason,
        properties: Default::default(),
    }))
}

#[test]
fn malformed_packets_end_their_connection_only() {
    let (_site, broker) = start();
    let mut bystander = broker.client("bystander");
    let table: &[(&[u8], ReasonCode)] = &[
        (&[0x00, 0x00], ReasonCode::MalformedPacket),
        (&[0x36, 0x05, 0, 1, b'a', 0, 1], ReasonCode::MalformedPacket),
        (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], ReasonCode::MalformedPacket),
        (&[0x82, 0x03, 0, 1, 0], ReasonCode::ProtocolError),
        (&[0x80, 0x07, 0, 1, 0, 0, 1, b'a', 0], ReasonCode::MalformedPacket),
        (&[0x30, 0x04, 0, 1, b'+', 0], ReasonCode::MalformedPacket),
        (&[0x30, 0x03, 0, 0, 0], ReasonCode::ProtocolError),
        (&[0x20, 0x03, 0, 0, 0], ReasonCode::ProtocolError),
        (&[0xF0, 0x00], ReasonCode::ProtocolError),
    ];
    for (bytes, reason) in table {
        let mut client = broker.client("c");
        client.send_bytes(bytes);
        match client.next() {
            Some(Packet::Disconnect(disconnect)) => assert_eq!(disconnect.reason, *reason, "{bytes:02x?}"),
            other => panic!("{bytes:02x?}: {other:?}"),
        }
        assert_eq!(client.next(), None);
        let mut old = Client::open(broker.plain, Connect { version: Version::V4, ..connect("old") }).0;
        old.send_bytes(&[0x00, 0x00]);
        assert_eq!(old.next(), None);
    }
    bystander.expect_nothing();
}
