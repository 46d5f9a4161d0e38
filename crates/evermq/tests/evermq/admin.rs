//! `evermq admin`, and commands that ask it from where nothing of the cluster runs; its unit.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use evermq_daemon::control;
use serde_json::json;

use crate::program::{CLUSTER, Site};

const UNIT: &str = include_str!("../../../../deploy/systemd/evermq-admin.service");

/// A cluster all of whose addresses are this machine's; lb1 listens on its own.
fn site() -> Site {
    let cluster = CLUSTER.replace("192.168.10.", "127.0.0.");
    let listen = evermq_ports::free_on([Ipv4Addr::new(127, 0, 0, 11).into()])[0];
    Site::new(&format!("{cluster}\n[admin]\nlisten = \"{listen}\"\n"))
}

/// Asks again and again until there is an answer.
#[expect(clippy::disallowed_methods, reason = "a test waits for what another process does")]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_is_asked_with_a_certificate_by_who_is_no_host() {
    let site = site();
    site.evermq("certs init --config evermq.toml --dir tls --client admin --client device").good();
    let mut endpoint = Command::new(env!("CARGO_BIN_EXE_evermq"))
        .args(["admin", "--config", "evermq.toml", "--host", "lb1"])
        .current_dir(site.root())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ask = |request: &str| {
        let socket = site.root().join("run/admin.sock");
        control::request(&socket, &json!({ "request": request }), Duration::from_secs(5))
    };
    let shown = eventually("it answers", || ask("state").ok());
    assert_eq!((&shown["program"], &shown["host"]), (&json!("evermq-admin"), &json!("lb1")));

    // The programs of lb1 do not run: that is what it says. The other hosts are not there at all.
    let laptop = |words: &str| site.evermq(&format!("{words} --config evermq.toml --timeout 10000"));
    let status = laptop("status -o json");
    let json = status.json();
    assert_eq!((status.status, &json["hosts"][0]["state"]), (2, &json!("down")), "{status:#?}");
    assert_eq!(json["hosts"][2]["state"], "silent");
    let refused = laptop("status -o json --cert tls/device.crt --key tls/device.key").json();
    let note = refused["hosts"][0]["notes"][0].as_str().unwrap().to_owned();
    assert!(note.contains("the certificate of \"device\" may not see this"), "{note}");
    let logs = laptop("logs");
    assert!(logs.stdout.contains(" lb1 admin INFO  listening listen=127.0.0.11:"), "{logs:#?}");

    assert_eq!(ask("reload").unwrap()["changed"], true);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(endpoint.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    let mut said = String::new();
    endpoint.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(endpoint.wait().unwrap().success(), "{said}");
    assert!(said.contains("the cluster file is in force"), "{said}");
}

#[test]
fn without_a_certificate_nobody_is_asked_and_the_table_says_what_to_do() {
    let site = site();
    let status = site.evermq("status --config evermq.toml");
    assert_eq!(status.status, 1, "{status:#?}");
    assert!(status.stdout.contains("admin.crt is not there"), "{status:#?}");
    assert!(status.stdout.contains("--cert and --key"), "{status:#?}");
}

#[test]
fn its_unit_is_as_tight_as_the_others_and_they_start_it() {
    let has = |unit: &str, line: &str| unit.lines().any(|one| one == line);
    for line in [
        "ExecStart=/usr/bin/evermq admin",
        "Type=notify",
        "Restart=always",
        "User=evermq-admin",
        "Group=evermq",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ReadWritePaths=-/run/evermq",
        "ConditionPathExists=/etc/evermq/evermq.toml",
    ] {
        assert!(has(UNIT, line), "{line}");
    }
    let lb = include_str!("../../../../deploy/systemd/evermq-lb.service");
    let broker = include_str!("../../../../deploy/systemd/evermq-broker.service");
    for unit in [lb, broker] {
        assert!(has(unit, "Wants=network-online.target evermq-admin.service"));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evermq-admin.service");
    let unit = UNIT.replace("/usr/bin/evermq", env!("CARGO_BIN_EXE_evermq")).replace("Documentation=", "#");
    std::fs::write(&path, unit).unwrap();
    for arguments in [&["verify"][..], &["security", "--offline=true", "--threshold=15"]] {
        let output = Command::new("systemd-analyze").args(arguments).arg(&path).output();
        let output = output.expect("the test needs systemd-analyze");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
