//! Bridges to mosquitto, as Debian has it.

mod arriving;
mod crossing;
mod mapping;
mod mosquitto;
mod moving;
mod outages;
mod pairs;
mod tables;

use std::net::SocketAddr;
use std::path::Path;

use evermq_config::bridges::{BridgeTopic, Direction};
use evermq_config::{BridgeConfig, BrokerConfig};
use evermq_mqtt::packet::{Ack, SubscriptionOptions};
use evermq_mqtt::{Packet, QoS, ReasonCode};
use serde_json::Value;

use crate::client::{Client, message};
use crate::running::{Running, Site};

/// What the cluster file has of bridges.
pub(crate) fn read(entries: &str) -> Vec<BridgeConfig> {
    let text = format!(
        "[cluster]\nname = \"test\"\n{entries}\n\
        [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.9\"\nroles = [\"lb\"]\n\
        [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.10\"\nroles = [\"broker\"]\n"
    );
    let loaded = evermq_config::parse(Path::new("/test.toml"), &text).unwrap_or_else(|report| panic!("{report}"));
    loaded.cluster.broker_for("broker1").unwrap().bridges
}

/// An entry whose waits are short; `more` has its topics at least.
pub(crate) fn entry(remote: SocketAddr, more: &str) -> String {
    format!(
        "[[bridges]]\nname = \"old\"\naddresses = [\"{remote}\"]\nreconnect_min = \"10ms\"\nreconnect_max = \"100ms\"\n{more}\n"
    )
}

/// A lone broker with this bridge.
pub(crate) fn config(site: &Site, entries: &str) -> BrokerConfig {
    let mut config = site.config("broker1", evermq_ports::free_address(), &[]);
    config.bridges = read(entries);
    config
}

impl Running {
    /// Waits until its first bridge is as `wanted`.
    pub(crate) fn wait_for_bridge(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(what, |state| wanted(&state["bridges"][0]))["bridges"][0].clone()
    }

    pub(crate) fn wait_for_connected(&self) -> Value {
        self.wait_for_bridge("the bridge's connection", |bridge| bridge["state"] == "connected")
    }
}

/// A client that gets everything, with the RETAIN flags as they were published.
pub(crate) fn listener(address: SocketAddr, id: &str, filter: &str) -> Client {
    listener_at(address, id, filter, QoS::ExactlyOnce)
}

/// The same at another QoS: several messages of QoS 2 at once are too much for this client.
pub(crate) fn listener_at(address: SocketAddr, id: &str, filter: &str, qos: QoS) -> Client {
    let mut client = Client::open(address, crate::client::connect(id)).0;
    let options = SubscriptionOptions { qos, retain_as_published: true, ..SubscriptionOptions::default() };
    assert!(!client.subscribe(filter, options).is_error());
    client
}

/// Topic, payload, QoS and RETAIN of the next message. Exchanges of QoS 2 may run beside each other.
pub(crate) fn next(client: &mut Client) -> (String, String, QoS, bool) {
    let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: None };
    loop {
        match client.receive() {
            Packet::Publish(publish) => {
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => client.send(&Packet::PubAck(ack(id))),
                    (QoS::ExactlyOnce, Some(id)) => client.send(&Packet::PubRec(ack(id))),
                    _ => {}
                }
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                return (publish.topic.to_string(), payload, publish.qos, publish.retain);
            }
            Packet::PubRel(release) => client.send(&Packet::PubComp(ack(release.packet_id))),
            other => panic!("{other:?}"),
        }
    }
}

/// The same of a message that is to come.
pub(crate) fn expected(topic: &str, payload: &str, qos: QoS, retain: bool) -> (String, String, QoS, bool) {
    (topic.to_owned(), payload.to_owned(), qos, retain)
}

pub(crate) fn publish(client: &mut Client, topic: &str, payload: &str, qos: QoS, retain: bool) {
    let mut message = message(topic, payload);
    message.retain = retain;
    assert!(!client.publish(message, qos).is_error());
}

/// A line as the cluster file has it.
pub(crate) fn line(topic: &BridgeTopic) -> String {
    let or_empty = |text: &str| if text.is_empty() { "\"\"".to_owned() } else { text.to_owned() };
    let direction = match topic.direction {
        Direction::Out => "out",
        Direction::In => "in",
        Direction::Both => "both",
    };
    let [pattern, local, remote] =
        [&topic.pattern, &topic.local_prefix, &topic.remote_prefix].map(|text| or_empty(text));
    format!("{pattern} {direction} {} {local} {remote}", topic.qos)
}
