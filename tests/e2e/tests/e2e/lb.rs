//! What the load balancer does for clients that stay: a new binary, a drained broker, TLS that ends at the VIP.

use std::time::Duration;

use evermq_e2e::client::{finish_load, wait_ready};
use evermq_e2e::lab::{STEADY, text};
use evermq_e2e::{Lab, PORT, VIP, wait};

/// Clients that stay connected while something happens.
const CLIENTS: usize = 50;

#[test]
fn nobody_notices_that_the_lb_is_a_new_process() {
    let lab = Lab::up();
    lab.wait_healthy();
    let active = lab.holder();
    let (address, clients) = (format!("{VIP}:{PORT}"), CLIENTS.to_string());
    let mut holding = lab.start_load(&["hold", "--connect", &address, "--clients", &clients, "--duration", "6000"]);
    wait_ready(&mut holding);
    let probe = lab.start_load(&["probe", "--connect", &address, "--duration", "4000", "--interval", "10"]);
    let uptime = || lab.state(active, "evermq-lb").and_then(|state| state["uptime_ms"].as_u64());
    let before = wait::until("the lb says since when it runs", Duration::from_secs(15), uptime).0;

    lab.signal(active, "evermq-lb", "USR2");
    wait::until("another process answers", Duration::from_secs(20), || uptime().filter(|now| *now < before));

    let probed = finish_load(probe);
    assert_eq!(probed["failed"], 0, "every new client got in: {probed}");
    let held = finish_load(holding);
    assert_eq!(held["outages"].as_array().map(Vec::len), Some(0), "no client lost its connection: {held}");
    assert_eq!(lab.holder(), active, "the VIP stayed");
    let state = lab.state(active, "evermq-lb").expect("the new one answers");
    assert_eq!(state["health"], "up", "{state}");
}

#[test]
fn a_drained_broker_has_no_clients_and_the_other_has_them_all() {
    let lab = Lab::up();
    lab.wait_healthy();
    let active = lab.holder();
    let (address, clients) = (format!("{VIP}:{PORT}"), CLIENTS.to_string());
    let mut holding = lab.start_load(&["hold", "--connect", &address, "--clients", &clients, "--duration", "12000"]);
    wait_ready(&mut holding);
    let evermq = lab.path_of("evermq");
    let drained = lab.exec(active, &[&evermq, "drain", "broker1", "--rate", "100", "--wait"]);
    assert!(drained.status.success(), "{}", text(&drained));
    wait::until("all clients are at the other broker", Duration::from_secs(10), || {
        let state = lab.state(active, "evermq-lb")?;
        let connections = |name: &str| {
            state["backends"].as_array()?.iter().find(|backend| backend["name"] == name)?["connections"].as_u64()
        };
        (connections("broker1")? == 0 && connections("broker2")? >= CLIENTS as u64).then_some(())
    });
    let _ = finish_load(holding);
}

#[test]
fn tls_may_end_at_the_load_balancer() {
    for mode in ["terminate", "reencrypt"] {
        let mode_setting = format!("lb.mode={mode}");
        let settings = [&STEADY[..], &[&mode_setting, "broker.listen_proxy=0.0.0.0:8885"]].concat();
        let lab = Lab::up_with(&settings).unwrap_or_else(|said| panic!("{said}"));
        let listener = lab.subscribe_at((VIP, PORT), &["-t", "ended/#", "-v", "-q", "1"]);
        lab.publish(&["-t", "ended/here", "-m", mode, "-q", "1"]);
        assert_eq!(listener.next(), format!("ended/here {mode}"));
    }
}
