//! Other programs on both sides: mosquitto, its clients, openssl.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use super::{CONNECT, client, closed, config, terminating};
use crate::harness::{self, Running};
use crate::pki::{Odd, Pki};

/// mosquitto, with a plain listener and one with mutual TLS.
struct Mosquitto {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Mosquitto {
    fn start(pki: &Pki) -> Self {
        pki.issue("broker1", &["broker1"], Odd::default());
        let (plain, tls) = (evermq_ports::free_address(), evermq_ports::free_address());
        let file = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nlistener {} 127.0.0.1\nallow_anonymous true\n\
             cafile PKI/ca.crt\ncertfile PKI/broker1.crt\nkeyfile PKI/broker1.key\nrequire_certificate true\nuser root\n",
            plain.port(),
            tls.port()
        );
        pki.write("mosquitto.conf", &file.replace("PKI", pki.path("").to_str().unwrap()));
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(pki.path("mosquitto.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        harness::eventually("mosquitto serves", || {
            TcpStream::connect(plain).and_then(|_| TcpStream::connect(tls)).ok()
        });
        Self { child, plain, tls }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mosquitto(pki: &Pki, program: &str, address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let file = |name: &str| pki.path(name).to_str().unwrap().to_owned();
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "--cafile", &file("ca.crt")]);
    command.args(["--cert", &file("client.crt"), "--key", &file("client.key")]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A large message through the lb and back.
fn publish_and_receive(pki: &Pki, address: SocketAddr, more: &[&str]) {
    let message = harness::bytes(300_000, 7);
    std::fs::write(pki.path("message"), &message).unwrap();
    let subscribe = [more, &["-t", "test", "-q", "1", "-C", "1", "-N", "-W", "20", "-i", "subscriber"]].concat();
    let subscriber = mosquitto(pki, "mosquitto_sub", address, &subscribe).spawn().unwrap();
    // A retained message comes whenever the subscription does.
    let path = pki.path("message");
    let publish = [more, &["-t", "test", "-q", "1", "-r", "-i", "publisher", "-f", path.to_str().unwrap()]].concat();
    let published = mosquitto(pki, "mosquitto_pub", address, &publish).output().unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let Output { status, stdout, stderr } = subscriber.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert!(stdout == message, "{} bytes", stdout.len());
}

#[test]
fn mosquitto_s_clients_reach_a_plain_broker() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let lb = terminating(&pki, "", broker.plain);
    for version in ["tlsv1.2", "tlsv1.3"] {
        publish_and_receive(&pki, lb.address, &["--tls-version", version]);
    }
    publish_and_receive(&pki, lb.address, &["--tls-alpn", "mqtt"]);
    let refused =
        mosquitto(&pki, "mosquitto_pub", lb.address, &["--tls-alpn", "h2", "-t", "t", "-m", "m"]).output().unwrap();
    assert!(!refused.status.success());
}

#[test]
fn mosquitto_s_clients_reach_a_broker_with_tls_of_its_own() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let lb = Running::start(config(&pki, "mode = \"reencrypt\"", Some(broker.tls), None));
    for version in ["tlsv1.2", "tlsv1.3"] {
        publish_and_receive(&pki, lb.address, &["--tls-version", version]);
    }
}

#[test]
fn a_broker_with_a_certificate_of_another_is_not_spoken_to() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let mut config = config(&pki, "mode = \"reencrypt\"", Some(broker.tls), None);
    config.backends[0].name = "another".to_owned();
    let lb = Running::start(config);
    let mut tls = client(&pki, lb.address);
    tls.write_all(CONNECT).unwrap();
    assert!(closed(&mut tls));
}

#[test]
fn openssl_resumes_at_another_lb() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let lbs = [(); 2].map(|()| terminating(&pki, "", broker.plain));
    for version in ["-tls1_2", "-tls1_3"] {
        let mut reused = Vec::new();
        for (lb, session) in lbs.iter().zip(["-sess_out", "-sess_in"]) {
            let address = lb.address.to_string();
            let file = |name: &str| pki.path(name).to_str().unwrap().to_owned();
            let mut child = Command::new("openssl")
                .args(["s_client", "-connect", &address, "-servername", "lb1", version, session, &file("session.pem")])
                .args(["-CAfile", &file("ca.crt"), "-cert", &file("client.crt"), "-key", &file("client.key")])
                .args(["-verify_return_error", "-ign_eof", "-nocommands"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl is installed");
            // The broker ends the connection after DISCONNECT: by then the ticket has come.
            let mut input = child.stdin.take().unwrap();
            input.write_all(&[CONNECT, b"\xe0\x00"].concat()).unwrap();
            let output = child.wait_with_output().unwrap();
            drop(input);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("Verification: OK") || text.contains("Reused"), "{text}");
            reused.push(text.contains("\nReused, "));
        }
        assert_eq!(reused, [false, true], "{version}");
    }
}
