//! What hosts are asked for, and in which order.

use std::fs;

use super::Hosts;
use crate::program;

const DEPLOY: &str = "deploy --config evermq.toml --no-verify";

/// Hosts that have been deployed with version 0.1.0, lb1 with the VIP.
fn deployed() -> Hosts {
    let hosts = Hosts::new();
    hosts.evermq(&format!("{DEPLOY} --packages old")).good();
    hosts.hold_vip();
    hosts.log();
    hosts
}

/// The lines of a log that are not of programs that only look.
fn sorted(mut log: Vec<String>) -> Vec<String> {
    log.sort();
    log
}

#[test]
fn bare_hosts_become_a_cluster() {
    let hosts = Hosts::new();
    let planned = hosts.evermq(&format!("{DEPLOY} --packages old --dry-run")).good();
    assert!(planned.contains("packages (all at once):\n  lb1      install evermq_0.1.0_"), "{planned}");
    assert_eq!(hosts.log(), [""; 0], "a dry run does nothing");
    let said = hosts.evermq(&format!("{DEPLOY} --packages old")).good();
    assert!(said.contains("broker2") && said.contains("start evermq-broker"), "{said}");
    let log = hosts.log();
    let installs = sorted(log[..4].to_vec());
    assert_eq!(installs, ["broker1 dpkg 0.1.0", "broker2 dpkg 0.1.0", "lb1 dpkg 0.1.0", "lb2 dpkg 0.1.0"]);
    assert!(log[4..8].iter().all(|line| line.contains(" evermq check --host ")), "{log:#?}");
    let starts = |from: usize, unit: &str, names: [&str; 2]| {
        let expected = names.map(|name| format!("{name} systemctl enable --now evermq-{unit}"));
        assert_eq!(sorted(log[from..from + 2].to_vec()), expected);
    };
    starts(8, "broker", ["broker1", "broker2"]);
    starts(10, "lb", ["lb1", "lb2"]);
    starts(12, "vip", ["lb1", "lb2"]);
    assert_eq!(log.len(), 14, "{log:#?}");
    // Each host has the file, and of keys its own alone.
    let file = fs::read(hosts.site.path("evermq.toml")).unwrap();
    for name in ["lb1", "lb2", "broker1", "broker2"] {
        let etc = hosts.of(name).join("etc/evermq");
        assert_eq!(fs::read(etc.join("evermq.toml")).unwrap(), file);
        let mut tls: Vec<_> = fs::read_dir(etc.join("tls"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        tls.sort();
        let mut expected = ["ca.crt".to_owned(), format!("{name}.crt"), format!("{name}.key")];
        expected.sort();
        assert_eq!(tls, expected);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(etc.join(format!("tls/{name}.key"))).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
}

#[test]
fn a_repeat_does_nothing() {
    let hosts = deployed();
    let said = hosts.evermq(&format!("{DEPLOY} --packages old")).good();
    assert_eq!(said, "the hosts are as the file has them: nothing to do\n");
    let said = hosts.evermq(DEPLOY).good();
    assert_eq!(said, "the hosts are as the file has them: nothing to do\n");
    assert_eq!(hosts.log(), [""; 0]);
}

#[test]
fn a_new_version_comes_to_one_broker_after_the_other() {
    let hosts = deployed();
    hosts.evermq(&format!("{DEPLOY} --packages new")).good();
    let log = hosts.log();
    assert_eq!(sorted(log[..2].to_vec()), ["broker1 dpkg 0.2.0", "broker2 dpkg 0.2.0"]);
    assert_eq!(log[2..4], ["lb2 dpkg 0.2.0", "lb1 dpkg 0.2.0"], "the one with the VIP last");
    assert_eq!(
        log[8..],
        [
            "broker1 evermq drain broker1 --host broker1 --wait",
            "broker1 systemctl restart evermq-broker",
            "broker2 evermq drain broker2 --host broker2 --wait",
            "broker2 systemctl restart evermq-broker",
        ]
    );
    hosts.evermq(&format!("{DEPLOY} --restart --drain-rate 200")).good();
    let log = hosts.log();
    assert!(log.contains(&"broker1 evermq drain broker1 --host broker1 --wait --rate 200".to_owned()), "{log:#?}");
}

#[test]
fn a_change_ends_at_a_broker_whose_clients_stay() {
    let hosts = deployed();
    fs::write(hosts.of("broker1").join("hangs-evermq-drain"), "").unwrap();
    let complaint = hosts.evermq(&format!("{DEPLOY} --packages new")).bad(1);
    assert!(
        complaint.contains("broker1: drain failed (exit status 124): it still has clients after 15 minutes"),
        "{complaint}"
    );
    assert!(!hosts.log().iter().any(|line| line.contains("restart")));
}

#[test]
fn a_changed_file_is_reloaded_and_what_needs_a_restart_is_told() {
    let hosts = deployed();
    let changed = program::CLUSTER.replace("[vip]", "[lb]\nmax_connections = 100\n[vip]");
    fs::write(hosts.site.path("evermq.toml"), changed).unwrap();
    let said = hosts.evermq(DEPLOY).good();
    assert!(
        said.contains("note: broker1: evermq-broker: the file is in force, but for what needs a restart"),
        "{said}"
    );
    let log = hosts.log();
    let reloads: Vec<_> = log.iter().filter(|line| line.contains("reload")).collect();
    let expected = ["broker1", "broker2", "lb2", "lb1"].map(|name| format!("{name} evermq reload --host {name}"));
    assert_eq!(reloads, expected.iter().collect::<Vec<_>>());
    assert!(!log.iter().any(|line| line.contains("systemctl")), "{log:#?}");
    hosts.evermq(&format!("{DEPLOY} --restart")).good();
    let restarts: Vec<_> = hosts.log().into_iter().filter(|line| !line.contains("drain")).collect();
    assert_eq!(
        restarts,
        [
            "broker1 systemctl restart evermq-broker",
            "broker2 systemctl restart evermq-broker",
            "lb2 evermq upgrade lb --host lb2",
            "lb2 systemctl restart evermq-vip",
            "lb1 evermq upgrade lb --host lb1",
            "lb1 systemctl restart evermq-vip",
        ]
    );
}

#[test]
fn it_stops_at_the_first_failure_and_says_what_is_where() {
    let hosts = deployed();
    fs::write(hosts.of("broker1").join("fails-restart"), "").unwrap();
    let ended = hosts.evermq(&format!("{DEPLOY} --packages new"));
    assert!(
        ended.stderr.contains("broker1: restart evermq-broker failed (exit status 1): Job for evermq-broker failed."),
        "{ended:#?}"
    );
    let row = |name: &str| {
        let rows = ended.stdout.split("after the failure:").nth(1).unwrap().lines();
        rows.filter(|line| line.starts_with(name))
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .next()
            .unwrap()
    };
    assert_eq!(row("broker2"), "broker2 0.2.0 4 of 4 as wanted broker: runs");
    assert_eq!(row("lb1"), "lb1 0.2.0 4 of 4 as wanted vip: runs, lb: runs, has the VIP");
    assert!(!hosts.log().iter().any(|line| line.starts_with("broker2") && line.contains("restart")));
    ended.bad(1);
    // A host that the check refuses is not reloaded, and no other is.
    let hosts = deployed();
    fs::write(hosts.of("lb2").join("fails-evermq-check"), "").unwrap();
    fs::write(hosts.site.path("evermq.toml"), format!("{}# changed\n", program::CLUSTER)).unwrap();
    let complaint = hosts.evermq(DEPLOY).bad(1);
    assert!(complaint.contains("lb2: check failed (exit status 2): check says no"), "{complaint}");
    assert!(!hosts.log().iter().any(|line| line.contains("reload")));
    // Nor does any find it when it starts again.
    for name in ["lb1", "lb2", "broker1", "broker2"] {
        let file = fs::read_to_string(hosts.of(name).join("etc/evermq/evermq.toml")).unwrap();
        assert_eq!(file, program::CLUSTER, "{name}");
    }
    fs::remove_file(hosts.of("lb2").join("fails-evermq-check")).unwrap();
    hosts.evermq(DEPLOY).good();
    assert!(hosts.log().contains(&"lb2 evermq reload --host lb2".to_owned()));
    // What a bare host refuses does not stay there either.
    let hosts = Hosts::new();
    fs::write(hosts.of("lb2").join("fails-evermq-check"), "").unwrap();
    hosts.evermq(&format!("{DEPLOY} --packages old")).bad(1);
    for name in ["lb1", "lb2"] {
        assert_eq!(fs::read_dir(hosts.of(name).join("etc/evermq/tls")).unwrap().count(), 0, "{name}");
        assert!(!hosts.of(name).join("etc/evermq/evermq.toml").exists(), "{name}");
    }
}

#[test]
fn a_host_that_cannot_be_reached_stops_it_before_anything_is_changed() {
    let hosts = Hosts::new();
    fs::remove_dir_all(hosts.of("broker2")).unwrap();
    let complaint = hosts.evermq(&format!("{DEPLOY} --packages old")).bad(1);
    assert!(
        complaint.contains("host broker2: cannot log in: ssh: connect to host broker2 port 22: No route to host"),
        "{complaint}"
    );
    assert!(complaint.contains("nothing was changed"), "{complaint}");
    fs::create_dir_all(hosts.of("broker2")).unwrap();
    fs::write(hosts.of("lb1").join("no-root"), "").unwrap();
    let complaint = hosts.evermq(&format!("{DEPLOY} --packages old")).bad(1);
    assert!(
        complaint.contains("host lb1 lets us in as a user who is not root; use --user root, or --sudo"),
        "{complaint}"
    );
    fs::remove_file(hosts.of("lb1").join("no-root")).unwrap();
    let complaint = hosts.evermq(DEPLOY).bad(1);
    assert!(complaint.contains("has no evermq; name a directory with packages: --packages DIR"), "{complaint}");
    fs::remove_file(hosts.site.path("tls/broker1.key")).unwrap();
    let complaint = hosts.evermq(&format!("{DEPLOY} --packages old")).bad(2);
    assert!(
        complaint.contains("broker1.key is missing, which host broker1 needs as /etc/evermq/tls/broker1.key"),
        "{complaint}"
    );
    assert_eq!(hosts.log(), [""; 0]);
}

#[test]
fn rollback_brings_version_and_files_back() {
    let hosts = deployed();
    let said = hosts.evermq("rollback --config evermq.toml").good();
    assert_eq!(said, "there is nothing to bring back on any host: nothing to do\n");
    fs::write(hosts.site.path("evermq.toml"), format!("{}# changed\n", program::CLUSTER)).unwrap();
    hosts.evermq(&format!("{DEPLOY} --packages new")).good();
    hosts.log();
    hosts.evermq("rollback --config evermq.toml").good();
    let log = hosts.log();
    let installs: Vec<_> = log.iter().filter(|line| line.contains("dpkg")).cloned().collect();
    assert_eq!(installs, ["broker1 dpkg 0.1.0", "broker2 dpkg 0.1.0", "lb2 dpkg 0.1.0", "lb1 dpkg 0.1.0"]);
    assert!(log.contains(&"broker2 systemctl restart evermq-broker".to_owned()), "{log:#?}");
    for name in ["lb1", "broker1"] {
        let file = fs::read_to_string(hosts.of(name).join("etc/evermq/evermq.toml")).unwrap();
        assert_eq!(file, program::CLUSTER, "{name}");
    }
    // Directories that the programs' users have to get through are as they were.
    for directory in ["etc", "etc/evermq"] {
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(hosts.of("lb1").join(directory)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o755, "{directory}");
    }
    let said = hosts.evermq("rollback --config evermq.toml").good();
    assert!(said.contains("nothing to bring back"), "{said}");
}

#[test]
fn a_broker_is_added_by_one_command() {
    let hosts = deployed();
    fs::create_dir_all(hosts.of("broker3")).unwrap();
    let said = hosts.evermq(&format!("{DEPLOY} --packages old --add-host broker3=192.168.10.23")).good();
    assert!(said.contains("evermq.toml has broker3 now"), "{said}");
    let log = hosts.log();
    assert_eq!(log[0], "broker3 dpkg 0.1.0");
    let at = |wanted: &str| log.iter().position(|line| line == wanted).unwrap_or_else(|| panic!("{wanted}: {log:#?}"));
    let start = at("broker3 systemctl enable --now evermq-broker");
    // It waits until the others give it what they have; an lb need not know it before it is there.
    assert!(["broker1", "broker2"].iter().all(|name| at(&format!("{name} evermq reload --host {name}")) < start));
    assert!(["lb1", "lb2"].iter().all(|name| at(&format!("{name} evermq reload --host {name}")) > start));
    assert!(!log.iter().any(|line| line.contains("restart")), "no client is disconnected: {log:#?}");
    assert!(hosts.of("broker3").join("etc/evermq/tls/broker3.key").exists());
    let complaint = hosts.evermq(&format!("{DEPLOY} --add-host broker3=192.168.10.23")).bad(2);
    assert!(complaint.contains("host \"broker3\" is in the cluster file already"), "{complaint}");
}
