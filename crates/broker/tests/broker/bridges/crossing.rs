//! Messages over a bridge: both ways, in every version, once, with what belongs to them, and into nobody else's hands.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Publish, QoS, ReasonCode};
use serde_json::json;

use super::mosquitto::Mosquitto;
use super::{config, entry, expected, listener, next, publish, read};
use crate::client::{Client, connect, message, text};
use crate::running::{Running, Site, start};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Seven messages each way.
fn crosses_both_ways_once(version: &str, topics: &str) {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "");
    let bridge = entry(remote.address, &format!("protocol_version = \"{version}\"\ntopics = {topics}"));
    let broker = Running::start(&config(&site, &bridge));
    assert_eq!(broker.wait_for_connected()["known_as_bridge"], true);
    both_ways(broker.plain, remote.address, version);
    let bridge = broker.wait_for_bridge("acknowledgements", |bridge| bridge["inflight"] == 0);
    assert_eq!((&bridge["sent"], &bridge["received"]), (&json!(7), &json!(7)), "{bridge:#}");
    broker.stop().unwrap();
}

/// With `l/` at one end and `r/` at the other: every message arrives on the other side, once, and comes back to nobody.
pub(super) fn both_ways(here: SocketAddr, there: SocketAddr, version: &str) {
    let [mut here, mut from_here] = ["l/#", "unused"].map(|filter| listener(here, filter, filter));
    let [mut there, mut from_there] = ["r/#", "unused"].map(|filter| listener(there, filter, filter));
    for qos in QOS {
        for retain in [false, true] {
            let payload = format!("{qos:?} {retain}");
            publish(&mut from_here, "l/out", &payload, qos, retain);
            assert_eq!(next(&mut here), expected("l/out", &payload, qos, retain));
            assert_eq!(next(&mut there), expected("r/out", &payload, qos, retain), "{version}");
            publish(&mut from_there, "r/in", &payload, qos, retain);
            assert_eq!(next(&mut there), expected("r/in", &payload, qos, retain));
            assert_eq!(next(&mut here), expected("l/in", &payload, qos, retain), "{version}");
        }
    }
    // What would have come back is in front of this.
    publish(&mut from_here, "l/end", "end", QoS::ExactlyOnce, false);
    publish(&mut from_there, "r/end", "end", QoS::ExactlyOnce, false);
    for _ in 0..2 {
        assert_eq!(next(&mut here).0, "l/end");
        assert_eq!(next(&mut there).0, "r/end");
    }
}

#[test]
fn both_ways_by_3_1_1() {
    crosses_both_ways_once("3.1.1", "['# both 2 l/ r/']");
}

#[test]
fn both_ways_by_5_0() {
    crosses_both_ways_once("5.0", "['# both 2 l/ r/']");
}

#[test]
fn properties_cross_by_5_0() {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "");
    let bridge = entry(remote.address, "protocol_version = \"5.0\"\ntopics = ['# both 2 l/ r/']");
    let broker = Running::start(&config(&site, &bridge));
    broker.wait_for_connected();
    let mut there = listener(remote.address, "there", "r/out");
    let mut here = broker.client("here");
    let properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry: Some(1000),
        response_topic: Some(text("answers")),
        correlation_data: Some("7".into()),
        user_properties: vec![(text("k"), text("1")), (text("k"), text("2"))],
        content_type: Some(text("text/plain")),
        ..PublishProperties::default()
    };
    let sent = Publish { properties: Some(Box::new(properties.clone())), ..message("l/out", "x") };
    assert!(!here.publish(sent, QoS::AtLeastOnce).is_error());
    let mut got = *there.receive_message().properties.unwrap();
    // Less the time that it has waited.
    assert!(got.message_expiry.take().is_some_and(|left| (900..=1000).contains(&left)));
    assert_eq!(got, PublishProperties { message_expiry: None, ..properties });
}

#[test]
fn retained_messages_cross_when_the_bridge_comes_up() {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "");
    publish(&mut listener(remote.address, "first", "unused"), "r/in", "old there", QoS::AtMostOnce, true);
    let mut config = config(&site, "");
    let broker = Running::start(&config);
    publish(&mut broker.client("first"), "l/out", "old here", QoS::AtMostOnce, true);
    broker.stop().unwrap();
    config.bridges = read(&entry(remote.address, "topics = ['out out 0 l/ r/', 'in in 0 l/ r/']"));
    // What is retained at QoS 0 the store keeps, too.
    let broker = Running::start(&config);
    assert_eq!(next(&mut listener(broker.plain, "here", "l/in")).1, "old there");
    let mut there = listener(remote.address, "there", "r/out");
    assert_eq!(next(&mut there), expected("r/out", "old here", QoS::AtMostOnce, true));
}

#[test]
fn over_tls_with_a_certificate_or_a_password() {
    let site = Site::new();
    let directory = site.directory.path();
    let server = site.ca.issue("mosquitto", 1);
    let tls = |file: &std::path::Path| file.display().to_string();
    let passwords = directory.join("passwords");
    let mut making = std::process::Command::new("mosquitto_passwd");
    making.args(["-b", "-c"]).arg(&passwords).args(["bridge", "secret"]);
    let made = making.output().expect("mosquitto_passwd is needed: apt-get install mosquitto");
    assert!(made.status.success(), "{made:?}");
    std::fs::write(directory.join("old.password"), "secret\n").unwrap();
    let server = |who: &str| {
        let (ca, cert, key) = (tls(&server.ca), tls(&server.cert), tls(&server.key));
        let address = evermq_ports::free_address();
        let conf = format!(
            "listener {} {}\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\n{who}\n",
            address.port(),
            address.ip()
        );
        (address, conf)
    };
    let own = site.ca.issue("plant-7", 1);
    let cases = [
        (
            "require_certificate true\nuse_identity_as_username true\nallow_anonymous false".to_owned(),
            format!("cert = \"{}\"\nkey = \"{}\"", tls(&own.cert), tls(&own.key)),
        ),
        (
            format!("allow_anonymous false\npassword_file {}", tls(&passwords)),
            format!("username = \"bridge\"\npassword_file = \"{}\"", tls(&directory.join("old.password"))),
        ),
    ];
    for (number, (who, shown)) in cases.into_iter().enumerate() {
        let (address, conf) = server(&who);
        let inside = evermq_ports::free_address();
        let conf = format!(
            "per_listener_settings true\n{conf}listener {} {}\nallow_anonymous true\n",
            inside.port(),
            inside.ip()
        );
        let remote = Mosquitto::at(inside, directory, &format!("remote{number}"), &conf).started();
        let more = format!("ca = \"{}\"\nserver_name = \"mosquitto\"\n{shown}\ntopics = ['# both 1']", tls(&own.ca));
        let broker = Running::start(&config(&site, &entry(address, &more)));
        broker.wait_for_connected();
        let mut there = listener(remote.address, "there", "#");
        publish(&mut broker.client("here"), "a", "x", QoS::AtLeastOnce, false);
        assert_eq!(next(&mut there).1, "x");
        broker.stop().unwrap();
    }
}

/// A way to `remote` through which no client gets that says that it is a bridge.
fn without_bridges(remote: SocketAddr) -> SocketAddr {
    /// Length, name and level of a CONNECT of MQTT 3.1.1 or 5.0, behind the fixed header.
    const TO_LEVEL: usize = 2 + 4 + 1;
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |mut client: TcpStream| -> io::Result<()> {
        let mut head = [0; 2 + TO_LEVEL];
        client.read_exact(&mut head)?;
        // The length of a short one is one byte.
        if head[1] & 0x80 == 0 && head[2 + TO_LEVEL - 1] & 0x80 != 0 {
            return client.write_all(&[0x20, 2, 0, 1]);
        }
        let mut server = TcpStream::connect(remote)?;
        server.write_all(&head)?;
        let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
        std::thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Both)));
        io::copy(&mut client, &mut server)?;
        server.shutdown(Shutdown::Both)
    };
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { continue };
            std::thread::spawn(move || serve(client));
        }
    });
    address
}

#[test]
fn a_remote_broker_that_does_not_know_bridges_is_spoken_to_all_the_same() {
    let (_site, remote) = start();
    let site = Site::new();
    let way = without_bridges(remote.plain);
    let broker = Running::start(&config(&site, &entry(way, "topics = ['# out 2 \"\" r/', '# in 2 l/ \"\"']")));
    assert_eq!(broker.wait_for_connected()["known_as_bridge"], false);
    let mut there = listener(remote.plain, "there", "r/out");
    publish(&mut broker.client("from_here"), "out", "x", QoS::ExactlyOnce, false);
    assert_eq!(next(&mut there).1, "x");
    let mut here = listener(broker.plain, "here", "l/in");
    publish(&mut remote.client("from_there"), "in", "y", QoS::ExactlyOnce, false);
    assert_eq!(next(&mut here).1, "y");
}

/// Another cluster, say.
#[test]
fn both_ways_with_a_broker_like_this_one() {
    let (_site, remote) = start();
    let site = Site::new();
    let broker = Running::start(&config(&site, &entry(remote.plain, "topics = ['# both 2 l/ r/']")));
    assert_eq!(broker.wait_for_connected()["known_as_bridge"], true);
    both_ways(broker.plain, remote.plain, "3.1.1");
}

#[test]
fn nobody_else_has_a_bridges_session() {
    let site = Site::new();
    let remote = Mosquitto::start(site.directory.path(), "remote", "");
    let broker = Running::start(&config(&site, &entry(remote.address, "topics = ['# out 1']")));
    broker.wait_for_connected();
    let (_, connack) = Client::open(broker.plain, connect("$bridge/old"));
    assert_eq!(connack.reason, ReasonCode::ClientIdentifierNotValid);
    assert_eq!(broker.wait_for_connected()["connections"], 1);
}
