//! The version is the CONNECT's, all of them on one port; MQTT 3.1 as mosquitto takes it.

use super::{Raw, cat, packet, publish4, publish5, string, subscribe4};
use crate::running::start;

/// CONNECT of MQTT 3.1; `payload` as the flags say.
fn connect3(flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &cat(&[&string("MQIsdp"), &[3, flags, 0, 0], &payload.concat()]))
}

#[test]
fn three_versions_meet_on_one_port() {
    let (_site, broker) = start();
    let mut new = Raw::v5(&broker, "new").subscribed("t", 1);
    let mut old = Raw::v4(&broker, "old");
    let (mut oldest, connack) = Raw::with(&broker, &connect3(0x02, &[&string("oldest")]));
    assert_eq!(connack, [0x20, 2, 0, 0]);
    for raw in [&mut old, &mut oldest] {
        raw.send(&subscribe4(&[("t", 1)]));
        raw.expect(&[0x90, 3, 0, 1, 1]);
    }
    for number in 1..=3 {
        let payload = number.to_string();
        match number {
            1 => new.send(&publish5(0, "t", 0, &[], &payload)),
            2 => old.send(&publish4(0, "t", 0, &payload)),
            _ => oldest.send(&publish4(0, "t", 0, &payload)),
        }
        new.expect(&publish5(0, "t", 0, &[], &payload));
        old.expect(&publish4(0, "t", 0, &payload));
        oldest.expect(&publish4(0, "t", 0, &payload));
    }
}

#[test]
fn client_identifiers_of_mqtt_3_1() {
    let (_site, broker) = start();
    // 1 to 23 characters, and longer ones as mosquitto lets them in; none at all is refused, also with a clean session.
    for id in ["a", "abcdefghijklmnopqrstuvw", "abcdefghijklmnopqrstuvwxyz0123456789"] {
        let (_raw, connack) = Raw::with(&broker, &connect3(0x02, &[&string(id)]));
        assert_eq!(connack, [0x20, 2, 0, 0], "{id}");
    }
    let (mut raw, connack) = Raw::with(&broker, &connect3(0x02, &[&string("")]));
    assert_eq!(connack, [0x20, 2, 0, 2]);
    raw.closed();
}

#[test]
fn a_session_of_mqtt_3_1_says_nothing_of_being_present() {
    let (_site, broker) = start();
    for _ in 0..2 {
        let (mut raw, connack) = Raw::with(&broker, &connect3(0x00, &[&string("c")]));
        assert_eq!(connack, [0x20, 2, 0, 0], "the byte is reserved");
        raw.send(&subscribe4(&[("t", 1)]));
        raw.expect(&[0x90, 3, 0, 1, 1]);
        raw.leave();
    }
    let mut publisher = Raw::v4(&broker, "p");
    publisher.send(&publish4(2, "t", 1, "kept"));
    publisher.expect(&[0x40, 2, 0, 1]);
    let (mut raw, _) = Raw::with(&broker, &connect3(0x00, &[&string("c")]));
    raw.expect(&publish4(2, "t", 1, "kept"));
}

#[test]
fn what_mqtt_3_1_leaves_open_is_let_pass() {
    let (_site, broker) = start();
    // The flag for a user name without one; will flags without a will; DUP on SUBSCRIBE.
    for flags in [0x82, 0xC2, 0x3A] {
        let (mut raw, connack) = Raw::with(&broker, &connect3(flags, &[&string("c")]));
        assert_eq!(connack, [0x20, 2, 0, 0], "{flags:#04x}");
        raw.send(&packet(0x8A, &cat(&[&[0, 1], &string("t"), &[0]])));
        raw.expect(&[0x90, 3, 0, 1, 0]);
    }
}

#[test]
fn an_old_client_whose_session_is_taken_over_is_closed() {
    let (_site, broker) = start();
    let mut first = Raw::v4(&broker, "c");
    let mut second = Raw::v5(&broker, "c");
    first.closed();
    let mut third = Raw::v4(&broker, "c");
    second.disconnected(0x8E);
    third.expect_nothing();
}
