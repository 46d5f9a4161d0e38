use evermq_daemon::process::About;
use serde_json::{Value, json};

use super::*;
use crate::report::{ProgramReport, Rates};

const NOW_MS: u64 = 1_800_000_000_000;
const DAY_S: i64 = 86_400;

fn plan() -> Plan {
    let host =
        |name: &str, lb, broker| PlannedHost { name: name.to_owned(), address: format!("addr-{name}"), lb, broker };
    Plan {
        cluster: "c".to_owned(),
        vips: vec![("vip".to_owned(), "10.0.0.1".to_owned())],
        port: 9000,
        hosts: vec![
            host("lb1", true, false),
            host("lb2", true, false),
            host("b1", false, true),
            host("b2", false, true),
        ],
    }
}

fn program(name: &str, health: Health, state: Value) -> ProgramReport {
    let about = About {
        version: "1.0.0".to_owned(),
        pid: 1,
        open_files: None,
        max_open_files: None,
        resident_bytes: None,
        cpu_seconds: None,
        certificate_until: Some(i64::try_from(NOW_MS / 1000).unwrap() + 100 * DAY_S),
    };
    ProgramReport {
        program: name.to_owned(),
        socket: "x".into(),
        health,
        state,
        about: Some(about),
        rates: None,
        error: None,
        help: None,
    }
}

fn lb(host: &str, vrrp: &str) -> Look {
    let vip = json!({ "instances": [{ "name": "vip", "state": vrrp, "since": "2027-01-15T08:00:00Z" }] });
    let backend = |name| json!({ "name": name, "state": "up", "admin": "ready", "connections": 3 });
    let lb = json!({ "connections": { "current": 6 }, "backends": [backend("b1"), backend("b2")] });
    let programs = vec![program("evermq-vip", Health::Up, vip), program("evermq-lb", Health::Up, lb)];
    Look::Said(HostReport::new(host.to_owned(), NOW_MS, programs))
}

fn broker(host: &str, other: &str) -> Look {
    let peer = json!({ "name": other, "connected": true, "receiving": true, "lag": 2, "lag_seconds": 0.5 });
    let state =
        json!({ "connections": 5, "lbs": 2, "readiness": "ready", "trouble": null, "bridge": { "peers": [peer] } });
    let rates = Some(Rates { received: 10.0, sent: 20.0 });
    let programs = vec![ProgramReport { rates, ..program("evermq-broker", Health::Up, state) }];
    Look::Said(HostReport::new(host.to_owned(), NOW_MS, programs))
}

fn all() -> Vec<Look> {
    vec![lb("lb1", "master"), lb("lb2", "backup"), broker("b1", "b2"), broker("b2", "b1")]
}

/// Changes what one program of a host says.
fn changed(looks: &mut [Look], index: usize, name: &str, change: impl FnOnce(&mut ProgramReport)) {
    let Look::Said(report) = &mut looks[index] else { panic!("{looks:?}") };
    let program = report.programs.iter_mut().find(|program| program.program == name).unwrap();
    change(program);
    *report = HostReport::new(report.host.clone(), report.time_ms, report.programs.clone());
}

fn verdict(looks: &[Look]) -> (Health, Vec<String>) {
    let overview = Overview::new(&plan(), looks, NOW_MS);
    (overview.verdict, overview.reasons)
}

#[test]
fn a_cluster_that_is_well_is_up() {
    let overview = Overview::new(&plan(), &all(), NOW_MS);
    assert_eq!((overview.verdict, overview.reasons), (Health::Up, Vec::<String>::new()));
    assert_eq!(overview.vips[0].holders, ["lb1"]);
    assert_eq!(overview.vips[0].since.as_deref(), Some("2027-01-15T08:00:00Z"));
    assert_eq!(overview.certificate_days, Some(100));
    let [lb1, _, b1, _] = &overview.hosts[..] else { panic!("four hosts") };
    assert_eq!((lb1.lb_connections, lb1.broker_connections, lb1.backends.len()), (Some(6), None, 2));
    assert_eq!((b1.broker_connections, b1.rates.map(|rates| rates.received)), (Some(3), Some(10.0)));
    assert_eq!(b1.lag, Some(Lag { messages: 2, seconds: 0.5, linked: 1, peers: 1 }));
    assert_eq!(b1.versions, ["1.0.0"]);
}

#[test]
fn down_is_where_clients_are_not_served() {
    let mut nobody = all();
    nobody[0] = lb("lb1", "backup");
    assert_eq!(verdict(&nobody), (Health::Down, vec!["nobody holds the VIP 10.0.0.1".to_owned()]));
    let mut two = all();
    two[1] = lb("lb2", "master");
    assert_eq!(verdict(&two), (Health::Down, vec!["lb1 and lb2 hold the VIP 10.0.0.1 at once".to_owned()]));
    let mut brokers = all();
    brokers[2] = Look::Silent("dead".to_owned());
    brokers[3] = Look::Silent("dead".to_owned());
    let (health, reasons) = verdict(&brokers);
    assert_eq!((health, reasons[0].as_str()), (Health::Down, "no broker answers"));
}

#[test]
fn what_is_not_known_is_not_called_down() {
    let mut looks = all();
    looks[0] = Look::Silent("10.0.0.11:9003 does not answer".to_owned());
    let (health, reasons) = verdict(&looks);
    assert_eq!(health, Health::Degraded);
    assert_eq!(reasons[0], "nobody who was asked holds the VIP 10.0.0.1 (1 of 2 lb hosts say whether they do)");
    assert_eq!(reasons[1], "lb1 is silent: 10.0.0.11:9003 does not answer");
    // Only this host was asked, and it is well.
    let alone: Vec<Look> = all()
        .into_iter()
        .enumerate()
        .map(|(at, look)| if at == 0 { look } else { Look::NotAsked("no [admin]".to_owned()) })
        .collect();
    assert_eq!(verdict(&alone), (Health::Up, Vec::new()));
    assert_eq!(verdict(&vec![Look::NotAsked("why".to_owned()); 4]).0, Health::Degraded);
}

#[test]
fn what_needs_a_hand_is_named() {
    type Change = fn(&mut ProgramReport);
    let cases: [(usize, &str, Change, &str); 8] = [
        (0, "evermq-lb", |lb| lb.state["backends"][1]["state"] = json!("down"), "lb1: b2 is down"),
        (0, "evermq-lb", |lb| lb.state["backends"][0]["admin"] = json!("drain"), "lb1: drains b1"),
        (2, "evermq-broker", |broker| broker.state["trouble"] = json!("the disk is full"), "b1: the disk is full"),
        (2, "evermq-broker", |broker| broker.state["readiness"] = json!("draining"), "b1: is draining"),
        (
            3,
            "evermq-broker",
            |broker| broker.state["bridge"]["peers"][0]["connected"] = json!(false),
            "b2: not linked with b1",
        ),
        (
            3,
            "evermq-broker",
            |broker| broker.state["bridge"]["peers"][0]["lag_seconds"] = json!(60),
            "b2 is 60 s ahead",
        ),
        (
            1,
            "evermq-lb",
            |lb| lb.about.as_mut().unwrap().certificate_until = Some(i64::try_from(NOW_MS / 1000).unwrap() + 5 * DAY_S),
            "lb2: its certificate ends in 5 days",
        ),
        (1, "evermq-lb", |lb| lb.about.as_mut().unwrap().version = "1.1.0".to_owned(), "versions differ: 1.0.0, 1.1.0"),
    ];
    for (host, name, change, expected) in cases {
        let mut looks = all();
        changed(&mut looks, host, name, change);
        let (health, reasons) = verdict(&looks);
        assert_eq!(health, Health::Degraded, "{expected}");
        assert!(reasons.iter().any(|reason| reason.starts_with(expected)), "{expected}: {reasons:?}");
    }
    let mut looks = all();
    changed(&mut looks, 1, "evermq-vip", |vip| {
        (vip.health, vip.state["reason"]) = (Health::Down, json!("the local lb is gone"));
    });
    let (health, reasons) = verdict(&looks);
    assert_eq!(health, Health::Degraded);
    assert_eq!(reasons[0], "lb2 is down: may not hold the VIP, or only as the last: the local lb is gone");
}
