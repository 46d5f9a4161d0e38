//! How many may be connected, and how fast they may send.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use evermq_broker::connection::clock;
use evermq_mqtt::packet::{ConnAck, Connect};
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};
use socket2::{Domain, Socket, Type};

use crate::client::{Client, connect, message};
use crate::listeners::tls;
use crate::running::{PATIENCE, start_with};

/// A connection from another of loopback's addresses.
fn from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn connections_of_one_address() {
    let (_site, broker) = start_with(|config| config.admission.per_address = Some(2));
    let one = broker.client("one");
    let _two = broker.client("two");
    assert_eq!(Client::raw(broker.plain, Version::V5).next(), None);
    let mut other = Client::over(from(7, broker.plain), connect("other")).0;
    other.expect_nothing();
    broker.wait_for("the count", |state| state["messages"]["refused_address"] == 1);
    one.vanish();
    broker.wait_for("a free place", |state| state["connections"] == 2);
    broker.client("three").expect_nothing();
}

#[test]
fn connections_of_one_user() {
    let (site, broker) = start_with(|config| config.admission.per_user = Some(1));
    let (one, two) = (site.ca.issue("device-1", 1), site.ca.issue("device-2", 1));
    let (mut first, _) = Client::over(tls(broker.tls, &one, Some(&one)), connect("a"));
    let (mut second, ConnAck { reason, .. }) = Client::over(tls(broker.tls, &one, Some(&one)), connect("b"));
    assert_eq!(reason, ReasonCode::QuotaExceeded);
    assert_eq!(second.next(), None);
    let old = Connect { version: Version::V4, ..connect("b") };
    let (mut second, ConnAck { reason, .. }) = Client::over(tls(broker.tls, &one, Some(&one)), old);
    assert_eq!(reason, ReasonCode::ServerUnavailable, "MQTT 3.1.1 has no better word");
    assert_eq!(second.next(), None);
    Client::over(tls(broker.tls, &two, Some(&two)), connect("c")).0.expect_nothing();
    // [MQTT-3.1.4-3]: who comes back before its old connection is found dead.
    let (mut again, connack) = Client::over(tls(broker.tls, &one, Some(&one)), connect("a"));
    assert_eq!(connack.reason, ReasonCode::Success);
    first.expect_disconnect(ReasonCode::SessionTakenOver);
    again.expect_nothing();
    broker.wait_for("the count", |state| state["messages"]["refused_user"] == 2);
}

#[test]
fn strangers_make_room_by_address_and_clients_that_are_in_do_not() {
    let (_site, broker) = start_with(|config| {
        config.admission.handshakes = 8;
        config.workers = 1;
        config.connect_timeout = Duration::from_secs(60);
    });
    let mut inside = broker.client("inside");
    // One that is slow but honest, and a flood of silent ones from elsewhere, many more than there are places.
    let mut slow = Client::raw_over(from(2, broker.plain), Version::V5);
    let flood: Vec<_> = (0..16).map(|_| from(6, broker.plain)).collect();
    inside.expect_nothing();
    let mut late = Client::over(from(3, broker.plain), connect("late")).0;
    late.expect_nothing();
    assert!(slow.try_connect(connect("slow")), "the flood made room, not this one");
    inside.expect_nothing();
    let state = broker.state();
    assert!(state["messages"]["evicted"].as_u64() >= Some(8), "{state:#}");
    drop(flood);
    broker.wait_for("only clients", |state| state["connections"] == 3);
}

#[test]
fn who_publishes_too_fast_is_slowed_down_and_loses_nothing() {
    let (_site, broker) = start_with(|config| config.admission.publish_rate = Some(200));
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("t", QoS::AtMostOnce);
    let mut fast = broker.client("fast");
    let started = clock();
    for number in 0..1200 {
        fast.send(&Packet::Publish(message("t", &number.to_string())));
    }
    let mut other = broker.client("other");
    other.publish(message("elsewhere", "x"), QoS::AtLeastOnce);
    let unimpeded = clock() - started;
    for number in 0..1200 {
        assert_eq!(subscriber.message().1, number.to_string());
    }
    fast.expect_nothing();
    let took = clock() - started;
    assert!(
        took > Duration::from_secs(2),
        "{took:?} for 1200 messages at 200 a second, two turns' worth of which go through"
    );
    assert!(unimpeded < Duration::from_secs(2), "others go on: {unimpeded:?}");
    assert!(broker.state()["messages"]["slowed"].as_u64() > Some(0));
}
