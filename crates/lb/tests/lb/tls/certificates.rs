//! Whose certificate is good, which one the lb shows, and what of them cannot be used.

use std::sync::Arc;

use evermq_lb::tls::{Session as _, TerminationError, Terminator, TlsFault};
use rustls::{CertificateError, Error};

use super::{BOTH, refused};
use crate::pki::{Odd, Pki, Wire};

#[test]
fn clients_without_a_good_certificate_are_refused() {
    let pki = Pki::new();
    pki.issue("expired", &[], Odd { expired: true, ..Odd::default() });
    pki.issue_by_a_stranger("stranger");
    let [required, optional, off] =
        ["required", "optional", "off"].map(|auth| pki.terminator(&format!("client_certificates = \"{auth}\"")));
    for versions in BOTH {
        let wire = |client, terminator: &Terminator| Wire::new(&pki.client_of(client, versions), "lb1", terminator);
        assert_eq!(refused(&mut wire(None, &required)), Error::NoCertificatesPresented);
        for terminator in [&required, &optional] {
            let expired = refused(&mut wire(Some("expired"), terminator));
            assert!(matches!(
                expired,
                Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
            ));
            let stranger = refused(&mut wire(Some("stranger"), terminator));
            assert!(matches!(stranger, Error::InvalidCertificate(_)), "{stranger}");
        }
        for (client, terminator, verified) in
            [(None, &optional, false), (Some("client"), &optional, true), (Some("stranger"), &off, false)]
        {
            let mut wire = wire(client, terminator);
            wire.handshake().unwrap();
            assert_eq!(wire.server.info().verified, verified);
            assert_eq!(wire.server.identity().is_some(), verified);
        }
    }
}

#[test]
fn the_client_learns_why_it_is_refused() {
    let pki = Pki::new();
    let mut wire = Wire::new(&pki.client_of(None, BOTH[1]), "lb1", &pki.terminator(""));
    refused(&mut wire);
    let alert = wire.client.process_new_packets().unwrap_err();
    assert_eq!(alert, Error::AlertReceived(rustls::AlertDescription::CertificateRequired));
    let again = wire.carry(b"\x16\x03\x03\x00\x01\x00").unwrap_err();
    assert!(matches!(again, TlsFault::Ended), "{again}");
}

#[test]
fn revoked_certificates_are_refused() {
    let pki = Pki::new();
    pki.issue("revoked", &[], Odd { serial: Some(66), ..Odd::default() });
    pki.revoke(&[66], (4000, 1, 1));
    let terminator = pki.terminator("crl = [\"PKI/ca.crl\"]");
    for versions in BOTH {
        let error = refused(&mut Wire::new(&pki.client_of(Some("revoked"), versions), "lb1", &terminator));
        assert_eq!(error, Error::InvalidCertificate(CertificateError::Revoked));
        Wire::new(&pki.client_of(Some("client"), versions), "lb1", &terminator).handshake().unwrap();
    }
}

#[test]
fn a_certificate_is_chosen_by_name_and_by_what_the_client_verifies() {
    let pki = Pki::new();
    let odd = |rsa| Odd { rsa, ..Odd::default() };
    pki.issue("exact-rsa", &["mqtt.example.org"], odd(true));
    pki.issue("exact-ecdsa", &["mqtt.example.org"], odd(false));
    pki.issue("wild", &["*.example.org"], odd(false));
    let entry = |name| format!("[[lb.certificates]]\ncert = \"PKI/{name}.crt\"\nkey = \"PKI/{name}.key\"\n");
    let sections: String = ["exact-rsa", "exact-ecdsa", "wild"].map(entry).concat();
    let terminator = Terminator::load(&pki.config("client_certificates = \"off\"", &sections)).unwrap();
    let shown = |name: &str, rsa_only: bool, versions| {
        let mut client = pki.client_of(None, versions);
        let verifier = Arc::new(AnyCertificate { rsa_only });
        client.dangerous().set_certificate_verifier(verifier);
        let mut wire = Wire::new(&client, name, &terminator);
        wire.handshake().unwrap();
        let chain = wire.client.peer_certificates().unwrap();
        evermq_daemon::tls::common_name(&chain[0]).unwrap()
    };
    for versions in BOTH {
        for (name, rsa_only, expected) in [
            ("mqtt.example.org", false, "exact-ecdsa"),
            ("MQTT.Example.ORG", false, "exact-ecdsa"),
            ("mqtt.example.org", true, "exact-rsa"),
            ("other.example.org", false, "wild"),
            ("a.b.example.org", false, "lb1"),
            ("example.org", false, "lb1"),
            ("127.0.0.1", false, "lb1"),
        ] {
            assert_eq!(shown(name, rsa_only, versions), expected, "{name} {rsa_only}");
        }
    }
}

/// A client that looks at no name, so that tests can ask for any.
#[derive(Debug)]
struct AnyCertificate {
    rsa_only: bool,
}

mod any_certificate {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for super::AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            let rsa = vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
            if self.rsa_only { rsa } else { [vec![SignatureScheme::ECDSA_NISTP256_SHA256], rsa].concat() }
        }
    }
}

#[test]
fn what_cannot_be_used_is_said_with_its_file() {
    let pki = Pki::new();
    pki.issue("nameless", &[], Odd::default());
    pki.issue("named", &["a.example.org"], Odd::default());
    pki.write("empty.pem", "");
    pki.write("bad.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    pki.revoke(&[], (2021, 2, 1));
    let entry = |cert, key| format!("[[lb.certificates]]\ncert = \"PKI/{cert}\"\nkey = \"PKI/{key}\"\n");
    let cases = [
        ("ticket_key = \"PKI/none.key\"", String::new(), "evermq certs ticket-key --out"),
        ("", entry("none.crt", "named.key"), "none.crt"),
        ("", entry("empty.pem", "named.key"), "holds no certificate"),
        ("", entry("named.crt", "nameless.key"), "name a certificate and its own key"),
        ("", entry("nameless.crt", "nameless.key"), "names no DNS name"),
        ("client_ca = \"PKI/empty.pem\"", String::new(), "holds no certificate"),
        ("crl = [\"PKI/none.crl\"]", String::new(), "take the file out of lb.crl"),
        ("crl = [\"PKI/empty.pem\"]", String::new(), "holds no revocation list"),
        ("crl = [\"PKI/bad.crl\"]", String::new(), "bad.crl cannot be used"),
        ("crl = [\"PKI/ca.crl\"]", String::new(), "has expired on"),
    ];
    for (lb, sections, expected) in cases {
        let mut config = pki.config(if lb.starts_with("ticket_key") { "" } else { lb }, &sections);
        if lb.starts_with("ticket_key") {
            config.lb.tls.ticket_key = pki.path("none.key");
        }
        let error: TerminationError = Terminator::load(&config).unwrap_err();
        assert!(error.to_string().contains(expected), "{lb} {sections}: {error}");
    }
    let other = Pki::new();
    other.revoke(&[], (4000, 1, 1));
    std::fs::copy(other.path("ca.crt"), pki.path("other.crt")).unwrap();
    pki.write(
        "both.crt",
        &["ca.crt", "other.crt"].map(|file| std::fs::read_to_string(pki.path(file)).unwrap()).concat(),
    );
    let mut config = pki.config("client_ca = \"PKI/both.crt\"", "");
    config.lb.tls.crl = vec![other.path("ca.crl")];
    // Both authorities have one name here, as a renewed one has: the list counts for both.
    Terminator::load(&config).unwrap();
}
