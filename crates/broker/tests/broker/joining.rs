//! Brokers that join and leave by a reload of the others, with clients connected all the while.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use evermq_broker::connection::clock;
use evermq_config::Cluster;
use evermq_daemon::command::ConfigSource;
use evermq_mqtt::{Publish, QoS, ReasonCode};
use serde_json::{Value, json};

use crate::client::{Client, connect, message, resume};
use crate::cluster_topics::{STATE, certified, subscribe};
use crate::running::{Running, Site, driver};

/// Hosts on addresses of their own, each with a cluster file of its own.
pub(crate) struct Hosts {
    pub(crate) site: Site,
    /// For TLS, without, and for peers.
    ports: [u16; 3],
}

impl Hosts {
    pub(crate) fn new() -> Self {
        let site = Site::new();
        let addresses = [1, 2, 3].map(|number| Ipv4Addr::new(127, 0, 0, number).into());
        let ports = std::array::from_fn(|_| evermq_ports::free_on(addresses)[0].port());
        for number in 1..=3 {
            site.ca.issue(&format!("broker{number}"), 1);
        }
        Self { site, ports }
    }

    fn file(&self, number: u8) -> std::path::PathBuf {
        self.site.directory.path().join(format!("broker{number}.toml"))
    }

    /// The file of host `number`, with these brokers in it, and `more` in `[broker]`.
    pub(crate) fn write(&self, number: u8, brokers: &[u8], more: &str) {
        let [tls, plain, peers] = self.ports;
        let path = |name: &str| self.site.directory.path().join(name);
        let run_dir = path(&format!("run{number}"));
        std::fs::create_dir_all(&run_dir).unwrap();
        let mut text = format!(
            "[cluster]\nname = \"test\"\nrun_dir = {run_dir:?}\n[broker]\nlisten = \"127.0.0.{number}:{tls}\"\n\
             listen_plain = \"127.0.0.{number}:{plain}\"\npeer_port = {peers}\nworkers = 1\n{more}\n\
             [broker.store]\npath = {:?}\nsegment_size = \"1MiB\"\n[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\
             [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.9\"\nroles = [\"lb\"]\n",
            path(&format!("store{number}")),
            path("ca.crt"),
            path(&format!("ca-broker{number}.crt")),
            path(&format!("ca-broker{number}.key")),
        );
        for broker in brokers {
            text.push_str(&format!(
                "[[hosts]]\nname = \"broker{broker}\"\naddress = \"127.0.0.{broker}\"\nroles = [\"broker\"]\n"
            ));
        }
        std::fs::write(self.file(number), text).unwrap();
    }

    /// The files of the first hosts have these brokers from now on, and theirs read them.
    fn reload_all(&self, brokers: &[u8], running: &[&Running], changed: &Value) {
        for (number, broker) in (1..).zip(running) {
            self.write(number, brokers, "");
            assert_eq!(&reload(broker), changed);
        }
    }

    /// Starts the broker of that host.
    pub(crate) fn start(&self, number: u8) -> Running {
        let source = ConfigSource::new(self.file(number), format!("broker{number}"), Cluster::broker_for);
        let (config, _) = source.load().unwrap();
        Running::of(driver(&config).reloading(source), &config)
    }
}

fn all_peers(state: &Value, wanted: impl Fn(&Value) -> bool) -> bool {
    state["bridge"]["peers"].as_array().unwrap().iter().all(wanted)
}

pub(crate) fn reload(broker: &Running) -> Value {
    let done = broker.ask(&json!({ "request": "reload" }));
    assert_eq!(done["restart"], json!([]), "{done:#}");
    done["peers"].clone()
}

pub(crate) fn wait_until_ready(broker: &Running) -> Value {
    broker.wait_for("readiness", |state| state["readiness"] == "ready")
}

/// Publishes numbers to `topic` until it is time to end, and then the word for it. How many they were.
fn publish_until(end: &AtomicBool, address: SocketAddr, topic: &str) -> usize {
    let (mut client, _) = Client::open(address, connect(&format!("publisher of {topic}")));
    let mut count = 0;
    while !end.load(Ordering::SeqCst) {
        assert_eq!(client.publish(message(topic, &count.to_string()), QoS::AtLeastOnce), ReasonCode::Success);
        count += 1;
        std::thread::park_timeout(Duration::from_millis(1));
    }
    client.publish(message(topic, "end"), QoS::AtLeastOnce);
    count
}

/// Subscribes to `topic`, and reads until the end, in a thread of `scope`: what came.
fn follow<'scope>(
    scope: &'scope Scope<'scope, '_>,
    address: SocketAddr,
    client: &str,
    topic: &str,
) -> std::thread::ScopedJoinHandle<'scope, Vec<String>> {
    let (mut client, _) = Client::open(address, resume(client));
    client.subscribe_at(topic, QoS::ExactlyOnce);
    scope.spawn(move || std::iter::repeat_with(|| client.message().1).take_while(|payload| payload != "end").collect())
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[test]
fn a_broker_joins_and_leaves_and_no_client_of_the_others_notices() {
    let hosts = Hosts::new();
    hosts.write(1, &[1, 2], "");
    hosts.write(2, &[1, 2], "");
    hosts.write(3, &[1, 2, 3], "");
    let (first, second) = (hosts.start(1), hosts.start(2));
    for broker in [&first, &second] {
        wait_until_ready(broker);
    }
    for number in 0..50 {
        let kept = Publish { retain: true, ..message(&format!("r/{number}"), "kept") };
        first.client("p").publish(kept, QoS::AtLeastOnce);
    }
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [("a", &first), ("a", &second), ("b", &first), ("b", &second)].map(|(topic, broker)| {
            (topic, follow(scope, broker.plain, &format!("{topic} reader {}", broker.plain), topic))
        });
        let publishers = [("a", &first), ("b", &second)].map(|(topic, broker)| {
            scope.spawn({
                let end = &end;
                move || publish_until(end, broker.plain, topic)
            })
        });

        let third = hosts.start(3);
        let state = third.state();
        assert_eq!((&state["readiness"], &state["health"]), (&json!("not ready"), &json!("degraded")));
        assert!(state["trouble"].as_str().unwrap().starts_with("joins the cluster"), "{state:#}");
        // Who comes too early waits.
        let early = scope.spawn({
            let plain = third.plain;
            move || Client::open(plain, connect("early")).0
        });
        third.wait_for("a refusal", |state| all_peers(state, |peer| peer["last_error"].is_string()));
        assert_eq!(third.state()["readiness"], "not ready", "those who do not know it yet answer all the same");
        hosts.reload_all(&[1, 2, 3], &[&first, &second], &json!({ "joined": ["broker3"], "left": [], "moved": [] }));
        assert_eq!(wait_until_ready(&third)["trouble"], Value::Null);
        let mut early = early.join().unwrap();
        early.subscribe_at("r/#", QoS::AtMostOnce);
        (0..50).for_each(|_| assert_eq!(early.message().1, "kept"));
        let mut there = first.client("there");
        there.subscribe_at("from/third", QoS::AtLeastOnce);
        let (mut followed, mut from_third) = (third.client("followed"), third.client("from third"));
        followed.subscribe_at("a", QoS::AtLeastOnce);
        assert_eq!(from_third.publish(message("from/third", "x"), QoS::AtLeastOnce), ReasonCode::Success);
        assert_eq!(there.message().1, "x");
        let got: Vec<usize> = (0..100).map(|_| followed.message().1.parse().unwrap()).collect();
        assert!(got.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{got:?}");

        third.wait_for("that the others have its message", |state| all_peers(state, |peer| peer["lag"] == 0));
        drop((early, followed, from_third));
        third.stop().unwrap();
        hosts.reload_all(&[1, 2], &[&first, &second], &json!({ "joined": [], "left": ["broker3"], "moved": [] }));
        for broker in [&first, &second] {
            let bridge = &broker.state()["bridge"];
            assert_eq!((bridge["peers"].as_array().unwrap().len(), &bridge["peers_left"]), (1, &json!(1)));
        }
        end.store(true, Ordering::SeqCst);
        let published = publishers.map(|publisher| publisher.join().unwrap());
        for (topic, reader) in readers {
            let count = published[usize::from(topic == "b")];
            assert_eq!(reader.join().unwrap(), numbers(count), "{topic}");
        }
    });
    for broker in [&first, &second] {
        let peer = &broker.wait_for("an empty log", |state| state["bridge"]["log_messages"] == 0)["bridge"]["peers"][0];
        assert_eq!((&peer["resent"], &peer["duplicates"], &peer["lost"]), (&json!(0), &json!(0), &json!(0)));
    }
}

#[test]
fn a_first_broker_starts_alone_and_one_that_has_joined_does_not_wait_again() {
    let hosts = Hosts::new();
    hosts.write(1, &[1, 2], "join_timeout = \"300ms\"");
    let begun = clock();
    let first = hosts.start(1);
    // It is let in when the time is over that another broker had to answer.
    let mut client = Client::open(first.plain, resume("durable")).0;
    assert!(clock().saturating_duration_since(begun) >= Duration::from_millis(300));
    assert_eq!(first.state()["readiness"], "ready");
    assert_eq!(client.publish(message("t", ""), QoS::AtLeastOnce), ReasonCode::Success);
    first.stop().unwrap();
    hosts.write(1, &[1, 2], "");
    assert_eq!(hosts.start(1).state()["readiness"], "ready", "it has a session");
}

#[test]
fn a_broker_that_the_others_do_not_come_to_know_starts_when_its_time_is_over() {
    let hosts = Hosts::new();
    hosts.write(1, &[1], "");
    hosts.write(2, &[1, 2], "join_timeout = \"500ms\"");
    let (_first, second) = (hosts.start(1), hosts.start(2));
    let state = wait_until_ready(&second);
    assert_eq!(state["bridge"]["peers"][0]["filled"], false);
    second.client("c").subscribe_at("t", QoS::AtLeastOnce);
}

#[test]
fn the_lbs_hear_when_a_broker_has_joined() {
    let hosts = Hosts::new();
    hosts.write(1, &[1, 2], "");
    hosts.write(2, &[2], "");
    let (second, first) = (hosts.start(2), hosts.start(1));
    let mut lb = certified(&hosts.site, &first, "lb1", connect("evermq-lb"));
    assert_eq!(subscribe(&mut lb, STATE), ReasonCode::Success);
    assert_eq!(lb.message().1, "not ready", "an lb does not wait");
    hosts.write(2, &[1, 2], "");
    reload(&second);
    assert_eq!(lb.message().1, "ready");
    lb.expect_nothing();
}
