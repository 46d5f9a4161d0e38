//! `evermq check`: every problem at once, each with its place; a summary where all is good; the exit status.

use std::fs;

use crate::program::{CLUSTER, Site};
use serde_json::{Value, json};

#[test]
fn a_good_cluster_is_summed_up() {
    let site = Site::with_certificates();
    let text = site.evermq("check --config evermq.toml --host lb1").good();
    assert!(
        text.starts_with("evermq.toml is good (0 errors, 0 warnings); checked the certificates of host lb1\n"),
        "{text}"
    );
    assert!(
        text.contains("clients connect to  192.168.10.10:9000 (VIP, vrid 51, unicast adverts every 20 ms)"),
        "{text}"
    );
    let hosts: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("HOST"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        hosts,
        [
            vec!["HOST", "ADDRESS", "ROLES", "VIP", "PRIORITY"],
            vec!["lb1", "192.168.10.11", "lb", "200"],
            vec!["lb2", "192.168.10.12", "lb", "190"],
            vec!["broker1", "192.168.10.21", "broker", "-"],
            vec!["broker2", "192.168.10.22", "broker", "-"],
        ]
    );
}

#[test]
fn all_errors_are_shown_at_once_with_their_places() {
    let text = CLUSTER
        .replace("address = \"192.168.10.10\"", "address = \"192.168.10.10\"\nvrid = 300\nadvert_intervall = \"20ms\"")
        .replace("192.168.10.22", "192.168.10.21");
    let site = Site::new(&text);
    let report = site.evermq("check --config evermq.toml");
    assert_eq!(report.status, 2, "{report:#?}");
    for line in [
        "evermq.toml:6:8: error: ",
        "    vrid = 300\n           ^^^\n",
        "evermq.toml:7:1: error: ",
        "    advert_intervall = \"20ms\"\n    ^^^^^^^^^^^^^^^^\n    did you mean \"advert_interval\"?",
        "evermq.toml:26:11: error: ",
        "evermq.toml is not usable: 3 errors, 0 warnings\n",
    ] {
        assert!(report.stdout.contains(line), "{line:?} in\n{}", report.stdout);
    }

    let report = site.evermq("check --config evermq.toml --json");
    assert_eq!(report.status, 2);
    let json = report.json();
    assert_eq!((&json["ok"], &json["errors"], &json["warnings"]), (&json!(false), &json!(3), &json!(0)));
    assert_eq!(json["cluster"], Value::Null);
    let place = |problem: &Value| {
        (
            problem["line"].as_u64().unwrap(),
            problem["column"].as_u64().unwrap(),
            problem["text"].as_str().unwrap().to_owned(),
        )
    };
    let places: Vec<_> = json["problems"].as_array().unwrap().iter().map(place).collect();
    assert_eq!(places, [(6, 8, "300".into()), (7, 1, "advert_intervall".into()), (26, 11, "\"192.168.10.21\"".into())]);
    for problem in json["problems"].as_array().unwrap() {
        assert_eq!((&problem["severity"], &problem["file"]), (&json!("error"), &json!("evermq.toml")));
        assert!(problem["help"].as_str().is_some_and(|help| !help.is_empty()), "{problem}");
    }
}

#[test]
fn warnings_do_not_fail() {
    let one_lb = CLUSTER.replace("[[hosts]]\nname = \"lb2\"\naddress = \"192.168.10.12\"\nroles = [\"lb\"]\n", "");
    let site = Site::new(&one_lb);
    site.evermq("certs init --config evermq.toml --dir tls").good();
    let text = site.evermq("check --config evermq.toml --host lb1").good();
    assert!(text.contains(": warning: ") && text.contains("evermq.toml is good (0 errors, 1 warning)"), "{text}");
    let json = site.evermq("check --config evermq.toml --host lb1 --json").json();
    assert_eq!((&json["ok"], &json["problems"][0]["severity"]), (&json!(true), &json!("warning")));
    assert_eq!(
        json["cluster"]["hosts"][0],
        json!({"name": "lb1", "address": "192.168.10.11", "roles": ["lb"], "vip_priority": 200})
    );
}

#[test]
fn a_missing_file_says_how_to_name_it() {
    let site = Site::new(CLUSTER);
    let report = site.evermq("check --config nowhere.toml");
    assert_eq!(report.status, 2);
    assert!(report.stdout.contains("nowhere.toml: error: ") && report.stdout.contains("--config PATH"), "{report:#?}");
}

#[test]
fn an_unknown_host_is_told_the_known_ones() {
    let site = Site::with_certificates();
    let stderr = site.evermq("check --config evermq.toml --host lb7").bad(2);
    assert!(stderr.contains("\"lb7\" is not in the cluster file (its hosts: lb1, lb2, broker1, broker2)"), "{stderr}");
}

#[test]
fn certificate_problems_point_at_their_key_in_the_file() {
    let site = Site::with_certificates();
    fs::copy(site.path("tls/lb2.key"), site.path("tls/lb1.key")).unwrap();
    fs::remove_file(site.path("tls/broker2.crt")).unwrap();
    let lb1 = site.evermq("check --config evermq.toml --host lb1");
    assert_eq!(lb1.status, 2);
    assert!(lb1.stdout.contains("evermq.toml:9:7: error: "), "{lb1:#?}");
    assert!(lb1.stdout.contains("lb1.key is not the key of "), "{lb1:#?}");
    let broker2 = site.evermq("check --config evermq.toml --host broker2");
    assert!(
        broker2.stdout.contains("evermq.toml:8:8: error: ") && broker2.stdout.contains("broker2.crt"),
        "{broker2:#?}"
    );
    site.evermq("check --config evermq.toml --host broker1").good();
    // This machine is none of the hosts, and each host's files have names of their own: all are looked at.
    let all = site.evermq("check --config evermq.toml");
    assert_eq!(all.status, 2, "{all:#?}");
    assert!(all.stdout.contains("lb1.key") && all.stdout.contains("broker2.crt"), "{all:#?}");
    assert!(all.stdout.contains("2 errors"), "{all:#?}");
}

#[test]
fn files_with_the_same_name_on_every_host_may_be_any_hosts() {
    let site = Site::new(&CLUSTER.replace("{host}", "host"));
    site.evermq("certs init --config evermq.toml --dir made").good();
    let install = |name: &str| {
        let _ = fs::create_dir(site.path("tls"));
        for (from, to) in
            [("ca.crt", "ca.crt"), (&*format!("{name}.crt"), "host.crt"), (&*format!("{name}.key"), "host.key")]
        {
            fs::copy(site.path("made").join(from), site.path("tls").join(to)).unwrap();
        }
    };
    install("broker2");
    let text = site.evermq("check --config evermq.toml").good();
    assert!(text.contains("checked the certificates here, which are one host's"), "{text}");
    site.evermq("check --config evermq.toml --host broker2").good();
    let other = site.evermq("check --config evermq.toml --host lb1");
    assert_eq!(other.status, 2);
    assert!(other.stdout.contains("is not a certificate of host \"lb1\""), "{other:#?}");
    site.evermq("certs client stranger --dir made").good();
    install("stranger");
    assert_eq!(site.evermq("check --config evermq.toml").status, 2, "a client's certificate is no host's");
}
