//! Real clients through the VIP: mosquitto's, paho-mqtt, openssl, and our own.

use std::time::Duration;

use evermq_e2e::client::TLS;
use evermq_e2e::lab::text;
use evermq_e2e::{Lab, PORT, VIP, client};

const BROKER1: (&str, &str) = ("198.18.0.21", "8883");
const BROKER2: (&str, &str) = ("198.18.0.22", "8883");

#[test]
fn published_through_the_vip_arrives_on_both_brokers_once_and_in_order() {
    let lab = Lab::up();
    for qos in ["0", "1", "2"] {
        let topic = format!("order/{qos}");
        let subscribers = [BROKER1, BROKER2].map(|broker| lab.subscribe_at(broker, &["-t", &topic, "-q", qos]));
        // One publisher connection: lines of its standard input in turn.
        let script = format!(
            "seq 200 | mosquitto_pub -h {VIP} -p {PORT} --cafile {TLS}/ca.crt --cert {TLS}/pub.crt --key {TLS}/pub.key -t {topic} -q {qos} -l"
        );
        let output = lab.exec("client", &["sh", "-c", &script]);
        assert!(output.status.success(), "{}", text(&output));
        for subscriber in &subscribers {
            for number in 1..=200 {
                assert_eq!(subscriber.next(), number.to_string(), "QoS {qos}");
            }
            assert_eq!(subscriber.next_within(Duration::from_millis(200)), None, "QoS {qos}: nothing twice");
        }
    }
}

#[test]
fn retained_message_is_on_both_brokers_and_goes_from_both() {
    let lab = Lab::up();
    let watch = [BROKER1, BROKER2].map(|broker| lab.subscribe_at(broker, &["-t", "kept", "-v"]));
    lab.publish(&["-t", "kept", "-m", "value", "-r", "-q", "1"]);
    for subscriber in &watch {
        assert_eq!(subscriber.next(), "kept value");
    }
    for broker in [BROKER1, BROKER2] {
        assert_eq!(lab.subscribe_at(broker, &["-t", "kept"]).next(), "value");
    }
    lab.publish(&["-t", "kept", "-n", "-r", "-q", "1"]);
    for (broker, subscriber) in [BROKER1, BROKER2].into_iter().zip(&watch) {
        assert_eq!(subscriber.next(), "kept (null)", "the deletion is a message too");
        assert_eq!(lab.subscribe_at(broker, &["-t", "kept"]).next_within(Duration::from_millis(200)), None);
    }
}

#[test]
fn will_of_a_killed_client_is_published_on_the_other_broker() {
    let lab = Lab::up();
    let listener = lab.subscribe_at(BROKER2, &["-t", "gone"]);
    let will = ["-t", "x", "--will-topic", "gone", "--will-payload", "bye", "--will-qos", "1"];
    drop(lab.subscribe_at(BROKER1, &will));
    assert_eq!(listener.next(), "bye");
}

#[test]
fn persistent_session_gets_what_was_published_while_away() {
    let lab = Lab::up();
    let session = ["-t", "away", "-q", "1", "-i", "keeper", "-c"];
    drop(lab.subscribe_at(BROKER1, &session));
    lab.publish(&["-t", "away", "-m", "missed you", "-q", "1"]);
    assert_eq!(lab.subscribe_at(BROKER1, &session).next(), "missed you");
}

#[test]
fn paho_speaks_both_versions_through_the_vip() {
    let lab = Lab::up();
    let (python, script) = (client::python(), client::script("paho_roundtrip.py"));
    for version in ["311", "5"] {
        let output = lab.exec("client", &[&python, &script, VIP, PORT, version, TLS]);
        assert!(output.status.success(), "paho-mqtt {version}: {}", text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ok");
    }
}

#[test]
fn own_clients_serve_where_nothing_else_is_installed() {
    let lab = Lab::up();
    let listener = lab.subscribe_at(BROKER2, &["-t", "own/#", "-v"]);
    let evermq = lab.path_of("evermq");
    let options = ["-h", VIP, "-p", PORT, "-t", "own/x", "-m", "hello", "-q", "2"];
    let tls = evermq_e2e::client::tls_options("client");
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let output = lab.exec("client", &[&[evermq.as_str(), "pub"], &options[..], &tls[..]].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(listener.next(), "own/x hello");

    let mut sub = vec![evermq.as_str(), "sub", "-h", VIP, "-p", PORT, "-t", "back", "-C", "1", "-W", "10"];
    sub.extend(&tls);
    let running = lab.spawn("client", &sub);
    lab.publish(&["-t", "back", "-m", "again", "-q", "1", "-r"]);
    let output = running.finish();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "again\n");
}
