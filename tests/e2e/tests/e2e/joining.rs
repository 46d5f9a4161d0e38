//! A broker is drained, leaves, comes back with nothing and joins, as an operator does it; clients of the other one notice none of it.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evermq_e2e::client::{tls_options, wait_ready};
use evermq_e2e::lab::text;
use evermq_e2e::{Lab, PORT, VIP, wait};
use serde_json::Value;

const FILE: &str = "/etc/evermq/evermq.toml";
const FIRST: (&str, &str) = ("198.18.0.21", "8883");
const SECOND: (&str, &str) = ("198.18.0.22", "8883");
/// Where clients come from that do not come by an lb.
const CLIENT: &str = "198.18.0.100:";
const PATIENCE: Duration = Duration::from_secs(30);

/// `evermq` in a host, which must succeed.
fn evermq(lab: &Lab, host: &str, words: &[&str]) -> String {
    let evermq = lab.path_of("evermq");
    let output = lab.exec(host, &[&[evermq.as_str()], words].concat());
    assert!(output.status.success(), "{host}: {words:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a line of the shell in these hosts, then has their programs read the file.
fn edit(lab: &Lab, hosts: &[&str], script: &str) {
    for host in hosts {
        let output = lab.exec(host, &["sh", "-c", script]);
        assert!(output.status.success(), "{host}: {}", text(&output));
        evermq(lab, host, &["reload"]);
    }
}

fn broker(lab: &Lab, host: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let state = || lab.state(host, "evermq-broker").filter(|state| wanted(state));
    wait::until(&format!("{host} is as it should be"), PATIENCE, state).0
}

/// Ends the publisher, also when what goes on beside it fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// mosquitto_pub sends numbers, every few milliseconds, until it is to end; how many they were.
fn publish_until(lab: &Lab, end: &AtomicBool) -> usize {
    let mut line: Vec<String> = ["mosquitto_pub", "-h", FIRST.0, "-p", FIRST.1, "-t", "numbers", "-q", "2", "-l"]
        .map(ToOwned::to_owned)
        .to_vec();
    line.extend(tls_options("pub"));
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let mut process = lab.command("client", &line).stdin(Stdio::piped()).spawn().expect("evermq can be run");
    let mut stdin = process.stdin.take().expect("piped");
    let mut count = 0;
    while !end.load(Ordering::SeqCst) {
        writeln!(stdin, "{count}").expect("mosquitto_pub reads");
        count += 1;
        std::thread::park_timeout(Duration::from_millis(5));
    }
    writeln!(stdin, "end").expect("mosquitto_pub reads");
    drop(stdin);
    let output = process.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output));
    count
}

/// Clients of the first broker that came to it directly, with the ports of their connections.
fn connected(lab: &Lab) -> Vec<(String, String)> {
    let shown = evermq(lab, "broker1", &["clients", "--all", "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = shown["clients"].as_array().expect("rows").iter();
    let rows = rows.map(|row| (word(row, "client"), word(row, "address")));
    rows.filter(|(_, address)| address.starts_with(CLIENT)).collect()
}

#[test]
fn a_broker_leaves_and_joins_and_clients_of_the_other_notice_nothing() {
    let lab = Lab::up();
    lab.wait_healthy();
    let active = lab.holder();
    let others = ["broker1", "lb1", "lb2"];
    let address = format!("{}:{}", FIRST.0, FIRST.1);
    let mut holding = lab.start_load(&["hold", "--connect", &address, "--clients", "30", "--duration", "60000"]);
    wait_ready(&mut holding);
    let numbers = lab.subscribe_at(FIRST, &["-t", "numbers", "-q", "2"]);
    let stay = connected(&lab);
    assert!(stay.len() > 30, "{stay:?}");
    let end = AtomicBool::new(false);
    let published = std::thread::scope(|scope| {
        let ending = End(&end);
        let publisher = scope.spawn(|| publish_until(&lab, &end));
        let _moving =
            lab.start_load(&["hold", "--connect", &format!("{VIP}:{PORT}"), "--clients", "30", "--duration", "60000"]);
        lab.publish(&["-t", "kept", "-m", "before", "-r", "-q", "1"]);

        evermq(&lab, "broker2", &["drain", "broker2", "--wait", "--rate", "500"]);
        let state = broker(&lab, "broker2", |state| state["drain"]["may_stop"] == true);
        assert_eq!(state["drain"]["state"], "drained", "{state}");
        lab.must(["stop", "broker2", "evermq-broker"]);
        let entry = "s/\\n\\[\\[hosts\\]\\]\\nname = \"broker2\"\\n[^\\n]*\\n[^\\n]*\\n/\\n/";
        edit(&lab, &others, &format!("cp {FILE} {FILE}.full && perl -0pi -e '{entry}' {FILE}"));
        broker(&lab, "broker1", |state| state["bridge"]["peers"].as_array().is_some_and(Vec::is_empty));

        // With nothing of what it had.
        let wiped = lab.exec("broker2", &["sh", "-c", "rm -r /etc/evermq/store"]);
        assert!(wiped.status.success(), "{}", text(&wiped));
        lab.must(["start", "broker2", "evermq-broker"]);
        edit(&lab, &others, &format!("cp {FILE}.full {FILE}"));
        let state = broker(&lab, "broker2", |state| state["readiness"] == "ready");
        assert_eq!(state["bridge"]["peers"][0]["filled"], true, "{state}");
        let kept = lab.subscribe_at(SECOND, &["-t", "kept", "-q", "1"]);
        assert_eq!(kept.next(), "before");
        let has_up = |state: &Value| {
            state["backends"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(|one| one["state"] == "up"))
        };
        wait::until("the lb has it", PATIENCE, || lab.state(active, "evermq-lb").filter(has_up));
        evermq(&lab, active, &["rebalance", "--rate", "500"]);
        broker(&lab, "broker2", |state| state["connections"].as_u64() > Some(10));
        drop(ending);
        publisher.join().expect("no panic")
    });
    let got: Vec<String> = std::iter::repeat_with(|| numbers.next()).take_while(|line| line != "end").collect();
    assert_eq!(got, (0..published).map(|number| number.to_string()).collect::<Vec<_>>(), "each once, in order");
    let now = connected(&lab);
    let lost: Vec<_> = stay.iter().filter(|connection| !now.contains(connection)).collect();
    assert!(lost.is_empty(), "nobody lost its connection: {lost:?}");
}
