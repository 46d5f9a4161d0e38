//! The systemd units agree with the programs and the shipped cluster file.

use std::fs;
use std::process::Command;

const UNITS: [(&str, &str); 3] = [
    ("evermq-vip", include_str!("../../../../deploy/systemd/evermq-vip.service")),
    ("evermq-lb", include_str!("../../../../deploy/systemd/evermq-lb.service")),
    ("evermq-broker", include_str!("../../../../deploy/systemd/evermq-broker.service")),
];

const SYSUSERS: &str = include_str!("../../../../deploy/sysusers.d/evermq.conf");
const TMPFILES: &str = include_str!("../../../../deploy/tmpfiles.d/evermq.conf");

/// Every value of a setting.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn each_unit_runs_its_program_for_ever_and_unprivileged() {
    for (name, unit) in UNITS {
        assert_eq!(values(unit, "ExecStart"), [format!("/usr/bin/{name}")]);
        for (key, value) in [
            ("Type", "notify"),
            ("Restart", "always"),
            ("StartLimitIntervalSec", "0"),
            ("User", name),
            ("Group", "evermq"),
            ("WatchdogSignal", "SIGKILL"),
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("PrivateMounts", "yes"),
        ] {
            assert_eq!(values(unit, key), [value], "{key} of {name}");
        }
        let role = name.trim_start_matches("evermq-");
        assert_eq!(values(unit, "ExecReload"), [format!("/usr/bin/evermq reload {role}")]);
        assert!(SYSUSERS.contains(&format!("\nu {name} ")) && SYSUSERS.contains(&format!("\nm {name} ")), "{name}");
        assert_eq!(values(unit, "WatchdogSec").len(), 1, "{name}");
        // Only what listens for clients has sockets that must outlive it.
        assert_eq!(values(unit, "FileDescriptorStoreMax").len(), usize::from(name != "evermq-vip"), "{name}");
        let capabilities = if name == "evermq-vip" { "CAP_NET_ADMIN CAP_NET_RAW" } else { "" };
        assert_eq!(values(unit, "CapabilityBoundingSet"), [capabilities], "{name}");
        assert_eq!(values(unit, "AmbientCapabilities"), [capabilities], "{name}");
    }
    assert_eq!(values(UNITS[0].1, "ExecStopPost"), ["-/usr/bin/evermq-vip --release"]);
    assert_eq!(values(UNITS[1].1, "ExecStop"), ["-+/usr/bin/evermq-lb --before-stop"]);
}

#[test]
fn the_units_paths_are_the_programs_defaults() {
    let shipped = include_str!("../../../../config/evermq.toml");
    let loaded = evermq_config::parse("/etc/evermq/evermq.toml".as_ref(), shipped).expect("the shipped file is good");
    for (name, unit) in UNITS {
        assert_eq!(values(unit, "ConditionPathExists"), [evermq_daemon::command::DEFAULT_CONFIG], "{name}");
        let run_dir = loaded.cluster.run_dir.display();
        assert_eq!(values(unit, "ReadWritePaths"), [format!("-{run_dir}")], "{name}");
        assert!(TMPFILES.contains(&format!("\nd {run_dir} 2770 root evermq ")), "{TMPFILES}");
    }
    let keys = loaded.cluster.tls.key.parent().map(|keys| format!("-{}", keys.display()));
    assert_eq!(values(UNITS[0].1, "InaccessiblePaths"), [keys.expect("a directory")]);
}

#[test]
fn systemd_takes_the_units_and_finds_them_tight() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, unit) in UNITS {
        let path = dir.path().join(format!("{name}.service"));
        // The programs are not installed here, nor their manual page.
        let unit = unit
            .replace(&format!("/usr/bin/{name}"), env!("CARGO_BIN_EXE_evermq"))
            .replace("/usr/bin/evermq reload", &format!("{} reload", env!("CARGO_BIN_EXE_evermq")))
            .replace("Documentation=", "#");
        fs::write(&path, unit).expect("written");
        let analyze = |arguments: &[&str]| {
            let output = Command::new("systemd-analyze").args(arguments).arg(&path).output();
            let output = output.expect("the test needs systemd-analyze");
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{name}: {said}");
            said
        };
        assert_eq!(analyze(&["verify"]), "", "{name}");
        // The threshold is in tenths.
        analyze(&["security", "--offline=true", "--threshold=22"]);
    }
}
