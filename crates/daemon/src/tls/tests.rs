use std::io::Write as _;
use std::net::Ipv4Addr;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConnection, ServerConnection};

use super::*;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test CA");
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

fn material(directory: &Path, ca: &Ca, name: &str, sans: Vec<SanType>) -> Material {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = sans;
    let certificate = params.signed_by(&key, &ca.issuer).unwrap();
    let write = |suffix: &str, text: &str| {
        let path = directory.join(format!("{name}.{suffix}"));
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    };
    let files = TlsFiles {
        ca: write("ca", &ca.pem),
        cert: write("crt", &certificate.pem()),
        key: write("key", &key.serialize_pem()),
    };
    Material::load(&files).unwrap()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 21));

fn host() -> HostName {
    HostName::new("broker1").unwrap()
}

/// Both sides of a handshake in memory.
fn handshake(client: &Material, server: &Material) -> Result<(), rustls::Error> {
    let mut client =
        ClientConnection::new(client.client_config_for(&host(), ADDRESS).unwrap(), server_name(&host())).unwrap();
    let mut server = ServerConnection::new(server.server_config().unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let sent = wire.len();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        assert!(sent + wire.len() > 0, "handshake stuck");
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_host_is_known_by_name_or_by_address() {
    let directory = tempfile::tempdir().unwrap();
    let ca = ca();
    let client = material(directory.path(), &ca, "lb1", vec![dns("lb1")]);
    let by_name = material(directory.path(), &ca, "broker1", vec![dns("broker1")]);
    handshake(&client, &by_name).unwrap();
    let by_address = material(directory.path(), &ca, "other", vec![SanType::IpAddress(ADDRESS)]);
    handshake(&client, &by_address).unwrap();
}

#[test]
fn another_host_of_the_same_ca_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ca = ca();
    let client = material(directory.path(), &ca, "lb1", vec![dns("lb1")]);
    let server = material(directory.path(), &ca, "broker2", vec![dns("broker2")]);
    let error = handshake(&client, &server).unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn another_ca_is_refused_by_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (ca(), ca());
    let server = material(directory.path(), &ours, "broker1", vec![dns("broker1")]);
    let stranger = material(directory.path(), &theirs, "stranger", vec![dns("broker1")]);
    handshake(&stranger, &server).unwrap_err();
    handshake(&server, &stranger).unwrap_err();
}

#[test]
fn certificate_belongs_to_its_host_only() {
    let directory = tempfile::tempdir().unwrap();
    let ca = ca();
    let broker = material(directory.path(), &ca, "broker1", vec![dns("broker1"), SanType::IpAddress(ADDRESS)]);
    let device = material(directory.path(), &ca, "device-7", Vec::new());
    assert!(is_certificate_of(&broker.chain[0], &host(), Ipv4Addr::LOCALHOST.into()));
    assert!(is_certificate_of(&broker.chain[0], &HostName::new("b9").unwrap(), ADDRESS));
    assert!(!is_certificate_of(&broker.chain[0], &HostName::new("b9").unwrap(), Ipv4Addr::LOCALHOST.into()));
    assert!(!is_certificate_of(&device.chain[0], &host(), ADDRESS));
    assert_eq!(common_name(&device.chain[0]).as_deref(), Some("device-7"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ca = ca();
    let one = material(directory.path(), &ca, "one", vec![dns("one")]);
    let two = material(directory.path(), &ca, "two", vec![dns("two")]);
    let mixed = TlsFiles { key: two.files.key.clone(), ..one.files.clone() };
    let error = Material::load(&mixed).unwrap().server_config().unwrap_err();
    assert!(matches!(error, TlsError::Pair { .. }), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let files = TlsFiles { ca: "/nowhere/ca.crt".into(), cert: "/nowhere/a.crt".into(), key: "/nowhere/a.key".into() };
    let text = Material::load(&files).unwrap_err().to_string();
    assert!(text.contains("/nowhere/ca.crt"), "{text}");
}
