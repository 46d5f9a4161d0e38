//! `evermq check --hosts` and `--here`.

use std::fs;

use super::Hosts;

#[test]
fn what_is_in_the_way_is_told_for_each_host() {
    let hosts = Hosts::new();
    for (name, address) in [("lb1", "11"), ("lb2", "12"), ("broker1", "21")] {
        fs::write(
            hosts.of(name).join("addresses"),
            format!("2: eth0 inet 192.168.10.{address}/24 scope global eth0\n"),
        )
        .unwrap();
    }
    fs::remove_dir_all(hosts.of("broker2")).unwrap();
    let nginx = "tcp LISTEN 0 511 0.0.0.0:9000 0.0.0.0:* users:((\"nginx\",pid=7,fd=5))\n";
    fs::write(hosts.of("lb2").join("listeners"), nginx).unwrap();
    let ended = hosts.evermq("check --config evermq.toml --hosts --json");
    assert_eq!(ended.status, 1, "{ended:#?}");
    let json = ended.json();
    assert_eq!((json["ok"].as_bool(), json["answered"].as_u64()), (Some(false), Some(3)));
    let errors: Vec<_> = json["obstacles"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|obstacle| obstacle["severity"] == "error" && obstacle["subject"] != "open files")
        .map(|obstacle| format!("{} {}", obstacle["host"].as_str().unwrap(), obstacle["message"].as_str().unwrap()))
        .collect();
    assert_eq!(
        errors,
        [
            "lb2 nginx has tcp port 9000, which evermq-lb needs",
            "broker2 cannot log in: ssh: connect to host broker2 port 22: No route to host"
        ],
        "{json:#}"
    );
    let text = hosts.evermq("check --config evermq.toml --hosts");
    assert!(text.stdout.contains("-> systemctl disable --now nginx"), "{text:#?}");
    assert!(text.stdout.contains("3 hosts answered"), "{text:#?}");
}

#[test]
fn a_host_can_ask_itself() {
    let hosts = Hosts::new();
    // This machine is none of the hosts, so that something is in the way in any case; the real programs answer.
    let ended = hosts.site.evermq("check --config evermq.toml --here --host lb1 --json");
    assert_eq!(ended.status, 1, "{ended:#?}");
    let json = ended.json();
    assert_eq!(json["answered"], 1);
    let subjects: Vec<_> =
        json["obstacles"].as_array().unwrap().iter().map(|o| o["subject"].as_str().unwrap()).collect();
    assert!(subjects.contains(&"address") && !subjects.contains(&"ssh"), "{json:#}");
}
