//! CONNECT and CONNACK (§3.1, §3.2).

use std::time::Duration;

use super::{
    PINGREQ, PINGRESP, Raw, STAYS, cat, connect4, connect5, packet, publish4, publish5, string, subscribe4, subscribe5,
};
use crate::running::{start, start_with};

/// The properties of a CONNACK by identifier; the values are as long as the standard says.
fn properties(connack: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &connack[5..];
    let mut found = Vec::new();
    while let Some((&id, value)) = rest.split_first() {
        let len = match id {
            0x11 | 0x27 => 4,
            0x13 | 0x21 | 0x22 => 2,
            0x24 | 0x25 | 0x28..=0x2A => 1,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => 2 + usize::from(u16::from_be_bytes([value[0], value[1]])),
            other => panic!("{other:#04x} in a CONNACK: {connack:02x?}"),
        };
        let (value, after) = value.split_at(len);
        found.push((id, value.to_vec()));
        rest = after;
    }
    found
}

fn property(connack: &[u8], id: u8) -> Option<Vec<u8>> {
    properties(connack).into_iter().find(|(found, _)| *found == id).map(|(_, value)| value)
}

#[test]
fn a_second_connect_ends_the_connection() {
    let (_site, broker) = start();
    Raw::refused(&broker, &connect5(0x02, &[], &[&string("refused")]), 0x82);
    Raw::refused4(&broker, &connect4(0x02, &[&string("refused")]));
    // Whatever it is.
    for (name, level) in [("MQTT", 9), ("MQTX", 5)] {
        let connect = packet(0x10, &cat(&[&string(name), &[level, 2, 0, 0, 0], &string("c")]));
        Raw::refused(&broker, &connect, 0x82);
        Raw::refused4(&broker, &connect);
    }
}

#[test]
fn protocol_names_and_versions() {
    let (_site, broker) = start();
    let connect = |name: &str, level: u8| packet(0x10, &cat(&[&string(name), &[level, 2, 0, 0, 0], &string("c")]));
    // The answer to an unknown version is that of MQTT 3.1.1, which knows such answers.
    for level in [0, 1, 2, 3, 6, 0x83, 0x85, 255] {
        let (mut raw, connack) = Raw::with(&broker, &connect("MQTT", level));
        assert_eq!(connack, [0x20, 2, 0, 1], "{level}");
        raw.closed();
    }
    for name in ["", "MQT", "MQTTX", "mqtt", "MQIsdp "] {
        let mut raw = Raw::open(&broker);
        raw.send(&connect(name, 5));
        raw.closed();
    }
}

#[test]
fn the_reserved_flag_and_flags_of_a_will_that_is_not_there() {
    let (_site, broker) = start();
    for flags in [0x01, 0x08, 0x10, 0x18, 0x20, 0x38] {
        let (mut raw, connack) = Raw::with(&broker, &connect5(flags, &[], &[&string("c")]));
        assert_eq!(connack[2..4], [0, 0x81], "{flags:#04x}");
        raw.closed();
        let mut old = Raw::open(&broker);
        old.send(&connect4(flags | 0x02, &[&string("c")]));
        old.closed();
    }
    // QoS 3, with a will.
    let will: [&[u8]; 4] = [&string("c"), &[0], &string("t"), &string("x")];
    let (mut raw, connack) = Raw::with(&broker, &connect5(0x1E, &[], &will));
    assert_eq!(connack[2..4], [0, 0x81]);
    raw.closed();
    let mut old = Raw::open(&broker);
    old.send(&connect4(0x1E, &[&string("c"), &string("t"), &string("x")]));
    old.closed();
}

#[test]
fn the_payload_is_what_the_flags_announce() {
    let (_site, broker) = start();
    let (id, text) = (string("c"), string("x"));
    // User name, password and will missing; a field too many.
    let short: [(u8, &[&[u8]]); 4] =
        [(0x82, &[&id]), (0xC2, &[&id, &text]), (0x06, &[&id, &[0], &text]), (0x06, &[&id])];
    let long: [(u8, &[&[u8]]); 2] = [(0x02, &[&id, &text]), (0x82, &[&id, &text, &text])];
    for (flags, payload) in short.into_iter().chain(long) {
        let (mut raw, connack) = Raw::with(&broker, &connect5(flags, &[], payload));
        assert_eq!(connack[2..4], [0, 0x81], "{flags:#04x}");
        raw.closed();
        let payload: Vec<&[u8]> = payload.iter().copied().filter(|part| *part != [0]).collect();
        let mut old = Raw::open(&broker);
        old.send(&connect4(flags, &payload));
        old.closed();
    }
    // No client identifier at all.
    let (mut raw, connack) = Raw::with(&broker, &connect5(0x02, &[], &[]));
    assert_eq!(connack[2..4], [0, 0x81]);
    raw.closed();
    // MQTT 3.1.1 has no password without a user name; MQTT 5.0 has, and here it is of no use.
    let mut old = Raw::open(&broker);
    old.send(&connect4(0x42, &[&id, &text]));
    old.closed();
    // In their order: identifier, will, user name, password.
    let all: [&[u8]; 6] = [&id, &[0], &string("will"), &string("gone"), &string("user"), &string("secret")];
    let mut watcher = Raw::v5(&broker, "w").subscribed("will", 0);
    let (raw, connack) = Raw::with(&broker, &connect5(0xC6, &[], &all));
    assert_eq!(connack[3], 0);
    drop(raw);
    watcher.expect(&publish5(0, "will", 0, &[], "gone"));
}

#[test]
fn clean_start_and_session_present() {
    let (_site, broker) = start();
    let id = string("c");
    // (clean start, session stays, session present)
    for (clean, stays, present) in [
        (0, true, 0),
        (0, true, 1),
        (2, true, 0),
        (0, true, 1),
        (0, false, 1),
        (0, false, 0),
        (0, true, 0),
        (2, false, 0),
    ] {
        let (mut raw, connack) = Raw::with(&broker, &connect5(clean, if stays { STAYS } else { &[] }, &[&id]));
        assert_eq!(connack[2..4], [present, 0], "{clean} {stays}");
        raw.send(&[0xE0, 0]);
        raw.closed();
    }
    for (clean, present) in [(0, 0), (0, 1), (2, 0), (2, 0), (0, 0), (0, 1)] {
        let (mut raw, connack) = Raw::with(&broker, &connect4(clean, &[&string("old")]));
        assert_eq!(connack, [0x20, 2, present, 0]);
        raw.send(&[0xE0, 0]);
        raw.closed();
    }
}

#[test]
fn a_session_is_its_client_identifier_s() {
    let (_site, broker) = start();
    for version in [4, 5] {
        let connect = |id: &str| {
            let id = string(format!("{id}{version}"));
            if version == 5 { connect5(0, STAYS, &[&id]) } else { connect4(0, &[&id]) }
        };
        let (mut raw, _) = Raw::with(&broker, &connect("one"));
        if version == 5 {
            raw.send(&subscribe5(&[], &[("t", 1)]));
            raw.expect(&[0x90, 4, 0, 1, 0, 1]);
        } else {
            raw.send(&subscribe4(&[("t", 1)]));
            raw.expect(&[0x90, 3, 0, 1, 1]);
        }
        raw.leave();
        let (mut publisher, mut other) = (Raw::v5(&broker, "p"), Raw::with(&broker, &connect("two")).0);
        publisher.send(&publish5(2, "t", 1, &[], "kept"));
        publisher.expect(&[0x40, 2, 0, 1]);
        other.expect_nothing();
        let (mut raw, connack) = Raw::with(&broker, &connect("one"));
        assert_eq!(connack[2], 1);
        raw.expect(&if version == 5 { publish5(2, "t", 1, &[], "kept") } else { publish4(2, "t", 1, "kept") });
        raw.send(&[0x40, 2, 0, 1]);
        raw.expect_nothing();
    }
}

#[test]
fn a_session_that_ends_with_its_connection_is_not_taken_over() {
    let (_site, broker) = start();
    let mut watcher = Raw::v5(&broker, "w").subscribed("will", 0);
    let (id, topic, payload) = (string("c"), string("will"), string("gone"));
    let olds = [connect5(0x06, &[], &[&id, &[0], &topic, &payload]), connect4(0x06, &[&id, &topic, &payload])];
    let news = [connect5(0x00, STAYS, &[&id]), connect4(0x00, &[&id])];
    for (old, new) in olds.iter().flat_map(|old| news.iter().map(move |new| (old, new))) {
        let (mut first, _) = Raw::with(&broker, old);
        let is_new = old[8] == 5;
        first.send(&if is_new { subscribe5(&[], &[("t", 1)]) } else { subscribe4(&[("t", 1)]) });
        assert_eq!(first.packet()[0], 0x90);
        let (mut second, connack) = Raw::with(&broker, new);
        assert_eq!(connack[2..4], [0, 0], "{old:02x?} {new:02x?}");
        if is_new {
            first.disconnected(0x8E);
        } else {
            first.closed();
        }
        watcher.expect(&publish5(0, "will", 0, &[], "gone"));
        Raw::v5(&broker, "p").send(&publish5(0, "t", 0, &[], "x"));
        second.expect_nothing();
        second.leave();
        Raw::with(&broker, &connect5(0x02, &[], &[&id])).0.leave();
    }
}

#[test]
fn a_will_is_published_as_its_flags_and_properties_say() {
    let (_site, broker) = start();
    let properties = cat(&[
        &[0x01, 1, 0x02, 0, 0, 3, 0xE8],
        &cat(&[&[0x03], &string("text/plain"), &[0x08], &string("answer"), &[0x09], &string("\x01\x02")]),
        &cat(&[&[0x26], &string("b"), &string("1"), &[0x26], &string("a"), &string("2"), &[0x26], &string("b")]),
        &string("1"),
    ]);
    // Not told onwards: the delay.
    let will_properties = super::section(&cat(&[&[0x18, 0, 0, 0, 0], &properties]));
    for (retain, qos) in [(0, 0_u8), (0x20, 1), (0, 2)] {
        let mut watcher = Raw::v5(&broker, "w").subscribed("will", 2 | 0x08);
        let flags = 0x06 | retain | qos << 3;
        let payload: [&[u8]; 4] = [&string("dying"), &will_properties, &string("will"), &string("gone")];
        drop(Raw::with(&broker, &connect5(flags, &[], &payload)).0);
        let got = watcher.packet();
        assert_eq!(got[0], 0x30 | qos << 1 | u8::from(retain > 0), "RETAIN as the flag says, {qos}");
        for property in [&string("text/plain"), &string("answer"), &string("\x01\x02")] {
            assert!(got.windows(property.len()).any(|window| window == &property[..]), "{got:02x?}");
        }
        let pairs =
            cat(&[&[0x26], &string("b"), &string("1"), &[0x26], &string("a"), &string("2"), &[0x26], &string("b")]);
        assert!(got.windows(pairs.len()).any(|window| window == &pairs[..]), "user properties in their order");
        assert!(got.ends_with(b"gone"));
        let mut late = Raw::v5(&broker, "late").subscribed("will", 0);
        if retain > 0 {
            assert_eq!(late.packet()[0], 0x31);
            watcher.send(&publish5(1, "will", 0, &[], ""));
            watcher.packet();
        }
        late.send(&[0xE0, 0]);
    }
    // MQTT 3.1.1.
    let mut watcher = Raw::v4(&broker, "w");
    watcher.send(&subscribe4(&[("old", 1)]));
    watcher.expect(&[0x90, 3, 0, 1, 1]);
    drop(Raw::with(&broker, &connect4(0x2E, &[&string("dying"), &string("old"), &string("gone")])).0);
    watcher.expect(&publish4(2, "old", 1, "gone"));
    let mut late = Raw::v4(&broker, "late");
    late.send(&subscribe4(&[("old", 0)]));
    late.expect(&[0x90, 3, 0, 1, 0]);
    late.expect(&publish4(1, "old", 0, "gone"));
}

#[test]
fn a_will_that_is_not_what_its_format_says() {
    let (_site, broker) = start();
    let payload: [&[u8]; 4] = [&string("c"), &[2, 0x01, 1], &string("will"), &string(b"\xFF")];
    let (mut raw, connack) = Raw::with(&broker, &connect5(0x06, &[], &payload));
    assert_eq!(connack[2..4], [0, 0x99]);
    raw.closed();
}

#[test]
fn without_a_will_or_after_a_normal_disconnect_nothing_is_published() {
    let (_site, broker) = start();
    let mut watcher = Raw::v5(&broker, "w").subscribed("#", 2);
    drop(Raw::v5(&broker, "none"));
    let will: [&[u8]; 4] = [&string("c"), &[0], &string("will"), &string("gone")];
    let (mut leaves, _) = Raw::with(&broker, &connect5(0x06, &[], &will));
    leaves.send(&[0xE0, 0]);
    leaves.closed();
    let (mut leaves, _) = Raw::with(&broker, &connect4(0x06, &[&string("c"), &string("will"), &string("gone")]));
    leaves.send(&[0xE0, 0]);
    leaves.closed();
    broker.wait_for("the ends", |state| state["connections"] == 1);
    watcher.expect_nothing();
    // It is published once only: a later connection without a will has none.
    let (stays, _) = Raw::with(&broker, &connect5(0x06, STAYS, &will));
    drop(stays);
    watcher.expect(&publish5(0, "will", 0, &[], "gone"));
    drop(Raw::with(&broker, &connect5(0x00, STAYS, &[&string("c")])).0);
    broker.wait_for("the end", |state| state["connections"] == 1);
    watcher.expect_nothing();
}

#[test]
fn a_server_keep_alive_stands_in_the_place_of_the_client_s() {
    let (_site, broker) = start_with(|config| config.max_keep_alive = Duration::from_secs(1));
    let (mut raw, connack) = Raw::with(&broker, &connect5(0x02, &[], &[&string("c")]));
    assert_eq!(property(&connack, 0x13), Some(vec![0, 1]));
    raw.disconnected(0x8D);
}

#[test]
fn no_packet_is_larger_than_the_client_takes() {
    let (_site, broker) = start();
    let connect = |size: u8| connect5(0x02, &[0x27, 0, 0, 0, size], &[&string("c")]);
    // The CONNACK says what the client must know, so it cannot be shorter.
    let (mut raw, connack) = Raw::with(&broker, &connect(10));
    assert_eq!(connack, [0x20, 3, 0, 0x95, 0]);
    raw.closed();
    let mut raw = Raw::open(&broker);
    raw.send(&connect(4));
    raw.closed();
    let (mut raw, connack) = Raw::with(&broker, &connect(24));
    assert!(connack.len() <= 24 && connack[3] == 0, "{connack:02x?}");
    let filters: Vec<_> = (0..30).map(|_| ("t", 0)).collect();
    raw.send(&subscribe5(&[], &filters));
    raw.expect_nothing();
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(0, "t", 0, &[], "much too large for this client"));
    publisher.send(&publish5(0, "t", 0, &[], "small"));
    raw.expect(&publish5(0, "t", 0, &[], "small"));
    // DISCONNECT without the words.
    raw.send(&[0x00, 0]);
    raw.expect(&[0xE0, 1, 0x81]);
    raw.closed();
}

#[test]
fn response_and_problem_information_only_where_asked_for() {
    let (_site, broker) = start();
    for asked in [&[][..], &[0x19, 0], &[0x19, 1]] {
        let (_raw, connack) = Raw::with(&broker, &connect5(0x02, asked, &[&string("c")]));
        assert_eq!(property(&connack, 0x1A), None);
        assert_eq!(property(&connack, 0x1F), None);
    }
    let (mut raw, _) = Raw::with(&broker, &connect5(0x02, &[0x17, 0], &[&string("c")]));
    raw.send(&publish5(2, "$SYS/x", 7, &[], ""));
    raw.expect(&[0x40, 3, 0, 7, 0x87]);
    raw.send(&publish5(4, "$SYS/x", 7, &[], ""));
    raw.expect(&[0x50, 3, 0, 7, 0x87]);
    raw.send(&subscribe5(&[], &[("1/2/3/4/5/6/7/8/9", 0)]));
    raw.expect(&[0x90, 4, 0, 1, 0, 0x8F]);
    raw.send(&packet(0xA2, &cat(&[&[0, 9, 0], &string("none")])));
    raw.expect(&[0xB0, 4, 0, 9, 0, 0x11]);
    raw.send(&[0x00, 0]);
    raw.expect(&[0xE0, 1, 0x81]);
    raw.closed();
}

#[test]
fn client_identifiers() {
    let (_site, broker) = start();
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let long = "x".repeat(2000);
    for id in ["a", &all[..23], &all[20..43], &all[39..], "with space/+#", "h\u{E9}", &long] {
        drop(Raw::v5(&broker, id));
        drop(Raw::v4(&broker, id));
    }
}

#[test]
fn a_client_without_an_identifier_gets_one_of_its_own() {
    let (_site, broker) = start();
    let mut seen = Vec::new();
    let mut open = Vec::new();
    for flags in [0x02, 0x00, 0x02] {
        let (raw, connack) = Raw::with(&broker, &connect5(flags, STAYS, &[&string("")]));
        assert_eq!(connack[2..4], [0, 0]);
        let id = property(&connack, 0x12).unwrap();
        assert!(!seen.contains(&id) && id.len() > 2);
        seen.push(id);
        open.push(raw);
    }
    // The session is that identifier's.
    drop(open);
    let (_raw, connack) = Raw::with(&broker, &connect5(0, STAYS, &[&seen[0]]));
    assert_eq!(connack[2..4], [1, 0]);
    assert_eq!(property(&connack, 0x12), None);
    // MQTT 3.1.1: with a clean session only, and nobody can be told.
    let (mut old, connack) = Raw::with(&broker, &connect4(0x02, &[&string("")]));
    assert_eq!(connack, [0x20, 2, 0, 0]);
    old.expect_nothing();
    let (mut old, connack) = Raw::with(&broker, &connect4(0x00, &[&string("")]));
    assert_eq!(connack, [0x20, 2, 0, 2]);
    old.closed();
}

#[test]
fn what_follows_a_refused_connect_is_not_heard() {
    let (_site, broker) = start();
    let mut watcher = Raw::v5(&broker, "w").subscribed("t", 0);
    let refused = connect5(0x02, &cat(&[&[0x15], &string("SCRAM-SHA-1")]), &[&string("c")]);
    let mut raw = Raw::open(&broker);
    raw.send(&cat(&[&refused, &publish5(0, "t", 0, &[], "x")]));
    raw.expect(&[0x20, 3, 0, 0x8C, 0]);
    raw.closed();
    let mut old = Raw::open(&broker);
    old.send(&cat(&[&connect4(0x00, &[&string("")]), &publish4(0, "t", 0, "x")]));
    old.expect(&[0x20, 2, 0, 2]);
    old.closed();
    watcher.expect_nothing();
}

#[test]
fn connack_comes_first_and_once() {
    let (_site, broker) = start();
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(3, "t", 1, &[], "retained"));
    publisher.expect(&[0x40, 3, 0, 1, 0x10]);
    let mut raw = Raw::open(&broker);
    raw.send(&cat(&[&connect5(0x02, &[], &[&string("c")]), &subscribe5(&[], &[("t", 1)]), PINGREQ]));
    let connack = raw.packet();
    assert_eq!((connack[0], connack[2] & 0xFE), (0x20, 0), "reserved flags are 0");
    raw.expect(&[0x90, 4, 0, 1, 0, 1]);
    // A message waits for nobody else; the answer to the ping may come before or after it.
    let mut rest = [raw.packet(), raw.packet()];
    rest.sort();
    assert_eq!(rest, [publish5(3, "t", 1, &[], "retained"), PINGRESP.to_vec()]);
    let mut old = Raw::open(&broker);
    old.send(&cat(&[&connect4(0x02, &[&string("old")]), PINGREQ]));
    old.expect(&[0x20, 2, 0, 0]);
    old.expect(PINGRESP);
}

#[test]
fn connack_names_what_a_client_must_keep_to() {
    let (_site, broker) = start_with(|config| {
        config.max_inflight = 20;
        config.max_packet_size = 100_000;
        config.max_topic_alias = 3;
        config.max_session_expiry = Duration::from_secs(60);
    });
    let (_raw, connack) = Raw::with(&broker, &connect5(0x02, &[0x11, 0xFF, 0xFF, 0xFF, 0xFF], &[&string("c")]));
    let mut found = properties(&connack);
    found.sort();
    let expected: &[(u8, &[u8])] =
        &[(0x11, &[0, 0, 0, 60]), (0x21, &[0, 20]), (0x22, &[0, 3]), (0x27, &[0, 1, 0x86, 0xA0]), (0x2A, &[1])];
    assert_eq!(found, expected.iter().map(|(id, value)| (*id, value.to_vec())).collect::<Vec<_>>());
}
