//! What clients were told, beside what became of it, while the brokers, their hosts, cables and disks fail by chance.
//!
//! The clients are paho-mqtt's (`tests/clients/mesh_history.py`); they say what must be true at the end. What fails, when and
//! for how long comes from one number, which a failure names: `EVERMQ_SEED=N` does the same again, as far as moments that
//! the machine chooses allow. `make soak` goes on for an hour.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use evermq_e2e::client::TLS;
use evermq_e2e::lab::STEADY;
use evermq_e2e::{Lab, client, wait};

const BROKERS: [&str; 2] = ["broker1", "broker2"];
const ADDRESSES: [&str; 2] = ["198.18.0.21", "198.18.0.22"];
const PROGRAM: &str = "evermq-broker";
/// The store is on a file system of the host's own, of 64 MiB, which can be filled. Nothing may be dropped for its number.
const SETTINGS: [&str; 4] = [
    "broker.store.path=/run/evermq/store",
    "broker.store.segment_size=1MiB",
    "broker.max_queued_messages=1000000",
    "broker.max_queued_bytes=1GiB",
];
/// How long things fail in a run of `make test`.
const BRIEF: Duration = Duration::from_secs(20);

/// What can be chosen, from one number.
struct Chance(u64);

impl Chance {
    /// A number below `bound`; splitmix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).expect("an index")]
    }

    fn pause(&mut self, least: u64, most: u64) {
        wait::pause(Duration::from_millis(least + self.below(most - least)));
    }
}

/// Something fails and is mended; what it was.
fn fail(lab: &Lab, chance: &mut Chance) -> String {
    let broker = chance.one_of(&BROKERS);
    match chance.below(6) {
        0 => {
            lab.signal(broker, PROGRAM, "KILL");
            chance.pause(0, 2_000);
            lab.must(["start", broker, PROGRAM]);
            format!("{broker} killed")
        }
        1 => {
            BROKERS.iter().for_each(|broker| lab.signal(broker, PROGRAM, "KILL"));
            chance.pause(0, 500);
            BROKERS.iter().rev().for_each(|broker| drop(lab.must(["start", broker, PROGRAM])));
            "both killed".to_owned()
        }
        2 => {
            lab.signal(broker, PROGRAM, "STOP");
            chance.pause(100, 4_000);
            lab.signal(broker, PROGRAM, "CONT");
            format!("{broker} frozen")
        }
        3 => {
            lab.must(["cable", broker, "off"]);
            chance.pause(100, 4_000);
            lab.must(["cable", broker, "on"]);
            format!("{broker} without its cable")
        }
        4 => {
            lab.must(["cut", "broker1", "broker2"]);
            chance.pause(100, 4_000);
            lab.must(["heal", "broker1"]);
            "both cut off from each other".to_owned()
        }
        _ => {
            let full = lab.exec(broker, &["sh", "-c", "dd if=/dev/zero of=/run/full bs=64k 2>&1; df /run"]);
            assert!(String::from_utf8_lossy(&full.stdout).contains("100%"), "{}", evermq_e2e::lab::text(&full));
            chance.pause(100, 3_000);
            assert!(lab.exec(broker, &["rm", "/run/full"]).status.success());
            format!("{broker}'s disk full")
        }
    }
}

fn run(time: Duration, seed: u64) {
    let lab = Lab::up_with(&[&STEADY[..], &SETTINGS].concat()).unwrap_or_else(|said| panic!("evermq lab up: {said}"));
    let script = client::script("mesh_history.py");
    let mut command = lab.command("client", &[&client::python(), &script, TLS, ADDRESSES[0], ADDRESSES[1]]);
    let mut clients = command.stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("evermq can be run");
    let mut lines = BufReader::new(clients.stdout.take().expect("piped")).lines();
    let mut line = move || lines.next().map(|line| line.expect("text"));
    assert_eq!(line().as_deref(), Some("ready"));

    let mut chance = Chance(seed);
    let mut failed = Vec::new();
    let begin = wait::now();
    while begin.elapsed() < time {
        chance.pause(200, 1_500);
        let at = begin.elapsed();
        let what = fail(&lab, &mut chance);
        failed.push(format!("{:.1} to {:.1} s: {what}", at.as_secs_f64(), begin.elapsed().as_secs_f64()));
        #[expect(clippy::print_stderr, reason = "a soak's progress")]
        if time > BRIEF {
            eprintln!("{}", failed[failed.len() - 1]);
        }
    }
    lab.wait_healthy();
    clients.stdin.take().expect("piped").write_all(b"\n").expect("they read");
    let verdict = line().unwrap_or_default();
    let status = clients.wait().expect("they end");
    let replay = format!("EVERMQ_SEED={seed} does it again; what failed: {failed:#?}");
    assert!(status.success(), "{status}: {verdict}\n{replay}");
    let verdict: serde_json::Value = serde_json::from_str(&verdict).expect("JSON");
    assert!(verdict["acknowledged"].as_u64() > Some(500), "{verdict}\n{replay}");
    #[expect(clippy::print_stderr, reason = "what a soak has seen")]
    if time > BRIEF {
        eprintln!("{verdict}");
    }
}

/// The variable's number.
fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {text:?}")))
}

fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    given("EVERMQ_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000)
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_whatever_fails() {
    run(BRIEF, seed());
}

#[test]
#[ignore = "as long as one likes: `make soak`"]
fn soak() {
    run(Duration::from_secs(given("EVERMQ_SECONDS").unwrap_or(3_600)), seed());
}
