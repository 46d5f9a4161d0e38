//! Mutual TLS between openssl's own server and client with the certificates that `evermq certs` makes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::program::Site;

/// `openssl s_server` on a free port of loopback: asks for a client certificate, sends back each line reversed.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(site: &Site, host: &str) -> Self {
        let certificate = ["-cert", &format!("tls/{host}.crt"), "-key", &format!("tls/{host}.key")].map(str::to_owned);
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-CAfile", "tls/ca.crt"])
            .args(["-Verify", "2", "-verify_return_error", "-no_ticket"])
            .args(certificate)
            .current_dir(site.root())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need the program openssl");
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let accept = lines.map(Result::unwrap).find(|line| line.starts_with("ACCEPT")).expect("says where it listens");
        let port = accept.rsplit(':').next().unwrap().parse().unwrap();
        Self { child, port }
    }

    /// Sends a line and gives what `openssl s_client` printed: the server's answer, or why there is none.
    fn talk(&self, site: &Site, arguments: &str) -> String {
        let mut client = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-quiet", "-CAfile", "tls/ca.crt"])
            .args(["-verify_return_error"])
            .args(arguments.split_whitespace())
            .current_dir(site.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A refused client ends before it has read this.
        let _ = client.stdin.take().unwrap().write_all(b"on and on\nCLOSE\n");
        let output = client.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ANSWER: &str = "no dna no";

#[test]
fn clients_and_hosts_reach_a_broker_under_all_its_names() {
    let site = Site::with_certificates();
    let server = Server::start(&site, "broker1");
    for name in ["-verify_hostname broker1", "-verify_ip 192.168.10.21", "-verify_ip 192.168.10.10"] {
        for who in ["client", "meter-17", "lb1", "broker2"] {
            for version in ["-tls1_2", "-tls1_3"] {
                let talk = server.talk(&site, &format!("{name} {version} -cert tls/{who}.crt -key tls/{who}.key"));
                assert!(talk.contains(ANSWER), "{who} {name} {version}: {talk}");
            }
        }
    }
}

#[test]
fn strangers_are_refused() {
    let site = Site::with_certificates();
    site.evermq("certs ca --dir other").good();
    site.evermq("certs client client --dir other").good();
    let server = Server::start(&site, "broker1");
    for version in ["-tls1_2", "-tls1_3"] {
        let without = server.talk(&site, version);
        assert!(!without.contains(ANSWER) && without.contains("alert"), "{version}: {without}");
        let other = server.talk(&site, &format!("{version} -cert other/client.crt -key other/client.key"));
        assert!(!other.contains(ANSWER) && other.contains("alert"), "{version}: {other}");
    }
}

#[test]
fn a_broker_is_not_taken_for_another() {
    let site = Site::with_certificates();
    let server = Server::start(&site, "broker1");
    let talk = server.talk(&site, "-verify_hostname broker2 -cert tls/client.crt -key tls/client.key");
    assert!(!talk.contains(ANSWER) && talk.contains("ostname mismatch"), "{talk}");
}

#[test]
fn a_clients_certificate_does_not_serve() {
    let site = Site::with_certificates();
    let server = Server::start(&site, "client");
    let talk = server.talk(&site, "-cert tls/meter-17.crt -key tls/meter-17.key");
    assert!(!talk.contains(ANSWER) && talk.contains("purpose"), "{talk}");
}
