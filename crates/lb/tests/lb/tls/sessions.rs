//! Sessions of TLS: resumed, and live ones at a reload.

use std::io::Write as _;

use evermq_lb::tls::{Session as _, TlsFault};
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, Error};

use super::{BOTH, read_all, refused};
use crate::pki::{Odd, Pki, Wire};

#[test]
fn a_session_is_resumed_at_another_lb() {
    let pki = Pki::new();
    let (one, other) = (pki.terminator(""), pki.terminator(""));
    for versions in BOTH {
        let client = pki.client_of(Some("client"), versions);
        let mut first = Wire::new(&client, "lb1", &one);
        first.handshake().unwrap();
        assert!(!first.resumed());
        let mut second = Wire::new(&client, "lb1", &other);
        second.handshake().unwrap();
        assert!(second.resumed() && second.server.info().resumed, "{versions:?}");
        assert!(second.server.info().verified);
        assert_eq!(second.server.take_sni().as_deref(), Some("lb1"));
        second.server.send(b"welcome back", &mut second.out).unwrap();
        second.pump().unwrap();
        assert_eq!(read_all(&mut second), b"welcome back");
        assert_eq!(second.server.identity().unwrap().cn.as_deref(), Some("client"), "the ticket says who it is");
    }
}

#[test]
fn a_session_is_not_resumed_where_it_must_not() {
    let pki = Pki::new();
    pki.issue("soon", &[], Odd { serial: Some(66), ..Odd::default() });
    let off = pki.terminator("client_certificates = \"off\"");
    let required = pki.terminator("");
    pki.revoke(&[66], (4000, 1, 1));
    let revoking = pki.terminator("crl = [\"PKI/ca.crl\"]");
    pki.write("ticket.key", &"5b".repeat(32));
    let other_key = pki.terminator("");
    for versions in BOTH {
        let client = pki.client_of(Some("soon"), versions);
        Wire::new(&client, "lb1", &off).handshake().unwrap();
        let mut wire = Wire::new(&client, "lb1", &required);
        wire.handshake().unwrap();
        assert!(!wire.resumed(), "a session without a certificate counts where one is required");
        let mut wire = Wire::new(&client, "lb1", &other_key);
        wire.handshake().unwrap();
        assert!(!wire.resumed(), "another secret");
        Wire::new(&client, "lb1", &required).handshake().unwrap();
        let mut wire = Wire::new(&client, "lb1", &revoking);
        wire.client.writer().write_all(b"CONNECT").unwrap();
        let fault = wire.pump().unwrap_err();
        assert!(matches!(fault, TlsFault::Revoked), "{fault}");
        assert!(wire.plain.is_empty(), "nothing of it gets through");
    }
}

#[test]
fn a_reload_touches_nobody_who_is_connected() {
    let pki = Pki::new();
    let before = pki.terminator("");
    let client = pki.client(Some("client"));
    let mut wire = Wire::new(&client, "lb1", &before);
    wire.handshake().unwrap();
    // Another certificate, and the old client's is revoked.
    pki.issue("lb1", &["lb1"], Odd { serial: Some(77), ..Odd::default() });
    pki.issue("other", &[], Odd { serial: Some(66), ..Odd::default() });
    pki.revoke(&[66], (4000, 1, 1));
    let after = pki.terminator("crl = [\"PKI/ca.crl\"]");
    drop(before);
    wire.client.writer().write_all(b"still here").unwrap();
    wire.pump().unwrap();
    wire.server.send(b"so am I", &mut wire.out).unwrap();
    wire.pump().unwrap();
    assert_eq!(wire.plain.as_slice(), b"still here");
    assert_eq!(read_all(&mut wire), b"so am I");

    let mut fresh = Wire::new(&pki.client(Some("client")), "lb1", &after);
    fresh.handshake().unwrap();
    let shown = fresh.client.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown, rustls::pki_types::CertificateDer::from_pem_file(pki.path("lb1.crt")).unwrap());
    assert_ne!(shown, wire.client.peer_certificates().unwrap()[0]);
    let error = refused(&mut Wire::new(&pki.client(Some("other")), "lb1", &after));
    assert_eq!(error, Error::InvalidCertificate(CertificateError::Revoked));
    // Its session goes on where the certificate is still good.
    let mut resumed = Wire::new(&client, "lb1", &after);
    resumed.handshake().unwrap();
    assert!(resumed.resumed());
}
