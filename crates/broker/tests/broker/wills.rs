//! Wills.

use evermq_mqtt::packet::Connect;
use evermq_mqtt::{Packet, QoS, ReasonCode};

use crate::client::{Client, connect, resume, will};
use crate::running::{Running, start};

fn watcher(broker: &Running) -> Client {
    let mut watcher = broker.client("watcher");
    watcher.subscribe_at("will/#", QoS::AtLeastOnce);
    watcher
}

fn dying(broker: &Running, id: &str, delay: u32) -> Client {
    let topic = format!("will/{id}");
    Client::open(broker.plain, Connect { will: Some(will(&topic, delay)), ..resume(id) }).0
}

#[test]
fn a_client_that_vanishes_is_announced() {
    let (_site, broker) = start();
    let mut watcher = watcher(&broker);
    dying(&broker, "vanishes", 0).vanish();
    assert_eq!(watcher.message(), ("will/vanishes".to_owned(), "gone".to_owned()));

    dying(&broker, "says-so", 0).disconnect(ReasonCode::DisconnectWithWill);
    assert_eq!(watcher.message().0, "will/says-so");

    let mut talks_nonsense = dying(&broker, "nonsense", 0);
    talks_nonsense.send_bytes(&[0xFF, 0xFF]);
    talks_nonsense.expect_disconnect(ReasonCode::MalformedPacket);
    assert_eq!(watcher.message().0, "will/nonsense");

    dying(&broker, "leaves", 0).disconnect(ReasonCode::Success);
    watcher.expect_nothing();
}

#[test]
fn a_delayed_will_waits_for_the_client() {
    let (_site, broker) = start();
    let mut watcher = watcher(&broker);
    dying(&broker, "returns", 1).vanish();
    broker.wait_for("the connection's end", |state| state["connections"] == 1);
    let (mut returned, _) = Client::open(broker.plain, resume("returns"));
    dying(&broker, "stays-away", 1).vanish();
    assert_eq!(watcher.message().0, "will/stays-away", "and not the one that returned, whose time came before");
    watcher.expect_nothing();
    returned.expect_nothing();
}

#[test]
fn a_takeover_announces_the_old_connection() {
    let (_site, broker) = start();
    let mut watcher = watcher(&broker);
    let mut old = dying(&broker, "twice", 0);
    let (mut new, _) = Client::open(broker.plain, resume("twice"));
    assert_eq!(watcher.message().0, "will/twice");
    old.expect_disconnect(ReasonCode::SessionTakenOver);
    new.expect_nothing();

    // A clean start ends the session, and with it the delay.
    let mut old = dying(&broker, "clean", 1000);
    let (mut new, _) = Client::open(broker.plain, connect("clean"));
    assert_eq!(watcher.message().0, "will/clean");
    old.expect_disconnect(ReasonCode::SessionTakenOver);
    new.expect_nothing();
}

#[test]
fn keep_alive_ends_a_silent_client() {
    let (_site, broker) = start();
    let mut watcher = watcher(&broker);
    let silent = Connect { keep_alive: 1, will: Some(will("will/silent", 0)), ..connect("silent") };
    let (mut silent, _) = Client::open(broker.plain, silent);
    silent.send(&Packet::PingReq);
    assert_eq!(silent.receive(), Packet::PingResp);
    assert_eq!(watcher.message().0, "will/silent");
    silent.expect_disconnect(ReasonCode::KeepAliveTimeout);
}
