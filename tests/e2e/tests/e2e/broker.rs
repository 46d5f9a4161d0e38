//! What an operator sees of a broker and does to it, with the programs as they are shipped.

use std::time::Duration;

use evermq_e2e::client::{tls_options, wait_ready};
use evermq_e2e::lab::text;
use evermq_e2e::{Lab, wait};
use serde_json::Value;

/// Where a broker serves in its own host.
const BROKER: (&str, &str) = ("198.18.0.21", "8883");

struct Desk<'a>(&'a Lab);

impl Desk<'_> {
    /// `evermq` in the broker's host, which must succeed.
    fn run(&self, words: &[&str]) -> String {
        let evermq = self.0.path_of("evermq");
        let command: Vec<&str> = std::iter::once(evermq.as_str()).chain(words.iter().copied()).collect();
        let output = self.0.exec("broker1", &command);
        assert!(output.status.success(), "{words:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn json(&self, words: &[&str]) -> Value {
        let shown = self.run(&[words, &["--json"]].concat());
        serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"))
    }
}

#[test]
fn an_operator_sees_clients_and_follows_and_closes_one() {
    let lab = Lab::up();
    lab.wait_healthy();
    let desk = Desk(&lab);
    let address = format!("{}:{}", BROKER.0, BROKER.1);
    let mut holding = lab.start_load(&["hold", "--connect", &address, "--clients", "20", "--duration", "60000"]);
    wait_ready(&mut holding);
    let subscriber =
        lab.subscribe_at(BROKER, &["-i", "watcher", "-V", "mqttv5", "-q", "1", "-t", "plant/#", "-F", "%t %p"]);

    let clients = desk.json(&["clients", "--all"]);
    let all = clients["clients"].as_array().expect("rows");
    assert!(all.len() > 20, "{clients:#}");
    let shown = desk.run(&["clients", "watcher"]);
    assert!(
        shown.contains("\nwatcher") && shown.contains(" 5.0 ") && shown.ends_with("broker1: 1 clients\n"),
        "{shown}"
    );
    let subscriptions = desk.json(&["subscriptions", "--topic", "plant/7"]);
    assert_eq!(subscriptions["subscriptions"][0]["client"], "watcher", "{subscriptions:#}");
    assert!(desk.run(&["clients", "--top", "--count", "1", "--limit", "3"]).contains("broker1: 3 of "));

    let evermq = lab.path_of("evermq");
    let traced = std::thread::scope(|scope| {
        let trace = scope.spawn(|| lab.exec("broker1", &[&evermq, "trace", "watcher", "--for", "3s"]));
        wait::until("the trace has ended by itself", Duration::from_secs(15), || {
            lab.publish(&["-t", "plant/7", "-m", "hello", "-r", "-q", "1"]);
            assert_eq!(subscriber.next(), "plant/7 hello");
            trace.is_finished().then_some(())
        });
        trace.join().expect("no panic")
    });
    let traced = String::from_utf8_lossy(&traced.stdout).into_owned();
    assert!(traced.contains(" > PUBLISH packet_id=") && traced.contains(" < PUBACK packet_id="), "{traced}");
    assert!(!traced.contains("hello"), "{traced}");

    let retained = desk.run(&["retained", "plant/#", "--values"]);
    assert!(retained.contains("plant/7") && retained.contains("hello"), "{retained}");
    desk.run(&["retained", "--delete", "plant/7", "--yes"]);
    assert!(desk.run(&["retained"]).ends_with("broker1: 0 retained messages\n"));
    assert_eq!(subscriber.next(), "plant/7 ");

    desk.run(&["kick", "watcher", "--reason", "enough", "--session"]);
    wait::until("it is gone, or back with a new session", Duration::from_secs(5), || {
        let sessions = desk.json(&["sessions", "watcher"]);
        (sessions["sessions"][0]["subscriptions"] != 1).then_some(())
    });
    let sys = lab.exec("client", &borrowed(&sys_command()));
    assert!(text(&sys).contains("evermq version "), "{}", text(&sys));
}

/// The broker's version out of `$SYS`, by mosquitto's client.
fn sys_command() -> Vec<String> {
    let mut command: Vec<String> = ["mosquitto_sub", "-h", BROKER.0, "-p", BROKER.1].map(ToOwned::to_owned).to_vec();
    command.extend(tls_options("sub"));
    command.extend(["-t", "$SYS/broker/version", "-C", "1", "-W", "10"].map(ToOwned::to_owned));
    command
}

fn borrowed(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}
