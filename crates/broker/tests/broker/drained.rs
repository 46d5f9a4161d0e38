//! A broker that an operator empties, and those who are connected to it.

use evermq_mqtt::packet::Connect;
use evermq_mqtt::{QoS, ReasonCode, Version};
use serde_json::{Value, json};

use crate::client::{Client, connect, message, resume, will};
use crate::cluster_topics::{STATE, certified, subscribe};
use crate::joining::{Hosts, reload, wait_until_ready};
use crate::running::Running;

fn drain(broker: &Running, more: Value) -> Value {
    let mut request = json!({ "request": "drain" });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    broker.ask(&request)
}

/// Two brokers and an lb of the cluster.
fn two() -> (Hosts, Running, Running) {
    let hosts = Hosts::new();
    hosts.write(1, &[1, 2], "");
    hosts.write(2, &[1, 2], "");
    let (first, second) = (hosts.start(1), hosts.start(2));
    for broker in [&first, &second] {
        wait_until_ready(broker);
        broker.wait_for_peer();
    }
    (hosts, first, second)
}

#[test]
fn its_clients_are_told_the_lbs_hear_and_nobody_gets_in() {
    let (hosts, first, second) = two();
    let mut lb = certified(&hosts.site, &first, "lb1", connect("evermq-lb"));
    assert_eq!(subscribe(&mut lb, STATE), ReasonCode::Success);
    assert_eq!(lb.message().1, "ready");
    let mut watcher = second.client("watcher");
    watcher.subscribe_at("will/#", QoS::AtLeastOnce);
    let with_will = |connect: Connect| Connect { will: Some(will("will/sent", 0)), ..connect };
    let old = || Connect { version: Version::V4, clean_start: true, ..connect("old") };
    let (mut new, _) = Client::open(first.plain, with_will(resume("new")));
    let (mut old_client, _) = Client::open(first.plain, with_will(old()));
    assert_eq!(new.publish(message("t", "before"), QoS::AtLeastOnce), ReasonCode::Success);

    let said = drain(&first, json!({ "state": "drain", "rate": 50 }));
    assert_eq!((&said["state"], &said["clients"], &said["rate"]), (&json!("draining"), &json!(2), &json!(50)));
    assert_eq!(lb.message().1, "draining");
    new.expect_disconnect(ReasonCode::UseAnotherServer);
    assert_eq!(old_client.next(), None);
    let state = first.wait_for("drained", |state| state["drain"]["may_stop"] == true);
    assert_eq!((&state["drain"]["state"], &state["readiness"]), (&json!("drained"), &json!("draining")));
    assert_eq!((&state["drain"]["told"], &state["messages"]["sent_away"]), (&json!(2), &json!(2)));
    let refused = |connect: Connect| Client::open(first.plain, connect).1.reason;
    assert_eq!(refused(connect("late")), ReasonCode::UseAnotherServer);
    assert_eq!(refused(old()), ReasonCode::ServerUnavailable, "MQTT 3.1.1 has one word for it");
    // The other one takes them; their wills have not gone out.
    assert_eq!(Client::open(second.plain, resume("new")).1.reason, ReasonCode::Success);
    watcher.expect_nothing();
    lb.expect_nothing();

    assert_eq!(drain(&first, json!({ "state": "ready" }))["state"], "ready");
    assert_eq!(lb.message().1, "ready");
    let state = wait_until_ready(&first);
    assert_eq!(state["drain"], Value::Null);
    let (_, connack) = Client::open(first.plain, resume("new"));
    assert!(connack.session_present, "its session has stayed");
}

#[test]
fn clients_stay_until_there_is_another_broker() {
    let (hosts, first, second) = two();
    let mut client = first.client("c");
    second.stop().unwrap();
    first.wait_for("that it is alone", |state| state["bridge"]["peers"][0]["connected"] == false);
    drain(&first, json!({ "state": "drain", "rate": 1000, "moved": true }));
    first.wait_for("the reason", |state| state["drain"]["refuge"] == false);
    client.expect_nothing();
    assert_eq!(Client::open(first.plain, connect("another")).1.reason, ReasonCode::Success, "there is no other place");
    let _second = hosts.start(2);
    client.expect_disconnect(ReasonCode::ServerMoved);
    first.wait_for("drained", |state| state["drain"]["state"] == "drained");
    assert_eq!(Client::open(first.plain, connect("late")).1.reason, ReasonCode::ServerMoved);
}

/// As an operator does it: drain, stop, take the entry out.
#[test]
fn a_broker_leaves_and_no_message_is_missing() {
    let (hosts, first, second) = two();
    let mut subscriber = first.client("subscriber");
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    let mut publisher = second.client("publisher");
    for number in 0..200 {
        publisher.publish(message("t", &number.to_string()), QoS::AtLeastOnce);
    }
    drain(&second, json!({ "state": "drain", "rate": 1000 }));
    publisher.expect_disconnect(ReasonCode::UseAnotherServer);
    second.wait_for("that it may stop", |state| state["drain"]["may_stop"] == true);
    second.stop().unwrap();
    hosts.write(1, &[1], "");
    assert_eq!(reload(&first)["left"], json!(["broker2"]));
    let (mut publisher, _) = Client::open(first.plain, connect("publisher"));
    publisher.publish(message("t", "200"), QoS::AtLeastOnce);
    for number in 0..=200 {
        assert_eq!(subscriber.message().1, number.to_string());
    }
    subscriber.expect_nothing();
    assert_eq!(first.state()["bridge"]["abandoned"], 0);

    // It comes back with its store, after the other one was started again: neither knows of anything missing.
    first.stop().unwrap();
    hosts.write(1, &[1, 2], "");
    let (first, second) = (hosts.start(1), hosts.start(2));
    first.wait_for_peer();
    let mut subscriber = second.client("subscriber");
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    first.client("publisher").publish(message("t", "201"), QoS::AtLeastOnce);
    assert_eq!(subscriber.message().1, "201");
    subscriber.expect_nothing();
    let peer = &first.state()["bridge"]["peers"][0];
    assert_eq!(
        (&peer["lost"], &peer["gaps"], &second.state()["bridge"]["peers"][0]["missed"]),
        (&json!(0), &json!(0), &json!(0))
    );
}
