//! Several bridges on loopback with real TLS.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(unreachable_pub, reason = "the modules of a test are its own")]

mod broker;
mod cluster;
mod joining;
mod old_peer;
mod relay;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use evermq_bridge::{Bridge, Local, Pressure};
use evermq_config::{ClusterName, HostName};
use evermq_daemon::tls;

use broker::{Broker, Received, wait_until, wait_until_meshed};
use cluster::Cluster;
use relay::Relay;

fn numbered(prefix: &str, count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

fn start_all(brokers: u8) -> (Cluster, Vec<Broker>) {
    let (cluster, listeners) = Cluster::new(brokers);
    let started =
        listeners.into_iter().enumerate().map(|(index, socket)| Broker::start_on(socket, &cluster.config(index)));
    let started: Vec<_> = started.collect();
    wait_until_meshed(&started.iter().collect::<Vec<_>>());
    (cluster, started)
}

#[test]
fn each_message_reaches_each_other_broker_once_in_order_and_none_returns() {
    let (_cluster, brokers) = start_all(3);
    std::thread::scope(|scope| {
        for (index, broker) in brokers.iter().enumerate() {
            scope.spawn(move || broker.publish_many(&format!("from {index}: "), 5_000));
        }
    });
    for (me, broker) in brokers.iter().enumerate() {
        wait_until("everything has arrived", || broker.payloads().len() >= 10_000);
        for origin in (0..3).filter(|origin| *origin != me) {
            let prefix = format!("from {origin}: ");
            assert_eq!(broker.payloads_of(&prefix), numbered(&prefix, 5_000), "broker {me}");
        }
    }
    for (me, broker) in brokers.into_iter().enumerate() {
        wait_until("everything is acknowledged", || broker.state().peers.iter().all(|peer| peer.lag == 0));
        let state = broker.state();
        assert_eq!((state.log_messages, state.log_bytes, state.last_seq), (0, 0, 5_000), "what all have has left");
        for peer in &state.peers {
            assert_eq!((peer.sent, peer.acknowledged, peer.received), (5_000, 5_000, 5_000), "{}", peer.name);
            assert_eq!((peer.duplicates, peer.resent, peer.lost, peer.gaps), (0, 0, 0, 0), "{}", peer.name);
        }
        assert_eq!(broker.payloads().len(), 10_000, "broker {me} has nothing of its own");
        broker.stop();
    }
}

#[test]
fn stamps_origins_and_properties_cross_unchanged() {
    let (_cluster, brokers) = start_all(2);
    let mut message = (*brokers[0].message("a/b", "x", false)).clone();
    let properties = evermq_mqtt::properties::PublishProperties {
        message_expiry: Some(1000),
        user_properties: vec![(evermq_mqtt::Text::new("k").unwrap(), evermq_mqtt::Text::new("v").unwrap())],
        ..Default::default()
    };
    message.publish.properties = Some(Box::new(properties));
    message.publish.qos = evermq_mqtt::QoS::ExactlyOnce;
    brokers[0].publish(Arc::new(message.clone()));
    wait_until("it has arrived", || !brokers[1].payloads().is_empty());
    let arrived = Arc::clone(&brokers[1].received.delivered.lock().unwrap()[0]);
    assert_eq!((&arrived.publish, &arrived.stamp), (&message.publish, &message.stamp));
    assert!(brokers[1].bridge.next_stamp() > message.stamp, "what happens after it is later, on every clock");
}

#[test]
fn a_peer_away_gets_everything_when_it_returns() {
    let (cluster, mut brokers) = start_all(3);
    let away = brokers.remove(2);
    brokers[0].publish_many("before ", 100);
    wait_until("it is there before the end", || {
        away.payloads().len() == 100 && brokers[0].peer("broker3").acknowledged == 100
    });
    away.kill();
    wait_until("the others have noticed", || brokers.iter().all(|broker| !broker.peer("broker3").connected));
    brokers[0].publish_many("while away ", 1_000);
    wait_until("the other one has them", || brokers[1].payloads().len() == 1_100);
    assert_eq!(brokers[0].peer("broker3").lag, 1_000);

    let back = Broker::start(&cluster.config(2));
    wait_until("they are there", || back.payloads().len() >= 1_000);
    wait_until_meshed(&[&brokers[0], &brokers[1], &back]);
    brokers[0].publish_many("after ", 10);
    wait_until("the link goes on", || back.payloads().len() >= 1_010);
    assert_eq!(back.payloads_of("while away "), numbered("while away ", 1_000), "all of them, in order, once");
    assert_eq!(back.payloads().len(), 1_010, "what its predecessor had acknowledged does not come again");
    assert_eq!(brokers[0].peer("broker3").lost, 0);
    wait_until("nothing stays in the log", || brokers[0].state().log_messages == 0);
}

#[test]
fn connections_that_break_lose_and_double_nothing() {
    let (cluster, listeners) = Cluster::new(2);
    let mut listeners = listeners.into_iter();
    let first = Broker::start_on(listeners.next().unwrap(), &cluster.config(0));
    // The second broker is reached through a relay that cuts connections while messages are on their way.
    let mut config = cluster.config(1);
    config.peer_listen.set_port(0);
    let second = Broker::start(&config);
    let relay = Relay::start(listeners.next().unwrap(), second.bridge.address());
    for round in 0..10_usize {
        first.publish_many(&format!("{round}: "), 2_000);
        let reached = round * 2_000 + 500;
        wait_until("some have arrived", || second.payloads().len() > reached);
        relay.cut();
    }
    wait_until("all have arrived", || second.payloads().len() >= 20_000);
    let expected: Vec<_> = (0..10).flat_map(|round| numbered(&format!("{round}: "), 2_000)).collect();
    assert!(second.payloads() == expected, "each once and in order");
    assert_eq!((first.peer("broker2").lost, second.peer("broker1").missed), (0, 0));
    assert!(relay.cuts() >= 10);
}

#[test]
fn an_origin_that_restarts_starts_over_without_confusion() {
    let (cluster, mut brokers) = start_all(2);
    let origin = brokers.remove(0);
    origin.publish_many("first life ", 50);
    wait_until("they are there", || brokers[0].payloads().len() == 50);
    let epoch = origin.state().epoch;
    origin.kill();
    let origin = Broker::start(&cluster.config(0));
    assert!(origin.state().epoch > epoch, "the epoch grows");
    origin.publish_many("second life ", 50);
    wait_until("they are there too", || brokers[0].payloads().len() == 100);
    assert_eq!(brokers[0].payloads_of("second"), numbered("second life ", 50));
    assert_eq!(brokers[0].peer("broker1").duplicates, 0);
}

#[test]
fn a_stop_sends_what_is_left() {
    let (_cluster, mut brokers) = start_all(2);
    let stopping = brokers.remove(0);
    stopping.publish_many("", 20_000);
    stopping.stop();
    assert_eq!(brokers[0].payloads().len(), 20_000);
    wait_until("the other one knows", || !brokers[0].peer("broker1").connected);
}

#[test]
fn a_restarted_broker_gets_the_retained_messages() {
    let (cluster, mut brokers) = start_all(3);
    brokers[0].publish_retained("a", "old");
    brokers[1].publish_retained("b", "of broker2");
    brokers[0].publish_retained("a", "new");
    wait_until("all have them", || brokers.iter().all(|broker| broker.retained().len() == 2));
    brokers.remove(2).kill();
    brokers[0].publish_retained("a", "newest");
    brokers[0].publish_retained("c", "");
    let back = Broker::start(&cluster.config(2));
    let expected = [("a", "newest"), ("b", "of broker2"), ("c", "")];
    let expected = expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned())).into();
    wait_until("it has them again", || back.retained() == expected);
    wait_until("and what was published meanwhile", || back.payloads().len() == 2);
    assert_eq!(back.payloads(), ["newest", ""], "old retained messages are not delivered as new ones");
}

#[test]
fn a_peer_away_for_too_long_loses_the_oldest_and_that_is_counted() {
    let (cluster, listeners) = Cluster::new(2);
    let mut listeners = listeners.into_iter();
    let mut config = cluster.config(0);
    config.broker.peer_queue_messages = 100;
    let origin = Broker::start_on(listeners.next().unwrap(), &config);
    drop(listeners);
    assert_eq!(origin.publish_many("", 1_000), Pressure::Clear, "who is away holds up nobody");
    assert_eq!(origin.state().log_messages, 100);
    wait_until("it is said once", || origin.log().contains("peer misses messages"));

    let late = Broker::start(&cluster.config(1));
    wait_until("the rest has arrived", || late.payloads().len() >= 100);
    assert_eq!(late.payloads(), numbered("", 1_000)[900..]);
    wait_until("it is counted", || origin.peer("broker2").lost == 900);
    let (theirs, ours) = (late.peer("broker1"), origin.peer("broker2"));
    assert_eq!((theirs.missed, ours.gaps), (900, 1));
    assert_eq!(origin.log().matches("peer misses messages").count(), 1, "{}", origin.log());
    origin.publish_many("on ", 10);
    wait_until("the link goes on", || late.payloads_of("on ").len() == 10);
}

#[test]
fn a_connected_peer_that_is_behind_asks_publishers_to_wait() {
    let (cluster, listeners) = Cluster::new(2);
    let mut config = cluster.config(0);
    config.broker.peer_queue_messages = 1_000;
    let mut listeners = listeners.into_iter();
    let origin = Broker::start_on(listeners.next().unwrap(), &config);
    let peer = Broker::start_on(listeners.next().unwrap(), &cluster.config(1));
    wait_until_meshed(&[&origin, &peer]);
    // The peer's broker cannot take any more for the moment.
    let blocked = peer.received.delivered.lock().unwrap();
    wait_until("pressure is high", || origin.publish_many("", 10) == Pressure::High);
    assert!(origin.state().pressure);
    assert_eq!(origin.peer("broker2").lost, 0, "high comes long before anything is lost");
    drop(blocked);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), origin.bridge.relieved()).await.unwrap();
    });
    assert!(!origin.state().pressure);
    let last = origin.state().last_seq;
    wait_until("all have arrived", || peer.payloads().len() as u64 == last);
}

#[test]
fn another_cluster_is_refused_and_both_logs_say_why() {
    let (cluster, listeners) = Cluster::new(2);
    let mut listeners = listeners.into_iter();
    let ours = Broker::start_on(listeners.next().unwrap(), &cluster.config(0));
    let mut config = cluster.config(1);
    config.cluster = ClusterName::new("work").unwrap();
    let other = Broker::start_on(listeners.next().unwrap(), &config);
    ours.publish_many("", 10);
    other.publish_many("", 10);
    wait_until("each was refused twice", || ours.state().strangers >= 2 && other.state().strangers >= 2);
    for (broker, peer) in [(&ours, "broker2"), (&other, "broker1")] {
        let state = broker.peer(peer);
        assert!(!state.connected && !state.receiving);
        let error = state.last_error.unwrap();
        assert!(error.contains("\"work\"") && error.contains("\"home\"") && error.contains("cluster.name"), "{error}");
        assert!(broker.payloads().is_empty());
    }
    let log = ours.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 2, "one for each direction, not one for each attempt: {log}");
}

#[test]
fn another_ca_is_refused() {
    let (cluster, listeners) = Cluster::new(2);
    let mut listeners = listeners.into_iter();
    let ours = Broker::start_on(listeners.next().unwrap(), &cluster.config(0));
    let mut config = cluster.config(1);
    config.tls = cluster.certificate_of_another_ca(1);
    let other = Broker::start_on(listeners.next().unwrap(), &config);
    wait_until("refused", || ours.state().strangers >= 1 && other.state().strangers >= 1);
    wait_until("and known why", || ours.peer("broker2").last_error.is_some());
    assert!(ours.peer("broker2").last_error.unwrap().contains("certificate"), "{:?}", ours.peer("broker2"));
    assert!(!ours.peer("broker2").connected && !ours.peer("broker2").receiving);
    assert!(!other.peer("broker1").connected && !other.peer("broker1").receiving);
}

#[test]
fn a_client_certificate_is_no_brokers_certificate() {
    let (cluster, listeners) = Cluster::new(2);
    let mut listeners = listeners.into_iter();
    let ours = Broker::start_on(listeners.next().unwrap(), &cluster.config(0));
    // A device with a good certificate of the same CA says that it is broker2.
    let mut config = cluster.config(1);
    config.tls = cluster.certificate_of("device-17");
    let device = Broker::start_on(listeners.next().unwrap(), &config);
    device.publish_many("forged ", 10);
    wait_until("refused", || ours.state().strangers >= 1);
    wait_until("and told why", || {
        device.peer("broker1").last_error.is_some_and(|error| error.contains("certificate holds neither"))
    });
    wait_until("nor do we send to it", || {
        ours.peer("broker2").last_error.is_some_and(|error| error.contains("certificate"))
    });
    assert!(!ours.peer("broker2").connected && !ours.peer("broker2").receiving);
    assert!(ours.payloads().is_empty());
}

#[test]
fn a_host_that_is_no_broker_of_the_file_is_refused() {
    let (cluster, listeners) = Cluster::new(3);
    let mut listeners = listeners.into_iter();
    let mut config = cluster.config(0);
    config.peers.retain(|peer| peer.name == HostName::new("broker2").unwrap());
    let ours = Broker::start_on(listeners.next().unwrap(), &config);
    let _second = listeners.next();
    let third = Broker::start_on(listeners.next().unwrap(), &cluster.config(2));
    wait_until("told why", || {
        third
            .peer("broker1")
            .last_error
            .is_some_and(|error| error.contains("no other broker in this host's cluster file"))
    });
    wait_until("counted", || ours.state().strangers >= 1);
}

#[test]
fn strangers_hold_up_nobody() {
    let (cluster, listeners) = Cluster::new(2);
    let mut listeners = listeners.into_iter();
    let ours = Broker::start_on(listeners.next().unwrap(), &cluster.config(0));
    // Many say nothing, some say what is no TLS, and all stay.
    let mut strangers: Vec<_> = (0..200).map(|_| TcpStream::connect(ours.bridge.address()).unwrap()).collect();
    for stranger in &mut strangers[..50] {
        let _ = stranger.write_all(b"GET / HTTP/1.1\r\nHost: broker1\r\n\r\n");
    }
    let peer = Broker::start_on(listeners.next().unwrap(), &cluster.config(1));
    wait_until_meshed(&[&ours, &peer]);
    peer.publish_many("", 100);
    wait_until("messages flow", || ours.payloads().len() == 100);
    wait_until("strangers are sent away", || ours.state().strangers >= 200);
    let mut last = strangers.pop().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let rest = last.read_to_end(&mut Vec::new());
    assert!(matches!(rest, Ok(0)) || last.peer_addr().is_err(), "its connection is closed: {rest:?}");
}

#[test]
fn a_broker_alone_has_nothing_to_do() {
    let (cluster, mut listeners) = Cluster::new(1);
    let broker = Broker::start_on(listeners.remove(0), &cluster.config(0));
    assert_eq!(broker.publish_many("", 1_000), Pressure::Clear);
    assert_eq!((broker.state().log_messages, broker.state().last_seq), (0, 0));
    broker.stop();
}

#[test]
fn a_message_of_another_origin_is_never_sent() {
    let (_cluster, brokers) = start_all(2);
    let foreign = brokers[1].message("t", "foreign", false);
    brokers[0].publish(foreign);
    brokers[0].publish_many("own ", 1);
    wait_until("its own is there", || !brokers[1].payloads().is_empty());
    assert_eq!(brokers[1].payloads(), ["own 0"]);
}

#[test]
fn a_port_in_use_is_said_to_be() {
    let (cluster, _listeners) = Cluster::new(1);
    let config = cluster.config(0);
    let material = tls::Material::load(&config.tls).unwrap();
    let local: Arc<dyn Local> = Arc::new(Received::default());
    let error = Bridge::new(&config, &material, local).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(&config.peer_listen.to_string()), "{error}: {source}");
}
