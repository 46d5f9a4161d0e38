//! `evermq certs`: what it makes, as openssl sees it, and what it refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::program::{self, Ended, Site};

const HOSTS: [(&str, &str); 4] =
    [("lb1", "192.168.10.11"), ("lb2", "192.168.10.12"), ("broker1", "192.168.10.21"), ("broker2", "192.168.10.22")];

fn text(site: &Site, name: &str) -> String {
    site.openssl(&format!("x509 -in tls/{name}.crt -noout -text")).good()
}

fn verify(site: &Site, purpose: &str, name: &str) -> Ended {
    site.openssl(&format!("verify -x509_strict -CAfile tls/ca.crt -purpose {purpose} tls/{name}.crt"))
}

/// The line after the one that holds `title`.
fn after<'a>(text: &'a str, title: &str) -> &'a str {
    text.lines()
        .skip_while(|line| !line.contains(title))
        .nth(1)
        .unwrap_or_else(|| panic!("no {title} in {text}"))
        .trim()
}

#[test]
fn hosts_serve_and_connect_under_their_names_addresses_and_the_vip() {
    let site = Site::with_certificates();
    for (name, address) in HOSTS {
        verify(&site, "sslserver", name).good();
        verify(&site, "sslclient", name).good();
        let text = text(&site, name);
        assert_eq!(
            after(&text, "X509v3 Subject Alternative Name"),
            format!("DNS:{name}, IP Address:{address}, IP Address:192.168.10.10")
        );
        assert_eq!(
            after(&text, "X509v3 Extended Key Usage"),
            "TLS Web Server Authentication, TLS Web Client Authentication"
        );
        assert_eq!(after(&text, "X509v3 Key Usage: critical"), "Digital Signature");
        assert_eq!(after(&text, "X509v3 Basic Constraints: critical"), "CA:FALSE");
        assert!(text.contains("NIST CURVE: P-256"), "{text}");
        assert!(text.contains("Signature Algorithm: ecdsa-with-SHA256"), "{text}");
        assert!(text.contains(&format!("Subject: CN = {name}\n")), "{text}");
    }
}

#[test]
fn clients_connect_only_and_cannot_pass_for_a_host() {
    let site = Site::with_certificates();
    for name in ["client", "meter-17"] {
        verify(&site, "sslclient", name).good();
        assert_ne!(verify(&site, "sslserver", name).status, 0);
        let text = text(&site, name);
        assert_eq!(after(&text, "X509v3 Extended Key Usage"), "TLS Web Client Authentication");
        assert!(!text.contains("Subject Alternative Name"), "{text}");
        assert!(text.contains(&format!("Subject: CN = {name}\n")), "{text}");
    }
}

#[test]
fn the_authority_signs_certificates_and_no_authorities() {
    let site = Site::with_certificates();
    let text = text(&site, "ca");
    assert_eq!(after(&text, "X509v3 Basic Constraints: critical"), "CA:TRUE, pathlen:0");
    assert_eq!(after(&text, "X509v3 Key Usage: critical"), "Certificate Sign, CRL Sign");
    assert!(text.contains("Subject: CN = test CA\n"), "{text}");
    assert!(text.contains("NIST CURVE: P-256"), "{text}");
}

#[test]
fn validity_is_as_asked_and_never_beyond_the_authoritys() {
    let site = Site::new(program::CLUSTER);
    site.evermq("certs ca --dir tls --days 100").good();
    let shortened = site.evermq("certs client short --dir tls").good();
    assert!(shortened.contains("cannot outlive its authority"), "{shortened}");
    let asked = site.evermq("certs client long --dir tls --days 30").good();
    assert!(!asked.contains("cannot outlive"), "{asked}");
    let days = |name: &str| {
        let shown = site.evermq(&format!("certs show --json tls/{name}.crt"));
        shown.json()[0]["days_left"].as_i64().unwrap()
    };
    assert_eq!((days("ca"), days("short"), days("long")), (99, 99, 29));
    // Valid at once on a host whose clock is half an hour behind.
    let half_an_hour_ago = Command::new("date").args(["-d", "-30 minutes", "+%s"]).output().unwrap();
    let then = String::from_utf8(half_an_hour_ago.stdout).unwrap();
    site.openssl(&format!("verify -attime {} -CAfile tls/ca.crt tls/long.crt", then.trim())).good();
}

#[test]
fn serial_numbers_are_random() {
    let site = Site::with_certificates();
    let serial = |name: &str| site.openssl(&format!("x509 -in tls/{name}.crt -noout -serial")).good();
    let mut serials: Vec<String> = ["ca", "lb1", "lb2", "broker1", "client"].map(serial).into();
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 5);
    assert!(serials.iter().all(|serial| serial.trim().len() == "serial=".len() + 32), "{serials:?}");
}

#[test]
fn keys_are_for_their_owner_only_whatever_the_umask() {
    for umask in ["000", "077"] {
        let site = Site::new(program::CLUSTER);
        let evermq = env!("CARGO_BIN_EXE_evermq");
        let script = format!("umask {umask}; exec {evermq} certs init --config evermq.toml --dir tls --client client");
        assert!(Command::new("sh").args(["-c", &script]).current_dir(site.root()).status().unwrap().success());
        for (name, mode) in
            [("ca.key", 0o600), ("lb1.key", 0o600), ("client.key", 0o600), ("ca.crt", 0o644), ("lb1.crt", 0o644)]
        {
            let found = fs::metadata(site.path("tls").join(name)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, mode, "{name} under umask {umask}");
        }
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done() {
    let site = Site::with_certificates();
    let before = site.snapshot("tls");
    for words in
        ["init --config evermq.toml", "ca", "server --config evermq.toml", "client client", "client new client"]
    {
        let complaint = site.evermq(&format!("certs {words} --dir tls")).bad(1);
        assert!(complaint.contains("will not be overwritten, so nothing was made:\n  tls/"), "{complaint}");
        assert_eq!(site.snapshot("tls"), before, "certs {words}");
    }
    // One file in the way is named, the others are not made.
    fs::remove_file(site.path("tls/lb2.crt")).unwrap();
    let complaint = site.evermq("certs server --config evermq.toml --host lb2 --dir tls").bad(1);
    assert!(
        complaint.contains("a file is already there") && complaint.contains("\n  tls/lb2.key\nmove it away"),
        "{complaint}"
    );
    assert!(!site.path("tls/lb2.crt").exists());
}

#[test]
fn a_host_can_be_added_later() {
    let site = Site::with_certificates();
    let more = format!(
        "{}[[hosts]]\nname = \"broker3\"\naddress = \"192.168.10.23\"\nroles = [\"broker\"]\n",
        program::CLUSTER
    );
    fs::write(site.path("evermq.toml"), more).unwrap();
    let made = site
        .evermq("certs server --config evermq.toml --dir tls --host broker3 --san mqtt.example.com --san fd00::7")
        .good();
    assert!(
        made.contains("broker3  ca.crt broker3.crt broker3.key  ->  tls/ca.crt tls/broker3.crt tls/broker3.key"),
        "{made}"
    );
    verify(&site, "sslserver", "broker3").good();
    assert_eq!(
        after(&text(&site, "broker3"), "X509v3 Subject Alternative Name"),
        "DNS:broker3, IP Address:192.168.10.23, IP Address:192.168.10.10, DNS:mqtt.example.com, IP Address:FD00:0:0:0:0:0:0:7"
    );
}

#[test]
fn what_is_made_passes_the_programs_own_check() {
    let site = Site::with_certificates();
    for (name, _) in HOSTS {
        let report = site.evermq(&format!("check --config evermq.toml --host {name}"));
        assert!(report.stdout.contains("0 errors, 0 warnings"), "{report:#?}");
        report.good();
    }
}

#[test]
fn names_that_cannot_be_are_usage_errors() {
    let site = Site::with_certificates();
    let before = site.snapshot("tls");
    for (words, complaint) in [
        ("client ../evil --dir tls", "a client's name is 1 to 64"),
        ("client ca --dir tls", "the name of the authority's files"),
        ("client twin twin --dir tls", "\"twin\" is named twice"),
        ("client x --dir tls --days 0", "0 is not in 1..=36500"),
        ("init --config evermq.toml --dir new --client lb1", "client \"lb1\" has the name of a host"),
        ("server --config evermq.toml --dir tls --host lb9", "its hosts: lb1, lb2, broker1, broker2"),
        ("server --config evermq.toml --dir tls --san a..b", "neither a DNS name"),
        ("server --config missing.toml --dir tls", "missing.toml"),
        ("ca", "--dir <DIR>"),
    ] {
        let stderr = site.evermq(&format!("certs {words}")).bad(2);
        assert!(stderr.contains(complaint), "certs {words}: {stderr}");
    }
    assert_eq!(site.snapshot("tls"), before);
    assert!(!site.path("new").exists());
}

#[test]
fn show_tells_what_certificates_hold() {
    let site = Site::with_certificates();
    let table = site.evermq("certs show tls/ca.crt tls/lb1.crt tls/client.crt").good();
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").filter(|c| !c.is_empty()).map(str::trim).collect()).collect();
    assert_eq!(lines[0], ["FILE", "SUBJECT", "NAMES", "USE", "VALID", "KEY", "ISSUER"]);
    assert_eq!(lines[1][..4], ["tls/ca.crt", "CN=test CA", "-", "authority"]);
    assert_eq!(lines[2][..4], ["tls/lb1.crt", "CN=lb1", "lb1, 192.168.10.11, 192.168.10.10", "server, client"]);
    assert!(lines[2][4].starts_with("824 days left, until 20"), "{table}");
    assert_eq!(lines[2][5..], ["ECDSA P-256", "CN=test CA"]);
    assert_eq!(lines[3][1..4], ["CN=client", "-", "client"]);
    let complaint = site.evermq("certs show tls/lb1.key").bad(1);
    assert!(complaint.contains("it holds a private key: name the certificate"), "{complaint}");
    let complaint = site.evermq("certs show nowhere.crt").bad(1);
    assert!(complaint.contains("cannot read nowhere.crt"), "{complaint}");
}

/// A site whose cluster file has a quorum, with certificates.
fn with_quorum() -> Site {
    let site = Site::new(&program::CLUSTER.replace("[vip]", "[vip]\nquorum = true"));
    let text = site.evermq("certs init --config evermq.toml --dir tls").good();
    assert!(text.contains("heartbeat.key"), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let install = "ca.crt lb1.crt lb1.key heartbeat.key -> tls/ca.crt tls/lb1.crt tls/lb1.key heartbeat.key";
    assert!(words.contains(install), "{text}");
    site
}

#[test]
fn a_cluster_with_a_quorum_gets_a_heartbeat_key() {
    let site = with_quorum();
    let key = fs::read_to_string(site.path("tls/heartbeat.key")).unwrap();
    assert_eq!(key.trim_end().len(), 64);
    assert!(key.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(fs::metadata(site.path("tls/heartbeat.key")).unwrap().permissions().mode() & 0o7777, 0o600);

    let check = "check --config evermq.toml --host broker1";
    let missing = site.evermq(check);
    assert_eq!(missing.status, 2);
    assert!(missing.stdout.contains("cannot read the heartbeat key"), "{}", missing.stdout);
    assert!(missing.stdout.contains("evermq certs heartbeat-key --out"), "{}", missing.stdout);
    fs::copy(site.path("tls/heartbeat.key"), site.path("heartbeat.key")).unwrap();
    site.evermq(check).good();
    fs::set_permissions(site.path("heartbeat.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(site.evermq(check).stdout.contains("open to every user of this machine (mode 0644)"));
    fs::write(site.path("heartbeat.key"), "0123").unwrap();
    fs::set_permissions(site.path("heartbeat.key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(site.evermq(check).stdout.contains("has 2 bytes, but needs 32"));
    assert!(!Site::with_certificates().path("tls/heartbeat.key").exists(), "none without a quorum");
}

#[test]
fn a_heartbeat_key_is_new_each_time_and_never_overwritten() {
    let site = Site::new(program::CLUSTER);
    let text = site.evermq("certs heartbeat-key").good();
    assert!(text.starts_with("made heartbeat.key\n"), "{text}");
    site.evermq("certs heartbeat-key --out other.key").good();
    let [one, other] = ["heartbeat.key", "other.key"].map(|name| fs::read_to_string(site.path(name)).unwrap());
    assert_ne!(one, other);
    assert!(!text.contains(one.trim_end()), "the key is shown");
    let complaint = site.evermq("certs heartbeat-key").bad(1);
    assert!(complaint.contains("heartbeat.key is already there and will not be overwritten"), "{complaint}");
    assert_eq!(fs::read_to_string(site.path("heartbeat.key")).unwrap(), one);
}

#[test]
fn a_cluster_whose_lbs_end_tls_gets_a_ticket_key() {
    let terminate = "[broker]\nlisten_proxy = \"0.0.0.0:8885\"\n[lb]\nmode = \"terminate\"\n[vip]";
    let site = Site::new(&program::CLUSTER.replace("[vip]", terminate));
    let text = site.evermq("certs init --config evermq.toml --dir tls").good();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let install = "ca.crt lb1.crt lb1.key ticket.key -> tls/ca.crt tls/lb1.crt tls/lb1.key ticket.key";
    assert!(words.contains(install), "{text}");
    assert!(words.contains("ca.crt broker1.crt broker1.key -> "), "brokers need none: {text}");
    let missing = site.evermq("check --config evermq.toml --host lb1");
    assert_eq!(missing.status, 2);
    assert!(missing.stdout.contains("cannot read the ticket key"), "{}", missing.stdout);
    assert!(missing.stdout.contains("evermq certs ticket-key --out"), "{}", missing.stdout);
    site.evermq("check --config evermq.toml --host broker1").good();
    let text = site.evermq("certs ticket-key").good();
    assert!(text.starts_with("made ticket.key\n"), "{text}");
    let key = fs::read_to_string(site.path("ticket.key")).unwrap();
    assert_eq!(key.trim_end().len(), 64);
    assert!(!text.contains(key.trim_end()), "the key is shown");
    assert_eq!(fs::metadata(site.path("ticket.key")).unwrap().permissions().mode() & 0o7777, 0o600);
    site.evermq("check --config evermq.toml --host lb1").good();
    assert!(site.evermq("certs ticket-key").bad(1).contains("resumes nobody's session"));
    assert!(!Site::with_certificates().path("tls/ticket.key").exists(), "none without such a listener");
}
