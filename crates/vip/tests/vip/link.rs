//! The interface of the VIP goes down, comes back, is removed and made again.

use std::time::{Duration, Instant};

use crate::net::watch::stays;
use crate::net::{CALM, Net, Options, run, wait_for};

/// Far above the master-down interval of 0.7 s, on a machine that may be very busy as well.
const TAKEOVER: Duration = Duration::from_secs(3);

#[test]
fn a_pulled_cable_is_noticed_at_once_and_a_host_that_is_back_waits_for_its_turn() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let pulled = Instant::now();
    lb1.cable("down");
    assert!(lb2.vip.wait(true) - pulled < TAKEOVER);
    lb1.vip.wait(false);
    let state = lb1.wait_for_state("initialize");
    assert_eq!(state["reason"], "the interface of the VIP is down");
    assert_eq!(state["effective_priority"], serde_json::Value::Null);
    lb1.cable("up");
    lb1.wait_for_state("backup");
    // What was on its way when the cable was pulled may reach lb2 late.
    stays("lb1 waits for its turn", CALM, || !lb1.vip.held());
    lb2.vip.wait(true);
    assert_eq!(lb1.logged(&["WARN", "interface is down"]), 1);
    assert_eq!(lb1.logged(&["INFO", "interface is up again"]), 1);
}

#[test]
fn an_interface_that_is_removed_and_made_again_takes_part_again() {
    let mut net = Net::new(Options { preempt: true, ..Options::default() });
    let [lb1, lb2, _] = net.start();
    let namespace = lb1.namespace.clone();
    lb1.unplug();
    lb2.vip.wait(true);
    assert_eq!(lb1.wait_for_state("initialize")["reason"], "the interface of the VIP is down");
    assert_eq!(lb1.logged(&["WARN", "interface was removed"]), 1);
    lb1.plug();
    // Sockets are of no use before the host has its address again.
    let shown = lb1.command("ip").args(["-oneline", "link"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("eth0"));
    run("ip", &["-n", &namespace, "address", "add", &format!("{}/24", lb1.address), "dev", "eth0"]);
    run("ip", &["-n", &namespace, "link", "set", "eth0", "up"]);
    // With preemption the better host gets the VIP back.
    lb1.vip.wait(true);
    lb2.vip.wait(false);
    lb1.wait_for_state("master");
    assert_eq!(lb1.logged(&["INFO", "interface is back"]), 1);
    wait_for("lb2 to hear lb1", || (lb2.state()["master"] == "10.77.0.1").then_some(()));
}
