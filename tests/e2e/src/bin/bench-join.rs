//! A broker with an empty store joins another one that has 500 clients and 2,000 messages a second: who notices, what is lost,
//! and when the new one is ready. In the lab; leaves again after each run.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::time::Duration;

use evermq_e2e::client::{finish_load, wait_ready};
use evermq_e2e::lab::text;
use evermq_e2e::{Lab, wait};
use serde_json::Value;

const FILE: &str = "/etc/evermq/evermq.toml";
const FIRST: &str = "198.18.0.21:8883";
const OTHERS: [&str; 3] = ["broker1", "lb1", "lb2"];
const PATIENCE: Duration = Duration::from_secs(30);
/// Of 2,000 a second: ten seconds.
const MESSAGES: u64 = 20_000;

fn main() {
    let runs: usize = std::env::args().nth(1).and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let lab = Lab::up_with(&[]).unwrap_or_else(|said| panic!("evermq lab up: {said}"));
    lab.wait_healthy();
    println!(
        "500 clients and {MESSAGES} messages of 64 bytes at QoS 1, 2,000 a second, at broker1, while broker2 joins\n"
    );
    println!(
        "{:<5}{:>13}{:>10}{:>8}{:>10}{:>14}{:>14}{:>14}",
        "run", "disconnects", "received", "lost", "repeated", "joined ms", "ready ms", "lb uses it ms"
    );
    for run in 1..=runs {
        leave(&lab);
        measure(&lab, run);
    }
}

fn must(lab: &Lab, host: &str, command: &[&str]) {
    let output = lab.exec(host, command);
    assert!(output.status.success(), "{host}: {command:?}: {}", text(&output));
}

/// Another file for all but the one that comes and goes, put in force.
fn edit(lab: &Lab, script: &str) {
    for host in OTHERS {
        must(lab, host, &["sh", "-c", script]);
        must(lab, host, &[&lab.path_of("evermq"), "reload"]);
    }
}

fn leave(lab: &Lab) {
    must(lab, "broker2", &[&lab.path_of("evermq"), "drain", "broker2", "--wait"]);
    lab.must(["stop", "broker2", "evermq-broker"]);
    let entry = "s/\\n\\[\\[hosts\\]\\]\\nname = \"broker2\"\\n[^\\n]*\\n[^\\n]*\\n/\\n/";
    edit(lab, &format!("cp {FILE} {FILE}.full && perl -0pi -e '{entry}' {FILE}"));
    must(lab, "broker2", &["rm", "-r", "/etc/evermq/store"]);
}

fn measure(lab: &Lab, run: usize) {
    let mut holding = lab.start_load(&["hold", "--connect", FIRST, "--clients", "500", "--duration", "14000"]);
    wait_ready(&mut holding);
    let messages = MESSAGES.to_string();
    let flow =
        ["flow", "--publish", FIRST, "--subscribe", FIRST, "--qos", "1", "--rate", "2000", "--messages", &messages];
    let flowing = lab.start_load(&flow);
    let taken = || lab.state("broker1", "evermq-broker").and_then(|state| state["messages"]["from_clients"].as_u64());
    let before = taken().unwrap_or(0);
    wait::until("messages flow", PATIENCE, || taken().filter(|taken| *taken > before + 2_000));

    let begun = wait::now();
    let since = || begun.elapsed().as_millis();
    lab.must(["start", "broker2", "evermq-broker"]);
    edit(lab, &format!("cp {FILE}.full {FILE}"));
    let is_ready = || lab.state("broker2", "evermq-broker").filter(|state| state["readiness"] == "ready");
    wait::until("broker2 is ready", PATIENCE, is_ready);
    let ready = since();
    let active = lab.holder();
    wait::until("the lb uses it", PATIENCE, || lab.state(active, "evermq-lb").filter(uses_both));
    let used = since();

    let flowed = finish_load(flowing);
    let held = finish_load(holding);
    let number = |key: &str| flowed[key].as_u64().unwrap_or(0);
    println!(
        "{run:<5}{:>13}{:>10}{:>8}{:>10}{:>14}{ready:>14}{used:>14}",
        held["outages"].as_array().map_or(0, Vec::len),
        number("received"),
        number("expected").saturating_sub(number("received")),
        number("repeated"),
        joined(lab).unwrap_or_default(),
    );
}

fn uses_both(state: &Value) -> bool {
    let backends = state["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    backends.len() == 2 && backends.iter().all(|backend| backend["state"] == "up")
}

/// What the broker itself says: from its start until it had what the other one has.
fn joined(lab: &Lab) -> Option<String> {
    let logs = lab.must(["logs", "broker2"]);
    let logs = text(&logs);
    let line = logs.lines().rev().find(|line| line.contains("joined the cluster"))?;
    let rest = line.split("milliseconds=").nth(1)?;
    Some(rest.chars().take_while(char::is_ascii_digit).collect())
}
