//! What a restart leaves: the broker stops in good order and starts again with the same store.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use evermq_config::BrokerConfig;
use evermq_mqtt::packet::{Ack, Connect};
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, Version};

use crate::client::{Client, connect, id, message, resume, will};
use crate::running::{Running, Site};

/// A broker that can be started again.
struct Store {
    config: BrokerConfig,
    _site: Site,
}

impl Store {
    fn new() -> Self {
        let site = Site::new();
        let config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
        Self { config, _site: site }
    }

    fn start(&self) -> Running {
        Running::start(&self.config)
    }
}

fn ack(number: u16) -> Ack {
    Ack { packet_id: id(number), reason: ReasonCode::Success, properties: None }
}

/// A session that stays longer than any test.
fn long(client_id: &str) -> Connect {
    let mut connect = resume(client_id);
    connect.properties.session_expiry = Some(3000);
    connect
}

fn back(broker: &Running, client_id: &str) -> Client {
    let (client, connack) = Client::open(broker.plain, long(client_id));
    assert!(connack.session_present, "{client_id} is not known any more");
    client
}

#[test]
fn sessions_queues_and_retained_messages_are_there_again() {
    let store = Store::new();
    let broker = store.start();
    let (mut subscriber, connack) = Client::open(broker.plain, long("s"));
    assert!(!connack.session_present);
    subscriber.subscribe_at("t/#", QoS::ExactlyOnce);
    subscriber.vanish();
    broker.wait_for("its end", |state| state["connections"] == 0);
    let mut publisher = broker.client("p");
    for (number, qos) in [(0, QoS::AtMostOnce), (1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
        publisher.publish(message(&format!("t/{number}"), "waits"), qos);
    }
    publisher.publish(Publish { retain: true, ..message("r/1", "old") }, QoS::AtLeastOnce);
    publisher.publish(Publish { retain: true, ..message("r/1", "kept") }, QoS::AtLeastOnce);
    publisher.publish(Publish { retain: true, ..message("r/2", "gone") }, QoS::AtLeastOnce);
    publisher.publish(Publish { retain: true, ..message("r/2", "") }, QoS::AtLeastOnce);
    broker.stop().unwrap();

    let broker = store.start();
    let mut subscriber = back(&broker, "s");
    assert_eq!(subscriber.message(), ("t/1".to_owned(), "waits".to_owned()));
    assert_eq!(subscriber.message(), ("t/2".to_owned(), "waits".to_owned()));
    subscriber.expect_nothing();
    subscriber.subscribe_at("r/#", QoS::AtLeastOnce);
    assert_eq!(subscriber.message(), ("r/1".to_owned(), "kept".to_owned()));
    // The subscription is there, and what was acknowledged is not.
    let mut publisher = broker.client("p");
    publisher.publish(message("t/3", "new"), QoS::AtLeastOnce);
    assert_eq!(subscriber.message(), ("t/3".to_owned(), "new".to_owned()));
    // Its PUBACK has come.
    subscriber.expect_nothing();
    broker.stop().unwrap();
    let broker = store.start();
    back(&broker, "s").expect_nothing();
}

#[test]
fn exchanges_go_on_where_they_were() {
    let store = Store::new();
    let broker = store.start();
    let (mut client, _) = Client::open(broker.plain, long("c"));
    client.subscribe_at("t/#", QoS::ExactlyOnce);
    let mut publisher = broker.client("p");
    publisher.publish(message("t/1", "first"), QoS::AtLeastOnce);
    publisher.publish(message("t/2", "second"), QoS::ExactlyOnce);
    publisher.publish(message("t/3", "third"), QoS::ExactlyOnce);
    let mut got = || match client.receive() {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    };
    let (first, second, third) = (got(), got(), got());
    let number = |publish: &Publish| publish.packet_id.unwrap();
    client.send(&Packet::PubRec(Ack { packet_id: number(&second), ..ack(1) }));
    assert!(matches!(client.receive(), Packet::PubRel(_)));
    // A message of its own that it has not released.
    let own = Publish { qos: QoS::ExactlyOnce, packet_id: Some(id(9)), ..message("own", "x") };
    client.send(&Packet::Publish(own.clone()));
    assert!(matches!(client.receive(), Packet::PubRec(_)));
    client.vanish();
    broker.stop().unwrap();

    let broker = store.start();
    let mut watcher = broker.client("w");
    watcher.subscribe_at("own", QoS::AtLeastOnce);
    let mut client = back(&broker, "c");
    let again = Publish { dup: true, ..first };
    assert_eq!(client.receive(), Packet::Publish(again));
    assert_eq!(client.receive(), Packet::PubRel(Ack { packet_id: number(&second), ..ack(1) }));
    assert_eq!(client.receive(), Packet::Publish(Publish { dup: true, ..third.clone() }));
    // The same message again, which is not passed on again; then its release.
    client.send(&Packet::Publish(Publish { dup: true, ..own }));
    assert_eq!(client.receive(), Packet::PubRec(ack(9)));
    client.send(&Packet::PubRel(ack(9)));
    assert_eq!(client.receive(), Packet::PubComp(ack(9)));
    watcher.expect_nothing();
    // Identifiers go on after those that were used.
    let mut publisher = broker.client("p");
    publisher.publish(message("t/4", "fourth"), QoS::AtLeastOnce);
    let Packet::Publish(fourth) = client.receive() else { panic!("no PUBLISH") };
    assert!(number(&fourth) > number(&third));
}

#[test]
fn time_goes_on_while_the_broker_is_away() {
    let store = Store::new();
    let broker = store.start();
    let mut short = resume("short");
    short.properties.session_expiry = Some(1);
    let (mut short, _) = Client::open(broker.plain, short);
    short.subscribe_at("t", QoS::AtLeastOnce);
    short.vanish();
    let (mut waiting, _) = Client::open(broker.plain, long("waiting"));
    waiting.subscribe_at("t", QoS::AtLeastOnce);
    waiting.vanish();
    // What has begun to be sent does not expire any more.
    broker.wait_for("both to be gone", |state| state["connections"] == 0);
    let mut publisher = broker.client("p");
    let expiring = |seconds| PublishProperties { message_expiry: Some(seconds), ..PublishProperties::default() };
    let publish =
        |topic, payload, seconds| Publish { properties: Some(Box::new(expiring(seconds))), ..message(topic, payload) };
    publisher.publish(publish("t", "brief", 1), QoS::AtLeastOnce);
    publisher.publish(publish("t", "lasting", 1000), QoS::AtLeastOnce);
    publisher.publish(Publish { retain: true, ..publish("r", "brief", 1) }, QoS::AtLeastOnce);
    broker.stop().unwrap();
    // More than a second by the wall clock, which is what outlives the process.
    let since = evermq_broker::connection::clock();
    while since.elapsed() < Duration::from_millis(1300) {
        std::thread::yield_now();
    }
    let broker = store.start();
    let (_, connack) = Client::open(broker.plain, resume("short"));
    assert!(!connack.session_present, "it has expired");
    let mut waiting = back(&broker, "waiting");
    let Packet::Publish(publish) = waiting.receive() else { panic!("no PUBLISH") };
    assert_eq!(publish.payload, "lasting");
    let left = publish.properties.and_then(|properties| properties.message_expiry).unwrap();
    assert!((900..=1000).contains(&left), "{left} s are left");
    let mut reader = broker.client("reader");
    reader.subscribe_at("r", QoS::AtLeastOnce);
    reader.expect_nothing();
}

#[test]
fn a_will_goes_out_when_it_is_due_and_once() {
    let store = Store::new();
    let broker = store.start();
    let (mut watcher, _) = Client::open(broker.plain, long("watcher"));
    watcher.subscribe_at("will/#", QoS::AtLeastOnce);
    watcher.vanish();
    for (client_id, delay) in [("soon", 1), ("late", 1000)] {
        let topic = format!("will/{client_id}");
        let connect = Connect { will: Some(will(&topic, delay)), ..long(client_id) };
        Client::open(broker.plain, connect).0.vanish();
    }
    broker.wait_for("the connections' end", |state| state["connections"] == 0);
    broker.stop().unwrap();
    for _ in 0..2 {
        let broker = store.start();
        broker.stop().unwrap();
    }
    let broker = store.start();
    let mut watcher = back(&broker, "watcher");
    assert_eq!(watcher.message(), ("will/soon".to_owned(), "gone".to_owned()));
    watcher.expect_nothing();
}

#[test]
fn a_session_that_ends_is_gone_for_good() {
    let store = Store::new();
    let broker = store.start();
    let subscribed = |id: &str| {
        let (mut client, _) = Client::open(broker.plain, long(id));
        client.subscribe_at("t", QoS::AtLeastOnce);
        client
    };
    // By a clean start, by an expiry of 0 in DISCONNECT, by a CONNECT without one.
    let _ = subscribed("clean");
    let mut again = long("clean");
    again.clean_start = true;
    Client::open(broker.plain, again).0.vanish();
    let mut disconnecting = subscribed("disconnecting");
    let properties = evermq_mqtt::properties::DisconnectProperties { session_expiry: Some(0), ..Default::default() };
    let disconnect =
        evermq_mqtt::packet::Disconnect { reason: ReasonCode::Success, properties: Some(Box::new(properties)) };
    disconnecting.send(&Packet::Disconnect(disconnect));
    assert_eq!(disconnecting.next(), None);
    let _ = subscribed("passing");
    Client::open(broker.plain, Connect { clean_start: false, ..connect("passing") }).0.vanish();
    let mut old = subscribed("old");
    old.expect_nothing();
    Client::open(broker.plain, Connect { version: Version::V4, ..connect("old") }).0.vanish();
    broker.wait_for("the connections' end", |state| state["connections"] == 0);
    broker.stop().unwrap();

    let broker = store.start();
    let state = broker.state();
    assert_eq!((state["sessions"].as_u64(), state["subscriptions"].as_u64()), (Some(1), Some(0)), "{state:#}");
}

#[test]
fn a_full_store_refuses_and_serves_again() {
    let mut store = Store::new();
    store.config.broker.store.max_size = 16 << 20;
    store.config.broker.max_queued_messages = 100_000;
    store.config.broker.max_queued_bytes = 1 << 30;
    let broker = store.start();
    let (mut subscriber, _) = Client::open(broker.plain, long("s"));
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    subscriber.vanish();
    broker.wait_for("its end", |state| state["connections"] == 0);
    let mut publisher = broker.client("p");
    let payload = "x".repeat(60_000);
    let mut taken = 0;
    let refused = loop {
        match publisher.publish(message("t", &payload), QoS::AtLeastOnce) {
            ReasonCode::Success => taken += 1,
            other => break other,
        }
        assert!(taken < 1000, "60 MB in a store of 16 MB");
    };
    assert_eq!(refused, ReasonCode::QuotaExceeded);
    assert!(taken > 50, "{taken}");
    // What needs no store goes on; what does is refused.
    let mut reader = broker.client("reader");
    reader.subscribe_at("t", QoS::AtMostOnce);
    reader.subscribe_at("other", QoS::AtLeastOnce);
    assert!(!publisher.publish(message("other", "x"), QoS::AtLeastOnce).is_error());
    assert_eq!(reader.message().0, "other");
    let (mut old, _) = Client::open(broker.plain, Connect { version: Version::V4, ..connect("old") });
    old.send(&Packet::Publish(Publish { qos: QoS::AtLeastOnce, packet_id: Some(id(1)), ..message("t", &payload) }));
    assert_eq!(old.next(), None, "it is not acknowledged");
    let mut raw = Client::raw(broker.plain, Version::V5);
    raw.send(&Packet::Connect(Box::new(long("new"))));
    match raw.receive() {
        Packet::ConnAck(connack) => assert_eq!(connack.reason, ReasonCode::QuotaExceeded),
        other => panic!("{other:?}"),
    }
    // The subscriber comes back: what it takes makes room.
    let mut subscriber = back(&broker, "s");
    for _ in 0..taken {
        assert_eq!(subscriber.receive_message().payload.len(), payload.len());
    }
    let deadline = evermq_broker::connection::clock() + crate::running::PATIENCE;
    while publisher.publish(message("t", "again"), QoS::AtLeastOnce) != ReasonCode::Success {
        assert!(evermq_broker::connection::clock() < deadline, "there is room again, but nothing is taken");
    }
    assert_eq!(subscriber.message().1, "again");
    // Its acknowledgement has come when the next packet is answered.
    subscriber.expect_nothing();
    drop((subscriber, publisher, reader));
    broker.stop().unwrap();
    back(&store.start(), "s").expect_nothing();
}
