//! Outage by fault, default settings, medians of several runs, each in a fresh lab.
//!
//! *New connections*: the longest time between two successes of a fresh TCP + mutual TLS + CONNECT every 5 ms, so it holds one
//! such attempt. *Established*: from the fault until the slowest of 20 clients, each with a PINGREQ every 200 ms, is connected
//! and subscribed again.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evermq_e2e::client::{finish_load, wait_ready};
use evermq_e2e::{Lab, PORT, VIP, wait};
use serde_json::Value;

/// What breaks.
struct Fault {
    name: &'static str,
    strike: fn(&Lab, active: &str),
}

const FAULTS: [Fault; 7] = [
    Fault { name: "active lb host dead (cable out)", strike: |lab, active| lab.kill(active) },
    Fault { name: "evermq-lb killed (-9)", strike: |lab, active| lab.signal(active, "evermq-lb", "KILL") },
    Fault { name: "evermq-lb frozen (SIGSTOP)", strike: |lab, active| lab.signal(active, "evermq-lb", "STOP") },
    Fault { name: "evermq-vip killed (-9)", strike: |lab, active| lab.signal(active, "evermq-vip", "KILL") },
    Fault { name: "evermq-vip stopped (SIGTERM)", strike: |lab, active| lab.signal(active, "evermq-vip", "TERM") },
    Fault { name: "evermq-broker killed (-9)", strike: |lab, _| lab.signal("broker1", "evermq-broker", "KILL") },
    Fault { name: "broker host dead (cable out)", strike: |lab, _| lab.kill("broker1") },
];

fn main() {
    let runs = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5_usize);
    let wanted = std::env::args().nth(2).unwrap_or_default();
    println!("{runs} runs each, ms: median (least to most)\n");
    println!("{:<34} {:>28} {:>28} {:>10}", "fault", "new connections: gap", "established: back after", "closed");
    for fault in FAULTS.iter().filter(|fault| fault.name.contains(&wanted)) {
        let (mut gaps, mut backs, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            let lab = Lab::up_with(&[]).unwrap_or_else(|said| panic!("evermq lab up: {said}"));
            gaps.push(gap(&lab, fault));
            drop(lab);
            let lab = Lab::up_with(&[]).unwrap_or_else(|said| panic!("evermq lab up: {said}"));
            let (count, back) = established(&lab, fault);
            closed.push(count);
            backs.extend(back);
        }
        println!(
            "{:<34} {:>28} {:>28} {:>10}",
            fault.name,
            spread(gaps),
            spread(backs),
            spread(closed).split(' ').next().unwrap_or_default()
        );
    }
}

fn gap(lab: &Lab, fault: &Fault) -> f64 {
    let address = format!("{VIP}:{PORT}");
    let active = lab.holder();
    let probe = lab.start_load(&["probe", "--connect", &address, "--duration", "4000", "--interval", "5"]);
    wait::pause(Duration::from_millis(1_500));
    (fault.strike)(lab, active);
    finish_load(probe)["longest_gap_ms"].as_f64().expect("a number")
}

/// How many of 20 clients were closed, and the slowest one's time from the fault until it was back, if all were.
fn established(lab: &Lab, fault: &Fault) -> (f64, Option<f64>) {
    let address = format!("{VIP}:{PORT}");
    let active = lab.holder();
    let mut holding = lab.start_load(&["hold", "--connect", &address, "--duration", "5000"]);
    wait_ready(&mut holding);
    wait::pause(Duration::from_millis(500));
    let struck = wall();
    (fault.strike)(lab, active);
    let result = finish_load(holding);
    let outages = result["outages"].as_array().cloned().unwrap_or_default();
    let backs: Option<Vec<f64>> = outages.iter().map(|outage| outage["back_ms"].as_f64()).collect();
    let slowest = backs.and_then(|backs| backs.into_iter().max_by(f64::total_cmp)).map(|back| back - struck);
    let count = u32::try_from(outages.iter().filter(|outage| outage["closed_ms"] != Value::Null).count());
    (f64::from(count.expect("few")), slowest)
}

fn wall() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "compared with another process's times")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => "-".to_owned(),
        [first, .., last] => format!("{:.0} ({first:.0} to {last:.0})", values[values.len() / 2]),
        [only] => format!("{only:.0}"),
    }
}
