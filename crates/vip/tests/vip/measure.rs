//! Figures, not checks: how long the VIP is away, and what the program costs.
//!
//! ```sh
//! cargo test --release -p evermq-vip --test vip measure:: -- --ignored --nocapture --test-threads 1
//! ```

#![expect(clippy::print_stdout, reason = "the figures are what this is for")]

use std::fs;
use std::time::{Duration, Instant};

use crate::net::{self, Host, Net, Options};
use nix::sys::signal::Signal;

const ROUNDS: usize = 21;

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |time: &Duration| time.as_secs_f64() * 1000.0;
    let (median, least, most) = (&times[times.len() / 2], &times[0], &times[times.len() - 1]);
    println!("{what}: median {:.1} ms, {:.1} to {:.1}, {} rounds", ms(median), ms(least), ms(most), times.len());
}

#[test]
#[ignore = "a measurement: run it alone, see above"]
fn time_from_the_fault_to_the_vip_on_the_other_host() {
    let mut net = Net::new(Options { interval: "20ms", ..Options::default() });
    let [lb1, lb2, _] = net.start();
    let (mut active, mut standby) = (lb1, lb2);
    let mut each = |what: &str, fault: fn(&mut Host), mend: fn(&mut Host)| {
        let times = (0..ROUNDS).map(|_| {
            let at = Instant::now();
            fault(active);
            let away = standby.vip.wait(true) - at;
            mend(active);
            active.vip.wait(false);
            active.wait_for_state("backup");
            // Past the penalty for flapping health, so that each round is a host at its own rank.
            net::wait_for("full rank", || (active.state()["effective_priority"] != 1).then_some(()));
            std::mem::swap(&mut active, &mut standby);
            away
        });
        show(what, times.collect());
    };
    each("lb dead (end of file)", |host| host.lb.die(), |host| host.lb.up());
    each("cable out", |host| host.cable("down"), |host| host.cable("up"));
    each("vip kill -9", Host::kill, Host::start);
    each(
        "vip SIGTERM",
        |host| host.signal(Signal::SIGTERM),
        |host| {
            assert!(host.ended().success());
            host.start();
        },
    );
}

#[test]
#[ignore = "a measurement: run it alone, see above"]
fn cpu_and_memory_at_ten_milliseconds() {
    let mut net = Net::new(Options { interval: "10ms", ..Options::default() });
    let [lb1, lb2, _] = net.start();
    // In nanoseconds, all threads; the tick counters of /proc/PID/stat are too coarse for so little.
    let used = |host: &Host| -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
        threads
            .map(|thread| fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap())
            .map(|schedstat| schedstat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9)
            .sum()
    };
    let before = [used(lb1), used(lb2)];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        std::thread::park_timeout(Duration::from_secs(20).saturating_sub(start.elapsed()));
    }
    for (host, before) in [lb1, lb2].into_iter().zip(before) {
        let share = (used(host) - before) / start.elapsed().as_secs_f64() * 100.0;
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        println!("{}: {share:.2} % of a core, {}, {}", host.state()["state"], line("VmRSS"), line("VmLck"));
    }
}
