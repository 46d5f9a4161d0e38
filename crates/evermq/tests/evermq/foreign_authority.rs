//! Authorities made elsewhere: what openssl makes is taken, what must not sign is refused.

use std::fs;

use crate::program;
use crate::program::Site;

/// A site with `ca.key` made by the first command and a self-signed `ca.crt` for it.
fn with_authority(make_key: &str, subject: &str) -> Site {
    let site = Site::new(program::CLUSTER);
    site.openssl(make_key).good();
    site.openssl(&format!("req -x509 -new -key ca.key -subj {subject} -days 30 -out ca.crt")).good();
    site
}

const BY: &str = "--ca-cert ca.crt --ca-key ca.key --dir tls";

/// Makes a client's and the hosts' certificates and has openssl verify them.
fn signs(site: &Site, verify: &str) {
    site.evermq(&format!("certs client client {BY}")).good();
    site.evermq(&format!("certs server --config evermq.toml {BY}")).good();
    site.openssl(&format!("verify -purpose sslclient {verify} tls/client.crt")).good();
    site.openssl(&format!("verify -purpose sslserver -verify_hostname broker1 {verify} tls/broker1.crt")).good();
    assert!(!site.path("tls/ca.key").exists());
}

fn refuses(site: &Site, complaint: &str) {
    let stderr = site.evermq(&format!("certs client client {BY}")).bad(1);
    assert!(stderr.contains(complaint), "{stderr}");
    assert!(!site.path("tls").exists());
}

#[test]
fn keys_of_every_common_kind_and_form_sign() {
    for make_key in [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key",
        "ecparam -name prime256v1 -genkey -out ca.key",
        "ecparam -name secp384r1 -genkey -noout -out ca.key",
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out ca.key",
        "genrsa -traditional -out ca.key 2048",
        "genpkey -algorithm ED25519 -out ca.key",
    ] {
        signs(&with_authority(make_key, "/C=DE/O=Example/CN=Example-CA"), "-CAfile ca.crt");
    }
}

#[test]
fn an_intermediate_goes_into_the_files_that_it_signs() {
    let site = with_authority("ecparam -name prime256v1 -genkey -noout -out ca.key", "/CN=Root");
    fs::rename(site.path("ca.crt"), site.path("root.crt")).unwrap();
    fs::rename(site.path("ca.key"), site.path("root.key")).unwrap();
    fs::write(site.path("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n").unwrap();
    site.openssl("ecparam -name prime256v1 -genkey -noout -out ca.key").good();
    site.openssl("req -new -key ca.key -subj /CN=Intermediate -out ca.csr").good();
    site.openssl(
        "x509 -req -in ca.csr -CA root.crt -CAkey root.key -CAcreateserial -days 30 -extfile ca.ext -out ca.crt",
    )
    .good();
    signs(&site, "-CAfile root.crt -untrusted tls/client.crt");
    assert_eq!(fs::read_to_string(site.path("tls/broker1.crt")).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
}

#[test]
fn the_key_says_which_certificate_of_a_bundle_signs() {
    let site = with_authority("ecparam -name prime256v1 -genkey -noout -out ca.key", "/CN=Second");
    site.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -subj /CN=First -out other.crt",
    )
    .good();
    let bundle = ["other.crt", "ca.crt"].map(|name| fs::read_to_string(site.path(name)).unwrap()).concat();
    fs::write(site.path("ca.crt"), format!("# trusted here\n{bundle}")).unwrap();
    signs(&site, "-CAfile ca.crt");
    fs::write(site.path("ca.crt"), fs::read(site.path("other.crt")).unwrap()).unwrap();
    fs::remove_dir_all(site.path("tls")).unwrap();
    refuses(&site, "the key in ca.key does not belong to a certificate in ca.crt");
}

#[test]
fn an_encrypted_key_is_named_as_such() {
    for encrypt in [
        "pkey -in plain.key -aes256 -passout pass:secret -out ca.key",
        "ec -in plain.key -aes256 -passout pass:secret -out ca.key",
    ] {
        let site = with_authority("ecparam -name prime256v1 -genkey -noout -out ca.key", "/CN=Example");
        fs::rename(site.path("ca.key"), site.path("plain.key")).unwrap();
        site.openssl(encrypt).good();
        refuses(&site, "ca.key is encrypted with a pass phrase; decrypt it");
    }
}

#[test]
fn a_certificate_that_must_not_sign_does_not() {
    let site = Site::with_certificates();
    let by = "--ca-cert tls/lb1.crt --ca-key tls/lb1.key --dir made";
    let stderr = site.evermq(&format!("certs client client {by}")).bad(1);
    assert!(stderr.contains("tls/lb1.crt is no certificate authority"), "{stderr}");
    let site = with_authority(
        "ecparam -name prime256v1 -genkey -noout -out ca.key",
        "/CN=Example -addext keyUsage=critical,digitalSignature",
    );
    refuses(&site, "its key usage lacks keyCertSign");
}

#[test]
fn an_expired_authority_does_not_sign() {
    let site = Site::new(program::CLUSTER);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 2, 3);
    fs::write(site.path("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(site.path("ca.key"), key.serialize_pem()).unwrap();
    refuses(&site, "valid from 2019-01-01 to 2020-02-03 only, not now");
}

#[test]
fn a_name_that_cannot_be_copied_exactly_is_refused_rather_than_changed() {
    for subject in ["/O=Example/OU=one/OU=two/CN=Example", "/O=Example+OU=one/CN=Example -multivalue-rdn"] {
        let site = with_authority("ecparam -name prime256v1 -genkey -noout -out ca.key", subject);
        refuses(&site, "sign with openssl instead");
    }
}

#[test]
fn a_missing_authority_is_asked_for() {
    let site = Site::new(program::CLUSTER);
    let stderr = site.evermq("certs client client --dir tls").bad(1);
    assert!(
        stderr.contains("there is no tls/ca.crt to sign with; make an authority with `evermq certs ca --dir tls`"),
        "{stderr}"
    );
}

#[test]
fn the_readmes_openssl_commands_make_what_a_cluster_needs() {
    let readme = include_str!("../../../../certs/README.md");
    let section = readme.split("## With openssl alone").nth(1).expect("the section");
    let script = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the commands");
    let site = Site::new(include_str!("../../../../config/evermq.toml"));
    site.shell(script).good();
    for host in ["lb1", "lb2", "broker1", "broker2"] {
        let report = site.evermq(&format!("check --config evermq.toml --host {host}"));
        assert!(report.stdout.contains("(0 errors, 0 warnings)"), "{report:#?}");
    }
    site.openssl("verify -x509_strict -purpose sslclient -CAfile tls/ca.crt tls/client.crt").good();
    assert_ne!(site.openssl("verify -purpose sslserver -CAfile tls/ca.crt tls/client.crt").status, 0);
}
