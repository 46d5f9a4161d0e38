//! One host at a time, each with one thing in the way.

use super::*;

const GOOD: &str = "== name\nlb1\n== user\n0\n== kernel\n6.1.0-28-amd64\n== systemd\nsystemd 252 (252.1)\n\
                    == addresses\n2: eth0    inet 192.168.10.11/24 scope global eth0\n== limits\n1048576\n9000000\n4096\n== end\n";

fn cluster() -> Cluster {
    let file = include_str!("../../../../../config/evermq.toml");
    evermq_config::parse("/etc/evermq/evermq.toml".as_ref(), file).unwrap().cluster
}

fn judged(name: &str, text: &str, ahead: Option<f64>) -> Vec<Obstacle> {
    let cluster = cluster();
    let host = cluster.hosts.iter().find(|host| host.name.as_str() == name).unwrap();
    judge(&cluster, host, &Facts::parse(text).unwrap(), ahead, OffsetDateTime::UNIX_EPOCH)
}

/// The good host with a section more, or another one.
fn with(section: &str, lines: &str) -> String {
    let mut text = String::new();
    let (mut skip, mut seen) = (false, false);
    for line in GOOD.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            skip = name == section;
            if name == "end" && !seen {
                text += &format!("== {section}\n{lines}\n");
            }
            if skip {
                seen = true;
                text += &format!("== {section}\n{lines}\n");
            }
        }
        if !skip {
            text += &format!("{line}\n");
        }
    }
    text
}

#[test]
fn nothing_is_in_the_way_of_a_good_host() {
    assert_eq!(judged("lb1", GOOD, Some(0.2)), []);
    assert_eq!(judged("lb1", GOOD, None), []);
}

#[test]
fn each_obstacle_is_named() {
    let error = Severity::Error;
    let warning = Severity::Warning;
    let cases: &[(&str, &str, Severity, &str, &str)] = &[
        ("name", "other.plant", error, "name", "this host calls itself \"other\""),
        ("addresses", "2: eth0 inet 10.0.0.1/24", error, "address", "no interface has the address 192.168.10.11"),
        ("user", "1000", warning, "user", "not root"),
        (
            "listeners",
            "tcp LISTEN 0 511 0.0.0.0:9000 0.0.0.0:* users:((\"nginx\",pid=7,fd=5))",
            error,
            "port",
            "nginx has tcp port 9000, which evermq-lb needs",
        ),
        ("listeners", "tcp LISTEN 0 511 *:9001 *:*", error, "port", "tcp port 9001, which evermq-lb needs, is taken"),
        ("programs", "keepalived", error, "keepalived", "two programs set and take away one address"),
        ("systemd", "", error, "systemd", "there is no systemd"),
        ("systemd", "systemd 219", error, "systemd", "systemd 219 is older than 239"),
        ("kernel", "3.10.0-1160.el7", warning, "kernel", "its kernel is 3.10"),
        ("names", "broker1 192.168.10.99", warning, "names", "\"broker1\" leads to 192.168.10.99 there"),
        (
            "vip",
            "192.168.10.10 dev eth0 lladdr 52:54:00:00:00:01 STALE",
            warning,
            "VIP",
            "52:54:00:00:00:01 answers for 192.168.10.10",
        ),
        ("active", "systemd-networkd", warning, "systemd-networkd", "takes addresses away"),
        ("active", "NetworkManager", warning, "NetworkManager", "takes addresses away"),
        (
            "limits",
            "1024\n9000000\n4096",
            error,
            "open files",
            "a process may open 1024 files, and max_connections needs 41000",
        ),
        ("limits", "1048576\n100\n4096", error, "open files", "100 files open in all"),
        ("limits", "1048576\n9000000\n128", warning, "backlog", "only 128 new connections"),
    ];
    for (section, lines, severity, subject, message) in cases {
        let found = judged("lb1", &with(section, lines), None);
        assert_eq!(found.len(), 1, "{section} {lines}: {found:#?}");
        assert_eq!((found[0].severity, found[0].subject), (*severity, *subject), "{found:#?}");
        assert!(found[0].message.contains(message) && !found[0].help.is_empty(), "{found:#?}");
    }
}

#[test]
fn what_is_ours_is_not_in_the_way() {
    for (section, lines) in [
        ("listeners", "tcp LISTEN 0 4096 0.0.0.0:9000 0.0.0.0:* users:((\"evermq-lb\",pid=7,fd=5))"),
        ("listeners", "tcp LISTEN 0 4096 0.0.0.0:8883 0.0.0.0:* users:((\"mosquitto\",pid=7,fd=5))"),
        ("names", "lb1 127.0.1.1\nbroker1 192.168.10.21\nlocalhost 127.0.0.1"),
        ("disk", "x\n/dev/vda 1 1 1000 1% /"),
    ] {
        assert_eq!(judged("lb1", &with(section, lines), None), [], "{section} {lines}");
    }
    let kept = with("active", "systemd-networkd").replace("== end", "== keep\nKeepConfiguration=static\n== end");
    assert_eq!(judged("lb1", &kept, None), []);
    let held = with("addresses", "2: eth0 inet 192.168.10.11/24\n2: eth0 inet 192.168.10.10/32")
        .replace("== end", "== programs\nevermq-vip\n== end");
    assert_eq!(judged("lb1", &held, None), []);
}

#[test]
fn clocks_that_differ() {
    assert_eq!(judged("lb1", GOOD, Some(-0.9)), []);
    let found = judged("lb1", GOOD, Some(-12.0));
    assert_eq!(
        (found[0].severity, found[0].message.as_str()),
        (Severity::Warning, "its clock is 12 s behind this machine's")
    );
    assert_eq!(judged("lb1", GOOD, Some(4000.0))[0].severity, Severity::Error);
}

#[test]
fn a_broker_needs_room_and_its_ports() {
    let text = GOOD.replace("lb1", "broker1").replace("192.168.10.11", "192.168.10.21");
    assert_eq!(judged("broker1", &text, None), []);
    let full = text.replace("== end", "== disk\nFilesystem x\n/dev/vda 1 1 1000 1% /\n== listeners\ntcp LISTEN 0 1 0.0.0.0:8883 0.0.0.0:* users:((\"mosquitto\",pid=1,fd=1))\n== end");
    let found = judged("broker1", &full, None);
    let subjects: Vec<_> = found.iter().map(|obstacle| obstacle.subject).collect();
    assert_eq!(subjects, ["port", "disk"], "{found:#?}");
    assert!(found[0].help.starts_with("systemctl disable --now mosquitto"), "{found:#?}");
}

#[test]
fn certificates_end() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20);
    let pem = params.self_signed(&key).unwrap().pem();
    let found = judged("lb1", &with("certificate", pem.trim_end()), None);
    assert_eq!((found[0].subject, found[0].message.as_str()), ("certificate", "its certificate ends in 20 days"));
}
