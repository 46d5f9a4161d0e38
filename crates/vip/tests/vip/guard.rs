//! The guard: what happens to the VIP of a daemon that is killed, or frozen.

use std::time::{Duration, Instant};

use crate::net::watch::stays;
use crate::net::{CALM, Net, Options, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A skew of 52 ms, or a master-down interval of 0.7 s, on a machine that may be very busy.
const MOMENT: Duration = Duration::from_secs(3);

fn is_alive(pid: u32) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), None).is_ok()
}

#[test]
fn kill_9_hands_the_vip_over_and_leaves_no_address_behind() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let guard = lb1.guard().unwrap();
    let killed = Instant::now();
    lb1.kill();
    assert!(lb2.vip.wait(true) - killed < MOMENT);
    assert!(lb1.vip.wait(false) - killed < MOMENT);
    // By priority 0, not by silence.
    assert_eq!(lb2.logged(&["VRRP state", "to=master", "reason=master 10.77.0.1 left"]), 1);
    assert_eq!(lb1.logged(&["WARN", "evermq-vip was killed"]), 1);
    wait_for("the guard to end", || (!is_alive(guard)).then_some(()));
    lb1.start();
    lb1.wait_for_state("backup");
    stays("lb2 stays master", CALM, || lb2.vip.held() && !lb1.vip.held());
}

#[test]
fn a_killed_daemon_without_a_successor_leaves_nothing_either() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    lb2.lb.die();
    lb2.wait_for_state("initialize");
    let killed = Instant::now();
    lb1.kill();
    assert!(lb1.vip.wait(false) - killed < MOMENT);
}

#[test]
fn a_daemon_started_at_once_after_kill_9_is_not_disturbed_by_the_guard_of_before() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    lb2.lb.die();
    lb2.wait_for_state("initialize");
    lb1.kill();
    lb1.start();
    lb1.wait_for_state("master");
    wait_for("the VIP to go and come", || (lb1.vip.changes() >= 3 && lb1.vip.held()).then_some(()));
    let changes = lb1.vip.changes();
    stays("the VIP stays up", CALM, || lb1.vip.held() && lb1.vip.changes() == changes);
}

#[test]
fn a_frozen_daemon_loses_the_address_and_steps_back_when_it_wakes() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let frozen = Instant::now();
    lb1.signal(Signal::SIGSTOP);
    assert!(lb2.vip.wait(true) - frozen < MOMENT);
    assert!(lb1.vip.wait(false) - frozen < MOMENT, "the guard takes it away");
    assert_eq!(lb1.logged(&["WARN", "evermq-vip is frozen"]), 1);
    let before = lb2.state()["transitions"].as_array().unwrap().len();
    lb1.signal(Signal::SIGCONT);
    lb1.wait_for_state("backup");
    stays("lb2 stays master", CALM, || lb2.vip.held() && !lb1.vip.held());
    assert_eq!(lb1.logged(&["VRRP state", "from=master", "to=backup", "did not run for"]), 1);
    // An advertisement of priority 200 would have sent the lower lb2 back.
    assert_eq!(lb2.state()["transitions"].as_array().unwrap().len(), before);
}

#[test]
fn a_frozen_daemon_that_is_alone_takes_the_address_again_when_it_wakes() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    lb2.lb.die();
    lb2.wait_for_state("initialize");
    lb1.signal(Signal::SIGSTOP);
    lb1.vip.wait(false);
    lb1.signal(Signal::SIGCONT);
    lb1.vip.wait(true);
    lb1.wait_for_state("master");
}

#[test]
fn a_guard_that_dies_or_hangs_is_replaced_and_the_vip_stays() {
    let mut net = Net::new(Options::default());
    let [lb1, _, _] = net.start();
    let changes = lb1.vip.changes();
    let first = lb1.guard().unwrap();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
    let second = wait_for("another guard", || lb1.guard().filter(|guard| *guard != first));
    assert_eq!(lb1.logged(&["WARN", "the guard of the VIP is gone"]), 1);
    assert_eq!(lb1.vip.changes(), changes);
    // The new one knows what is held.
    wait_for("the new guard to be told", || (lb1.guard() == Some(second)).then_some(()));
    stays("the VIP stays up", CALM, || lb1.vip.held() && lb1.vip.changes() == changes);
    lb1.kill();
    lb1.vip.wait(false);
}

#[test]
fn a_clean_stop_ends_the_guard_and_a_signal_to_the_whole_group_does_not() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let guard = lb1.guard().unwrap();
    kill(Pid::from_raw(guard.cast_signed()), Signal::SIGTERM).unwrap();
    stays("the guard lives", CALM, || is_alive(guard) && lb1.vip.held());
    lb1.signal(Signal::SIGTERM);
    lb2.vip.wait(true);
    assert!(lb1.ended().success());
    wait_for("the guard to end", || (!is_alive(guard)).then_some(()));
    assert!(!lb1.log().contains("was killed"), "{}", lb1.log());
}
