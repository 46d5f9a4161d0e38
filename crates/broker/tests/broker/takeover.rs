//! A client that connects to one broker while it is connected to another.

use std::process::Command;

use evermq_mqtt::packet::Connect;
use evermq_mqtt::{QoS, ReasonCode, Version};

use crate::client::{Client, connect, message, resume, will};
use crate::paho::python;
use crate::running::{Running, Site, start_two, two};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/paho_takeover.py");

#[test]
fn the_older_connection_ends_wherever_it_is() {
    let (_site, brokers) = start_two();
    let mut watcher = brokers[1].client("watcher");
    watcher.subscribe_at("will/#", QoS::AtLeastOnce);
    let dying = |delay| Connect { will: Some(will("will/c", delay)), ..resume("c") };
    let mut here = Client::open(brokers[0].plain, dying(0)).0;
    let mut there = Client::open(brokers[1].plain, dying(1000)).0;
    here.expect_disconnect(ReasonCode::SessionTakenOver);
    assert_eq!(watcher.message().1, "gone", "at once, as its client has asked");
    here = Client::open(brokers[0].plain, resume("c")).0;
    there.expect_disconnect(ReasonCode::SessionTakenOver);
    watcher.expect_nothing();
    here.expect_nothing();

    // MQTT 3.1.1 has no word for it.
    let old = Connect { version: Version::V4, ..connect("old") };
    let mut there = Client::open(brokers[1].plain, old.clone()).0;
    let mut back = Client::open(brokers[0].plain, old).0;
    assert_eq!(there.next(), None);
    back.expect_nothing();

    let taken_over = |broker: &Running| broker.state()["bridge"]["peers"][0]["taken_over"].clone();
    assert_eq!((taken_over(&brokers[0]), taken_over(&brokers[1])), (1.into(), 2.into()));
}

#[test]
fn a_session_stays_at_its_broker_until_a_clean_start() {
    let (_site, brokers) = start_two();
    let session_present = |broker: &Running| {
        let (mut client, connack) = Client::open(broker.plain, resume("c"));
        if !connack.session_present {
            client.subscribe_at("t", QoS::AtLeastOnce);
        }
        (client, connack.session_present)
    };
    let (mut here, present) = session_present(&brokers[0]);
    assert!(!present);
    let (mut there, present) = session_present(&brokers[1]);
    assert!(!present, "the session is where it was made");
    here.expect_disconnect(ReasonCode::SessionTakenOver);
    brokers[1].client("p").publish(message("t", "for both sessions"), QoS::AtLeastOnce);
    assert_eq!(there.message().1, "for both sessions");
    let (mut here, present) = session_present(&brokers[0]);
    assert!(present);
    assert_eq!(here.message().1, "for both sessions");
    there.expect_disconnect(ReasonCode::SessionTakenOver);

    let mut clean = brokers[1].client("c");
    here.expect_disconnect(ReasonCode::SessionTakenOver);
    brokers[0].wait_for("the session's end", |state| state["sessions"] == 0);
    clean.expect_nothing();
}

#[test]
fn brokers_that_find_each_other_compare_who_is_connected() {
    let site = Site::new();
    let [first, second] = two(&site, |_| {});
    let first = Running::start(&first);
    let mut here = first.client("c");
    let mut other = first.client("other");
    // The link between them comes up when it will: in any case after the first of the two connections.
    let second = Running::start(&second);
    let mut there = second.client("c");
    here.expect_disconnect(ReasonCode::SessionTakenOver);
    first.wait_for_peer();
    there.expect_nothing();
    other.expect_nothing();
}

/// paho-mqtt at both brokers, over mutual TLS.
fn paho(version: &str, told: &str) {
    let (site, brokers) = start_two();
    let tls = site.ca.issue("device-1", 1);
    let output = Command::new(python())
        .arg(SCRIPT)
        .args([version, &brokers[0].tls.port().to_string(), &brokers[1].tls.port().to_string()])
        .args([&tls.ca, &tls.cert, &tls.key])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out.trim().lines().next(), Some(told), "{out}\n{err}");
}

#[test]
fn paho_5_is_told_why() {
    paho("5", "Session taken over");
}

#[test]
fn paho_3_1_1_is_closed() {
    paho("311", "closed");
}
