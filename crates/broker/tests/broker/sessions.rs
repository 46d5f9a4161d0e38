//! Sessions that outlive connections, and connections that take them over.

use evermq_mqtt::packet::Connect;
use evermq_mqtt::properties::ConnectProperties;
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};

use crate::client::{Client, connect, message, resume};
use crate::running::{start, start_with};

#[test]
fn a_session_waits_for_its_client() {
    let (_site, broker) = start();
    let (mut subscriber, connack) = Client::open(broker.plain, resume("s"));
    assert!(!connack.session_present);
    subscriber.subscribe_at("t", QoS::ExactlyOnce);
    subscriber.disconnect(ReasonCode::Success);
    let mut publisher = broker.client("p");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publisher.publish(message("t", &format!("{qos:?}")), qos);
    }
    assert_eq!(broker.state()["queued"], 2);
    let (mut subscriber, connack) = Client::open(broker.plain, resume("s"));
    assert!(connack.session_present);
    assert_eq!(subscriber.message().1, "AtLeastOnce");
    assert_eq!(subscriber.message().1, "ExactlyOnce");
    subscriber.expect_nothing();
}

#[test]
fn what_was_not_acknowledged_comes_again_with_dup_and_the_same_identifier() {
    let (_site, broker) = start();
    for version in [Version::V4, Version::V5] {
        let name = format!("s{version:?}");
        let resume = || Connect { version, ..resume(&name) };
        let (mut subscriber, _) = Client::open(broker.plain, resume());
        subscriber.subscribe_at(&name, QoS::ExactlyOnce);
        let mut publisher = broker.client("p");
        publisher.publish(message(&name, "one"), QoS::AtLeastOnce);
        publisher.publish(message(&name, "two"), QoS::ExactlyOnce);
        let (Packet::Publish(one), Packet::Publish(two)) = (subscriber.receive(), subscriber.receive()) else {
            panic!("no messages")
        };
        subscriber.vanish();
        let (mut subscriber, connack) = Client::open(broker.plain, resume());
        assert!(connack.session_present);
        for first in [one, two] {
            let Packet::Publish(again) = subscriber.receive() else { panic!("no message") };
            assert!(again.dup);
            assert_eq!((again.packet_id, again.payload), (first.packet_id, first.payload));
        }
    }
}

#[test]
fn a_clean_start_forgets() {
    let (_site, broker) = start();
    let (mut subscriber, _) = Client::open(broker.plain, resume("s"));
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    subscriber.vanish();
    let (mut subscriber, connack) = Client::open(broker.plain, Connect { clean_start: true, ..resume("s") });
    assert!(!connack.session_present);
    broker.client("p").publish(message("t", "x"), QoS::AtLeastOnce);
    subscriber.expect_nothing();
    assert_eq!(broker.state()["subscriptions"], 0);
}

#[test]
fn a_session_without_expiry_ends_with_its_connection() {
    let (_site, broker) = start();
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    subscriber.vanish();
    broker.wait_for("the session's end", |state| state["sessions"] == 0 && state["subscriptions"] == 0);
}

#[test]
fn a_session_expires() {
    let (_site, broker) = start_with(|config| config.max_session_expiry = std::time::Duration::from_secs(1));
    let (mut subscriber, connack) = Client::open(broker.plain, resume("s"));
    assert_eq!(connack.properties.session_expiry, Some(1));
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    subscriber.vanish();
    broker.wait_for("the session's end", |state| state["sessions"] == 0 && state["subscriptions"] == 0);
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let (_site, broker) = start();
    let (mut first, _) = Client::open(broker.plain, resume("same"));
    first.subscribe_at("t", QoS::AtLeastOnce);
    let (mut second, connack) = Client::open(broker.plain, resume("same"));
    assert!(connack.session_present);
    first.expect_disconnect(ReasonCode::SessionTakenOver);
    broker.client("p").publish(message("t", "x"), QoS::AtLeastOnce);
    assert_eq!(second.message().1, "x");

    let (mut third, connack) = Client::open(broker.plain, Connect { version: Version::V4, ..connect("same") });
    assert!(!connack.session_present);
    second.expect_disconnect(ReasonCode::SessionTakenOver);
    third.expect_nothing();
    let (mut fourth, _) = Client::open(broker.plain, resume("same"));
    assert_eq!(third.next(), None, "MQTT 3.1.1 knows no DISCONNECT from the server");
    fourth.expect_nothing();
}

#[test]
fn many_connections_of_one_client_leave_one() {
    let (_site, broker) = start();
    let address = broker.plain;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..20 {
                    Client::open(address, resume("same")).0.vanish();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    broker.wait_for("the last connection's end", |state| state["connections"] == 0 && state["sessions"] == 1);
    let (mut last, connack) = Client::open(broker.plain, resume("same"));
    assert!(connack.session_present);
    last.expect_nothing();
}

#[test]
fn identifiers_are_assigned() {
    let (_site, broker) = start();
    let (mut one, first) = Client::open(broker.plain, connect(""));
    let (mut other, second) = Client::open(broker.plain, connect(""));
    let first = first.properties.assigned_client_id.unwrap();
    let second = second.properties.assigned_client_id.unwrap();
    assert!(first != second && first.len() > 20, "{first} {second}");
    one.expect_nothing();
    other.expect_nothing();
    let old = Connect { version: Version::V4, properties: ConnectProperties::default(), ..connect("") };
    assert_eq!(Client::open(broker.plain, old.clone()).1.reason, ReasonCode::Success);
    let (mut refused, connack) = Client::open(broker.plain, Connect { clean_start: false, ..old });
    assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid);
    assert_eq!(refused.next(), None);
}
