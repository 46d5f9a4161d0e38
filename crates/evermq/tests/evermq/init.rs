//! `evermq init`: files that pass `evermq check`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::program::{self, Site};

/// A directory with the given file and no cluster file.
fn empty() -> Site {
    let site = Site::new("");
    fs::remove_file(site.path("evermq.toml")).unwrap();
    site
}

/// Makes certificates beside the file and has every host's checked.
fn passes(site: &Site, hosts: &[&str]) {
    let said = site.evermq("certs init --config evermq.toml --dir tls").good();
    // The file lets an admin see and act, who was forgotten here.
    assert!(said.contains("for `evermq status` and the page: evermq certs client admin --dir tls\n"), "{said}");
    for host in hosts {
        let report = site.evermq(&format!("check --config evermq.toml --host {host}"));
        assert!(report.stdout.contains("(0 errors, 0 warnings)"), "{report:#?}");
    }
}

#[test]
fn options_make_a_file_that_passes() {
    let site = empty();
    let words = "init --name plant-7 --lb lb1=192.168.10.11 --lb lb2=192.168.10.12 --broker b1=192.168.10.21 --broker b2=192.168.10.22 \
                 --vip 192.168.10.10 --port 9001";
    let said = site.evermq(words).good();
    assert!(said.starts_with("wrote evermq.toml\nnext:\n"), "{said}");
    passes(&site, &["lb1", "lb2", "b1", "b2"]);
    let checked = site.evermq("check --config evermq.toml --json --host lb1").json();
    assert_eq!(checked["cluster"]["vip"], "192.168.10.10");
    assert_eq!(checked["cluster"]["port"], 9001);
    assert_eq!(checked["cluster"]["hosts"].as_array().unwrap().len(), 4);
    let before = fs::read(site.path("evermq.toml")).unwrap();
    let complaint = site.evermq(words).bad(1);
    assert!(complaint.contains("evermq.toml is already there and will not be overwritten"), "{complaint}");
    assert_eq!(fs::read(site.path("evermq.toml")).unwrap(), before);
    let printed = site.evermq(&format!("{words} --out -")).good();
    assert_eq!(printed.into_bytes(), before);
}

#[test]
fn answers_make_the_same_file_as_options() {
    let site = empty();
    let mut child = Command::new(env!("CARGO_BIN_EXE_evermq"))
        .arg("init")
        .current_dir(site.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let answers = "plant-7\nlb1=10.0.0.1\nlb2=10.0.0.2\n\nlb1=10.0.0.1\nlb2=10.0.0.2\n\n10.0.0.9\n\n";
    child.stdin.take().unwrap().write_all(answers.as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    passes(&site, &["lb1", "lb2"]);
    let words = "init --name plant-7 --lb lb1=10.0.0.1 --lb lb2=10.0.0.2 --broker lb1=10.0.0.1 --broker lb2=10.0.0.2 --vip 10.0.0.9 --out -";
    assert_eq!(site.evermq(words).good(), fs::read_to_string(site.path("evermq.toml")).unwrap());
}

#[test]
fn an_inventory_makes_a_file_that_passes() {
    let site = empty();
    let inventory = "[mosquitto-master]\nbridge ansible_host=10.0.0.20\n[mosquitto-broker]\nbroker1\n[mosquitto-broker-address]\n10.0.0.21\n\
                     [mosquitto-nginx-keepalived]\nlb1 ansible_host=10.0.0.11\nlb2\n[keepalived-vip]\n10.0.0.9\n[vip-port]\n9000\n\
                     [add-broker]\nbroker2\n[add-broker-address]\n10.0.0.22\n";
    fs::write(site.path("inventory"), inventory).unwrap();
    fs::write(site.path("known"), "10.0.0.12 lb2.plant lb2\n").unwrap();
    let said = site.evermq("init --from-ansible inventory --hosts-file known --name plant-7").good();
    assert!(said.contains("note: the bridge's host \"bridge\" is a broker like the others"), "{said}");
    passes(&site, &["lb1", "lb2", "bridge", "broker1", "broker2"]);
}

#[test]
fn what_is_missing_or_contradicts_is_said() {
    let site = empty();
    fs::write(site.path("inventory"), "[mosquitto-broker]\nbroker1\n").unwrap();
    for (words, complaint) in [
        ("--lb lb1=10.0.0.1 --vip 10.0.0.9", "no broker was named; name one, better two, with --broker NAME=ADDRESS"),
        ("--broker b1=10.0.0.1 --no-vip", "no lb host was named"),
        ("--lb lb1=10.0.0.1 --broker b1=10.0.0.2", "no VIP was named; name it with --vip ADDRESS, or say --no-vip"),
        ("--lb lb1=10.0.0.1 --broker lb1=10.0.0.2 --vip 10.0.0.9", "host \"lb1\" has two addresses"),
        ("--lb lb1 --no-vip", "write NAME=ADDRESS, such as lb1=192.168.10.11"),
        ("--lb lb1=10.0.0.1 --broker b1=10.0.0.2 --vip 10.0.0.2", "what was said makes no good cluster file"),
        (
            "--from-ansible inventory --hosts-file /dev/null",
            "inventory: line 2: nothing says the address of host \"broker1\"",
        ),
        ("", "the questions were not answered to the end"),
    ] {
        let ended = program::evermq_without_input(site.root(), &format!("init {words}"));
        assert!(ended.stderr.contains(complaint), "{words}: {ended:#?}");
        ended.bad(2);
    }
    assert!(!site.path("evermq.toml").exists());
}
