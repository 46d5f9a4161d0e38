//! The program itself, and a reload.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustls::version::TLS13;

use super::{CONNECT, client, client_of, closed, connected, listen};
use crate::harness::{self, PATIENCE};
use crate::pki::{Odd, Pki};

/// The program itself.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reload_changes_certificates_and_loses_nobody() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let front = evermq_ports::free_address();
    let lb = format!("listen = \"{front}\"\naccess_log = \"PKI/access.log\"\ncrl = [\"PKI/ca.crl\"]\n");
    let broker = format!("[[lb.backends]]\nname = \"b\"\nplain_address = \"{address}\"\nprobe = \"none\"\n");
    pki.issue("lost", &[], Odd { serial: Some(66), ..Odd::default() });
    pki.revoke(&[], (4000, 1, 1));
    pki.write("evermq.toml", &pki.file(&lb, &broker));
    let mut program = Command::new(env!("CARGO_BIN_EXE_evermq-lb"));
    program.args(["--host", "lb1", "--config"]).arg(pki.path("evermq.toml")).stderr(Stdio::null());
    let _program = Program(program.spawn().unwrap());
    harness::eventually("the program serves", || TcpStream::connect(front).ok());
    let (mut kept, mut end) = connected(client(&pki, front), &backend);
    let before = kept.conn.peer_certificates().unwrap()[0].clone();
    let (_lost, _its_end) = connected(client_of(&pki, front, Some("lost"), &TLS13), &backend);

    pki.issue("lb1", &["lb1"], Odd::default());
    pki.revoke(&[66], (4000, 1, 1));
    let reload = || {
        let request = serde_json::json!({ "request": "reload" });
        evermq_daemon::control::request(&pki.path("lb.sock"), &request, PATIENCE)
    };
    reload().unwrap();
    let (fresh, _) = connected(client(&pki, front), &backend);
    assert_ne!(fresh.conn.peer_certificates().unwrap()[0], before, "the new certificate");
    let mut lost = client_of(&pki, front, Some("lost"), &TLS13);
    let _ = lost.write_all(CONNECT);
    assert!(closed(&mut lost), "revoked since");

    // A bad file changes nothing.
    pki.write("ca.crl", "nothing");
    let error = reload().unwrap_err().to_string();
    assert!(error.contains("ca.crl"), "{error}");
    connected(client(&pki, front), &backend);
    kept.write_all(b"still here").unwrap();
    let mut words = [0; 10];
    end.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"still here");
    drop((kept, end));
    harness::eventually("the access log tells of it", || {
        let log = std::fs::read_to_string(pki.path("access.log")).unwrap_or_default();
        log.lines().any(|line| line.contains("tls=TLSv1.3") && line.contains("cn=client")).then_some(())
    });
}
