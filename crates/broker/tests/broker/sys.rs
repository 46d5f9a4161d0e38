//! `$SYS`, beside what mosquitto publishes there.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evermq_mqtt::packet::SubscriptionOptions;
use evermq_mqtt::{QoS, ReasonCode};

use crate::client::{Client, connect, message, resume};
use crate::running::{PATIENCE, start_two_with, start_with};

/// Often, so that nobody waits for it.
const INTERVAL: Duration = Duration::from_millis(50);

/// How a value is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Whole,
    TwoDecimals,
    Seconds,
    Version,
}

fn shape(value: &str) -> Shape {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match value.split_once(['.', ' ']) {
        None if digits(value) => Shape::Whole,
        Some((whole, decimals)) if digits(whole) && digits(decimals) && decimals.len() == 2 => Shape::TwoDecimals,
        Some((number, "seconds")) if digits(number) => Shape::Seconds,
        Some((_, version)) if version.starts_with("version ") => Shape::Version,
        _ => panic!("unknown shape: {value}"),
    }
}

struct Mosquitto {
    address: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = evermq_ports::free_address();
        let file = directory.path().join("mosquitto.conf");
        let port = address.port();
        let text = format!("user root\nsys_interval 1\nallow_anonymous true\nlistener {port} 127.0.0.1\n");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&file).stderr(Stdio::null());
        let child = command.spawn().expect("mosquitto is needed: apt-get install mosquitto");
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(evermq_broker::connection::clock() < deadline, "mosquitto does not listen");
            std::thread::yield_now();
        }
        Self { address, child, _directory: directory }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every topic under `$SYS/#` that comes before the uptime comes for the third time: all that there are, and those that come
/// with the first client.
fn topics(address: SocketAddr) -> BTreeMap<String, Shape> {
    let (mut client, _) = Client::open(address, connect("watcher"));
    client.subscribe_at("$SYS/#", QoS::AtMostOnce);
    let (mut topics, mut uptimes) = (BTreeMap::new(), 0);
    while uptimes < 3 {
        let (topic, value) = client.message();
        uptimes += u32::from(topic == "$SYS/broker/uptime");
        topics.insert(topic, shape(&value));
    }
    topics
}

#[test]
fn topics_values_and_retain_flags_are_those_of_mosquitto() {
    let mosquitto = Mosquitto::start();
    let (_site, broker) = start_with(|config| config.sys_interval = Some(INTERVAL));
    let [theirs, ours] = [mosquitto.address, broker.plain].map(topics);
    assert!(theirs.len() > 50, "{theirs:?}");
    assert_eq!(ours, theirs);
    // Who subscribes gets the present ones, as retained messages; what changes comes without the flag.
    for (address, all) in [(mosquitto.address, &theirs), (broker.plain, &ours)] {
        let (mut client, _) = Client::open(address, connect("late"));
        client.subscribe_at("$SYS/#", QoS::AtMostOnce);
        let came: Vec<_> = (0..all.len()).map(|_| client.receive_message()).collect();
        let changed: Vec<_> = came.iter().filter(|publish| !publish.retain).map(|publish| &publish.topic).collect();
        assert!(changed.len() < all.len() / 2, "{address}: {changed:?}");
    }
}

/// The value that a topic has at some time.
fn wait_for(client: &mut Client, topic: &str, value: &str) {
    loop {
        let (came, payload) = client.message();
        if came == topic && payload == value {
            return;
        }
    }
}

#[test]
fn values_follow_what_happens() {
    let (_site, broker) = start_with(|config| config.sys_interval = Some(INTERVAL));
    let mut watcher = broker.client("watcher");
    watcher.subscribe_at("$SYS/broker/clients/+", QoS::AtLeastOnce);
    let (mut away, _) = Client::open(broker.plain, resume("away"));
    away.subscribe_at("a/#", QoS::AtLeastOnce);
    wait_for(&mut watcher, "$SYS/broker/clients/connected", "2");
    away.disconnect(ReasonCode::Success);
    wait_for(&mut watcher, "$SYS/broker/clients/disconnected", "1");
    let mut stored = broker.client("stored");
    stored.subscribe_at("$SYS/broker/store/messages/+", QoS::AtMostOnce);
    let mut publisher = broker.client("publisher");
    publisher.publish(message("a/b", "12345"), QoS::AtLeastOnce);
    publisher.publish(message("a/b", "123"), QoS::ExactlyOnce);
    wait_for(&mut stored, "$SYS/broker/store/messages/count", "2");
    wait_for(&mut stored, "$SYS/broker/store/messages/bytes", "14");
}

#[test]
fn they_are_told_once_and_not_to_wildcards_and_not_by_clients() {
    let (_site, broker) = start_with(|config| config.sys_interval = Some(INTERVAL));
    let mut uptime = broker.client("uptime");
    uptime.subscribe_at("$SYS/broker/uptime", QoS::AtMostOnce);
    let first = uptime.message().1;
    let mut watcher = broker.client("watcher");
    watcher.subscribe_at("$SYS/broker/version", QoS::AtLeastOnce);
    let publish = watcher.receive_message();
    assert_eq!((publish.qos, publish.retain), (QoS::AtMostOnce, true));
    assert!(publish.payload.starts_with(b"evermq version "), "{publish:?}");
    let mut everything = broker.client("everything");
    everything.subscribe_at("#", QoS::AtMostOnce);
    everything.subscribe_at("+/broker/#", QoS::AtMostOnce);
    // The version does not change, so it is not said again while the uptime is.
    assert_ne!(uptime.message().1, first);
    watcher.expect_nothing();
    everything.expect_nothing();
    let refused = broker.client("liar").publish(message("$SYS/broker/version", "mosquitto"), QoS::AtLeastOnce);
    assert_eq!(refused, ReasonCode::NotAuthorized);
    let as_published = SubscriptionOptions { retain_as_published: true, ..SubscriptionOptions::default() };
    uptime.subscribe("$SYS/broker/uptime", as_published);
    assert!(uptime.receive_message().retain && uptime.receive_message().retain);
}

#[test]
fn each_host_has_its_own() {
    let (_site, brokers) = start_two_with(|config| config.sys_interval = Some(INTERVAL));
    let mut watcher = brokers[0].client("watcher");
    watcher.subscribe_at("$SYS/broker/uptime", QoS::AtMostOnce);
    watcher.message();
    watcher.message();
    for broker in &brokers {
        assert_eq!(broker.state()["messages"]["from_peers"], 0);
        assert_eq!(broker.state()["retained"], 0);
    }
}
