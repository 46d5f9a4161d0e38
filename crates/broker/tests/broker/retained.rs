//! Retained messages.

use evermq_mqtt::packet::{RetainHandling, SubscriptionOptions};
use evermq_mqtt::{Publish, QoS};

use crate::client::message;
use crate::running::{start, start_with};

fn retained(topic: &str, payload: &str) -> Publish {
    Publish { retain: true, ..message(topic, payload) }
}

#[test]
fn a_new_subscriber_gets_the_last_one() {
    let (_site, broker) = start();
    let mut publisher = broker.client("p");
    for payload in ["old", "new"] {
        publisher.publish(retained("r/a", payload), QoS::AtLeastOnce);
    }
    publisher.publish(retained("r/b", "gone"), QoS::AtLeastOnce);
    publisher.publish(retained("r/b", ""), QoS::AtLeastOnce);
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("r/#", QoS::AtMostOnce);
    let got = subscriber.receive_message();
    assert_eq!(
        (got.topic.as_str(), &got.payload[..], got.retain, got.qos),
        ("r/a", &b"new"[..], true, QoS::AtMostOnce)
    );
    subscriber.expect_nothing();
    publisher.publish(retained("r/a", "live"), QoS::AtLeastOnce);
    assert!(!subscriber.receive_message().retain, "to a subscription that was there it is a message like any other");
    assert_eq!(broker.state()["retained"], 1);
}

#[test]
fn retain_handling_and_retain_as_published() {
    let (_site, broker) = start();
    let mut publisher = broker.client("p");
    publisher.publish(retained("r", "kept"), QoS::AtLeastOnce);
    let mut subscriber = broker.client("s");
    let options = |retain_handling, retain_as_published| SubscriptionOptions {
        retain_handling,
        retain_as_published,
        ..SubscriptionOptions::default()
    };
    subscriber.subscribe("r", options(RetainHandling::DoNotSend, false));
    subscriber.expect_nothing();
    subscriber.subscribe("r", options(RetainHandling::SendIfNew, true));
    subscriber.expect_nothing();
    subscriber.subscribe("+", options(RetainHandling::SendIfNew, true));
    assert_eq!(subscriber.message().1, "kept");
    publisher.publish(retained("r", "live"), QoS::AtLeastOnce);
    assert!(subscriber.receive_message().retain);
    publisher.publish(message("r", "not retained"), QoS::AtLeastOnce);
    assert!(!subscriber.receive_message().retain);
    subscriber.subscribe("r", options(RetainHandling::Send, true));
    assert_eq!(subscriber.message().1, "live");
}

#[test]
fn more_retained_messages_than_may_wait_all_arrive() {
    let (_site, broker) = start_with(|config| config.max_queued_messages = 10);
    let mut publisher = broker.client("p");
    for number in 0..100 {
        publisher.publish(retained(&format!("r/{number:03}"), "x"), QoS::AtLeastOnce);
    }
    assert!(!publisher.publish(retained("r/one-too-many", "x"), QoS::AtLeastOnce).is_error());
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("r/#", QoS::AtLeastOnce);
    let mut topics: Vec<_> = (0..100).map(|_| subscriber.message().0).collect();
    topics.sort();
    assert_eq!(topics, (0..100).map(|number| format!("r/{number:03}")).collect::<Vec<_>>());
    subscriber.expect_nothing();
    assert_eq!(broker.state()["messages"]["retained_refused"], 1);
}
