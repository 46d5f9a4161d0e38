//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (§3.8 to §3.11), and PINGREQ (§3.12).

use super::{PINGREQ, PINGRESP, Raw, cat, packet, publish4, publish5, section, string, subscribe4, subscribe5};
use crate::running::start;

fn unsubscribe5(filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(string).collect();
    packet(0xA2, &cat(&[&[0, 2], &section(&[]), &filters]))
}

fn unsubscribe4(filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(string).collect();
    packet(0xA2, &cat(&[&[0, 2], &filters]))
}

#[test]
fn each_filter_is_answered_in_its_place() {
    let (_site, broker) = start();
    let mut new = Raw::v5(&broker, "new");
    let deep = "1/2/3/4/5/6/7/8/9";
    new.send(&subscribe5(&[], &[("a", 2), (deep, 1), ("b", 0), ("c", 1), ("a", 1)]));
    new.expect(&[0x90, 8, 0, 1, 0, 2, 0x8F, 0, 1, 1]);
    let mut old = Raw::v4(&broker, "old");
    old.send(&subscribe4(&[("a", 2), (deep, 1), ("b", 0), ("c", 1)]));
    old.expect(&[0x90, 6, 0, 1, 2, 0x80, 0, 1]);
    let mut publisher = Raw::v5(&broker, "p");
    // As if they had come one by one: the last one for "a" holds.
    publisher.send(&publish5(4, "a", 1, &[], "x"));
    publisher.expect(&[0x50, 2, 0, 1]);
    new.expect(&publish5(2, "a", 1, &[], "x"));
    old.expect(&publish4(4, "a", 1, "x"));
    publisher.send(&publish5(2, "b", 2, &[], "x"));
    publisher.expect(&[0x40, 2, 0, 2]);
    new.expect(&publish5(0, "b", 0, &[], "x"));
    old.expect(&publish4(0, "b", 0, "x"));
}

#[test]
fn without_filters_or_with_reserved_bits() {
    let (_site, broker) = start();
    Raw::refused(&broker, &packet(0x82, &[0, 1, 0]), 0x82);
    Raw::refused(&broker, &packet(0xA2, &[0, 1, 0]), 0x82);
    Raw::refused4(&broker, &packet(0x82, &[0, 1]));
    Raw::refused4(&broker, &packet(0xA2, &[0, 1]));
    for options in [0x40, 0x80, 0xC1] {
        Raw::refused(&broker, &subscribe5(&[], &[("t", options)]), 0x81);
    }
    // The value 3, as QoS and as Retain Handling.
    for options in [0x03, 0x30] {
        Raw::refused(&broker, &subscribe5(&[], &[("t", options)]), 0x82);
    }
    for options in [0x03, 0x04, 0x08, 0x10, 0x80] {
        Raw::refused4(&broker, &subscribe4(&[("t", options)]));
    }
    Raw::refused(&broker, &subscribe5(&[0x0B, 0], &[("t", 0)]), 0x82);
    Raw::refused(&broker, &subscribe5(&[0x0B, 1, 0x0B, 2], &[("t", 0)]), 0x82);
}

#[test]
fn a_subscription_replaces_the_one_with_the_same_filter() {
    let (_site, broker) = start();
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(1, "t", 0, &[], "kept"));
    publisher.expect_nothing();
    let mut client = Raw::v5(&broker, "c");
    client.send(&subscribe5(&[0x0B, 7], &[("t", 0)]));
    client.expect(&[0x90, 4, 0, 1, 0, 0]);
    client.expect(&publish5(1, "t", 0, &[0x0B, 7], "kept"));
    // Retain Handling 0: they come again; 1: they do not, as it is there; 2: they do not.
    client.send(&subscribe5(&[0x0B, 8], &[("t", 1)]));
    client.expect(&[0x90, 4, 0, 1, 0, 1]);
    client.expect(&publish5(1, "t", 0, &[0x0B, 8], "kept"));
    for options in [0x11, 0x21] {
        client.send(&subscribe5(&[], &[("t", options)]));
        client.expect(&[0x90, 4, 0, 1, 0, 1]);
    }
    publisher.send(&publish5(2, "t", 1, &[], "once"));
    publisher.expect(&[0x40, 2, 0, 1]);
    client.expect(&publish5(2, "t", 1, &[], "once"));
    client.expect_nothing();
    // New ones: 1 brings them, 2 does not.
    let mut other = Raw::v5(&broker, "o");
    other.send(&subscribe5(&[], &[("t", 0x20), ("+", 0x10)]));
    other.expect(&[0x90, 5, 0, 1, 0, 0, 0]);
    other.expect(&publish5(1, "t", 0, &[], "kept"));
    other.expect_nothing();
    assert_eq!(broker.state()["subscriptions"], 3);
}

#[test]
fn no_message_is_lost_while_a_subscription_is_replaced() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c").subscribed("t", 1);
    let mut publisher = Raw::v5(&broker, "p");
    for number in 1..=50_u8 {
        publisher.send(&publish5(0, "t", 0, &[], &number.to_string()));
        client.send(&subscribe5(&[], &[("t", 0x20 | number & 1)]));
    }
    publisher.expect_nothing();
    client.send(PINGREQ);
    let mut numbers = Vec::new();
    let mut subacks = 0;
    while numbers.len() < 50 || subacks < 50 {
        let got = client.packet();
        match got[0] {
            0x30 => numbers.push(String::from_utf8(got[6..].to_vec()).unwrap()),
            0x90 => subacks += 1,
            _ => assert_eq!(got, PINGRESP),
        }
    }
    assert_eq!(numbers, (1..=50).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn retain_as_published_and_the_flag_otherwise() {
    let (_site, broker) = start();
    let mut plain = Raw::v5(&broker, "plain").subscribed("t", 0);
    let mut kept = Raw::v5(&broker, "kept").subscribed("t", 0x08);
    let mut old = Raw::v4(&broker, "old");
    old.send(&subscribe4(&[("t", 0)]));
    old.expect(&[0x90, 3, 0, 1, 0]);
    let mut publisher = Raw::v5(&broker, "p");
    for flags in [1, 0] {
        publisher.send(&publish5(flags, "t", 0, &[], "x"));
        plain.expect(&publish5(0, "t", 0, &[], "x"));
        kept.expect(&publish5(flags, "t", 0, &[], "x"));
        old.expect(&publish4(0, "t", 0, "x"));
    }
}

#[test]
fn no_local_keeps_a_client_s_own_messages_from_it() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c").subscribed("t", 0x04);
    client.send(&publish5(0, "t", 0, &[], "own"));
    Raw::v5(&broker, "p").send(&publish5(0, "t", 0, &[], "another's"));
    client.expect(&publish5(0, "t", 0, &[], "another's"));
}

#[test]
fn unsubscribing_character_by_character() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c");
    client.send(&subscribe5(&[], &[("a/+", 1), ("a/b", 1), ("A/b", 1)]));
    client.expect(&[0x90, 6, 0, 1, 0, 1, 1, 1]);
    client.send(&unsubscribe5(&["a/#", "a/+", "a/B", "a/b/", "a/+"]));
    client.expect(&[0xB0, 8, 0, 2, 0, 0x11, 0, 0x11, 0x11, 0x11]);
    assert_eq!(broker.state()["subscriptions"], 2);
    let mut old = Raw::v4(&broker, "old");
    old.send(&unsubscribe4(&["nothing", "here"]));
    old.expect(&[0xB0, 2, 0, 2]);
    client.send(&unsubscribe5(&["a/b", "A/b"]));
    client.expect(&[0xB0, 5, 0, 2, 0, 0, 0]);
    Raw::v5(&broker, "p").send(&publish5(0, "a/b", 0, &[], "x"));
    client.expect_nothing();
}

#[test]
fn unsubscribing_ends_no_delivery_that_has_begun() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c").subscribed("t", 2);
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(4, "t", 1, &[], "x"));
    publisher.expect(&[0x50, 2, 0, 1]);
    client.expect(&publish5(4, "t", 1, &[], "x"));
    client.send(&unsubscribe5(&["t"]));
    client.expect(&[0xB0, 4, 0, 2, 0, 0]);
    publisher.send(&publish5(2, "t", 2, &[], "late"));
    publisher.expect(&[0x40, 3, 0, 2, 0x10]);
    client.expect_nothing();
    client.send(&[0x50, 2, 0, 1]);
    client.expect(&[0x62, 2, 0, 1]);
    client.send(&[0x70, 2, 0, 1]);
    client.expect_nothing();
}

#[test]
fn a_ping_is_answered() {
    let (_site, broker) = start();
    for mut client in [Raw::v5(&broker, "new"), Raw::v4(&broker, "old")] {
        client.send(&cat(&[PINGREQ, PINGREQ]));
        client.expect(PINGRESP);
        client.expect(PINGRESP);
    }
    Raw::refused(&broker, &[0xC0, 1, 0], 0x81);
}
