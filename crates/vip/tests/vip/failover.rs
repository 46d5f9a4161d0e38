//! The real program in network namespaces: who holds the VIP after each fault.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::net::watch::{settled, stays};
use crate::net::{self, CALM, INTERVAL, Net, Options, VIP, run, wait_for};
use evermq_config::vip::{Checksum, VrrpVersion};
use evermq_vip::packet::{self, Identity, MAX_LENGTH};
use nix::sys::signal::Signal;

/// Far above the master-down interval of 0.7 s, on a machine that may be very busy as well.
const TAKEOVER: Duration = Duration::from_secs(3);

#[test]
fn the_first_start_gives_the_vip_to_the_higher_priority_and_says_so() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let state = lb1.state();
    assert_eq!(state["host"], "lb1");
    assert_eq!(state["vip"], "10.77.0.100");
    assert_eq!(state["interface"], "eth0");
    assert_eq!((&state["priority"], &state["effective_priority"]), (&200.into(), &200.into()));
    assert_eq!(state["reason"], "the local lb is up");
    assert_eq!(state["master"], "10.77.0.1");
    assert_eq!(state["transitions"][0]["from"], "initialize");
    assert_eq!(lb1.logged(&["INFO", "VRRP state", "from=backup", "to=master", "reason="]), 1);
    wait_for("lb2 to hear lb1", || (lb2.state()["master"] == "10.77.0.1").then_some(()));
    assert!(lb2.state()["counters"]["advertisement_rcvd"].as_u64().unwrap() > 0);
    let address = lb1.command("ip").args(["-oneline", "address", "show", "dev", "eth0"]).output().unwrap();
    let address = String::from_utf8(address.stdout).unwrap();
    let line = address.lines().find(|line| line.contains("10.77.0.100/32")).unwrap();
    assert!(line.contains("scope global") && line.contains("noprefixroute"), "{line}");
}

#[test]
fn without_an_lb_nobody_holds_the_vip() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    lb1.start();
    lb2.start();
    lb1.wait_for_state("initialize");
    lb2.wait_for_state("initialize");
    stays("nobody holds the VIP", CALM, || !lb1.vip.held() && !lb2.vip.held());
    lb2.lb.up();
    lb2.vip.wait(true);
}

#[test]
fn a_daemon_killed_with_its_guard_leaves_the_vip_and_a_restart_removes_it() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    lb1.kill_guard();
    let killed = Instant::now();
    lb1.kill();
    assert!(lb2.vip.wait(true) - killed < TAKEOVER);
    assert!(lb1.vip.held(), "nobody was there to remove it");
    lb1.lb.die();
    lb1.start();
    lb1.vip.wait(false);
    lb1.lb.up();
    lb1.wait_for_state("backup");
    stays("without preemption lb2 stays master", CALM, || lb2.vip.held() && !lb1.vip.held());
    assert_eq!(lb1.logged(&["WARN", "left behind"]), 1);
}

#[test]
fn release_removes_a_vip_that_stayed_behind_from_any_interface() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    run("ip", &["-n", &lb1.namespace, "address", "add", "10.77.0.100/24", "dev", "eth0"]);
    run("ip", &["-n", &lb1.namespace, "address", "add", "10.77.0.100/32", "dev", "lo"]);
    for _ in 0..2 {
        assert!(lb1.evermq_vip().arg("--release").status().unwrap().success());
        let left = lb1.command("ip").args(["-oneline", "address"]).output().unwrap();
        assert!(!String::from_utf8(left.stdout).unwrap().contains("10.77.0.100"));
    }
}

#[test]
fn a_host_that_is_cut_off_loses_the_vip_to_another_and_joining_leaves_one_holder() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let cut = Instant::now();
    lb1.cut(true);
    assert!(lb2.vip.wait(true) - cut < TAKEOVER);
    lb1.cut(false);
    lb2.vip.wait(false);
    assert!(lb1.vip.held(), "of two masters the one of higher priority stays");
    lb2.wait_for_state("backup");
}

#[test]
fn the_lbs_end_hands_the_vip_over_with_priority_0() {
    for adverts in ["unicast", "multicast"] {
        let mut net = Net::new(Options { adverts, ..Options::default() });
        let [lb1, lb2, _] = net.start();
        let died = Instant::now();
        lb1.lb.die();
        assert!(lb2.vip.wait(true) - died < TAKEOVER);
        lb1.vip.wait(false);
        let state = lb1.wait_for_state("initialize");
        assert_eq!(state["reason"], "the local lb is gone");
        assert_eq!(state["effective_priority"], serde_json::Value::Null);
        assert_eq!(state["counters"]["priority_zero_pkts_sent"], 1);
        assert_eq!(lb2.state()["counters"]["priority_zero_pkts_rcvd"], 1);
        assert_eq!(lb1.logged(&["INFO", "VRRP state", "from=master", "to=initialize"]), 1);
        assert_eq!(lb2.logged(&["INFO", "VRRP state", "from=backup", "to=master", "reason=master 10.77.0.1 left"]), 1);
        lb1.lb.up();
        lb1.wait_for_state("backup");
        assert!(lb2.vip.held());
    }
}

#[test]
fn a_frozen_lb_is_taken_for_dead() {
    let mut net = Net::new(Options { lb_timeout: "500ms", ..Options::default() });
    let [lb1, lb2, _] = net.start();
    lb1.lb.freeze();
    lb2.vip.wait(true);
    lb1.vip.wait(false);
    assert_eq!(lb1.wait_for_state("initialize")["reason"], "the local lb is silent");
    lb1.lb.up();
    lb1.wait_for_state("backup");
}

#[test]
fn brokers_away_from_one_lb_move_the_vip_and_away_from_all_leave_it_somewhere() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    lb1.lb.degraded();
    lb2.vip.wait(true);
    lb1.vip.wait(false);
    assert_eq!(lb1.wait_for_state("backup")["effective_priority"], 1);
    lb2.lb.degraded();
    wait_for("lb2 to be degraded", || (lb2.state()["effective_priority"] == 1).then_some(()));
    settled("one holds it", CALM, [&lb1.vip, &lb2.vip]);
    // Without preemption, but a master of last resort gives way to a healthy host.
    let (healthy, other) = if lb1.vip.held() { (&*lb2, &*lb1) } else { (&*lb1, &*lb2) };
    healthy.lb.up();
    healthy.vip.wait(true);
    other.vip.wait(false);
    assert_eq!(healthy.logged(&["VRRP state", "has only priority 1"]), 1);
}

#[test]
fn sigterm_hands_over_and_exits_cleanly() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let told = Instant::now();
    lb1.signal(Signal::SIGTERM);
    assert!(lb2.vip.wait(true) - told < TAKEOVER);
    assert!(lb1.ended().success());
    lb1.vip.wait(false);
    assert_eq!(lb1.logged(&["INFO", "VRRP state", "from=master", "to=initialize", "told to stop"]), 1);
    assert_eq!(lb2.logged(&["INFO", "VRRP state", "reason=master 10.77.0.1 left"]), 1);
}

#[test]
fn sigterm_without_a_successor_ends_all_the_same_and_leaves_nothing() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    lb2.lb.die();
    lb2.wait_for_state("initialize");
    let told = Instant::now();
    lb1.signal(Signal::SIGTERM);
    assert!(lb1.ended().success());
    assert!(told.elapsed() < TAKEOVER);
    lb1.vip.wait(false);
    assert!(!lb2.vip.held());
}

#[test]
fn a_vip_removed_by_hand_comes_back_and_is_logged() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let before = lb1.vip.changes();
    run("ip", &["-n", &lb1.namespace, "address", "delete", "10.77.0.100/32", "dev", "eth0"]);
    wait_for("the VIP to go and come", || (lb1.vip.changes() >= before + 2).then_some(()));
    assert!(lb1.vip.held() && !lb2.vip.held());
    assert_eq!(lb1.logged(&["WARN", "someone removed the VIP"]), 1);
    assert_eq!(lb1.state()["counters"]["address_restored"], 1);
    // What the program removes itself is not put back.
    lb1.lb.die();
    lb1.vip.wait(false);
    lb1.wait_for_state("initialize");
    assert_eq!(lb1.state()["counters"]["address_restored"], 1);
}

#[test]
fn a_frozen_master_steps_back_when_it_wakes_though_its_priority_is_higher() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    lb1.signal(Signal::SIGSTOP);
    lb2.vip.wait(true);
    lb1.signal(Signal::SIGCONT);
    lb1.vip.wait(false);
    lb1.wait_for_state("backup");
    stays("lb2 stays master", CALM, || lb2.vip.held() && !lb1.vip.held());
    assert_eq!(lb1.logged(&["VRRP state", "from=master", "to=backup", "did not run for"]), 1);
}

#[test]
fn preemption_brings_the_vip_back_to_the_higher_priority() {
    let mut net = Net::new(Options { preempt: true, ..Options::default() });
    let [lb1, lb2, _] = net.start();
    lb1.kill();
    lb2.vip.wait(true);
    lb1.start();
    lb2.vip.wait(false);
    lb1.wait_for_state("master");
}

#[test]
fn neighbours_learn_the_new_holder_from_gratuitous_arp() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.start();
    let neighbour = || -> String {
        let shown = client.command("ip").args(["neighbour", "show", "10.77.0.100"]).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    let mac = |host: &net::Host| -> String {
        let shown = host.command("ip").args(["-json", "link", "show", "eth0"]).output().unwrap();
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        shown[0]["address"].as_str().unwrap().to_owned()
    };
    client.inside(|| {
        let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.send_to(b"who has the VIP?", SocketAddrV4::new(VIP, 9)).unwrap();
    });
    let before = mac(lb1);
    wait_for("the client to know lb1", || neighbour().contains(&before).then_some(()));
    lb1.kill();
    lb2.vip.wait(true);
    let after = mac(lb2);
    wait_for("the client to know lb2 without asking", || neighbour().contains(&after).then_some(()));
}

#[test]
fn a_second_instance_is_refused_and_does_no_harm() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.start();
    let before = lb1.vip.changes();
    let second = lb1.evermq_vip().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("runs already"));
    assert_eq!(lb1.vip.changes(), before);
    lb1.wait_for_state("master");
}

#[test]
fn missing_capabilities_are_one_clear_sentence() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    for (capability, remedy) in [("-net_admin", "CAP_NET_ADMIN"), ("-net_raw", "CAP_NET_RAW")] {
        let refused = lb1.evermq_vip_without(capability).output().unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("ERROR") && line.contains(remedy)).count(), 1, "{text}");
    }
}

#[test]
fn without_leave_for_real_time_it_says_so_and_goes_on() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.lb.up();
    let command = lb1.evermq_vip_without("-sys_nice,-ipc_lock");
    lb1.spawn(command);
    lb1.vip.wait(true);
    assert_eq!(lb1.logged(&["WARN", "CAP_SYS_NICE", "LimitRTPRIO=", "realtime = false"]), 1);
}

#[test]
fn forged_and_foreign_adverts_are_counted_and_move_nothing() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.start();
    // Priority 255 for our VRID and VIP, right in all but the TTL that a router in between would have lowered.
    let identity = Identity {
        vrid: evermq_config::Vrid::new(51).unwrap(),
        version: VrrpVersion::V3,
        addresses: vec![VIP.into()],
        interval: INTERVAL,
        auth_pass: None,
        checksum: Checksum::Rfc,
    };
    let send = |identity: Identity, ttl: u32, version: u8| {
        let (from, to) = (client.address, lb1.address);
        client.inside(move || {
            let protocol = socket2::Protocol::from(112);
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(protocol)).unwrap();
            socket.set_ttl_v4(ttl).unwrap();
            let mut message = [0; MAX_LENGTH];
            let length = packet::encode(&identity, 255, from.into(), to.into(), &mut message);
            message[0] = version << 4 | 1;
            socket.send_to(&message[..length], &SocketAddrV4::new(to, 0).into()).unwrap();
        });
    };
    send(identity.clone(), 254, 3);
    send(identity.clone(), 255, 2);
    send(Identity { addresses: vec![Ipv4Addr::new(10, 77, 0, 101).into()], ..identity.clone() }, 255, 3);
    send(Identity { vrid: evermq_config::Vrid::new(52).unwrap(), ..identity }, 255, 3);
    let counted = wait_for("four discarded adverts", || {
        let counters = lb1.state()["counters"].clone();
        let kinds = ["ip_ttl_errors", "version_errors", "address_list_errors", "vrid_errors"];
        kinds.iter().all(|kind| counters[kind] == 1).then_some(counters)
    });
    assert_eq!(counted["master_transitions"], 1);
    assert!(lb1.vip.held() && !lb2.vip.held());
    for reason in ["TTL is 254", "VRRP version is 2", "the VIP is not in its address list"] {
        assert_eq!(lb1.logged(&["WARN", "advertisement discarded", "10.77.0.3", reason]), 1);
    }
}
