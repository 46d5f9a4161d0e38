//! What Prometheus is shown.

use std::net::{Ipv4Addr, SocketAddr};

use evermq_exposition::{Families, parse, scrape};
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{QoS, ReasonCode, Version};
use serde_json::json;

use crate::client::{Client, connect, message, resume};
use crate::running::{PATIENCE, Running, start_two_with, start_with};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The figures when they are as `wanted`.
fn figures(broker: &Running, wanted: impl Fn(&Families) -> bool) -> Families {
    let deadline = evermq_broker::connection::clock() + PATIENCE;
    loop {
        let families = parse(&scrape(broker.metrics.unwrap()));
        if wanted(&families) {
            return families;
        }
        assert!(evermq_broker::connection::clock() < deadline, "waited in vain: {families:#?}");
        std::thread::yield_now();
    }
}

#[test]
fn prometheus_gets_what_happens() {
    let (_site, broker) = start_with(|config| {
        config.metrics = Some(ANY);
        config.max_queued_messages = 2;
    });
    let (away, _) = Client::open(broker.plain, resume("away"));
    let mut away = away;
    away.subscribe_at("t", QoS::AtLeastOnce);
    away.disconnect(ReasonCode::Success);
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("t", QoS::ExactlyOnce);
    let old = Connect { version: Version::V4, ..connect("p") };
    let (mut publisher, _) = Client::open(broker.plain, old);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::AtLeastOnce] {
        publisher.publish(message("t", "12345"), qos);
        assert_eq!(subscriber.message().1, "12345");
    }
    publisher.publish(evermq_mqtt::Publish { retain: true, ..message("kept", "123") }, QoS::AtLeastOnce);
    publisher.publish(message("$SYS/x", "no"), QoS::AtLeastOnce);
    broker.client("gone").vanish();
    broker.client("leaves").disconnect(ReasonCode::DisconnectWithWill);
    let families = figures(&broker, |families| {
        families.of("evermq_broker_lost_total") == 1.0 && families.of("evermq_broker_clients") == 2.0
    });
    let is = |series: &str, value: f64| assert_eq!(families.of(&format!("evermq_broker_{series}")), value, "{series}");
    is("messages_total{direction=\"in\",qos=\"0\"}", 1.0);
    is("messages_total{direction=\"in\",qos=\"1\"}", 5.0);
    is("messages_total{direction=\"out\",qos=\"0\"}", 1.0);
    is("messages_total{direction=\"out\",qos=\"1\"}", 3.0);
    is("payload_bytes_total{direction=\"in\"}", 25.0);
    is("payload_bytes_total{direction=\"out\"}", 20.0);
    is("sessions{connected=\"true\"}", 2.0);
    is("sessions{connected=\"false\"}", 1.0);
    is("subscriptions", 2.0);
    is("queued_messages", 2.0);
    is("queued_bytes", 12.0);
    is("retained_messages", 1.0);
    is("retained_bytes", 7.0);
    is("dropped_total{cause=\"queue_full\"}", 1.0);
    is("refused_total{reason=\"Not authorized\"}", 1.0);
    is("connects_total{version=\"3.1.1\"}", 1.0);
    is("connects_total{version=\"5.0\"}", 4.0);
    is("listener_connects_total{listener=\"plain\"}", 5.0);
    is("disconnects_total{reason=\"Success\"}", 1.0);
    is("disconnects_total{reason=\"Disconnect with Will Message\"}", 1.0);
    assert!(families.of("evermq_broker_connections_limit") > 1.0);
    assert!(families.of("evermq_broker_delivery_seconds_count") >= 4.0);
    assert!(families.of("evermq_broker_bytes_total{direction=\"in\"}") > 100.0);
    let shown = broker.ask(&json!({ "request": "metrics" }));
    assert!(parse(shown["text"].as_str().unwrap()).names().eq(families.names()));
}

#[test]
fn shared_subscriptions_are_counted_by_member_and_by_group() {
    let (_site, broker) = start_with(|config| config.metrics = Some(ANY));
    let mut members: Vec<_> = (0..3).map(|number| broker.client(&format!("m{number}"))).collect();
    for (member, group) in members.iter_mut().zip(["one", "one", "two"]) {
        member.subscribe_at(&format!("$share/{group}/t"), QoS::AtLeastOnce);
    }
    let families = figures(&broker, |families| families.of("evermq_broker_shared_subscriptions") == 3.0);
    assert_eq!(families.of("evermq_broker_shared_groups"), 2.0);
    let rows = broker.ask(&json!({ "request": "subscriptions", "topic": "t", "client": "m2" }));
    assert_eq!(
        (&rows["subscriptions"][0]["group"], &rows["subscriptions"][0]["filter"]),
        (&json!("two"), &json!("$share/two/t"))
    );
}

#[test]
fn handshakes_and_refusals_are_counted() {
    let (site, broker) = start_with(|config| config.metrics = Some(ANY));
    let tls = site.ca.issue("device-1", 1);
    let published = std::process::Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &broker.tls.port().to_string(), "-t", "t", "-m", "x"])
        .arg("--cafile")
        .arg(&tls.ca)
        .arg("--cert")
        .arg(&tls.cert)
        .arg("--key")
        .arg(&tls.key)
        .status()
        .expect("mosquitto_pub is needed: apt-get install mosquitto-clients");
    assert!(published.success());
    let mut asked = connect("c");
    asked.properties.authentication_method = Some(crate::client::text("nonsense"));
    let (_, connack) = Client::open(broker.plain, asked);
    assert_eq!(connack.reason, ReasonCode::BadAuthenticationMethod);
    let families = figures(&broker, |families| {
        families.find("evermq_broker_connects_refused_total{reason=\"Bad authentication method\"}") == Some(1.0)
    });
    assert_eq!(families.of("evermq_broker_tls_handshake_seconds_count"), 1.0);
    assert_eq!(families.of("evermq_broker_listener_connects_total{listener=\"tls\"}"), 1.0);
    assert_eq!(families.of("evermq_broker_sockets_total"), 2.0);
}

#[test]
fn peers_are_shown() {
    let (_site, brokers) = start_two_with(|config| config.metrics = Some(ANY));
    for (broker, other) in brokers.iter().zip(["broker2", "broker1"]) {
        let families = figures(broker, |_| true);
        assert_eq!(families.of(&format!("evermq_broker_peer_connected{{peer=\"{other}\"}}")), 1.0);
        assert_eq!(families.of(&format!("evermq_broker_peer_lag{{peer=\"{other}\"}}")), 0.0);
    }
}
