//! `[[bridges]]`: what is read, and what each mistake is answered with.

use std::path::PathBuf;

use super::marked::{marked, wrong};
use super::*;
use crate::bridges::{Bridge, BridgeTls, BridgeVersion, Direction};
use crate::cluster::Cluster;

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn read(lines: &str) -> Cluster {
    good(&marked(lines).0).cluster
}

#[test]
fn every_value_is_read() {
    let cluster = read(
        r#"
        [[bridges]]
        name = "old-site"
        addresses = ["mosquitto1", "mosquitto2:1884", "2001:db8::1", "[2001:db8::2]:1885"]
        hosts = ["broker2", "broker1"]
        protocol_version = "5.0"
        client_id = "me"
        username = "user"
        password_file = "old.{host}"
        keep_alive = "10s"
        reconnect_min = "1s"
        reconnect_max = "2s"
        takeover_delay = "4s"
        max_queued_messages = 5
        max_queued_bytes = "6KiB"
        ca = "ca"
        cert = "{host}.crt"
        key = "{host}.key"
        server_name = "mosquitto"
        topics = ['# both 2 l/ r/', 'a']
        "#,
    );
    let second = cluster.broker_for("broker1").unwrap().bridges.remove(0);
    assert_eq!((second.ahead, second.others), (vec![host("broker2")], vec![host("broker2")]));
    let first = cluster.broker_for("broker2").unwrap().bridges.remove(0);
    assert_eq!((first.ahead, first.others), (Vec::new(), vec![host("broker1")]));
    let path = |name: &str| PathBuf::from(format!("/etc/evermq/{name}"));
    let Bridge { topics, .. } = &first.bridge;
    assert_eq!((topics[0].direction, topics[0].qos, topics[0].remote()), (Direction::Both, 2, "r/#".to_owned()));
    let expected = Bridge {
        name: "old-site".to_owned(),
        addresses: ["mosquitto1:8883", "mosquitto2:1884", "[2001:db8::1]:8883", "[2001:db8::2]:1885"]
            .map(str::to_owned)
            .to_vec(),
        hosts: vec![host("broker2"), host("broker1")],
        version: BridgeVersion::V50,
        try_private: true,
        client_id: "me".to_owned(),
        username: Some("user".to_owned()),
        password_file: Some(path("old.broker2")),
        keep_alive: Duration::from_secs(10),
        reconnect_min: Duration::from_secs(1),
        reconnect_max: Duration::from_secs(2),
        takeover_delay: Duration::from_secs(4),
        max_queued_messages: 5,
        max_queued_bytes: 6 << 10,
        tls: Some(BridgeTls {
            ca: path("ca"),
            identity: Some((path("broker2.crt"), path("broker2.key"))),
            server_name: Some("mosquitto".to_owned()),
        }),
        topics: first.bridge.topics.clone(),
    };
    assert_eq!(first.bridge, expected);
}

#[test]
fn what_is_left_out_is_the_same_on_every_host() {
    let cluster = read("[[bridges]]\nname = \"old\"\naddresses = [\"m\"]\ntopics = [\"# both\"]");
    let bridge = &cluster.broker_for("broker2").unwrap().bridges[0];
    assert_eq!((bridge.bridge.client_id.as_str(), bridge.bridge.addresses[0].as_str()), ("c.old", "m:1883"));
    assert_eq!(bridge.ahead, [host("broker1")]);
    assert!(cluster.broker_for("broker1").unwrap().bridges[0].ahead.is_empty());
}

#[test]
fn the_shipped_file_names_every_key() {
    let loaded = good(&marked("[[bridges]]\nname = \"old\"\naddresses = [\"m\"]\ntopics = [\"# both\"]").0);
    let keys: Vec<_> = loaded.defaulted.iter().filter_map(|key| key.strip_prefix("bridges.")).collect();
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys {
        assert!(SHIPPED.contains(&format!("\n# {key} = ")), "{key} is not in the shipped file");
    }
}

#[test]
fn each_mistake_has_its_answer() {
    let entry = |lines: &str| {
        let mut text = "[[bridges]]\n".to_owned();
        for (key, line) in
            [("name", "name = \"b\""), ("addresses", "addresses = [\"m\"]"), ("topics", "topics = [\"# both\"]")]
        {
            if !lines.contains(&format!("{key} = ")) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text + lines
    };
    let wrong = |lines: &str, message: &str, help: &str| wrong(&entry(lines), message, help);
    wrong("name = «\"a b\"»", "no value for bridges.name", "letters");
    wrong("addresses = «[\"m:0\"]»", "no value for bridges.addresses", "HOST:PORT");
    wrong("addresses = «[\"mqtt://m\"]»", "no value for bridges.addresses", "HOST:PORT");
    wrong("topics = «[]»", "1 to 1024 lines", "sensors/# out 1");
    wrong("topics = [«7»]", "must be a string", "sensors/# out 1");
    wrong("topics = [\"# both\", «\"# outwards\"»]", "\"outwards\" is no direction", "out, in or both");
    wrong("topics = [«'\"\" both 1 a/'»]", "an empty pattern needs both prefixes", "remote/topic");
    wrong("hosts = «[\"broker9\"]»", "\"broker9\" is no host with the role", "name hosts of [[hosts]]");
    wrong("hosts = «[\"lb1\"]»", "\"lb1\" is no host with the role", "name hosts of [[hosts]]");
    wrong("hosts = «[\"broker1\", \"broker1\"]»", "\"broker1\" stands there twice", "once");
    wrong("protocol_version = «\"4\"»", "no value for bridges.protocol_version", "\"3.1.1\" or \"5.0\"");
    wrong("protocol_version = \"5.0\"\ntry_private = «false»", "try_private does nothing", "delete the line");
    wrong("reconnect_min = «\"40s\"»", "above reconnect_max", "raise reconnect_max");
    wrong("password_file = «\"x\"»", "a password but no user name", "username");
    wrong("cert = «\"x\"»", "cert does nothing without TLS", "ca = ");
    wrong("ca = \"x\"\nkey = «\"x\"»", "key is there without cert", "add cert");
    wrong("«topic» = \"# both\"", "has no key \"topic\"", "did you mean \"topics\"");
    let two = |one: &str, other: &str| {
        let rest = "addresses = [\"m\"]\ntopics = [\"#\"]\n";
        format!("[[bridges]]\n{one}\n{rest}[[bridges]]\n{other}\n{rest}")
    };
    let same_name = two("name = \"a\"\nclient_id = \"x\"", "name = «\"a\"»\nclient_id = \"y\"");
    super::marked::wrong(&same_name, "two bridges are called \"a\"", "a name of its own");
    let same_client = two("name = \"a\"\nclient_id = \"x\"", "name = \"b\"\nclient_id = «\"x\"»");
    super::marked::wrong(&same_client, "the same client of the same broker", "a client_id of its own");
}

#[test]
fn what_a_bridge_cannot_do_without_is_asked_for() {
    let report = bad(&marked("[[bridges]]\nname = \"b\"").0);
    let messages: Vec<_> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages, ["[[bridges]] needs \"addresses\"", "[[bridges]] needs \"topics\""]);
}
