//! Who has no certificate of the cluster's CA, or one that is not in its time, gets in nowhere.

use std::fs;
use std::path::Path;

use evermq_e2e::client::{PATIENCE, TLS};
use evermq_e2e::lab::text;
use evermq_e2e::{Lab, PORT, VIP, wait};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

/// A client certificate `NAME.crt` with its key, signed by `issuer`.
fn client(directory: &Path, name: &str, issuer: &Issuer<'_, KeyPair>, from: i64, to: i64) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::now_utc() + Duration::days(from);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(to);
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    fs::write(directory.join(format!("{name}.crt")), certificate.pem()).expect("writable");
    fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).expect("writable");
}

/// The lab's CA, and one that calls itself the same.
fn issuers(lab: &Lab) -> [Issuer<'static, KeyPair>; 2] {
    let read = |name: &str| fs::read_to_string(lab.pki().join(name)).expect("the lab keeps its CA");
    let ours = KeyPair::from_pem(&read("ca.key")).expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    [
        Issuer::from_ca_cert_pem(&read("ca.crt"), ours).expect("the lab's CA"),
        Issuer::new(params, KeyPair::generate().expect("a key")),
    ]
}

#[test]
fn only_a_certificate_of_the_ca_in_its_time_gets_in() {
    let lab = Lab::up();
    let directory = tempfile::tempdir().expect("a directory");
    let [ours, theirs] = issuers(&lab);
    client(directory.path(), "good", &ours, -1, 1);
    client(directory.path(), "expired", &ours, -30, -1);
    client(directory.path(), "early", &ours, 1, 30);
    client(directory.path(), "stranger", &theirs, -1, 1);
    let path = |file: &str| directory.path().join(file).display().to_string();
    for (address, port) in [(VIP, PORT), ("198.18.0.21", "8883")] {
        let publish = |tls: &[&str]| {
            let line = ["mosquitto_pub", "-h", address, "-p", port, "-t", "x", "-m", "y", "-q", "1", "--cafile"];
            lab.exec("client", &[&line[..], &[&format!("{TLS}/ca.crt")], tls].concat())
        };
        let with = |name: &str| {
            let (cert, key) = (path(&format!("{name}.crt")), path(&format!("{name}.key")));
            publish(&["--cert", &cert, "--key", &key])
        };
        let good = with("good");
        assert!(good.status.success(), "{}", text(&good));
        for name in ["expired", "early", "stranger"] {
            let output = with(name);
            assert!(!output.status.success(), "{name} got in at {address}: {}", text(&output));
        }
        let output = publish(&[]);
        assert!(!output.status.success(), "no certificate, and in at {address}: {}", text(&output));
    }
}

#[test]
fn openssl_sees_the_brokers_certificate_through_the_vip() {
    let lab = Lab::up();
    let address = format!("{VIP}:{PORT}");
    let (ca, cert, key) = (format!("{TLS}/ca.crt"), format!("{TLS}/client.crt"), format!("{TLS}/client.key"));
    let line = [
        "openssl",
        "s_client",
        "-connect",
        &address,
        "-CAfile",
        &ca,
        "-verify_ip",
        VIP,
        "-verify_return_error",
        "-brief",
    ];
    let output = lab.exec("client", &[&line[..], &["-cert", &cert, "-key", &key]].concat());
    let seen = text(&output);
    assert!(seen.contains("Verification: OK") && seen.contains("TLSv1.3"), "{seen}");
    // TLS 1.3 refuses a client after the server's part: the alert comes with the first read.
    let script = format!("sleep 1 | openssl s_client -connect {address} -CAfile {ca} -verify_ip {VIP} 2>&1");
    let output = lab.exec("client", &["sh", "-c", &script]);
    assert!(text(&output).contains("alert certificate required"), "{}", text(&output));
}

#[test]
fn a_clients_certificate_is_no_hosts() {
    let lab = Lab::up();
    // The peers' port speaks to hosts of the cluster only.
    let (ca, cert, key) = (format!("{TLS}/ca.crt"), format!("{TLS}/client.crt"), format!("{TLS}/client.key"));
    let script = format!(
        "(printf 'hello'; sleep 1) | openssl s_client -quiet -connect 198.18.0.21:8884 -CAfile {ca} -cert {cert} -key {key} 2>&1"
    );
    let _ = lab.exec("client", &["sh", "-c", &script]);
    wait::until("broker1 counts a stranger", PATIENCE, || {
        (lab.state("broker1", "evermq-broker")?["bridge"]["strangers"].as_u64()? > 0).then_some(())
    });
    lab.wait_healthy();
}

#[test]
fn garbage_holds_nobody_up() {
    let lab = Lab::up();
    let script = format!(
        "for n in $(seq 50); do head -c 4096 /dev/urandom | timeout 5 socat -u - TCP:{VIP}:{PORT} & \
         sleep 5 | timeout 5 socat - TCP:198.18.0.21:8883 >/dev/null & done; true"
    );
    let noise = lab.spawn("client", &["sh", "-c", &script]);
    for _ in 0..5 {
        lab.publish(&["-t", "x", "-m", "y", "-q", "1"]);
    }
    drop(noise);
    lab.wait_healthy();
}
