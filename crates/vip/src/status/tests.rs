use std::time::Duration;

use evermq_config::roles::VipInstance;
use evermq_config::vip::VrrpVersion;
use evermq_config::{Cluster, Vrid};

use super::*;
use crate::fsm::{Reason, State, Transition};
use crate::track::{Cause, Effective, LAST_RESORT};

const FILE: &str = r#"
    [cluster]
    name = "test"
    [vip]
    address = "10.0.0.100"
    [tls]
    ca = "ca.crt"
    cert = "host.crt"
    key = "host.key"
    [[hosts]]
    name = "lb1"
    address = "10.0.0.1"
    roles = ["lb"]
    [[hosts]]
    name = "lb2"
    address = "10.0.0.2"
    roles = ["lb"]
    [[hosts]]
    name = "b1"
    address = "10.0.0.3"
    roles = ["broker"]
"#;

fn config() -> VipConfig {
    let loaded = evermq_config::parse("evermq.toml".as_ref(), FILE).unwrap();
    Cluster::vip_for(&loaded.cluster, "lb1").unwrap()
}

fn router(name: &str, vrid: u8) -> VipInstance {
    VipInstance {
        name: name.to_owned(),
        vrid: Vrid::new(vrid).unwrap(),
        version: VrrpVersion::V3,
        addresses: vec!["10.0.0.100".parse().unwrap()],
        prefix_length: 32,
        interface: None,
        priority: 200,
        sync_group: None,
        source: None,
        peers: Vec::new(),
    }
}

fn status(names: &[&str]) -> Status {
    let mut status = Status::new(&config(), "evermq.toml".into(), Arc::default(), SystemTime::UNIX_EPOCH);
    for (slot, name) in names.iter().enumerate() {
        let instance = InstanceStatus::begin(
            router(name, 51 + u8::try_from(slot).unwrap()),
            "eth0".to_owned(),
            "10.0.0.1".parse().unwrap(),
            Arc::default(),
            SystemTime::UNIX_EPOCH,
        );
        status.place(slot, instance);
    }
    status
}

fn event(slot: usize, millis: u64, what: What) -> Event {
    Event { time: SystemTime::UNIX_EPOCH + Duration::from_micros(millis * 1000 + 7), slot, what }
}

fn effective(priority: Option<u8>, cause: Cause) -> What {
    What::Effective(Effective { priority, cause })
}

#[test]
fn the_json_says_what_an_operator_asks() {
    let mut status = status(&["vip"]);
    assert_eq!(status.health(), Health::Down);
    status.apply(&event(0, 1, effective(Some(200), Cause::LbUp)));
    let reason = Reason::MasterSilent { master: "10.0.0.2".parse().unwrap(), silent: Duration::from_millis(66) };
    status.apply(&event(0, 1250, What::Moved(Transition { from: State::Backup, to: State::Master, reason })));
    status.instance(0).unwrap().counters.master_transitions.count();
    assert_eq!(status.health(), Health::Up);
    let json = status.to_json();
    assert_eq!((&json["state"], &json["host"], &json["vip"]), (&json!("master"), &json!("lb1"), &json!("10.0.0.100")));
    assert_eq!(json["effective_priority"], 200);
    assert_eq!(json["reason"], "the local lb is up");
    assert_eq!(json["master"], "10.0.0.1");
    assert_eq!(json["since"], "1970-01-01T00:00:01.25Z");
    assert_eq!(json["transitions"][0]["reason"], "master 10.0.0.2 fell silent");
    assert_eq!(json["counters"]["master_transitions"], 1);
    assert_eq!(json["config"]["file"], "evermq.toml");
    assert_eq!(json["instances"][0]["name"], "vip");
    assert_eq!(json["instances"][0]["vrid"], 51);
    assert!(json.get("name").is_none() && json.get("vips").is_none());
}

#[test]
fn a_backup_shows_whom_it_follows_and_only_sixteen_transitions_are_kept() {
    let mut status = status(&["vip"]);
    for n in 0..20 {
        let reason = Reason::Health(Cause::LbUp);
        let moved = Transition { from: State::Initialize, to: State::Backup, reason };
        status.apply(&event(0, n, What::Moved(moved)));
    }
    let transitions = |status: &Status| status.to_json()["transitions"].as_array().unwrap().clone();
    assert_eq!(transitions(&status).len(), HISTORY);
    assert_eq!(transitions(&status)[0]["time"], "1970-01-01T00:00:00.004Z");
    assert_eq!(status.to_json()["master"], Value::Null);
    status.apply(&event(0, 21, What::Follows("10.0.0.2".parse().unwrap())));
    assert_eq!(status.to_json()["master"], "10.0.0.2");
    status.apply(&event(0, 22, effective(Some(LAST_RESORT), Cause::LbDegraded)));
    assert_eq!(status.health(), Health::Degraded);
}

#[test]
fn each_virtual_router_has_its_own_and_the_program_is_as_its_best_one() {
    let mut status = status(&["vip", "six"]);
    status.apply(&event(1, 1, effective(Some(200), Cause::LbUp)));
    let json = status.to_json();
    assert_eq!(
        (&json["instances"][0]["effective_priority"], &json["instances"][1]["effective_priority"]),
        (&Value::Null, &json!(200))
    );
    assert_eq!(status.health(), Health::Up);
    status.clear(0);
    assert_eq!(status.to_json()["instances"].as_array().unwrap().len(), 1);
    // A slot that is used again, and one of before that goes on with what it knows.
    status.place(
        0,
        InstanceStatus::begin(
            router("seven", 60),
            "eth1".to_owned(),
            "10.0.0.1".parse().unwrap(),
            Arc::default(),
            SystemTime::UNIX_EPOCH,
        ),
    );
    status.place(
        1,
        InstanceStatus::begin(
            router("six", 52),
            "eth1".to_owned(),
            "10.0.0.1".parse().unwrap(),
            Arc::default(),
            SystemTime::UNIX_EPOCH,
        ),
    );
    assert_eq!(status.to_json()["instances"][0]["name"], "seven");
    assert_eq!(status.to_json()["instances"][1]["effective_priority"], 200);
    assert_eq!(status.to_json()["instances"][1]["interface"], "eth1");
}

#[test]
fn without_a_virtual_router_the_state_says_so() {
    let json = status(&[]).to_json();
    assert_eq!((&json["state"], &json["instances"]), (&json!("none"), &json!([])));
}

#[test]
fn a_refused_file_is_shown_until_a_good_one_is_loaded() {
    let mut status = status(&["vip"]);
    assert_eq!(status.to_json()["config"]["error"], Value::Null);
    status.refused(Some("bad".to_owned()));
    assert_eq!(status.to_json()["config"]["error"], "bad");
    status.loaded(&config(), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    assert_eq!(status.to_json()["config"]["error"], Value::Null);
    assert_eq!(status.to_json()["config"]["loaded"], "1970-01-01T00:00:01Z");
}
