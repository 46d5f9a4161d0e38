//! Each program and each host dies in turn: clients are back, the VIP is on one host, nothing acknowledged is lost to a
//! subscriber that stayed connected.

use std::time::Duration;

use evermq_e2e::client::{self, PATIENCE, finish_load};
use evermq_e2e::lab::text;
use evermq_e2e::{Lab, PORT, VIP, wait};

/// Bounds on the time without a new connection, in ms: what takes tens of them on an idle machine, and hundreds, with room for
/// one that is slow and very busy. `make bench-failover` gives figures.
const UNNOTICED: f64 = 1_500.0;
const SILENCE: f64 = 3_000.0;
/// For what is only said a moment later.
const SOON: Duration = Duration::from_secs(15);

/// Service is back when a fresh client publishes and a fresh subscriber on each living broker gets it.
fn serves(lab: &Lab, brokers: &[&str]) {
    for broker in brokers {
        let subscriber = lab.subscribe_at((broker, "8883"), &["-t", "alive", "-q", "1"]);
        lab.publish(&["-t", "alive", "-m", "yes", "-q", "1"]);
        assert_eq!(subscriber.next(), "yes");
    }
}

/// The longest time without a new connection through the VIP, while `fault` happens.
fn gap_during(lab: &Lab, fault: impl FnOnce()) -> f64 {
    let address = format!("{VIP}:{PORT}");
    let probe = lab.start_load(&["probe", "--connect", &address, "--duration", "4000", "--interval", "10"]);
    wait::pause(Duration::from_millis(1_000));
    fault();
    let result = finish_load(probe);
    assert!(result["succeeded"].as_u64().unwrap_or(0) > 50, "{result}");
    result["longest_gap_ms"].as_f64().expect("a number")
}

const BOTH: [&str; 2] = ["198.18.0.21", "198.18.0.22"];

#[test]
fn the_active_lb_host_dies() {
    let lab = Lab::up();
    let active = lab.holder();
    let gap = gap_during(&lab, || lab.kill(active));
    assert!(gap < SILENCE, "no new connection for {gap} ms");
    assert_eq!(lab.holders(), [Lab::other_lb(active)]);
    serves(&lab, &BOTH);
    lab.heal(active);
    lab.wait_healthy();
    assert_eq!(lab.holder(), Lab::other_lb(active), "a host that comes back does not take the VIP from a healthy one");
}

#[test]
fn the_standby_lb_host_dies_unnoticed() {
    let lab = Lab::up();
    let active = lab.holder();
    let gap = gap_during(&lab, || lab.kill(Lab::other_lb(active)));
    assert!(gap < UNNOTICED, "no new connection for {gap} ms");
    wait::until("it is said who has the address", SOON, || (lab.holders() == [active]).then_some(()));
}

#[test]
fn the_load_balancer_is_killed_or_freezes_or_is_stopped() {
    for (signal, limit) in [("KILL", UNNOTICED), ("STOP", SILENCE), ("TERM", UNNOTICED)] {
        let lab = Lab::up();
        let active = lab.holder();
        let gap = gap_during(&lab, || lab.signal(active, "evermq-lb", signal));
        assert!(gap < limit, "{signal}: no new connection for {gap} ms");
        assert_eq!(lab.holder(), Lab::other_lb(active));
        serves(&lab, &BOTH);
    }
}

#[test]
fn the_vip_daemon_is_killed_and_leaves_no_stale_address() {
    let lab = Lab::up();
    let active = lab.holder();
    let gap = gap_during(&lab, || lab.signal(active, "evermq-vip", "KILL"));
    assert!(gap < SILENCE, "no new connection for {gap} ms");
    // Started again, it leaves the VIP where it has gone.
    lab.must(["start", active, "evermq-vip"]);
    assert_eq!(lab.holder(), Lab::other_lb(active));
    serves(&lab, &BOTH);
}

#[test]
fn the_vip_daemon_is_stopped_and_hands_over() {
    let lab = Lab::up();
    let active = lab.holder();
    let gap = gap_during(&lab, || lab.signal(active, "evermq-vip", "TERM"));
    assert!(gap < UNNOTICED, "no new connection for {gap} ms");
    assert_eq!(lab.holder(), Lab::other_lb(active));
}

#[test]
fn each_broker_is_killed_in_turn() {
    let lab = Lab::up();
    for (broker, other) in [("broker1", BOTH[1]), ("broker2", BOTH[0])] {
        let gap = gap_during(&lab, || lab.signal(broker, "evermq-broker", "KILL"));
        assert!(gap < UNNOTICED, "{broker}: no new connection for {gap} ms");
        serves(&lab, &[other]);
        lab.heal(broker);
        lab.wait_healthy();
        serves(&lab, &BOTH);
    }
}

#[test]
fn a_broker_host_dies_and_a_broker_freezes() {
    for freeze in [false, true] {
        let lab = Lab::up();
        let gap = gap_during(&lab, || {
            if freeze {
                lab.signal("broker1", "evermq-broker", "STOP");
            } else {
                lab.kill("broker1");
            }
        });
        assert!(gap < SILENCE, "no new connection for {gap} ms");
        serves(&lab, &[BOTH[1]]);
    }
}

#[test]
fn a_killed_brokers_clients_are_closed_at_once_and_back_on_the_other() {
    let lab = Lab::up();
    // Ten clients through the VIP: least_conn puts five on each broker.
    let address = format!("{VIP}:{PORT}");
    let mut holding = lab.start_load(&["hold", "--connect", &address, "--clients", "10", "--duration", "5000"]);
    client::wait_ready(&mut holding);
    lab.signal("broker1", "evermq-broker", "KILL");
    let result = finish_load(holding);
    let outages = result["outages"].as_array().expect("a list");
    assert_eq!(outages.len(), 5, "{result}");
    for outage in outages {
        let (closed, back) = (outage["closed_ms"].as_f64(), outage["back_ms"].as_f64());
        let lasted = back.expect("back by the end") - closed.expect("a time");
        assert!(lasted < SILENCE, "{result}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_while_the_other_broker_comes_and_goes() {
    let lab = Lab::up();
    // Publisher and subscriber are on broker1, which lives; broker2 is killed and healed meanwhile.
    let flow = lab.start_load(&[
        "flow",
        "--publish",
        "198.18.0.21:8883",
        "--subscribe",
        "198.18.0.21:8883",
        "--qos",
        "1",
        "--messages",
        "6000",
        "--rate",
        "1500",
    ]);
    wait::pause(Duration::from_millis(800));
    lab.kill("broker2");
    wait::pause(Duration::from_millis(800));
    lab.heal("broker2");
    let result = finish_load(flow);
    assert_eq!(result["acknowledged"], 6_000, "{result}");
    assert_eq!(result["received"], 6_000, "{result}");
    assert_eq!(result["repeated"], 0, "{result}");
}

#[test]
fn a_peer_that_was_cut_off_gets_everything_once_and_in_order() {
    let lab = Lab::up();
    // The subscriber is in broker2's own host, so that it stays connected while the cable is out.
    let tls = "--cafile /etc/evermq/tls/ca.crt --cert /etc/evermq/tls/broker2.crt --key /etc/evermq/tls/broker2.key";
    let subscriber = format!("mosquitto_sub -h 198.18.0.22 -p 8883 {tls} -t cut -q 1 -C 5000 -W 30");
    let subscriber = lab.spawn("broker2", &["sh", "-c", &subscriber]);
    wait::until("the subscriber is there", PATIENCE, || {
        (lab.state("broker2", "evermq-broker")?["subscriptions"].as_u64()? > 0).then_some(())
    });
    let tls = client::tls_options("pub").join(" ");
    let publisher = format!(
        "for batch in $(seq 0 49); do seq $((batch * 100 + 1)) $((batch * 100 + 100)); sleep 0.05; done | \
         mosquitto_pub -h 198.18.0.21 -p 8883 {tls} -t cut -q 1 -l"
    );
    let publisher = lab.spawn("client", &["sh", "-c", &publisher]);
    wait::pause(Duration::from_millis(700));
    lab.must(["cable", "broker2", "off"]);
    wait::pause(Duration::from_millis(1_000));
    lab.must(["cable", "broker2", "on"]);
    let published = publisher.finish();
    assert!(published.status.success(), "{}", text(&published));
    let received = subscriber.finish();
    let numbers: Vec<u32> =
        String::from_utf8_lossy(&received.stdout).lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=5_000), "{} messages, not 1 to 5000 in order", numbers.len());
}
