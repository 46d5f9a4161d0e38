//! Beside keepalived on one network, by multicast and by unicast: elections both ways, and hand-over both ways.

#![expect(clippy::disallowed_methods, reason = "these tests use real time")]

mod net;

use std::process::Command;
use std::time::{Duration, Instant};

use net::watch::stays;
use net::{Net, Options};
use nix::sys::signal::Signal;

/// keepalived's own hand-over of a priority 0 takes its skew of 8 ms; silence would take 68.
const HANDOVER: Duration = Duration::from_secs(1);
const CALM: Duration = Duration::from_millis(500);

/// lb1 runs evermq-vip at priority 200, lb2 keepalived at `priority`.
fn beside(adverts: &'static str, priority: u8, body: impl Fn(&mut net::Host, &mut net::Host)) {
    assert!(
        Command::new("keepalived").arg("--version").output().is_ok(),
        "this test needs keepalived (apt install keepalived)"
    );
    let mut net = Net::new(Options { adverts, ..Options::default() });
    let [lb1, lb2, _] = net.hosts();
    lb1.lb.up();
    lb1.start();
    lb1.vip.wait(true);
    lb2.start_keepalived(priority, (adverts == "unicast").then_some(lb1.address));
    body(lb1, lb2);
}

#[test]
fn keepalived_of_lower_priority_stays_backup_and_takes_over_at_once_when_we_leave() {
    for adverts in ["multicast", "unicast"] {
        beside(adverts, 150, |lb1, lb2| {
            net::wait_for("keepalived to start", || lb2.log().contains("Entering BACKUP STATE").then_some(()));
            stays("keepalived hears our adverts", CALM, || lb1.vip.held() && !lb2.vip.held());
            let told = Instant::now();
            lb1.signal(Signal::SIGTERM);
            assert!(lb2.vip.wait(true) - told < HANDOVER);
            assert!(lb1.ended().success());
            lb1.vip.wait(false);
            // Back again: without preemption keepalived keeps it.
            lb1.start();
            lb1.wait_for_state("backup");
            stays("we hear keepalived's adverts", CALM, || lb2.vip.held() && !lb1.vip.held());
            assert_eq!(lb1.state()["master"], "10.77.0.2");
            assert_eq!(lb1.state()["counters"]["checksum_errors"], 0);
        });
    }
}

#[test]
fn keepalived_of_higher_priority_preempts_and_hands_over_to_us() {
    for adverts in ["multicast", "unicast"] {
        beside(adverts, 250, |lb1, lb2| {
            lb2.vip.wait(true);
            lb1.vip.wait(false);
            lb1.wait_for_state("backup");
            net::wait_for("us to hear keepalived", || (lb1.state()["master"] == "10.77.0.2").then_some(()));
            stays("keepalived is master", CALM, || lb2.vip.held() && !lb1.vip.held());
            let told = Instant::now();
            lb2.signal(Signal::SIGTERM);
            assert!(lb1.vip.wait(true) - told < HANDOVER);
            lb2.vip.wait(false);
            assert_eq!(lb1.logged(&["VRRP state", "to=master", "reason=master 10.77.0.2 left"]), 1);
            lb2.ended();
        });
    }
}

#[test]
fn keepalived_of_equal_priority_and_higher_address_wins() {
    // keepalived preempts only a lower priority, so both start at once: cut apart, then joined.
    beside("multicast", 200, |lb1, lb2| {
        lb1.cable("down");
        lb2.vip.wait(true);
        lb1.cable("up");
        lb1.vip.wait(false);
        stays("the higher address is master", CALM, || lb2.vip.held() && !lb1.vip.held());
    });
}
