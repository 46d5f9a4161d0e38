//! Delivery protocols, retry, order and flow control (§4.3 to §4.6, §4.9), both ways.

use super::{
    PINGREQ, PINGRESP, Raw, STAYS, cat, connect4, connect5, publish4, publish5, string, subscribe4, subscribe5,
};
use crate::running::{Running, start, start_two};

fn puback(id: u8) -> [u8; 4] {
    [0x40, 2, 0, id]
}
fn pubrec(id: u8) -> [u8; 4] {
    [0x50, 2, 0, id]
}
fn pubrel(id: u8) -> [u8; 4] {
    [0x62, 2, 0, id]
}
fn pubcomp(id: u8) -> [u8; 4] {
    [0x70, 2, 0, id]
}

/// A session that stays, in both versions.
fn connect(version: u8, id: &str) -> Vec<u8> {
    if version == 5 { connect5(0x00, STAYS, &[&string(id)]) } else { connect4(0x00, &[&string(id)]) }
}

fn publish(version: u8, flags: u8, topic: &str, id: u16, payload: &str) -> Vec<u8> {
    if version == 5 { publish5(flags, topic, id, &[], payload) } else { publish4(flags, topic, id, payload) }
}

fn subscriber(broker: &Running, version: u8, filter: &str) -> Raw {
    let (mut raw, _) = Raw::with(broker, &connect(version, &format!("s{version}")));
    if version == 5 {
        raw.send(&subscribe5(&[], &[(filter, 2)]));
        raw.expect(&[0x90, 4, 0, 1, 0, 2]);
    } else {
        raw.send(&subscribe4(&[(filter, 2)]));
        raw.expect(&[0x90, 3, 0, 1, 2]);
    }
    raw
}

/// Takes a message of QoS 2 through all its steps.
fn publish_qos2(publisher: &mut Raw, bytes: &[u8], id: u8) {
    publisher.send(bytes);
    publisher.expect(&pubrec(id));
    publisher.send(&pubrel(id));
    publisher.expect(&pubcomp(id));
}

#[test]
fn qos_1_from_a_client_is_new_each_time() {
    let (_site, broker) = start();
    for version in [4, 5] {
        let mut watcher = Raw::v5(&broker, "w").subscribed("t", 0);
        let (mut publisher, _) = Raw::with(&broker, &connect(version, "p"));
        for flags in [0x02, 0x02, 0x0A] {
            publisher.send(&publish(version, flags, "t", 9, "x"));
            publisher.expect(&puback(9));
            watcher.expect(&publish5(0, "t", 0, &[], "x"));
        }
    }
}

#[test]
fn qos_2_from_a_client_arrives_once_until_its_release() {
    let (_site, broker) = start();
    for version in [4, 5] {
        let mut watcher = Raw::v5(&broker, "w").subscribed("t", 0);
        let (mut publisher, _) = Raw::with(&broker, &connect(version, "p"));
        publisher.send(&publish(version, 0x04, "t", 9, "x"));
        publisher.expect(&pubrec(9));
        watcher.expect(&publish5(0, "t", 0, &[], "x"));
        publisher.send(&publish(version, 0x0C, "t", 9, "x"));
        publisher.expect(&pubrec(9));
        // Also over the next connection of the session.
        drop(publisher);
        let (mut publisher, connack) = Raw::with(&broker, &connect(version, "p"));
        assert_eq!(connack[2], 1);
        publisher.send(&publish(version, 0x0C, "t", 9, "x"));
        publisher.expect(&pubrec(9));
        publisher.send(&pubrel(9));
        publisher.expect(&pubcomp(9));
        watcher.expect_nothing();
        // The identifier is free again.
        publish_qos2(&mut publisher, &publish(version, 0x04, "t", 9, "y"), 9);
        watcher.expect(&publish5(0, "t", 0, &[], "y"));
        // A release of nothing is answered.
        publisher.send(&pubrel(77));
        publisher.expect(if version == 5 { &[0x70, 3, 0, 77, 0x92] } else { &[0x70, 2, 0, 77] });
    }
}

#[test]
fn after_an_error_the_identifier_is_new() {
    let (_site, broker) = start();
    let mut watcher = Raw::v5(&broker, "w").subscribed("t", 0);
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(4, "$SYS/x", 9, &[], "refused"));
    publisher.expect(&[0x50, 3, 0, 9, 0x87]);
    publish_qos2(&mut publisher, &publish5(4, "t", 9, &[], "x"), 9);
    watcher.expect(&publish5(0, "t", 0, &[], "x"));
}

#[test]
fn qos_2_to_a_client_step_by_step() {
    let (_site, broker) = start();
    for version in [4, 5] {
        let mut client = subscriber(&broker, version, "t");
        let mut publisher = Raw::v5(&broker, "p");
        publish_qos2(&mut publisher, &publish5(4, "t", 1, &[], "x"), 1);
        client.expect(&publish(version, 0x04, "t", 1, "x"));
        // Not acknowledged: it comes again on the next connection, with DUP and the same identifier.
        drop(client);
        let (mut client, _) = Raw::with(&broker, &connect(version, &format!("s{version}")));
        client.expect(&publish(version, 0x0C, "t", 1, "x"));
        client.send(&pubrec(1));
        client.expect(&pubrel(1));
        // Then only PUBREL does.
        drop(client);
        let (mut client, _) = Raw::with(&broker, &connect(version, &format!("s{version}")));
        client.expect(&pubrel(1));
        client.expect_nothing();
        client.send(&pubcomp(1));
        client.leave();
        let (mut client, _) = Raw::with(&broker, &connect(version, &format!("s{version}")));
        client.expect_nothing();
    }
}

#[test]
fn qos_1_to_a_client_until_its_acknowledgement() {
    let (_site, broker) = start();
    for version in [4, 5] {
        let mut client = subscriber(&broker, version, "t");
        let mut publisher = Raw::v5(&broker, "p");
        for id in 1..=3 {
            publisher.send(&publish5(2, "t", id.into(), &[], &id.to_string()));
            publisher.expect(&puback(id));
            client.expect(&publish(version, 0x02, "t", id.into(), &id.to_string()));
        }
        client.send(&puback(2));
        // Nothing is sent again while the connection stands.
        client.expect_nothing();
        drop(client);
        let (mut client, _) = Raw::with(&broker, &connect(version, &format!("s{version}")));
        client.expect(&publish(version, 0x0A, "t", 1, "1"));
        client.expect(&publish(version, 0x0A, "t", 3, "3"));
        client.send(&cat(&[&puback(3), &puback(1)]));
        client.expect_nothing();
        // An identifier in use is never given to another message.
        for id in 4..=6 {
            publisher.send(&publish5(2, "t", id.into(), &[], "more"));
            publisher.expect(&puback(id));
        }
        let ids: Vec<_> = (0..3).map(|_| client.packet()[6]).collect();
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert!(!ids.contains(&0));
        client.send(&cat(&[&puback(ids[0]), &puback(ids[1]), &puback(ids[2])]));
        client.expect_nothing();
    }
}

#[test]
fn an_acknowledgement_with_an_error_is_one() {
    let (_site, broker) = start();
    let mut client = subscriber(&broker, 5, "t");
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(2, "t", 1, &[], "one"));
    publisher.expect(&puback(1));
    publish_qos2(&mut publisher, &publish5(4, "t", 2, &[], "two"), 2);
    client.expect(&publish5(2, "t", 1, &[], "one"));
    client.expect(&publish5(4, "t", 2, &[], "two"));
    client.send(&[0x40, 3, 0, 1, 0x87]);
    client.send(&[0x50, 3, 0, 2, 0x83]);
    client.expect_nothing();
    drop(client);
    let (mut client, _) = Raw::with(&broker, &connect(5, "s5"));
    client.expect_nothing();
}

#[test]
fn acknowledgements_of_the_wrong_kind() {
    let (_site, broker) = start();
    let mut publisher = Raw::v5(&broker, "p");
    for (flags, wrong) in [(0x02, pubrec(1)), (0x02, pubcomp(1)), (0x04, puback(1)), (0x04, pubcomp(1))] {
        let mut client = Raw::v5(&broker, "c").subscribed("t", 2);
        publisher.send(&publish5(flags, "t", 9, &[], "x"));
        publisher.packet();
        if flags == 0x04 {
            publisher.send(&pubrel(9));
            publisher.expect(&pubcomp(9));
        }
        client.expect(&publish5(flags, "t", 1, &[], "x"));
        client.send(&wrong);
        client.disconnected(0x82);
    }
}

#[test]
fn a_client_gets_no_more_than_its_receive_maximum_at_once() {
    let (_site, broker) = start();
    let connect = connect5(0x02, &[0x21, 0, 2], &[&string("c")]);
    let mut client = Raw::with(&broker, &connect).0.subscribed("t/#", 2);
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(2, "t/1", 1, &[], ""));
    publisher.expect(&puback(1));
    for id in 2..=4 {
        publish_qos2(&mut publisher, &publish5(4, &format!("t/{id}"), id.into(), &[], ""), id);
    }
    client.expect(&publish5(2, "t/1", 1, &[], ""));
    client.expect(&publish5(4, "t/2", 2, &[], ""));
    // Everything else goes on: answers, and QoS 0.
    publisher.send(&publish5(0, "t/0", 0, &[], ""));
    client.expect(&publish5(0, "t/0", 0, &[], ""));
    client.send(&cat(&[PINGREQ, &subscribe5(&[], &[("x", 0)])]));
    client.expect(PINGRESP);
    client.expect(&[0x90, 4, 0, 1, 0, 0]);
    // PUBREC leaves its place taken, PUBCOMP and PUBACK and an error free one.
    client.send(&pubrec(2));
    client.expect(&pubrel(2));
    client.expect_nothing();
    client.send(&pubcomp(2));
    client.expect(&publish5(4, "t/3", 3, &[], ""));
    client.expect_nothing();
    client.send(&[0x50, 3, 0, 3, 0x80]);
    client.expect(&publish5(4, "t/4", 4, &[], ""));
    client.send(&puback(1));
    client.expect_nothing();
}

#[test]
fn the_order_of_a_publisher_is_kept_at_each_qos() {
    let (_site, broker) = start();
    for version in [4, 5] {
        let mut client = subscriber(&broker, version, "order/#");
        let mut publisher = Raw::v5(&broker, "p");
        for number in 1..=9_u8 {
            let payload = number.to_string();
            match number % 3 {
                0 => publish_qos2(&mut publisher, &publish5(4, "order/t", number.into(), &[], &payload), number),
                1 => {
                    publisher.send(&publish5(2, "order/t", number.into(), &[], &payload));
                    publisher.expect(&puback(number));
                }
                _ => publisher.send(&publish5(0, "order/t", 0, &[], &payload)),
            }
        }
        // What the store is to have first may be overtaken by what it need not have.
        let mut got = [vec![], vec![], vec![]];
        for _ in 0..9 {
            let packet = client.packet();
            got[usize::from(packet[0] >> 1 & 3)].push(*packet.last().unwrap());
        }
        assert_eq!(got, [b"258".to_vec(), b"147".to_vec(), b"369".to_vec()]);
        let connect =
            if version == 5 { connect5(0x02, &[], &[&string("s5")]) } else { connect4(0x02, &[&string("s4")]) };
        drop(Raw::with(&broker, &connect));
    }
}

#[test]
fn acknowledgements_come_in_the_order_of_what_they_answer() {
    let (_site, broker) = start();
    for version in [4, 5] {
        let mut client = subscriber(&broker, version, "t");
        let (mut publisher, _) = Raw::with(&broker, &connect(version, "p"));
        let ids = [5, 2, 9_u8];
        let messages: Vec<_> =
            ids.iter().map(|id| publish(version, 0x04, "t", (*id).into(), &id.to_string())).collect();
        publisher.send(&messages.concat());
        for id in ids {
            publisher.expect(&pubrec(id));
        }
        publisher.send(&ids.map(pubrel).concat());
        for id in ids {
            publisher.expect(&pubcomp(id));
        }
        for (number, id) in (1..).zip(ids) {
            client.expect(&publish(version, 0x04, "t", number, &id.to_string()));
        }
        // PUBREL in the order of PUBREC, which need not be that of PUBLISH.
        let order = [3, 1, 2];
        client.send(&order.map(pubrec).concat());
        for id in order {
            client.expect(&pubrel(id));
        }
        client.send(&order.map(pubcomp).concat());
        client.expect_nothing();
        publisher.leave();
    }
}

#[test]
fn an_identifier_in_the_hands_of_qos_2_is_in_use() {
    let (_site, broker) = start();
    let mut publisher = Raw::v5(&broker, "p");
    publisher.send(&publish5(4, "t", 5, &[], ""));
    publisher.expect(&pubrec(5));
    publisher.send(&publish5(2, "t", 5, &[], ""));
    publisher.expect(&[0x40, 3, 0, 5, 0x91]);
}

#[test]
fn a_message_that_nobody_asked_for_is_acknowledged_with_0x10() {
    let (_site, broker) = start();
    for (version, answer) in [(4, &[0x40, 2, 0, 9][..]), (5, &[0x40, 3, 0, 9, 0x10])] {
        let (mut publisher, _) = Raw::with(&broker, &connect(version, "p"));
        // A message of QoS 0 has no answer, and one of QoS 2 has a longer one.
        publisher.send(&cat(&[&publish(version, 0, "t", 0, "x"), &publish(version, 0x04, "t", 8, "x")]));
        publisher.expect(&pubrec(8));
        publisher.send(&publish(version, 0x02, "t", 9, "x"));
        publisher.expect(answer);
        publisher.leave();
    }
}

#[test]
fn where_other_brokers_may_have_subscribers_it_is_0x00() {
    let (_site, [broker, _other]) = start_two();
    let (mut publisher, _) = Raw::with(&broker, &connect(5, "p"));
    publisher.send(&publish(5, 0x02, "t", 9, "x"));
    publisher.expect(&puback(9));
}
