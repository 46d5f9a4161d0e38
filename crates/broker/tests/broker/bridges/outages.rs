//! What waits for a remote broker that is away, whoever dies meanwhile.

use std::collections::BTreeSet;

use evermq_mqtt::packet::Ack;
use evermq_mqtt::{Packet, QoS, ReasonCode};

use super::mosquitto::Mosquitto;
use super::{config, entry, listener, listener_at, next, publish};
use crate::client::{Client, connect, resume};
use crate::killed::{Program, SMALL, cluster};
use crate::running::{Running, Site};

/// How often the broker dies.
const ROUNDS: usize = 5;
/// Messages each way before it does.
const BURST: usize = 40;

#[test]
fn what_waits_arrives_when_the_remote_broker_is_back() {
    let site = Site::new();
    let directory = site.directory.path();
    let keeps = format!("persistence true\npersistence_location {}/\n", directory.display());
    let mut remote = Mosquitto::start(directory, "remote", &keeps);
    let mut there = Client::open(remote.address, resume("sleeper")).0;
    there.subscribe_at("r/#", QoS::AtLeastOnce);
    let bridge = entry(remote.address, "topics = ['# both 2 l/ r/']\nmax_queued_messages = 3");
    let broker = Running::start(&config(&site, &bridge));
    broker.wait_for_connected();
    remote.stop();
    let bridge = broker.wait_for_bridge("its end", |bridge| bridge["state"] == "connecting");
    assert!(bridge["last_error"].is_string(), "{bridge:#}");
    let mut here = broker.client("here");
    // QoS 0 does not wait, and no more waits than may.
    publish(&mut here, "l/none", "x", QoS::AtMostOnce, false);
    for number in 0..5 {
        publish(&mut here, &format!("l/{number}"), "x", QoS::ExactlyOnce, false);
    }
    let bridge = broker.wait_for_bridge("what waits", |bridge| bridge["queued"] == 3);
    assert_eq!(bridge["state"], "connecting");
    remote.start_again();
    broker.wait_for_bridge("an empty queue", |bridge| bridge["queued"] == 0 && bridge["inflight"] == 0);
    let (mut there, connack) = Client::open(remote.address, resume("sleeper"));
    assert!(connack.session_present);
    assert_eq!([(); 3].map(|()| next(&mut there).0), ["r/0", "r/1", "r/2"]);
    there.expect_nothing();
    let mut here = listener(broker.plain, "again", "l/in");
    let mut from_there = Client::open(remote.address, connect("from_there")).0;
    publish(&mut from_there, "r/in", "in", QoS::ExactlyOnce, false);
    assert_eq!(next(&mut here).0, "l/in");
}

/// A mosquitto that is killed has forgotten everything.
#[test]
fn a_remote_broker_that_has_lost_its_memory_gets_the_retained_messages_again() {
    let site = Site::new();
    let mut remote = Mosquitto::start(site.directory.path(), "remote", "");
    let broker = Running::start(&config(&site, &entry(remote.address, "topics = ['# both 1 l/ r/']")));
    broker.wait_for_connected();
    let mut here = broker.client("here");
    publish(&mut here, "l/before", "x", QoS::AtMostOnce, true);
    remote.kill();
    broker.wait_for_bridge("its end", |bridge| bridge["state"] == "connecting");
    publish(&mut here, "l/zero", "x", QoS::AtMostOnce, true);
    publish(&mut here, "l/one", "x", QoS::AtLeastOnce, true);
    remote.start_again();
    broker.wait_for_connected();
    let mut there = listener_at(remote.address, "there", "r/#", QoS::AtLeastOnce);
    let mut topics = BTreeSet::new();
    while topics.len() < 3 {
        topics.insert(next(&mut there).0);
    }
    assert_eq!(topics.into_iter().collect::<Vec<_>>(), ["r/before", "r/one", "r/zero"]);
}

/// The program, killed again and again while messages of QoS 2 go both ways: each arrives once.
#[test]
fn each_message_crosses_once_whenever_this_broker_is_killed() {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "max_queued_messages 0\n");
    let member = cluster(&site, &["broker1"], SMALL).remove(0);
    let mut file = std::fs::read_to_string(&member.file).unwrap();
    file.push_str(&entry(remote.address, "topics = ['out/# out 2', 'in/# in 2']"));
    std::fs::write(&member.file, file).unwrap();
    let start = || Program::start(&member.file, member.host, member.plain);
    let mut program = start();
    let mut there = Client::open(remote.address, connect("there")).0;
    there.subscribe_at("out/#", QoS::ExactlyOnce);
    let mut from_there = Client::open(remote.address, connect("from_there")).0;
    Client::open(member.plain, resume("here")).0.subscribe_at("in/#", QoS::ExactlyOnce);
    // What comes in is asked for before anything goes out.
    publish(&mut Client::open(member.plain, connect("from_here")).0, "out/first", "x", QoS::AtLeastOnce, false);
    assert_eq!(next(&mut there).0, "out/first");
    for round in 0..ROUNDS {
        let mut here = Client::open(member.plain, connect("from_here")).0;
        // The broker is killed as they cross, wherever they are.
        for number in 0..BURST {
            let payload = (round * BURST + number).to_string();
            publish(&mut here, "out/x", &payload, QoS::ExactlyOnce, false);
            publish(&mut from_there, "in/x", &payload, QoS::ExactlyOnce, false);
        }
        drop(program);
        program = start();
    }
    let all: Vec<_> = (0..ROUNDS * BURST).map(|number| number.to_string()).collect();
    assert_eq!(take(&mut there, all.len()), all);
    let (mut here, connack) = Client::open(member.plain, resume("here"));
    assert!(connack.session_present);
    assert_eq!(take(&mut here, all.len()), all);
    drop(program);
}

/// Payloads of messages of QoS 2, as they come; exchanges may run beside each other.
fn take(client: &mut Client, count: usize) -> Vec<String> {
    let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: None };
    let (mut payloads, mut completed) = (Vec::new(), 0);
    while completed < count {
        match client.receive() {
            Packet::Publish(publish) => {
                payloads.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                client.send(&Packet::PubRec(ack(publish.packet_id.unwrap())));
            }
            Packet::PubRel(release) => {
                completed += 1;
                client.send(&Packet::PubComp(ack(release.packet_id)));
            }
            other => panic!("{other:?}"),
        }
    }
    client.expect_nothing();
    payloads
}
