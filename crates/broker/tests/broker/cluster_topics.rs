//! What lbs of the cluster hear and may ask, and nobody else.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use evermq_broker::connection::clock;
use evermq_config::{HostName, LbHost};
use evermq_daemon::cluster_topics;
use evermq_daemon::tls::{Material, server_name};
use evermq_mqtt::packet::{Connect, SubscriptionOptions};
use evermq_mqtt::{Publish, QoS, ReasonCode, Version};
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::client::{Client, connect, message, resume, will};
use crate::running::{PATIENCE, Running, Site};

/// Where the lb's connections come from; no certificate names it.
const LB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
pub(crate) const STATE: &str = "$EVERMQ/state";
const DISCONNECT: &str = "$EVERMQ/disconnect";

fn start() -> (Site, Running) {
    let site = Site::new();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    config.lbs = vec![LbHost { name: HostName::new("lb1").unwrap(), address: LB }];
    let running = Running::start(&config);
    (site, running)
}

/// A connection from the lb's address.
fn from_lb(to: SocketAddr) -> (TcpStream, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((LB, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = stream.local_addr().unwrap();
    (stream, own)
}

/// An lb with the certificate of `name`, over TLS.
pub(crate) fn certified(site: &Site, broker: &Running, name: &str, connect: Connect) -> Client {
    relayed(site, broker, name, Some(cluster_topics::ALPN), connect)
}

/// A client with the certificate of `name`, over TLS in which it asks for `alpn`.
fn relayed(site: &Site, broker: &Running, name: &str, alpn: Option<&[u8]>, connect: Connect) -> Client {
    let host = HostName::new("broker1").unwrap();
    let mut tls = Material::load(&site.ca.issue(name, 1)).unwrap().client_config_for(&host, broker.tls.ip()).unwrap();
    Arc::make_mut(&mut tls).alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    let connection = ClientConnection::new(tls, server_name(&host)).unwrap();
    Client::over(StreamOwned::new(connection, from_lb(broker.tls).0), connect).0
}

pub(crate) fn subscribe(client: &mut Client, filter: &str) -> ReasonCode {
    client.subscribe(filter, SubscriptionOptions::default())
}

fn list(addresses: &[SocketAddr]) -> Publish {
    message(DISCONNECT, &addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn an_lb_hears_of_the_drain_first_and_is_closed_last() {
    let (site, broker) = start();
    let old = Connect { version: Version::V4, ..connect("evermq-lb") };
    let mut lb = certified(&site, &broker, "lb1", old);
    assert_eq!(subscribe(&mut lb, STATE), ReasonCode::Success);
    assert_eq!(lb.message(), (STATE.to_owned(), "ready".to_owned()));
    lb.expect_nothing();
    assert_eq!(broker.state()["readiness"], "ready");
    let mut client = broker.client("client");
    let told: std::thread::JoinHandle<Instant> = std::thread::spawn(move || {
        client.expect_disconnect(ReasonCode::ServerShuttingDown);
        clock()
    });
    broker.begin_stop();
    assert_eq!(lb.message(), (STATE.to_owned(), "draining".to_owned()));
    let announced = clock();
    assert_eq!(lb.next(), None);
    let closed = clock();
    let told = told.join().unwrap();
    assert!(announced < told && told < closed);
    broker.stop().unwrap();
}

#[test]
fn an_lb_that_comes_back_is_told_anew() {
    let (site, broker) = start();
    for _ in 0..2 {
        let mut lb = certified(&site, &broker, "lb1", connect("evermq-lb"));
        assert_eq!(subscribe(&mut lb, STATE), ReasonCode::Success);
        assert_eq!(lb.message().1, "ready");
        // Asked twice, said twice.
        assert_eq!(subscribe(&mut lb, STATE), ReasonCode::Success);
        assert_eq!(lb.message().1, "ready");
    }
}

#[test]
fn nobody_else_hears_or_says_anything_there() {
    let (site, broker) = start();
    let (stream, address) = from_lb(broker.plain);
    let (mut victim, _) = Client::over(stream, connect("victim"));
    let before = broker.state()["messages"]["refused"].as_u64().unwrap();
    let clients = [
        certified(&site, &broker, "device-1", connect("device")),
        // Of a client whose TLS an lb has ended, the broker sees the lb's certificate.
        relayed(&site, &broker, "lb1", None, connect("behind-lb1")),
        relayed(&site, &broker, "lb1", Some(b"mqtt"), connect("behind-lb1-too")),
        broker.client("plain"),
    ];
    for mut client in clients {
        for filter in [STATE, DISCONNECT, "$EVERMQ/#", "$EVERMQ/+", "$EVERMQ"] {
            assert_eq!(subscribe(&mut client, filter), ReasonCode::NotAuthorized, "{filter}");
        }
        assert_eq!(client.publish(list(&[address]), QoS::AtLeastOnce), ReasonCode::NotAuthorized);
        assert_eq!(client.publish(list(&[address]), QoS::ExactlyOnce), ReasonCode::NotAuthorized);
        assert_eq!(client.publish(message(STATE, "draining"), QoS::AtLeastOnce), ReasonCode::NotAuthorized);
        client.publish(list(&[address]), QoS::AtMostOnce);
        // Wildcards do not lead there either (`[MQTT-4.7.2-1]`).
        client.subscribe_at("#", QoS::AtMostOnce);
        client.expect_nothing();
    }
    let with_will = Connect { will: Some(will(DISCONNECT, 0)), ..connect("with-will") };
    assert_eq!(Client::open(broker.plain, with_will).1.reason, ReasonCode::NotAuthorized);
    victim.expect_nothing();
    let messages = &broker.state()["messages"];
    assert_eq!(messages["refused"].as_u64().unwrap() - before, 16);
    assert_eq!(messages["sent_away"], 0);
}

#[test]
fn an_lb_has_only_these_two_topics_there() {
    let (site, broker) = start();
    let mut lb = certified(&site, &broker, "lb1", connect("evermq-lb"));
    for filter in ["$EVERMQ/#", DISCONNECT, "$EVERMQ/other"] {
        assert_eq!(subscribe(&mut lb, filter), ReasonCode::NotAuthorized, "{filter}");
    }
    assert_eq!(lb.publish(message(STATE, "draining"), QoS::AtLeastOnce), ReasonCode::NotAuthorized);
    assert_eq!(lb.publish(message(DISCONNECT, "everybody"), QoS::AtLeastOnce), ReasonCode::Success);
    broker.wait_for("counted", |state| state["messages"]["refused"] == 2);
}

#[test]
fn clients_that_an_lb_sends_away_are_told_and_leave_no_will_and_keep_their_session() {
    let (site, broker) = start();
    let mut lb = certified(&site, &broker, "lb1", connect("evermq-lb"));
    let mut watcher = broker.client("watcher");
    watcher.subscribe_at("will/#", QoS::AtLeastOnce);

    let open = |connect: Connect| {
        let (stream, address) = from_lb(broker.plain);
        let (client, _) = Client::over(stream, connect);
        (client, address)
    };
    let with_will = |connect: Connect| Connect { will: Some(will("will/sent", 0)), ..connect };
    let (mut new, new_address) = open(with_will(resume("new")));
    new.subscribe_at("t", QoS::AtLeastOnce);
    let old = Connect { version: Version::V4, clean_start: true, ..connect("old") };
    let (mut old, old_address) = open(with_will(old));
    let (mut stays, _) = open(connect("stays"));
    let mut direct = broker.client("direct");

    let nobody = SocketAddr::from((LB, 1));
    let other_address = SocketAddr::from((Ipv4Addr::LOCALHOST, new_address.port()));
    lb.publish(list(&[nobody, new_address, other_address, old_address]), QoS::AtMostOnce);
    new.expect_disconnect(ReasonCode::UseAnotherServer);
    assert_eq!(old.next(), None);
    stays.expect_nothing();
    direct.expect_nothing();
    let state = broker.wait_for("gone", |state| state["connections"] == 4);
    assert_eq!(state["messages"]["sent_away"], 2);

    direct.publish(message("t", "queued"), QoS::AtLeastOnce);
    let (mut new, connack) = Client::open(broker.plain, resume("new"));
    assert!(connack.session_present);
    assert_eq!(new.message(), ("t".to_owned(), "queued".to_owned()));
    watcher.expect_nothing();
}
