//! The cluster file is read again: what changes, what stays, and what is refused.

use crate::net::watch::stays;
use crate::net::{CALM, Host, Net, Options, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

const SECOND: &str = "10.77.0.101";

fn transitions(host: &Host) -> usize {
    host.state()["transitions"].as_array().unwrap().len()
}

#[test]
fn an_address_and_another_interval_come_without_losing_mastership() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let (before, changes) = ([transitions(lb1), transitions(lb2)], lb1.vip.changes());
    for host in [&*lb1, &*lb2] {
        host.edit("advert_interval = \"200ms\"", "advert_interval = \"250ms\"\nmore_addresses = [\"10.77.0.101\"]");
        // The file's change may have been noticed first.
        let answer = host.reload().unwrap();
        assert!(answer["changed"].is_boolean(), "{answer}");
    }
    wait_for("the second address", || lb1.has(SECOND).then_some(()));
    assert!(!lb2.has(SECOND));
    assert_eq!(lb1.state()["instances"][0]["vips"], json!(["10.77.0.100", SECOND]));
    stays("lb1 stays master", CALM, || lb1.vip.held() && !lb2.vip.held());
    assert_eq!(([transitions(lb1), transitions(lb2)], lb1.vip.changes()), (before, changes));
    assert_eq!(lb2.state()["counters"]["address_list_errors"], 0);
    // Both go with the next move, and one alone with the next reload.
    for host in [&*lb1, &*lb2] {
        host.edit("\nmore_addresses = [\"10.77.0.101\"]", "");
        host.signal(Signal::SIGHUP);
    }
    wait_for("the second address to go", || (!lb1.has(SECOND)).then_some(()));
    assert_eq!((transitions(lb1), lb1.vip.changes()), (before[0], changes));
    lb1.lb.die();
    lb2.vip.wait(true);
}

#[test]
fn a_bad_file_is_refused_whole_and_a_good_one_mends_it() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.start();
    let before = transitions(lb1);
    lb1.edit("preempt = false", "preempt = \"perhaps\"\ngarp_count = 999");
    let refused = lb1.reload().unwrap_err();
    assert!(refused.contains("perhaps") && refused.contains("garp_count"), "every problem: {refused}");
    let error = lb1.state()["config"]["error"].clone();
    assert!(error.as_str().unwrap().contains("vip.preempt"), "{error}");
    lb1.logged(&["WARN", "is not in force", "perhaps"]);
    assert!(lb1.vip.held());
    lb1.edit("preempt = \"perhaps\"\ngarp_count = 999", "preempt = true");
    wait_for("the good file to be noticed", || lb1.state()["config"]["error"].is_null().then_some(()));
    assert_eq!(transitions(lb1), before);
}

#[test]
fn a_changed_file_is_noticed_and_what_needs_a_restart_is_named() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.start();
    let loaded = lb1.state()["config"]["loaded"].clone();
    lb1.edit("lb_timeout = \"2s\"", "lb_timeout = \"3s\"");
    wait_for("the change to be in force", || (lb1.state()["config"]["loaded"] != loaded).then_some(()));
    assert_eq!(lb1.reload().unwrap(), json!({ "changed": false }));
    lb1.set_vip("realtime = false");
    let refused = lb1.reload().unwrap_err();
    assert!(refused.contains("vip.realtime") && refused.contains("restart"), "{refused}");
    assert!(lb1.vip.held());
}

#[test]
fn a_virtual_router_comes_and_goes_beside_the_one_that_stays() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.start();
    let before = transitions(lb1);
    let section = "[[vip.instances]]\nname = \"two\"\naddress = \"10.77.0.102\"\nvrid = 52";
    for host in [&*lb1, &*lb2] {
        host.append(section);
        host.reload().unwrap();
    }
    wait_for("the new VIP", || (lb1.has("10.77.0.102") || lb2.has("10.77.0.102")).then_some(()));
    assert_eq!(lb1.state()["instances"][1]["name"], "two");
    for host in [&*lb1, &*lb2] {
        host.edit(section, "");
        host.reload().unwrap();
    }
    wait_for("the VIP to go", || (!lb1.has("10.77.0.102") && !lb2.has("10.77.0.102")).then_some(()));
    wait_for("the virtual router to go", || (lb1.state()["instances"].as_array()?.len() == 1).then_some(()));
    // Its slot is used again.
    for host in [&*lb1, &*lb2] {
        host.append(&section.replace("two", "three"));
        host.reload().unwrap();
    }
    wait_for("the VIP again", || (lb1.has("10.77.0.102") || lb2.has("10.77.0.102")).then_some(()));
    assert!(lb1.vip.held());
    assert_eq!(transitions(lb1), before);
}

#[test]
fn mode_none_holds_nothing_and_says_so() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.set_vip("mode = \"none\"");
    lb1.lb.up();
    lb1.start();
    assert_eq!(lb1.wait_for_state("none")["instances"], json!([]));
    assert_eq!(lb1.logged(&["INFO", "mode = \"none\""]), 1);
    assert!(lb1.reload().unwrap_err().contains("restart"));
    stays("no VIP", CALM, || !lb1.vip.held());
    lb1.signal(Signal::SIGTERM);
    assert!(lb1.ended().success());
}
