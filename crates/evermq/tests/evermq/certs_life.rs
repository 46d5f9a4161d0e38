//! `evermq certs issue`, `renew`, `revoke`: what they make, as openssl sees it.

use std::fs;
use std::path::Path;

use crate::program::{self, Site};

fn serial(site: &Site, file: &str) -> String {
    site.openssl(&format!("x509 -in {file} -noout -serial")).good()
}

fn names(site: &Site, file: &str) -> String {
    site.openssl(&format!("x509 -in {file} -noout -ext subjectAltName")).good()
}

fn public_key(site: &Site, file: &str) -> String {
    site.openssl(&format!("x509 -in {file} -noout -pubkey")).good()
}

/// Fails unless the certificate chains, is on no list, and belongs to the key beside it.
fn good(site: &Site, name: &str) {
    site.openssl(&format!("verify -x509_strict -CAfile tls/ca.crt tls/{name}.crt")).good();
    let key = site.openssl(&format!("pkey -in tls/{name}.key -pubout")).good();
    assert_eq!(public_key(site, &format!("tls/{name}.crt")), key, "{name}");
}

fn checked_with_the_list(site: &Site, certificate: &str) -> program::Ended {
    site.openssl(&format!("verify -x509_strict -crl_check -CRLfile tls/ca.crl -CAfile tls/ca.crt {certificate}"))
}

#[test]
fn issue_knows_hosts_from_clients() {
    let site = Site::new(program::CLUSTER);
    site.evermq("certs ca --dir tls").good();
    let text = site.evermq("certs issue lb1 meter-1 --config evermq.toml --dir tls --san mqtt.example.com").good();
    assert!(text.contains("host, for lb1, 192.168.10.11, 192.168.10.10, mqtt.example.com"), "{text}");
    assert!(text.contains("client \"meter-1\""), "{text}");
    good(&site, "lb1");
    good(&site, "meter-1");
    site.openssl("verify -purpose sslserver -CAfile tls/ca.crt tls/lb1.crt").good();
    assert_ne!(site.openssl("verify -purpose sslserver -CAfile tls/ca.crt tls/meter-1.crt").status, 0);
    site.evermq("certs issue meter-2 --client --dir tls").good();
    good(&site, "meter-2");
    let complaint = site.evermq("certs issue meter-2 --client --dir tls").bad(1);
    assert!(complaint.contains("will not be overwritten"), "{complaint}");
}

#[test]
fn what_ends_soon_is_renewed_and_the_rest_stays() {
    let site = Site::new(program::CLUSTER);
    site.evermq("certs ca --dir tls").good();
    site.evermq("certs issue lb1 meter-1 --config evermq.toml --dir tls --days 10 --san mqtt.example.com").good();
    site.evermq("certs issue broker1 --config evermq.toml --dir tls").good();
    let before = ["lb1", "meter-1", "broker1"].map(|name| serial(&site, &format!("tls/{name}.crt")));
    let (old_names, old_key) = (names(&site, "tls/lb1.crt"), fs::read(site.path("tls/lb1.key")).unwrap());

    let warned = site.evermq("check --config evermq.toml --host lb1").stdout;
    assert!(warned.contains("tls/lb1.crt expires in "), "{warned}");
    let text = site.evermq("certs renew --dir tls").good();
    assert!(text.contains("broker1.crt  left") && text.contains("new key"), "{text}");
    let after = ["lb1", "meter-1", "broker1"].map(|name| serial(&site, &format!("tls/{name}.crt")));
    assert_ne!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    assert_eq!(before[2], after[2]);
    for name in ["lb1", "meter-1", "broker1"] {
        good(&site, name);
        site.openssl(&format!("x509 -in tls/{name}.crt -noout -checkend 31536000")).good();
    }
    assert_eq!(names(&site, "tls/lb1.crt"), old_names);
    assert_ne!(fs::read(site.path("tls/lb1.key")).unwrap(), old_key);
    assert_eq!(fs::read_dir(site.path("tls/replaced")).unwrap().count(), 2);

    let text = site.evermq("certs renew --dir tls").good();
    assert!(text.contains("nothing ends within 30 days"), "{text}");
    assert_eq!(serial(&site, "tls/lb1.crt"), after[0]);
}

#[test]
fn a_key_that_is_kept_or_not_here_stays() {
    let site = Site::with_certificates();
    let (key, public) = (fs::read(site.path("tls/lb1.key")).unwrap(), public_key(&site, "tls/lb1.crt"));
    site.evermq("certs renew lb1 --keep-key --dir tls").good();
    assert_eq!(fs::read(site.path("tls/lb1.key")).unwrap(), key);
    good(&site, "lb1");
    // A client that made its key itself.
    let of_client = public_key(&site, "tls/meter-17.crt");
    fs::remove_file(site.path("tls/meter-17.key")).unwrap();
    let text = site.evermq("certs renew meter-17 --dir tls").good();
    assert!(text.contains("the same key"), "{text}");
    assert_eq!(public_key(&site, "tls/meter-17.crt"), of_client);
    assert!(!site.path("tls/meter-17.key").exists());
    assert_eq!(public_key(&site, "tls/lb1.crt"), public);
    let complaint = site.evermq("certs renew nobody --dir tls").bad(2);
    assert!(complaint.contains("there is no certificate of \"nobody\" in tls"), "{complaint}");
}

#[test]
fn a_renewed_host_has_the_names_of_the_file_of_today() {
    let site = Site::with_certificates();
    fs::write(site.path("evermq.toml"), program::CLUSTER.replace("\"192.168.10.10\"", "\"192.168.10.9\"")).unwrap();
    site.evermq("certs renew lb1 --config evermq.toml --dir tls").good();
    let names = names(&site, "tls/lb1.crt");
    for name in ["DNS:lb1", "IP Address:192.168.10.11", "IP Address:192.168.10.10", "IP Address:192.168.10.9"] {
        assert!(names.contains(name), "{names}");
    }
}

#[test]
fn an_authority_goes_on_with_its_key() {
    let site = Site::new(program::CLUSTER);
    site.evermq("certs ca --dir tls --days 20").good();
    site.evermq("certs issue client --client --dir tls --days 10").good();
    let key = public_key(&site, "tls/ca.crt");
    let text = site.evermq("certs renew --dir tls").good();
    assert!(text.contains("the authority itself ends in 19 days"), "{text}");
    assert!(text.contains("(the authority's end)"), "{text}");
    let text = site.evermq("certs renew ca --dir tls").good();
    assert!(text.contains("goes on to count"), "{text}");
    assert_eq!(public_key(&site, "tls/ca.crt"), key);
    site.openssl("x509 -in tls/ca.crt -noout -checkend 300000000").good();
    good(&site, "client");
    site.evermq("certs renew client --dir tls").good();
    good(&site, "client");
    // One that openssl made has parts that are not repeated here.
    site.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout o.key -subj /O=Plant/CN=CA -out o.crt",
    )
    .good();
    let complaint = site.evermq("certs renew ca --dir tls --ca-cert o.crt --ca-key o.key").bad(1);
    assert!(complaint.contains("renewed where it was made"), "{complaint}");
}

#[test]
fn what_is_revoked_is_on_the_list_with_all_that_came_before_it() {
    let site = Site::with_certificates();
    site.evermq("certs renew meter-17 --dir tls").good();
    let old = fs::read_dir(site.path("tls/replaced")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&old, site.path("old.crt")).unwrap();
    fs::copy(site.path("tls/meter-17.crt"), site.path("new.crt")).unwrap();
    let text = site.evermq("certs revoke meter-17 --reason key-compromise --dir tls").good();
    assert!(text.contains("names 2 in all"), "{text}");
    for file in ["old.crt", "new.crt"] {
        let verdict = checked_with_the_list(&site, file);
        assert_ne!(verdict.status, 0);
        assert!(verdict.stderr.contains("certificate revoked"), "{verdict:#?}");
    }
    checked_with_the_list(&site, "tls/client.crt").good();
    let shown = site.openssl("crl -in tls/ca.crl -noout -text -CAfile tls/ca.crt");
    assert!(shown.stderr.contains("verify OK"), "{shown:#?}");
    assert!(shown.stdout.contains("Key Compromise") && shown.stdout.contains("X509v3 CRL Number"), "{shown:#?}");
    // The name is free again, and the new certificate counts.
    site.evermq("certs issue meter-17 --client --dir tls").good();
    checked_with_the_list(&site, "tls/meter-17.crt").good();
    // Another one, by file and by number; those of before stay on the list.
    let serial = serial(&site, "tls/lb2.crt").trim().trim_start_matches("serial=").to_owned();
    let text = site.evermq(&format!("certs revoke --cert tls/client.crt --serial {serial} --dir tls")).good();
    assert!(text.contains("names 4 in all"), "{text}");
    for file in ["old.crt", "new.crt", "tls/client.crt", "tls/lb2.crt"] {
        assert!(checked_with_the_list(&site, file).stderr.contains("certificate revoked"), "{file}");
    }
    let list = fs::read(site.path("tls/ca.crl")).unwrap();
    let text = site.evermq("certs revoke --cert tls/client.crt --dir tls").good();
    assert!(text.contains("was revoked before"), "{text}");
    assert_eq!(fs::read(site.path("tls/ca.crl")).unwrap(), list);
}

#[test]
fn a_list_that_ends_soon_is_warned_of_and_signed_anew() {
    let site = Site::with_certificates();
    site.evermq("certs revoke client --crl-days 7 --dir tls").good();
    let file = format!("{}[broker.auth]\ncrl = [\"tls/ca.crl\"]\n", program::CLUSTER);
    fs::write(site.path("evermq.toml"), file).unwrap();
    let warned = site.evermq("check --config evermq.toml --host broker1").stdout;
    assert!(warned.contains("tls/ca.crl expires in 6 days"), "{warned}");
    assert!(warned.contains("0 errors, 1 warning"), "{warned}");
    let text = site.evermq("certs renew --dir tls").good();
    assert!(text.contains("signed the revocation list tls/ca.crl anew"), "{text}");
    let report = site.evermq("check --config evermq.toml --host broker1").stdout;
    assert!(report.contains("0 errors, 0 warnings"), "{report}");
    assert!(site.openssl("crl -in tls/ca.crl -noout -crlnumber").good().contains("0x02"));
}

#[test]
fn what_another_authority_signed_is_not_touched() {
    let site = Site::with_certificates();
    site.evermq("certs ca --dir other --name Other").good();
    site.evermq("certs issue stranger --client --dir other").good();
    fs::copy(site.path("other/stranger.crt"), site.path("tls/stranger.crt")).unwrap();
    let complaint = site.evermq("certs renew stranger --dir tls").bad(1);
    assert!(complaint.contains("was signed by CN=Other, not by this authority"), "{complaint}");
    let text = site.evermq("certs renew --within 3000 --dir tls").good();
    assert!(text.contains("stranger.crt  left") && text.contains("NOT RENEWED"), "{text}");
    let complaint = site.evermq("certs revoke --cert tls/stranger.crt --dir tls").bad(1);
    assert!(complaint.contains("not by this authority"), "{complaint}");
    fs::copy(site.path("other/ca.crt"), site.path("tls/ca.crl")).unwrap();
    let complaint = site.evermq("certs revoke client --dir tls").bad(1);
    assert!(complaint.contains("tls/ca.crl cannot be continued: it holds 0 lists"), "{complaint}");
    assert!(Path::new(&site.path("tls/client.crt")).exists());
    let complaint = site.evermq("certs revoke --dir tls").bad(2);
    assert!(complaint.contains("required"), "{complaint}");
}
