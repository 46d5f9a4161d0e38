//! `evermq import` on files that Debian ships, and on one host's files of the old setup, which their own programs take.

use std::fs;

use crate::program::Site;

const MOSQUITTO: &str = include_str!("../../src/import/tests/mosquitto.conf");
const KEEPALIVED: &str = include_str!("../../src/import/tests/keepalived.conf");
const NGINX: &str = include_str!("../../src/import/tests/nginx.conf");

fn old_setup() -> Site {
    let site = Site::new("");
    fs::remove_file(site.path("evermq.toml")).unwrap();
    for (name, text) in [("mosquitto.conf", MOSQUITTO), ("keepalived.conf", KEEPALIVED), ("nginx.conf", NGINX)] {
        fs::write(site.path(name), text).unwrap();
    }
    site
}

#[test]
fn the_old_setups_files_pass_keepaliveds_own_check() {
    let site = old_setup();
    // Scripts and users that are not on this machine are complaints, not mistakes of the file.
    let checked = site.shell("/usr/sbin/keepalived -t -f keepalived.conf --log-console 2>&1 || true").good();
    for mistake in ["Unknown keyword", "Missing", "Unexpected", "Unmatched"] {
        assert!(!checked.contains(mistake), "{checked}");
    }
}

#[test]
fn three_files_at_once_make_one_that_passes() {
    let site = old_setup();
    let words = "import mosquitto.conf keepalived.conf nginx.conf --name plant-7 --lb lb1=192.168.10.11 --lb lb2=192.168.10.12 \
                 --broker b1=192.168.10.21 --broker b2=192.168.10.22 --hosts-file /dev/null";
    let printed = site.evermq(words);
    assert!(printed.stderr.contains("keepalived.conf:30") && printed.stderr.contains("left out"), "{printed:#?}");
    let toml = printed.good();
    let said = site.evermq(&format!("{words} --out evermq.toml"));
    assert_eq!(fs::read_to_string(site.path("evermq.toml")).unwrap(), toml);
    assert_eq!((said.status, said.stdout.as_str()), (0, ""));
    let json = site.evermq(&format!("{words} --json")).json();
    assert_eq!(json["ok"], true);
    assert_eq!(json["toml"], toml);
    let lines = json["lines"].as_array().unwrap();
    assert!(
        lines.iter().any(|line| line["text"] == "autosave_interval 1800" && line["outcome"] == "left_out"),
        "{json:#}"
    );
    let checked = site.evermq("check --config evermq.toml --json --host b1").json();
    let problems = checked["problems"].as_array().unwrap();
    // The certificates, passwords and rules of the old host are not on this machine: nothing else is wrong.
    let text = |problem: &serde_json::Value, key: &str| problem[key].as_str().unwrap().to_owned();
    let errors: Vec<_> = problems.iter().filter(|problem| text(problem, "severity") == "error").collect();
    let missing = |problem: &&serde_json::Value| text(problem, "message").starts_with("cannot read ");
    assert!(errors.iter().all(missing), "{errors:#?}");
    assert!(site.evermq(&format!("{words} --out evermq.toml")).bad(1).contains("will not be overwritten"));
}

/// What a package has in its documentation, which some systems leave out of all packages.
#[expect(clippy::print_stderr, reason = "whoever reads that it passed is to know that it did not run")]
fn documentation<T>(path: &str, read: std::io::Result<T>) -> Option<T> {
    read.inspect_err(|error| eprintln!("NOT TESTED: {path}: {error}; Debian's package has it")).ok()
}

/// Debian's mosquitto ships a file that has each of its options, commented out.
#[test]
fn every_option_of_debians_mosquitto_is_known() {
    let shipped = "/usr/share/doc/mosquitto/examples/mosquitto.conf";
    let Some(shipped) = documentation(shipped, fs::read_to_string(shipped)) else { return };
    let option = |line: &str| {
        let line = line.strip_prefix('#').unwrap_or(line);
        line.starts_with(|c: char| c.is_ascii_lowercase()).then(|| line.to_owned())
    };
    let all: Vec<String> = shipped.lines().filter_map(option).collect();
    assert!(all.len() > 90, "{all:?}");
    let site = Site::new("");
    fs::write(site.path("all.conf"), all.join("\n")).unwrap();
    let json = site.evermq("import all.conf --json --hosts-file /dev/null").json();
    let lines = json["lines"].as_array().unwrap();
    for line in lines {
        assert!(!line["why"].as_str().unwrap().contains("no option of mosquitto"), "{line}");
    }
    for number in 1..=all.len() {
        assert!(lines.iter().any(|line| line["line"] == number), "{}", all[number - 1]);
    }
}

#[test]
fn debians_own_files_are_read() {
    let site = Site::new("");
    let samples = "/usr/share/doc/keepalived/samples";
    let mut read = 0;
    let Some(entries) = documentation(samples, fs::read_dir(samples)) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("keepalived.conf.") {
            continue;
        }
        let words = format!(
            "import {} --json --hosts-file /dev/null --lb lb1=192.168.200.1 --broker b1=192.168.200.2",
            path.display()
        );
        let ended = site.evermq(&words);
        assert!(ended.status == 0 || ended.status == 2, "{}: {ended:#?}", path.display());
        assert!(!ended.json()["lines"].as_array().unwrap().is_empty(), "{}", path.display());
        read += 1;
    }
    assert!(read > 10, "{read}");
    for file in ["/etc/mosquitto/mosquitto.conf", "/etc/nginx/nginx.conf"] {
        let ended = site.evermq(&format!("import {file} --json --hosts-file /dev/null"));
        assert!(!ended.json()["lines"].as_array().unwrap().is_empty(), "{file}");
    }
    let words = "import /usr/share/doc/keepalived/samples/keepalived.conf.vrrp --json --hosts-file /dev/null --lb lb1=192.168.200.1 \
                 --lb lb2=192.168.200.2 --broker b1=192.168.200.3";
    let json = site.evermq(words).json();
    assert_eq!(json["ok"], true, "{json:#}");
}

#[test]
fn mistakes_are_named_with_their_lines() {
    let site = Site::new("");
    fs::write(site.path("bad.conf"), "stream {\n  server {\n").unwrap();
    let complaint = site.evermq("import bad.conf").bad(1);
    assert!(complaint.contains("bad.conf:2: a { that is never closed; add its }"), "{complaint}");
    let complaint = site.evermq("import missing.conf").bad(1);
    assert!(complaint.contains("cannot read missing.conf; check the path"), "{complaint}");
}
