//! The VIP only with the votes of most hosts: two lb hosts that are cut off from each other, from the brokers, from all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::net::watch::stays;
use crate::net::{CALM, Host, Net, Options, run, wait_for};
use evermq_config::Cluster;
use evermq_quorum::{VoterThread, voter_thread};
use nix::sys::signal::Signal;

/// A lease of half a second, a takeover of 0.7 s, and a busy machine.
const BOUND: Duration = Duration::from_secs(4);

/// Both lb hosts with `quorum = true`, and both brokers' votes: their addresses are the client's.
fn start(net: &mut Net) -> ([&mut Host; 3], [VoterThread; 2]) {
    let hosts = net.hosts();
    for host in &hosts {
        // The voters in this process are not in real time: on a busy machine they may answer late.
        host.set_vip("quorum = true\nquorum_lease = \"500ms\"");
        let key = host.file_beside("heartbeat.key");
        fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let client = &hosts[2];
    let voters = [("broker1", "10.77.0.8"), ("broker2", "10.77.0.9")].map(|(name, address)| {
        run("ip", &["-n", &client.namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        let loaded = evermq_config::load(&client.file_beside("evermq.toml")).unwrap();
        let config = Cluster::broker_for(&loaded.cluster, name).unwrap().quorum.unwrap();
        client.inside(move || voter_thread(&config).unwrap())
    });
    (net.start(), voters)
}

#[test]
fn cut_off_from_each_other_only_they_settle_on_one_holder() {
    let mut net = Net::new(Options::default());
    let ([lb1, lb2, _], _voters) = start(&mut net);
    let state = lb1.state();
    assert_eq!((&state["quorum"]["majority"], &state["quorum"]["reachable"]), (&3.into(), &4.into()));
    let transitions = lb2.state()["transitions"].as_array().unwrap().len();
    // What each sends to the other is dropped: both still reach the brokers.
    for (host, peer) in [(&*lb1, &*lb2), (&*lb2, &*lb1)] {
        let route = ["-n", &host.namespace, "route", "add", "blackhole", &format!("{}/32", peer.address)];
        run("ip", &route);
    }
    stays("lb1 holds it and lb2 does not", 2 * CALM, || lb1.vip.held() && !lb2.vip.held());
    assert_eq!(lb2.state()["transitions"].as_array().unwrap().len(), transitions);
    // The holder's end frees the votes.
    lb1.lb.die();
    lb2.vip.wait(true);
    lb1.vip.wait(false);
}

#[test]
fn a_holder_that_is_cut_off_from_all_gives_the_vip_up_and_another_takes_it() {
    let mut net = Net::new(Options::default());
    let ([lb1, lb2, _], _voters) = start(&mut net);
    let cut = Instant::now();
    lb1.cut(true);
    assert!(lb1.vip.wait(false) - cut < BOUND);
    assert!(lb2.vip.wait(true) - cut < BOUND);
    assert_eq!(lb1.logged(&["VRRP state", "from=master", "most of the cluster is out of reach"]), 1);
    lb1.cut(false);
    stays("lb2 keeps it", CALM, || lb2.vip.held() && !lb1.vip.held());
}

#[test]
fn without_a_majority_nobody_takes_it() {
    let mut net = Net::new(Options::default());
    let ([lb1, lb2, _], [one, two]) = start(&mut net);
    one.stop();
    stays("three of four are enough", CALM, || lb1.vip.held());
    two.stop();
    lb1.vip.wait(false);
    stays("two of four are not", CALM, || !lb1.vip.held() && !lb2.vip.held());
}

#[test]
fn a_frozen_holder_has_let_go_when_its_lease_is_over() {
    let mut net = Net::new(Options { interval: "500ms", ..Options::default() });
    let ([lb1, lb2, _], _voters) = start(&mut net);
    let frozen = Instant::now();
    lb1.signal(Signal::SIGSTOP);
    // By silence alone it would take two seconds.
    let gone = lb1.vip.wait(false);
    assert!(gone - frozen < Duration::from_millis(1900));
    assert!(lb2.vip.wait(true) > gone);
    lb1.signal(Signal::SIGCONT);
    wait_for("lb1 to step back", || (lb1.state()["state"] == "backup").then_some(()));
    assert!(!lb1.vip.held() && lb2.vip.held());
}
