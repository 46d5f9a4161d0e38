//! One publisher to one subscriber on the other broker, mutual TLS, 64-byte payload: EverMQ through its VIP and load balancer,
//! beside two mosquitto brokers joined by a bridge, in the same hosts, in turn.
//!
//! mosquitto is spared the load balancer: its clients connect to the brokers directly.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::Path;
use std::time::Duration;

use evermq_e2e::lab::Running;
use evermq_e2e::{Lab, PORT, VIP, wait};
use serde_json::Value;

const RUNS: usize = 3;
const MESSAGES: u64 = 200_000;
/// Kernel clock ticks in a second, fixed for Linux user space.
const TICKS: f64 = 100.0;

fn main() {
    let lab = Lab::up_with(&[]).unwrap_or_else(|said| panic!("evermq lab up: {said}"));
    let _brokers = mosquitto(&lab);
    let vip = format!("{VIP}:{PORT}");
    println!("{MESSAGES} messages of 64 bytes, {RUNS} runs each in turn, medians\n");
    println!("{:<6}{:<12}{:>14}{:>18}{:>12}{:>10}", "QoS", "", "received/s", "CPU us/message", "received", "repeated");
    for qos in ["0", "1"] {
        let mut rows: [Vec<Row>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            rows[0].push(measure(&lab, &["evermq-broker", "evermq-lb"], &vip, &vip, qos));
            rows[1].push(measure(&lab, &["mosquitto"], "198.18.0.21:18883", "198.18.0.22:18883", qos));
        }
        let [ours, theirs] = rows.map(median);
        print(qos, "EverMQ", &ours);
        print(qos, "mosquitto", &theirs);
        println!("{:<6}{:<12}{:>13.2}x{:>17.2}x", qos, "ratio", ours.rate / theirs.rate, ours.cpu_us / theirs.cpu_us);
    }
}

/// One run's figures.
struct Row {
    rate: f64,
    cpu_us: f64,
    received: f64,
    repeated: f64,
}

fn print(qos: &str, name: &str, row: &Row) {
    println!(
        "{:<6}{:<12}{:>14.0}{:>18.2}{:>12.0}{:>10.0}",
        qos, name, row.rate, row.cpu_us, row.received, row.repeated
    );
}

/// The run of median rate.
fn median(mut rows: Vec<Row>) -> Row {
    rows.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rows.swap_remove(rows.len() / 2)
}

fn measure(lab: &Lab, programs: &[&str], publish: &str, subscribe: &str, qos: &str) -> Row {
    let before = cpu_seconds(programs);
    let messages = MESSAGES.to_string();
    let result =
        lab.load(&["flow", "--publish", publish, "--subscribe", subscribe, "--qos", qos, "--messages", &messages]);
    let number = |key: &str| result.get(key).and_then(Value::as_f64).expect("a number");
    let received = number("received").max(1.0);
    Row {
        rate: number("received_per_second"),
        cpu_us: (cpu_seconds(programs) - before) * 1e6 / received,
        received,
        repeated: number("repeated"),
    }
}

/// User and system time of every process with one of the names.
fn cpu_seconds(programs: &[&str]) -> f64 {
    let mut ticks = 0_u64;
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        let name = head.split_once('(').map_or("", |(_, name)| name);
        if programs.contains(&name) {
            // Fields 14 and 15 of proc_pid_stat(5); `tail` begins with field 3.
            ticks += tail.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand ticks")]
    let ticks = ticks as f64;
    ticks / TICKS
}

/// Two mosquitto brokers in the brokers' hosts, joined by a bridge as the setup that EverMQ replaces joins them.
fn mosquitto(lab: &Lab) -> [Running; 2] {
    let directory = tempfile::tempdir().expect("a directory").keep();
    let start = |host: &str, extra: &str| {
        let config = format!(
            "listener 18883\ncafile /etc/evermq/tls/ca.crt\ncertfile /etc/evermq/tls/{host}.crt\n\
             keyfile /etc/evermq/tls/{host}.key\nrequire_certificate true\nallow_anonymous true\nuser root\n\
             listener 11883\nallow_anonymous true\nmax_queued_messages 0\n{extra}"
        );
        let path = directory.join(host);
        std::fs::write(&path, config).expect("writable");
        lab.spawn(host, &["mosquitto", "-c", &path.display().to_string()])
    };
    let second = start("broker2", "");
    let first = start("broker1", "connection mesh\naddress 198.18.0.22:11883\ntopic # both 2 \"\" \"\"\n");
    wait::until("the mosquitto bridge passes messages", Duration::from_secs(15), || {
        let line = ["flow", "--publish", "198.18.0.21:18883", "--subscribe", "198.18.0.22:18883", "--messages", "10"];
        let output = lab.start_load(&[&line[..], &["--qos", "1", "--patience", "1"]].concat()).finish();
        let result: Value = serde_json::from_slice(&output.stdout).ok()?;
        (result["received"] == 10).then_some(())
    });
    // The brokers have read their files.
    let _ = std::fs::remove_dir_all::<&Path>(directory.as_ref());
    [first, second]
}
