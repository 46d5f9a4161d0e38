//! Stopping.

use evermq_mqtt::packet::Connect;
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};
use nix::sys::signal::Signal;

use crate::client::{Client, connect, will};
use crate::program::Program;
use crate::running::{PATIENCE, Site, start};

#[test]
fn every_client_is_told_and_closed() {
    let (_site, broker) = start();
    let mut new = broker.client("new");
    let (mut old, _) = Client::open(broker.plain, Connect { version: Version::V4, ..connect("old") });
    let mut stranger = Client::raw(broker.plain, Version::V5);
    broker.begin_stop();
    new.expect_disconnect(ReasonCode::ServerShuttingDown);
    assert_eq!(old.next(), None);
    assert_eq!(stranger.next(), None);
    broker.stop().unwrap();
}

#[test]
fn wills_reach_the_other_broker() {
    let (_site, [stopping, staying]) = crate::running::start_two();
    let mut watcher = staying.client("watcher");
    watcher.subscribe_at("will/#", QoS::AtLeastOnce);
    for (id, delay) in [("now", 0), ("later", 1000)] {
        let topic = format!("will/{id}");
        let mut connect = crate::client::connect(id);
        connect.will = Some(will(&topic, delay));
        let (mut client, _) = Client::open(stopping.plain, connect);
        client.expect_nothing();
        // Open until the broker closes it.
        std::mem::forget(client);
    }
    stopping.stop().unwrap();
    let mut topics = [watcher.message().0, watcher.message().0];
    topics.sort();
    assert_eq!(topics, ["will/later", "will/now"]);
}

#[test]
fn a_client_that_does_not_listen_does_not_hold_it_up() {
    let (_site, broker) = start();
    let mut stuck = broker.client("stuck");
    stuck.subscribe_at("t", QoS::AtMostOnce);
    let mut publisher = broker.client("p");
    let payload = "x".repeat(90_000);
    for _ in 0..200 {
        publisher.send(&Packet::Publish(crate::client::message("t", &payload)));
    }
    publisher.expect_nothing();
    let started = evermq_broker::connection::clock();
    broker.stop().unwrap();
    let took = evermq_broker::connection::clock() - started;
    assert!(took < std::time::Duration::from_secs(8), "{took:?} with a drain_timeout of 3 s");
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_it_from_stopping() {
    let site = Site::new();
    let mut program = Program::start(&site, "", None);
    program.go_deaf();
    program.client("c").expect_nothing();
    program.signal(Signal::SIGTERM);
    let deadline = evermq_broker::connection::clock() + PATIENCE;
    let status = loop {
        if let Some(status) = program.ended() {
            break status;
        }
        assert!(evermq_broker::connection::clock() < deadline, "it does not end");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    };
    assert!(status.success(), "{status}");
}
