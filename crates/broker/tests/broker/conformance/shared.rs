//! Shared subscriptions (§4.8.2).

use super::{Raw, STAYS, connect5, publish4, publish5, string, subscribe4, subscribe5};
use crate::running::start;

#[test]
fn what_a_shared_subscription_looks_like() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c");
    for filter in ["$share/g/t", "$share/g/#", "$share/g//", "$share/g/+/x", "$share/ a $/t", "$SHARE/g/t", "$shared/#"]
    {
        client.send(&subscribe5(&[], &[(filter, 0)]));
        client.expect(&[0x90, 4, 0, 1, 0, 0]);
    }
    for filter in ["$share", "$share/", "$share/g", "$share/g/", "$share//t", "$share/+/t", "$share/#", "$share/g#/t"] {
        Raw::refused(&broker, &subscribe5(&[], &[(filter, 0)]), 0x81);
        Raw::refused4(&broker, &subscribe4(&[(filter, 0)]));
    }
    // No Local is a protocol error.
    Raw::refused(&broker, &subscribe5(&[], &[("$share/g/t", 0x04)]), 0x82);
}

#[test]
fn one_member_gets_each_message() {
    let (_site, broker) = start();
    // MQTT 3.1.1 clients may be members too.
    let mut new = Raw::v5(&broker, "new").subscribed("$share/g/t/+", 1);
    let mut old = Raw::v4(&broker, "old");
    old.send(&subscribe4(&[("$share/g/t/+", 0)]));
    old.expect(&[0x90, 3, 0, 1, 0]);
    let mut publisher = Raw::v5(&broker, "p");
    for number in 0..6_u8 {
        publisher.send(&publish5(2, "t/x", 1, &[], &number.to_string()));
        publisher.expect(&[0x40, 2, 0, 1]);
    }
    for (number, id) in [(0, 1), (2, 2), (4, 3)] {
        new.expect(&publish5(2, "t/x", id, &[], &number.to_string()));
    }
    // Each at the QoS that it was granted.
    for number in [1, 3, 5] {
        old.expect(&publish4(0, "t/x", 0, &number.to_string()));
    }
    new.expect_nothing();
    old.expect_nothing();
    assert_eq!(broker.state()["subscriptions"], 2);
}

#[test]
fn a_group_s_copy_comes_beside_a_client_s_own() {
    let (_site, broker) = start();
    let mut client = Raw::v5(&broker, "c");
    client.send(&subscribe5(&[0x0B, 1], &[("$share/g/t", 0)]));
    client.expect(&[0x90, 4, 0, 1, 0, 0]);
    client.send(&subscribe5(&[0x0B, 2], &[("t", 0)]));
    client.expect(&[0x90, 4, 0, 1, 0, 0]);
    Raw::v5(&broker, "p").send(&publish5(0, "t", 0, &[], "x"));
    let mut got = [client.packet(), client.packet()];
    got.sort();
    assert_eq!(got, [publish5(0, "t", 0, &[0x0B, 1], "x"), publish5(0, "t", 0, &[0x0B, 2], "x")]);
    client.expect_nothing();
}

#[test]
fn nothing_retained_comes_when_it_begins() {
    let (_site, broker) = start();
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(1, "t", 0, &[], "kept"));
    publisher.expect_nothing();
    let mut client = Raw::v5(&broker, "c").subscribed("$share/g/t", 0);
    client.expect_nothing();
    // A message that is retained meanwhile is a message like any other; Retain As Published holds here too.
    client.send(&subscribe5(&[], &[("$share/g/t", 0x08)]));
    client.expect(&[0x90, 4, 0, 1, 0, 0]);
    publisher.send(&publish5(1, "t", 0, &[], "live"));
    client.expect(&publish5(1, "t", 0, &[], "live"));
}

#[test]
fn an_absent_member_s_messages_are_its_own_until_its_session_ends() {
    let (_site, broker) = start();
    let connect = connect5(0x00, STAYS, &[&string("away")]);
    Raw::with(&broker, &connect).0.subscribed("$share/g/t", 2).leave();
    let mut publisher = Raw::v5(&broker, "p");
    for id in 1..=2_u8 {
        publisher.send(&publish5(4, "t", id.into(), &[], &id.to_string()));
        publisher.expect(&[0x50, 2, 0, id]);
    }
    let (mut away, connack) = Raw::with(&broker, &connect);
    assert_eq!(connack[2], 1);
    away.expect(&publish5(4, "t", 1, &[], "1"));
    away.expect(&publish5(4, "t", 2, &[], "2"));
    away.send(&[0x50, 2, 0, 1]);
    away.expect(&[0x62, 2, 0, 1]);
    drop(away);
    let mut other = Raw::v5(&broker, "other").subscribed("$share/g/t", 2);
    // QoS 2 that was sent is finished with the same client.
    let (mut away, _) = Raw::with(&broker, &connect);
    away.expect(&[0x62, 2, 0, 1]);
    away.expect(&publish5(0x0C, "t", 2, &[], "2"));
    drop(away);
    broker.wait_for("the connection's end", |state| state["connections"] == 2);
    // And is nobody else's when that client's session ends.
    drop(Raw::with(&broker, &connect5(0x02, &[], &[&string("away")])));
    other.expect_nothing();
}

#[test]
fn a_member_that_leaves_gives_qos_1_to_another() {
    let (_site, broker) = start();
    let mut first = Raw::v5(&broker, "first").subscribed("$share/g/t", 1);
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(2, "t", 1, &[], "x"));
    publisher.expect(&[0x40, 2, 0, 1]);
    first.expect(&publish5(2, "t", 1, &[], "x"));
    let mut second = Raw::v5(&broker, "second").subscribed("$share/g/t", 1);
    drop(first);
    second.expect(&publish5(2, "t", 1, &[], "x"));
}

#[test]
fn what_a_member_refuses_nobody_else_gets() {
    let (_site, broker) = start();
    let mut members =
        [Raw::v5(&broker, "a").subscribed("$share/g/t", 2), Raw::v5(&broker, "b").subscribed("$share/g/t", 2)];
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(2, "t", 1, &[], "x"));
    publisher.expect(&[0x40, 2, 0, 1]);
    publisher.send(&publish5(4, "t", 2, &[], "y"));
    publisher.expect(&[0x50, 2, 0, 2]);
    for member in &mut members {
        let got = member.packet();
        member.send(if got[0] == 0x32 { &[0x40, 3, 0, 1, 0x80] } else { &[0x50, 3, 0, 1, 0x80] });
    }
    for member in &mut members {
        member.expect_nothing();
    }
}
