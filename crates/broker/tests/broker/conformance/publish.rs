//! PUBLISH (§3.3): flags, topics, aliases, properties.

use std::time::Duration;

use super::{Raw, STAYS, cat, connect5, packet, publish4, publish5, string, subscribe4, subscribe5};
use crate::running::{start, start_with};

#[test]
fn dup_is_not_passed_on() {
    let (_site, broker) = start();
    let mut subscriber = Raw::v5(&broker, "s").subscribed("t", 2);
    let mut old = Raw::v4(&broker, "old");
    old.send(&subscribe4(&[("t", 0)]));
    old.expect(&[0x90, 3, 0, 1, 0]);
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(0x0A, "t", 7, &[], "x"));
    publisher.expect(&[0x40, 2, 0, 7]);
    subscriber.expect(&publish5(0x02, "t", 1, &[], "x"));
    old.expect(&publish4(0, "t", 0, "x"));
}

#[test]
fn qos_3_and_dup_at_qos_0_are_malformed() {
    let (_site, broker) = start();
    for flags in [0x06, 0x07, 0x0E] {
        Raw::refused(&broker, &publish5(flags, "t", 1, &[], ""), 0x81);
        Raw::refused4(&broker, &publish4(flags, "t", 1, ""));
    }
    Raw::refused(&broker, &publish5(0x08, "t", 0, &[], ""), 0x81);
    Raw::refused4(&broker, &publish4(0x08, "t", 0, ""));
}

#[test]
fn retained_messages_are_replaced_removed_and_left_alone() {
    let (_site, broker) = start();
    let mut publisher = Raw::v5(&broker, "p");
    let retained = |number: u32| {
        let mut late = Raw::v5(&broker, &format!("late{number}"));
        late.send(&subscribe5(&[], &[("r", 2)]));
        late.expect(&[0x90, 4, 0, 1, 0, 2]);
        late
    };
    publisher.send(&publish5(0x03, "r", 1, &[], "one"));
    publisher.expect(&[0x40, 3, 0, 1, 0x10]);
    retained(1).expect(&publish5(0x03, "r", 1, &[], "one"));
    // QoS 0 replaces it, and keeps its own QoS.
    publisher.send(&publish5(0x01, "r", 0, &[], "two"));
    publisher.expect_nothing();
    retained(2).expect(&publish5(0x01, "r", 0, &[], "two"));
    // Without RETAIN nothing changes.
    publisher.send(&publish5(0x00, "r", 0, &[], "passing"));
    publisher.send(&publish5(0x00, "r", 0, &[], ""));
    publisher.expect_nothing();
    let mut present = retained(3);
    present.expect(&publish5(0x01, "r", 0, &[], "two"));
    // Nothing removes it, and goes to who is there.
    publisher.send(&publish5(0x01, "r", 0, &[], ""));
    present.expect(&publish5(0x00, "r", 0, &[], ""));
    retained(4).expect_nothing();
    assert_eq!(broker.state()["retained"], 0);
}

#[test]
fn retained_messages_outlive_the_session_that_sent_them() {
    let (_site, broker) = start();
    let mut publisher = Raw::v4(&broker, "p");
    publisher.send(&publish4(0x03, "r", 1, "kept"));
    publisher.expect(&[0x40, 2, 0, 1]);
    drop(publisher);
    broker.wait_for("the session's end", |state| state["sessions"] == 0);
    let mut late = Raw::v4(&broker, "late");
    late.send(&subscribe4(&[("r", 0)]));
    late.expect(&[0x90, 3, 0, 1, 0]);
    late.expect(&publish4(0x01, "r", 0, "kept"));
}

#[test]
fn topics_with_wildcards_and_without_a_name() {
    let (_site, broker) = start();
    for topic in ["#", "+", "a/#", "a/+/b", "a+", "a#b"] {
        Raw::refused(&broker, &publish5(0, topic, 0, &[], ""), 0x81);
        Raw::refused4(&broker, &publish4(0, topic, 0, ""));
        let response = cat(&[&[0x08], &string(topic)]);
        Raw::refused(&broker, &publish5(0, "t", 0, &response, ""), 0x81);
    }
    Raw::refused(&broker, &publish5(0, "", 0, &[], ""), 0x82);
    Raw::refused4(&broker, &publish4(0, "", 0, ""));
}

#[test]
fn topic_aliases_from_a_client() {
    let (_site, broker) = start_with(|config| config.max_topic_alias = 3);
    let mut subscriber = Raw::v5(&broker, "s").subscribed("t/#", 0);
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(0, "t/1", 0, &[0x23, 0, 1], "sets 1"));
    publisher.send(&publish5(0, "t/3", 0, &[0x23, 0, 3], "sets 3"));
    publisher.send(&publish5(0, "", 0, &[0x23, 0, 1], "uses 1"));
    publisher.send(&publish5(0, "t/2", 0, &[0x23, 0, 1], "sets 1 again"));
    publisher.send(&publish5(0, "", 0, &[0x23, 0, 1], "uses 1"));
    publisher.send(&publish5(0, "", 0, &[0x23, 0, 3], "uses 3"));
    for (topic, payload) in [
        ("t/1", "sets 1"),
        ("t/3", "sets 3"),
        ("t/1", "uses 1"),
        ("t/2", "sets 1 again"),
        ("t/2", "uses 1"),
        ("t/3", "uses 3"),
    ] {
        subscriber.expect(&publish5(0, topic, 0, &[], payload));
    }
    // The next connection knows nothing of it.
    drop(publisher);
    Raw::refused(&broker, &publish5(0, "", 0, &[0x23, 0, 1], ""), 0x82);
    Raw::refused(&broker, &publish5(0, "t", 0, &[0x23, 0, 0], ""), 0x94);
    Raw::refused(&broker, &publish5(0, "t", 0, &[0x23, 0, 4], ""), 0x94);
    subscriber.expect_nothing();
}

#[test]
fn no_topic_alias_where_the_broker_takes_none() {
    let (_site, broker) = start_with(|config| config.max_topic_alias = 0);
    Raw::refused(&broker, &publish5(0, "t", 0, &[0x23, 0, 1], ""), 0x94);
    let (raw, _) = Raw::with(&broker, &connect5(0x02, &[0x22, 0, 10], &[&string("s")]));
    let mut subscriber = raw.subscribed("long/topic", 0);
    let mut publisher = Raw::v5(&broker, "p");
    for _ in 0..5 {
        publisher.send(&publish5(0, "long/topic", 0, &[], "x"));
        subscriber.expect(&publish5(0, "long/topic", 0, &[], "x"));
    }
}

#[test]
fn topic_aliases_to_a_client_within_its_maximum() {
    let (_site, broker) = start_with(|config| config.max_topic_alias = 8);
    // Two, and none; and one more connection of the same session, to which nothing is carried over.
    let (raw, _) = Raw::with(&broker, &connect5(0x00, &cat(&[STAYS, &[0x22, 0, 2]]), &[&string("two")]));
    let mut two = raw.subscribed("sensor/#", 1);
    let mut none = Raw::v5(&broker, "none").subscribed("sensor/#", 0);
    let mut publisher = Raw::v5(&broker, "p");
    let mut say = |topic: &str, payload: &str| publisher.send(&publish5(0, topic, 0, &[], payload));
    let payloads = ["1", "2", "3", "4"];
    for payload in payloads {
        for topic in ["sensor/a", "sensor/b", "sensor/c"] {
            say(topic, payload);
        }
    }
    let mut known = [None, None];
    let mut aliased = 0;
    for payload in payloads {
        for topic in ["sensor/a", "sensor/b", "sensor/c"] {
            none.expect(&publish5(0, topic, 0, &[], payload));
            let got = two.packet();
            let name_len = usize::from(got[3]);
            let name = String::from_utf8(got[4..4 + name_len].to_vec()).unwrap();
            let rest = &got[4 + name_len..];
            let alias = (rest[0] > 0).then(|| {
                assert_eq!(rest[1..3], [0x23, 0]);
                usize::from(rest[3])
            });
            match alias {
                None => assert_eq!(name, topic),
                Some(number) => {
                    assert!((1..=2).contains(&number), "{got:02x?}");
                    if name.is_empty() {
                        aliased += 1;
                        assert_eq!(known[number - 1].as_deref(), Some(topic));
                    } else {
                        assert_eq!(name, topic);
                        known[number - 1] = Some(name);
                    }
                }
            }
            assert!(got.ends_with(payload.as_bytes()));
        }
    }
    assert!(aliased >= 2, "{aliased}");
    drop(two);
    let (mut again, _) = Raw::with(&broker, &connect5(0x00, &cat(&[STAYS, &[0x22, 0, 2]]), &[&string("two")]));
    publisher.send(&publish5(0, "sensor/a", 0, &[], "new"));
    again.expect(&publish5(0, "sensor/a", 0, &[0x23, 0, 1], "new"));
}

#[test]
fn a_payload_that_is_not_what_its_format_says() {
    let (_site, broker) = start();
    let mut subscriber = Raw::v5(&broker, "s").subscribed("t", 0);
    let mut publisher = Raw::v5(&broker, "p");
    let bad = |flags: u8, id: &[u8]| packet(0x30 | flags, &cat(&[&string("t"), id, &[2, 0x01, 1], b"\xFF\xFE"]));
    publisher.send(&bad(0x02, &[0, 1]));
    publisher.expect(&[0x40, 3, 0, 1, 0x99]);
    publisher.send(&bad(0x04, &[0, 2]));
    publisher.expect(&[0x50, 3, 0, 2, 0x99]);
    publisher.send(&bad(0, &[]));
    publisher.send(&publish5(0, "t", 0, &[0x01, 1], "gr\u{FC}n"));
    subscriber.expect(&publish5(0, "t", 0, &[0x01, 1], "gr\u{FC}n"));
    // Said to be bytes: anything goes.
    publisher.send(&packet(0x30, &cat(&[&string("t"), &[2, 0x01, 0], b"\xFF"])));
    subscriber.expect(&packet(0x30, &cat(&[&string("t"), &[2, 0x01, 0], b"\xFF"])));
    subscriber.expect_nothing();
}

#[test]
fn a_message_expires_while_it_waits_and_says_how_long_it_has() {
    let (_site, broker) = start();
    let connect = connect5(0x00, STAYS, &[&string("s")]);
    Raw::with(&broker, &connect).0.subscribed("t", 1).leave();
    let mut publisher = Raw::v5(&broker, "p");
    for (id, seconds, payload) in [(1, 1, "short"), (2, 100, "long")] {
        publisher.send(&publish5(0x03, "t", id, &[0x02, 0, 0, 0, seconds], payload));
        publisher.expect(&[0x40, 2, 0, id as u8]);
    }
    publisher.send(&publish5(0x03, "other", 3, &[0x02, 0, 0, 0, 1], "short"));
    publisher.expect(&[0x40, 3, 0, 3, 0x10]);
    let begun = evermq_broker::connection::clock();
    // Time must pass: what is tested is that it has.
    while begun.elapsed() < Duration::from_millis(1100) {
        publisher.expect_nothing();
    }
    let (mut raw, _) = Raw::with(&broker, &connect);
    let got = raw.packet();
    let left = got[got.len() - 5];
    assert!(got.ends_with(b"long") && (90..100).contains(&left), "{got:02x?}");
    raw.expect_nothing();
    let mut late = Raw::v5(&broker, "late");
    late.send(&subscribe5(&[], &[("other", 0)]));
    late.expect(&[0x90, 4, 0, 1, 0, 0]);
    late.expect_nothing();
}

#[test]
fn a_client_s_publish_has_no_subscription_identifier() {
    let (_site, broker) = start();
    Raw::refused(&broker, &publish5(0, "t", 0, &[0x0B, 1], ""), 0x82);
}

#[test]
fn topics_that_are_the_broker_s_own() {
    let (_site, broker) = start();
    let mut watcher = Raw::v5(&broker, "w").subscribed("$SYS/mine/#", 0);
    let mut new = Raw::v5(&broker, "new");
    new.send(&publish5(2, "$SYS/mine/x", 1, &[], "x"));
    new.expect(&[0x40, 3, 0, 1, 0x87]);
    new.send(&publish5(4, "$SYS/mine/x", 1, &[], "x"));
    new.expect(&[0x50, 3, 0, 1, 0x87]);
    // 3.1.1 cannot say no, so it is acknowledged as usual.
    let mut old = Raw::v4(&broker, "old");
    old.send(&publish4(2, "$SYS/mine/x", 1, "x"));
    old.expect(&[0x40, 2, 0, 1]);
    old.send(&publish4(4, "$SYS/mine/x", 2, "x"));
    old.expect(&[0x50, 2, 0, 2]);
    watcher.expect_nothing();
}
