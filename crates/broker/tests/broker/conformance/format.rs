//! Data representation and the form of packets (chapters 1 and 2).

use super::{PINGRESP, Raw, cat, connect5, packet, publish4, publish5, section, string, subscribe5};
use crate::running::start;

const NO_STRINGS: [&[u8]; 6] = [b"\xC0\x80", b"\xED\xA0\x80", b"\xED\xBF\xBF", b"\x80", b"\xF4\x90\x80\x80", b"a\0b"];

#[test]
fn strings_are_well_formed_utf_8_without_null() {
    let (_site, broker) = start();
    for bad in NO_STRINGS {
        Raw::refused(&broker, &packet(0x30, &cat(&[&string(bad), &[0]])), 0x81);
        Raw::refused(&broker, &packet(0x82, &cat(&[&[0, 1, 0], &string(bad), &[0]])), 0x81);
        Raw::refused(&broker, &packet(0xA2, &cat(&[&[0, 1, 0], &string(bad)])), 0x81);
        Raw::refused4(&broker, &packet(0x30, &string(bad)));
        Raw::refused4(&broker, &packet(0x82, &cat(&[&[0, 1], &string(bad), &[0]])));
        Raw::refused4(&broker, &packet(0xA2, &cat(&[&[0, 1], &string(bad)])));
        // Client identifier, will topic and user name of a CONNECT.
        let (id, empty) = (string(bad), string(""));
        for connect in [
            connect5(0x02, &[], &[&id]),
            connect5(0x06, &[], &[&string("c"), &[0], &id, &empty]),
            connect5(0x82, &[], &[&string("c"), &id]),
        ] {
            let (mut raw, connack) = Raw::with(&broker, &connect);
            assert_eq!(connack[2..4], [0, 0x81], "{connect:02x?}");
            raw.closed();
        }
        for connect in [
            super::connect4(0x02, &[&id]),
            super::connect4(0x06, &[&string("c"), &id, &empty]),
            super::connect4(0x82, &[&string("c"), &id]),
        ] {
            let mut raw = Raw::open(&broker);
            raw.send(&connect);
            raw.closed();
        }
    }
}

#[test]
fn strings_in_properties_too() {
    let (_site, broker) = start();
    for bad in NO_STRINGS {
        let (bad, good) = (string(bad), string("x"));
        for property in
            [cat(&[&[0x26], &bad, &good]), cat(&[&[0x26], &good, &bad]), cat(&[&[0x08], &bad]), cat(&[&[0x03], &bad])]
        {
            Raw::refused(&broker, &publish5(0, "t", 0, &property, ""), 0x81);
        }
    }
}

#[test]
fn a_byte_order_mark_is_a_character() {
    let (_site, broker) = start();
    let mut subscriber = Raw::v5(&broker, "s").subscribed("\u{FEFF}a", 0);
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(0, "a", 0, &[], "without"));
    publisher.send(&publish5(0, "\u{FEFF}a", 0, &[], "with"));
    subscriber.expect(&publish5(0, "\u{FEFF}a", 0, &[], "with"));
}

#[test]
fn integers_use_the_fewest_bytes_and_four_at_most() {
    let (_site, broker) = start();
    Raw::refused(&broker, &[0xC0, 0x80, 0x00], 0x81);
    Raw::refused(&broker, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], 0x81);
    // The length of the properties, and a subscription identifier.
    Raw::refused(&broker, &packet(0x30, &cat(&[&string("t"), &[0x80, 0x00]])), 0x81);
    Raw::refused(&broker, &subscribe5(&[0x0B, 0x81, 0x00], &[("t", 0)]), 0x81);
    // MQTT 3.1.1 does not say so.
    let mut old = Raw::v4(&broker, "old");
    old.send(&[0xC0, 0x80, 0x00]);
    old.expect(PINGRESP);
    Raw::refused4(&broker, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
}

#[test]
fn reserved_flags_are_as_the_table_says() {
    let (_site, broker) = start();
    let ack = [0, 1];
    let packets: [(u8, &[u8]); 9] = [
        (0x40, &ack),
        (0x50, &ack),
        (0x62, &ack),
        (0x70, &ack),
        (0x82, &[0, 1, 0, 0, 1, b't', 0]),
        (0xA2, &[0, 1, 0, 0, 1, b't']),
        (0xC0, &[]),
        (0xE0, &[]),
        (0xF0, &[0x19, 4, 0x15, 0, 1, b'x']),
    ];
    for (first, body) in packets {
        for flags in (0..16).filter(|flags| *flags != first & 0x0F) {
            Raw::refused(&broker, &packet(first & 0xF0 | flags, body), 0x81);
        }
        let wrong = packet(first ^ 0x01, body);
        Raw::refused4(&broker, &wrong);
    }
}

#[test]
fn a_packet_identifier_is_not_0_and_absent_at_qos_0() {
    let (_site, broker) = start();
    for (first, rest) in [(0x32, &[0, 1, b't', 0, 0, 0][..]), (0x34, &[0, 1, b't', 0, 0, 0])] {
        Raw::refused(&broker, &packet(first, rest), 0x82);
        Raw::refused4(&broker, &packet(first, rest));
    }
    Raw::refused(&broker, &packet(0x82, &[0, 0, 0, 0, 1, b't', 0]), 0x82);
    Raw::refused(&broker, &packet(0xA2, &[0, 0, 0, 0, 1, b't']), 0x82);
    Raw::refused4(&broker, &packet(0x82, &[0, 0, 0, 1, b't', 0]));
    Raw::refused4(&broker, &packet(0xA2, &[0, 0, 0, 1, b't']));
    // At QoS 0 what follows the topic is the properties, or the payload.
    let mut subscriber = Raw::v5(&broker, "s").subscribed("t", 2);
    Raw::v4(&broker, "p").send(&publish4(0, "t", 0, "\0\u{1}"));
    subscriber.expect(&publish5(0, "t", 0, &[], "\0\u{1}"));
}

#[test]
fn answers_name_the_packet_that_they_answer_and_always_have_properties() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c");
    client.send(&packet(0x82, &cat(&[&[0x12, 0x34], &section(&[]), &string("t"), &[1]])));
    client.expect(&[0x90, 4, 0x12, 0x34, 0, 1]);
    client.send(&packet(0xA2, &cat(&[&[0x23, 0x45], &section(&[]), &string("t")])));
    client.expect(&[0xB0, 4, 0x23, 0x45, 0, 0]);
    client.send(&publish5(2, "x", 0xABCD, &[], ""));
    client.expect(&[0x40, 3, 0xAB, 0xCD, 0x10]);
    client.send(&publish5(4, "x", 0xBCDE, &[], ""));
    client.expect(&[0x50, 2, 0xBC, 0xDE]);
    client.send(&[0x62, 2, 0xBC, 0xDE]);
    client.expect(&[0x70, 2, 0xBC, 0xDE]);
}

#[test]
fn properties_that_are_unknown_misplaced_doubled_or_wrong() {
    let (_site, broker) = start();
    let table: &[(&[u8], u8)] = &[
        // Unknown; one of CONNECT; cut short.
        (&[0x7E, 0], 0x81),
        (&[0x11, 0, 0, 0, 1], 0x81),
        (&[0x02, 0, 0], 0x81),
        // Twice.
        (&[0x01, 1, 0x01, 1], 0x82),
        (&[0x02, 0, 0, 0, 9, 0x02, 0, 0, 0, 9], 0x82),
        (&[0x23, 0, 1, 0x23, 0, 1], 0x82),
        // Neither 0 nor 1.
        (&[0x01, 2], 0x82),
    ];
    for (properties, reason) in table {
        Raw::refused(&broker, &publish5(0, "t", 0, properties, ""), *reason);
    }
    let connects: &[(&[u8], u8)] = &[
        (&[0x7E, 0], 0x81),
        (&[0x23, 0, 1], 0x81),
        (&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1], 0x82),
        (&[0x21, 0, 0], 0x82),
        (&[0x27, 0, 0, 0, 0], 0x82),
        (&[0x17, 2], 0x82),
        (&[0x19, 2], 0x82),
        (&[0x16, 0, 1, b'x'], 0x82),
    ];
    for (properties, reason) in connects {
        let (mut raw, connack) = Raw::with(&broker, &connect5(0x02, properties, &[&string("c")]));
        assert_eq!(connack[2..4], [0, *reason], "{properties:02x?}");
        raw.closed();
    }
}
