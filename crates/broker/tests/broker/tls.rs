//! Mutual TLS, seen by openssl.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use evermq_config::{HostName, TlsFiles};
use evermq_daemon::tls::Material;
use rustls::{ClientConnection, StreamOwned};

use crate::certs::Ca;
use crate::running::{PATIENCE, Running, start};

/// A CONNECT of MQTT 3.1.1 with client identifier "c" and a DISCONNECT, and the CONNACK that answers.
const CONNECT: &[u8] = &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'c', 0xE0, 0x00];
const CONNACK: &[u8] = &[0x20, 0x02, 0x00, 0x00];

/// What comes back for a CONNECT through `openssl s_client`, and what openssl says.
fn s_client(broker: &Running, ca: &TlsFiles, own: Option<&TlsFiles>, more: &[&str]) -> (Vec<u8>, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-servername", "broker1"]);
    command.args(["-connect", &broker.tls.to_string()]).arg("-CAfile").arg(&ca.ca).args(more);
    if let Some(own) = own {
        command.arg("-cert").arg(&own.cert).arg("-key").arg(&own.key);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is needed: apt-get install openssl");
    // A broken pipe says that openssl has given up already, which is for the caller to judge.
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(CONNECT);
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A connection with that certificate.
pub(crate) fn connect(address: SocketAddr, own: &TlsFiles) -> StreamOwned<ClientConnection, TcpStream> {
    let name = HostName::new("broker1").unwrap();
    let config = Material::load(own).unwrap().client_config_for(&name, address.ip()).unwrap();
    let connection = ClientConnection::new(config, evermq_daemon::tls::server_name(&name)).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection, stream)
}

#[test]
fn a_certificate_of_the_ca_gets_in_with_tls_1_2_and_1_3() {
    let (site, broker) = start();
    let own = site.ca.issue("device-1", 1);
    for version in ["-tls1_2", "-tls1_3"] {
        let (answer, said) = s_client(&broker, &own, Some(&own), &[version]);
        assert_eq!(answer, CONNACK, "{said}");
    }
}

#[test]
fn others_do_not_get_in() {
    let (site, broker) = start();
    let own = site.ca.issue("device-1", 1);
    let other = Ca::new(site.directory.path(), "other-ca").issue("device-1", 1);
    let expired = site.ca.issue("expired", -1);
    for (what, certificate, alert) in [
        ("another CA", Some(&other), "unknown ca"),
        ("no certificate", None, "certificate required"),
        ("an expired one", Some(&expired), "certificate expired"),
    ] {
        let (answer, said) = s_client(&broker, &own, certificate, &["-tls1_3"]);
        assert_eq!(answer, b"", "{what}: {said}");
        assert!(said.contains(alert), "{what}: no \"{alert}\" in {said}");
        let (answer, said) = s_client(&broker, &own, certificate, &["-tls1_2"]);
        assert_eq!(answer, b"", "{what}: {said}");
    }
    let (answer, said) = s_client(&broker, &own, Some(&own), &["-tls1_1"]);
    assert_eq!(answer, b"", "TLS 1.1: {said}");
    broker.wait_for("counted strangers", |state| state["messages"]["strangers"].as_u64() >= Some(6));
    broker.client("still-serves").expect_nothing();
}
