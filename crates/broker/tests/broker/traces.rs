//! Following one client: its packets, and what is logged of it.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, channel};

use evermq_mqtt::{QoS, ReasonCode};
use serde_json::{Value, json};

use crate::client::{Client, connect, message};
use crate::program::Program;
use crate::running::{PATIENCE, Running, Site, start};

/// Follows until the lines end.
fn follow(broker: &Running, request: Value) -> Receiver<Value> {
    let (sender, lines) = channel();
    let control = broker.control.clone();
    std::thread::spawn(move || {
        evermq_daemon::control::follow(&control, &request, PATIENCE, |line| match sender.send(line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
        .unwrap();
    });
    lines
}

fn next(lines: &Receiver<Value>) -> Value {
    lines.recv_timeout(PATIENCE).unwrap()
}

fn packets(lines: &Receiver<Value>, count: usize) -> Vec<String> {
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    (0..count).map(|_| next(lines)).map(|line| word(&line, "direction") + " " + &word(&line, "packet")).collect()
}

#[test]
fn one_clients_packets_are_followed_and_nobody_elses() {
    let (_site, broker) = start();
    let mut other = broker.client("other");
    other.subscribe_at("t", QoS::AtMostOnce);
    // Before it is connected.
    let lines = follow(&broker, json!({ "request": "trace", "client": "c", "for_ms": 60_000 }));
    assert_eq!(next(&lines), json!({ "host": "broker1", "client": "c", "connected": false }));
    let mut asked = connect("c");
    asked.username = Some(crate::client::text("alice"));
    asked.password = Some(bytes::Bytes::from_static(b"s3cret"));
    let (mut client, _) = Client::open(broker.plain, asked);
    let connected = next(&lines);
    assert_eq!((&connected["event"], &connected["version"]), (&json!("connected"), &json!("5.0")));
    assert_eq!(packets(&lines, 1), ["out CONNACK"]);
    client.subscribe_at("t", QoS::AtLeastOnce);
    assert_eq!(packets(&lines, 2), ["in SUBSCRIBE", "out SUBACK"]);
    client.publish(message("t", "s3cret"), QoS::AtLeastOnce);
    client.message();
    let seen: Vec<_> = (0..4).map(|_| next(&lines)).collect();
    assert!(!format!("{connected} {seen:?}").contains("s3cret"));
    let publish = &seen[0];
    assert_eq!((&publish["direction"], &publish["packet"]), (&json!("in"), &json!("PUBLISH")));
    assert_eq!((&publish["topic"], &publish["qos"], &publish["payload_bytes"]), (&json!("t"), &json!(1), &json!(6)));
    assert!(publish["bytes"].as_u64().unwrap() > 6 && publish["at_ms"].as_u64().unwrap() > 1_600_000_000_000);
    let rest: Vec<_> = seen[1..].iter().map(|line| line["packet"].as_str().unwrap()).collect();
    assert!(rest.contains(&"PUBLISH") && rest.iter().filter(|packet| **packet == "PUBACK").count() == 2, "{rest:?}");
    other.message();
    other.publish(message("u", "x"), QoS::AtLeastOnce);
    client.disconnect(ReasonCode::Success);
    assert_eq!(packets(&lines, 1), ["in DISCONNECT"]);
    assert_eq!(next(&lines)["event"], "connection ended");
}

#[test]
fn payloads_are_shown_if_asked_for_and_the_trace_ends_by_itself() {
    let (_site, broker) = start();
    let mut client = broker.client("c");
    let lines = follow(&broker, json!({ "request": "trace", "client": "c", "for_ms": 1500, "payload": true }));
    assert_eq!(next(&lines)["connected"], true);
    client.publish(message("t", "hello"), QoS::AtLeastOnce);
    let publish = next(&lines);
    assert_eq!(publish["payload"], json!({ "text": "hello" }));
    assert_eq!(packets(&lines, 1), ["out PUBACK"]);
    // The end of the time, not of patience.
    assert_eq!(lines.recv_timeout(PATIENCE), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    client.publish(message("t", "unseen"), QoS::AtLeastOnce);
}

#[test]
fn a_trace_that_nobody_reads_any_more_ends() {
    let (_site, broker) = start();
    let request = json!({ "request": "trace", "client": "c", "for_ms": 60_000 });
    // As many as there may be, one after the other.
    for _ in 0..40 {
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        loop {
            let followed =
                evermq_daemon::control::follow(&broker.control, &request, PATIENCE, |_| ControlFlow::Break(()));
            if followed.is_ok() {
                break;
            }
            assert!(evermq_broker::connection::clock() < deadline, "{followed:?}");
        }
    }
}

#[test]
fn the_log_can_be_that_of_one_client() {
    let site = Site::new();
    let broker = Program::logging(&site, "off,[client{id=watched}]=trace");
    for id in ["other", "watched"] {
        let mut client = broker.client(id);
        assert_eq!(client.publish(message("t", "x"), QoS::AtLeastOnce), ReasonCode::NoMatchingSubscribers);
    }
    broker.wait_for("the message", || broker.log().contains("message"));
    let log = broker.log();
    assert!(log.contains("watched") && !log.contains("other"), "{log}");
}
