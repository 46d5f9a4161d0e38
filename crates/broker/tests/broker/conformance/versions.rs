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

/// mosquitto's bridges say what they are by the highest bit of the level.
#[test]
fn a_bridge_gets_what_is_retained_as_such_and_nothing_of_its_own() {
    let (_site, broker) = start();
    for (name, level) in [("MQTT", 0x84), ("MQIsdp", 0x83)] {
        let connect = packet(0x10, &cat(&[&string(name), &[level, 2, 0, 0], &string("bridge")]));
        let (mut bridge, connack) = Raw::with(&broker, &connect);
        assert_eq!(connack, [0x20, 2, 0, 0], "{level:#04x}");
        bridge.send(&subscribe4(&[("t/#", 1), ("$share/g/s", 1)]));
        bridge.expect(&[0x90, 4, 0, 1, 1, 1]);
        bridge.send(&publish4(2, "t/own", 7, "its own"));
        bridge.expect(&[0x40, 2, 0, 7]);
        let mut other = Raw::v4(&broker, "other");
        other.send(&publish4(1, "t/other", 0, "retained"));
        bridge.expect(&publish4(1, "t/other", 0, "retained"));
        other.send(&publish4(0, "t/other", 0, "not retained"));
        bridge.expect(&publish4(0, "t/other", 0, "not retained"));
        // A shared subscription leaves out nobody's.
        bridge.send(&publish4(0, "s", 0, "shared"));
        bridge.expect(&publish4(0, "s", 0, "shared"));
        other.send(&publish4(1, "t/other", 0, ""));
        bridge.expect(&publish4(1, "t/other", 0, ""));
    }
}

/// As mosquitto: it is where its bridges say whether they are connected, by a will.
#[test]
fn the_state_of_a_bridge_may_be_published() {
    let (_site, broker) = start();
    let topic = "$SYS/broker/connection/hub/state";
    let mut watcher = Raw::v4(&broker, "watcher");
    watcher.send(&subscribe4(&[("$SYS/broker/connection/+/state", 1)]));
    watcher.expect(&[0x90, 3, 0, 1, 1]);
    let payload: [&[u8]; 3] = [&string("bridge"), &string(topic), &string("0")];
    let connect = packet(0x10, &cat(&[&string("MQTT"), &[0x84, 0x02 | 0x04 | 0x08, 0, 0], &payload.concat()]));
    let (mut bridge, connack) = Raw::with(&broker, &connect);
    assert_eq!(connack, [0x20, 2, 0, 0]);
    bridge.send(&publish4(2, topic, 1, "1"));
    bridge.expect(&[0x40, 2, 0, 1]);
    watcher.expect(&publish4(2, topic, 1, "1"));
    // Nothing else of the broker's own.
    bridge.send(&publish4(2, "$SYS/broker/connection/state", 2, "1"));
    bridge.expect(&[0x40, 2, 0, 2]);
    drop(bridge);
    watcher.expect(&publish4(2, topic, 2, "0"));
}
