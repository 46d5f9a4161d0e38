//! DISCONNECT and AUTH (§3.14, §3.15), and what an error leads to (§4.13).

use super::{Raw, STAYS, cat, connect4, connect5, packet, publish5, string, subscribe5};
use crate::running::start;

#[test]
fn a_client_that_disconnects_is_let_go_without_a_word() {
    let (_site, broker) = start();
    for bytes in [&[0xE0, 0][..], &[0xE0, 1, 0], &[0xE0, 2, 0, 0], &[0xE0, 1, 0x83], &[0xE0, 1, 0x98]] {
        let mut raw = Raw::v5(&broker, "c");
        // What comes after it is not heard.
        raw.send(&cat(&[bytes, &[0xC0, 0]]));
        raw.closed();
    }
    let mut old = Raw::v4(&broker, "old");
    old.send(&[0xE0, 0, 0xC0, 0]);
    old.closed();
}

#[test]
fn reason_codes_and_properties_of_a_client_s_disconnect() {
    let (_site, broker) = start();
    // Reserved, unknown, and those of a server.
    for reason in [0x01, 0x10, 0x7F, 0x8B, 0x8D, 0x8E, 0x9C, 0xFF] {
        Raw::refused(&broker, &[0xE0, 1, reason], 0x82);
    }
    // Server Reference is a server's; a session that was to end with the connection cannot be kept.
    Raw::refused(&broker, &packet(0xE0, &cat(&[&[0, 4, 0x1C], &string("x")])), 0x82);
    Raw::refused(&broker, &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9], 0x82);
    Raw::refused4(&broker, &[0xE0, 1, 0]);
    // A session that stays can be given another end.
    let connect = connect5(0x00, STAYS, &[&string("c")]);
    let (mut raw, _) = Raw::with(&broker, &connect);
    raw.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    raw.closed();
    assert_eq!(Raw::with(&broker, &connect).1[2], 0);
}

#[test]
fn which_reasons_publish_the_will() {
    let (_site, broker) = start();
    let mut watcher = Raw::v5(&broker, "w").subscribed("will", 0);
    let connect = connect5(0x06, &[], &[&string("c"), &[0], &string("will"), &string("gone")]);
    for (bytes, published) in
        [(&[0xE0, 0][..], false), (&[0xE0, 1, 0], false), (&[0xE0, 1, 0x04], true), (&[0xE0, 1, 0x80], true)]
    {
        let (mut raw, _) = Raw::with(&broker, &connect);
        raw.send(bytes);
        raw.closed();
        if published {
            watcher.expect(&publish5(0, "will", 0, &[], "gone"));
        } else {
            watcher.expect_nothing();
        }
    }
}

#[test]
fn the_broker_s_disconnect_says_why_and_nothing_follows_it() {
    let (_site, broker) = start();
    let mut raw = Raw::v5(&broker, "c").subscribed("t", 0);
    raw.send(&cat(&[&[0x00, 0x00], &publish5(0, "t", 0, &[], "not heard"), &subscribe5(&[], &[("x", 0)])]));
    let got = raw.packet();
    assert_eq!((got[0], got[2]), (0xE0, 0x81));
    // Reason String is the one property; Session Expiry Interval is the client's.
    let properties = &got[4..];
    assert!(properties.is_empty() || properties[0] == 0x1F, "{got:02x?}");
    raw.closed();
    // Nor does it say anything before CONNACK.
    let mut stranger = Raw::open(&broker);
    stranger.send(&[0x00, 0x00]);
    stranger.closed();
}

#[test]
fn auth_without_a_method_is_a_protocol_error() {
    let (_site, broker) = start();
    let method = cat(&[&[0x15], &string("SCRAM-SHA-1")]);
    let auth = |reason: u8| packet(0xF0, &cat(&[&[reason], &super::section(&method)]));
    for bytes in [auth(0x18), auth(0x19), auth(0x00), vec![0xF0, 0]] {
        Raw::refused(&broker, &bytes, 0x82);
    }
    // A reason code that AUTH has not; no method in it.
    Raw::refused(&broker, &auth(0x80), 0x82);
    Raw::refused(&broker, &[0xF0, 2, 0x19, 0], 0x82);
    // MQTT 3.1.1 has no AUTH.
    Raw::refused4(&broker, &[0xF0, 0]);
    // No mechanism is offered.
    let (mut raw, connack) = Raw::with(&broker, &connect5(0x02, &method, &[&string("c")]));
    assert_eq!(connack, [0x20, 3, 0, 0x8C, 0]);
    raw.closed();
}

#[test]
fn packets_that_only_a_server_sends() {
    let (_site, broker) = start();
    let packets: [&[u8]; 4] = [&[0x20, 3, 0, 0, 0], &[0x90, 4, 0, 1, 0, 0], &[0xB0, 4, 0, 1, 0, 0], &[0xD0, 0]];
    for bytes in packets {
        Raw::refused(&broker, bytes, 0x82);
    }
    let packets: [&[u8]; 4] = [&[0x20, 2, 0, 0], &[0x90, 3, 0, 1, 0], &[0xB0, 2, 0, 1], &[0xD0, 0]];
    for bytes in packets {
        Raw::refused4(&broker, bytes);
    }
}

#[test]
fn reason_codes_of_acknowledgements() {
    let (_site, broker) = start();
    for (first, wrong) in [(0x40, 0x92), (0x40, 0x01), (0x50, 0x92), (0x62, 0x80), (0x70, 0x80), (0x40, 0x10)] {
        Raw::refused(&broker, &[first, 3, 0, 1, wrong], 0x82);
    }
    // Of nothing that is under way: QoS 1 is complete, QoS 2 is not known.
    let mut raw = Raw::v5(&broker, "c");
    raw.send(&[0x40, 2, 0, 1]);
    raw.expect_nothing();
    raw.send(&[0x50, 2, 0, 1]);
    raw.expect(&[0x62, 3, 0, 1, 0x92]);
    raw.send(&[0x70, 2, 0, 1]);
    raw.expect_nothing();
}

#[test]
fn an_error_of_one_session_concerns_no_other() {
    let (_site, broker) = start();
    let mut bystanders = [Raw::v5(&broker, "b5"), Raw::with(&broker, &connect4(0x00, &[&string("b4")])).0];
    Raw::refused(&broker, &[0x00, 0], 0x81);
    Raw::refused(&broker, &[0xE0, 1, 0x01], 0x82);
    Raw::refused4(&broker, &[0x00, 0]);
    for bystander in &mut bystanders {
        bystander.expect_nothing();
    }
}
