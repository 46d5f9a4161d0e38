//! What the virtual IP does for clients that say nothing, and for an operator who changes the file.

use std::time::Duration;

use evermq_e2e::client::{finish_load, wait_ready};
use evermq_e2e::lab::text;
use evermq_e2e::{Lab, PORT, VIP, wait};

/// Far below the keep alive of 60 s that an idle client has, and far above a takeover on a busy machine.
const TOLD: f64 = 5_000.0;
const CLIENTS: usize = 50;

/// Idle subscribers through the VIP while `fault` strikes the host that has it: every one is told, and back.
fn idle_clients_are_told(fault: impl FnOnce(&Lab, &'static str)) {
    let lab = Lab::up();
    lab.wait_healthy();
    let active = lab.holder();
    let (address, clients) = (format!("{VIP}:{PORT}"), CLIENTS.to_string());
    let mut holding =
        lab.start_load(&["hold", "--idle", "--connect", &address, "--clients", &clients, "--duration", "7000"]);
    wait_ready(&mut holding);
    // Idle for a moment: who connected in the last milliseconds is in nobody's list yet (docs/vip.md).
    wait::pause(Duration::from_millis(500));
    fault(&lab, active);
    let result = finish_load(holding);
    let outages = result["outages"].as_array().expect("a list");
    let mut told: Vec<u64> = outages.iter().filter_map(|outage| outage["client"].as_u64()).collect();
    told.dedup();
    assert_eq!(told.len(), CLIENTS, "{result}");
    let times = |key| outages.iter().map(move |outage| outage[key].as_f64().expect("a time, so it came to that"));
    let first = times("closed_ms").fold(f64::MAX, f64::min);
    let last = times("back_ms").fold(0.0, f64::max);
    assert!(last - first < TOLD, "from the first that was told to the last that was back {} ms", last - first);
    assert_eq!(lab.holder(), Lab::other_lb(active));
}

#[test]
fn idle_clients_learn_that_the_vips_host_is_gone() {
    idle_clients_are_told(Lab::kill);
}

#[test]
fn idle_clients_learn_of_a_planned_move_though_their_old_host_lives() {
    idle_clients_are_told(|lab, active| lab.signal(active, "evermq-vip", "TERM"));
}

#[test]
fn a_killed_vip_daemon_leaves_no_address_though_nobody_starts_it_again() {
    let lab = Lab::up();
    let active = lab.holder();
    lab.signal(active, "evermq-vip", "KILL");
    wait::until("the other host has it alone", Duration::from_secs(15), || {
        (lab.holders() == [Lab::other_lb(active)]).then_some(())
    });
}

#[test]
fn a_changed_file_is_in_force_when_reload_says_so_and_a_bad_one_changes_nothing() {
    const FILE: &str = "/etc/evermq/evermq.toml";
    let lab = Lab::up();
    lab.wait_healthy();
    let active = lab.holder();
    let edit = |script: &str| {
        let output = lab.exec(active, &["sed", "-i", script, FILE]);
        assert!(output.status.success(), "{}", text(&output));
    };
    let reload = || lab.exec(active, &[&lab.path_of("evermq"), "reload"]);
    let address = format!("{VIP}:{PORT}");
    let probe = lab.start_load(&["probe", "--connect", &address, "--duration", "4000", "--interval", "10"]);

    edit("s/^\\[vip\\]$/[vip]\\nmore_addresses = [\"198.18.0.19\"]/");
    let done = reload();
    assert!(done.status.success(), "{}", text(&done));
    let second = lab.exec(active, &["ip", "-4", "-o", "address", "show", "to", "198.18.0.19"]);
    assert!(!second.stdout.is_empty(), "the second address is there: {}", text(&done));

    edit("s/^more_addresses.*/more_addresses = 7/");
    let refused = reload();
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("7 is no value for vip.more_addresses"), "{}", text(&refused));

    let result = finish_load(probe);
    assert_eq!(result["failed"], 0, "no client noticed: {result}");
    assert_eq!(lab.holder(), active);
}
