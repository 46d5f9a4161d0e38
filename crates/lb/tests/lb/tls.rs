//! TLS that ends at the lb, without a socket: both ends in memory.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use crate::pki::{Odd, Pki, Wire};
use evermq_lb::tls::{Output, Session as _, TerminationError, Terminator, TlsFault};
use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, Error, SupportedProtocolVersion};

const BOTH: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

fn read_all(wire: &mut Wire) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let mut length = 0;
    while let Ok(read @ 1..) = wire.client.reader().read(&mut bytes[length..]) {
        length += read;
    }
    bytes.truncate(length);
    bytes
}

fn refused(wire: &mut Wire) -> Error {
    match wire.pump() {
        Err(TlsFault::Protocol(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mutual_tls_both_versions_both_ways() {
    let pki = Pki::new();
    let terminator = pki.terminator("");
    for versions in BOTH {
        let mut wire = Wire::new(&pki.client_of(Some("client"), versions), "lb1", &terminator);
        wire.handshake().unwrap();
        let info = wire.server.info();
        assert_eq!(info.version, if versions == BOTH[0] { "TLSv1.2" } else { "TLSv1.3" });
        assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
        assert!(info.verified && !info.resumed);
        assert_eq!(info.alpn, None);
        assert_eq!(wire.server.take_sni().as_deref(), Some("lb1"));
        let identity = wire.server.identity().unwrap();
        assert_eq!(identity.cn.as_deref(), Some("client"));
        assert!(identity.dn.contains("CN=client") && identity.dn.contains("O=plant"), "{}", identity.dn);

        wire.client.writer().write_all(b"to the server").unwrap();
        wire.pump().unwrap();
        assert_eq!(wire.plain.as_slice(), b"to the server");
        let large: Vec<u8> = (0..16_385u32).map(|n| n as u8).collect();
        wire.server.send(&large, &mut wire.out).unwrap();
        wire.pump().unwrap();
        assert_eq!(read_all(&mut wire), large);
        assert!(wire.kept.is_empty(), "an idle connection keeps nothing");
    }
}

#[test]
fn each_side_closes_its_own_direction() {
    let pki = Pki::new();
    let terminator = pki.terminator("");
    for versions in BOTH {
        let mut wire = Wire::new(&pki.client_of(Some("client"), versions), "lb1", &terminator);
        wire.handshake().unwrap();
        wire.client.writer().write_all(b"last words").unwrap();
        wire.client.send_close_notify();
        wire.pump().unwrap();
        assert!(wire.closed);
        assert_eq!(wire.plain.as_slice(), b"last words");

        wire.server.send(b"still here", &mut wire.out).unwrap();
        wire.server.close(&mut wire.out);
        let length = wire.out.len();
        wire.server.close(&mut wire.out);
        assert_eq!(wire.out.len(), length, "said once");
        assert!(matches!(wire.server.send(b"more", &mut wire.out), Err(TlsFault::Ended)));
        wire.pump().unwrap();
        let mut bytes = Vec::new();
        wire.client.reader().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"still here");
    }
}

#[test]
fn keys_are_updated_on_request() {
    let pki = Pki::new();
    let mut wire = Wire::new(&pki.client_of(Some("client"), BOTH[1]), "lb1", &pki.terminator(""));
    wire.handshake().unwrap();
    for round in 0..20u8 {
        wire.client.refresh_traffic_keys().unwrap();
        wire.client.writer().write_all(&[round]).unwrap();
        wire.pump().unwrap();
        wire.server.send(&[round], &mut wire.out).unwrap();
        wire.pump().unwrap();
        assert_eq!(read_all(&mut wire), [round]);
    }
    assert_eq!(wire.plain.as_slice(), (0..20).collect::<Vec<u8>>());
}

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
fn versions_below_the_minimum_are_refused() {
    let pki = Pki::new();
    let terminator = pki.terminator("tls_min_version = \"1.3\"");
    let error = refused(&mut Wire::new(&pki.client_of(Some("client"), BOTH[0]), "lb1", &terminator));
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
    Wire::new(&pki.client(Some("client")), "lb1", &terminator).handshake().unwrap();
}

#[test]
fn only_mqtt_is_spoken_within() {
    let pki = Pki::new();
    let terminator = pki.terminator("");
    let wire = |protocols: &[&str]| {
        let mut client = pki.client(Some("client"));
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Wire::new(&client, "lb1", &terminator)
    };
    let mut with_mqtt = wire(&["h2", "mqtt"]);
    with_mqtt.handshake().unwrap();
    assert_eq!(with_mqtt.server.info().alpn, Some(&b"mqtt"[..]));
    let mut without = wire(&["h2", "http/1.1"]);
    assert_eq!(refused(&mut without), Error::NoApplicationProtocol);
    let alert = without.client.process_new_packets().unwrap_err();
    assert_eq!(alert, Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol));
}

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

#[test]
fn oversized_handshake_messages_are_refused() {
    let pki = Pki::new();
    let terminator = pki.terminator("");
    // A ClientHello of 60,000 bytes in records of 16 KiB.
    let mut server = terminator.accept().unwrap();
    let (mut plain, mut out) = (Output::default(), Output::default());
    let mut message = vec![1, 0, 0xea, 0x60];
    message.resize(4 + 60_000, 0);
    let mut kept = Vec::new();
    let mut fault = None;
    for record in message.chunks(16 * 1024) {
        kept.extend_from_slice(&[0x16, 3, 1]);
        kept.extend_from_slice(&(record.len() as u16).to_be_bytes());
        kept.extend_from_slice(record);
        match server.receive(&mut kept, &mut plain, &mut out) {
            Ok(received) => drop(kept.drain(..received.consumed)),
            Err(error) => fault = fault.or(Some(error)),
        }
    }
    assert!(matches!(fault, Some(TlsFault::TooLarge)), "{fault:?}");
}

fn pki() -> &'static (Pki, Terminator) {
    static PKI: std::sync::OnceLock<(Pki, Terminator)> = std::sync::OnceLock::new();
    PKI.get_or_init(|| {
        let pki = Pki::new();
        let terminator = pki.terminator("");
        (pki, terminator)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_may_come_in_any_pieces(
        piece in 1usize..400, tls13: bool, messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..4)
    ) {
        let (pki, terminator) = pki();
        let mut wire = Wire::new(&pki.client_of(Some("client"), BOTH[usize::from(tls13)]), "lb1", terminator);
        wire.piece = piece;
        wire.handshake().unwrap();
        for message in &messages {
            wire.client.writer().write_all(message).unwrap();
            wire.pump().unwrap();
            wire.server.send(message, &mut wire.out).unwrap();
            wire.pump().unwrap();
        }
        prop_assert_eq!(wire.plain.as_slice(), messages.concat());
        prop_assert_eq!(read_all(&mut wire), messages.concat());
        prop_assert!(wire.kept.is_empty());
    }

    #[test]
    fn damage_ends_the_connection_and_nothing_else(
        tls13: bool, at in 0usize..6000, bit in 0u8..8, piece in 1usize..3000, garbage in prop::collection::vec(any::<u8>(), 0..100)
    ) {
        let (pki, terminator) = pki();
        let mut wire = Wire::new(&pki.client_of(Some("client"), BOTH[usize::from(tls13)]), "lb1", terminator);
        wire.piece = piece;
        let mut position = 0;
        // Everything that the client sends, with one bit of it turned; garbage behind.
        for round in 0..4 {
            let mut sent = Vec::new();
            if !wire.client.is_handshaking() {
                let _ = wire.client.writer().write_all(&[7; 1000]);
            }
            while wire.client.wants_write() {
                wire.client.write_tls(&mut sent).unwrap();
            }
            if let Some(byte) = at.checked_sub(position).and_then(|at| sent.get_mut(at)) {
                *byte ^= 1 << bit;
            }
            position += sent.len();
            if round == 3 {
                sent.extend_from_slice(&garbage);
            }
            wire.carry(&sent).err();
            wire.server.send(b"answer", &mut wire.out).err();
            let mut answer = wire.out.as_slice();
            while !answer.is_empty() {
                if wire.client.read_tls(&mut answer).is_err() || wire.client.process_new_packets().is_err() {
                    break;
                }
            }
            wire.out.clear();
        }
        wire.server.close(&mut wire.out);
        prop_assert!(wire.plain.as_slice().iter().all(|byte| *byte == 7), "bytes that nobody sent");
    }

    #[test]
    fn garbage_is_no_hello(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1usize..500) {
        let (pki, terminator) = pki();
        let mut wire = Wire::new(&pki.client(None), "lb1", terminator);
        wire.piece = piece;
        let _ = wire.carry(&bytes);
        prop_assert!(wire.plain.is_empty() && !wire.handshaken);
        prop_assert!(matches!(wire.server.send(b"x", &mut wire.out), Err(TlsFault::Ended)));
    }
}

/// A record of TLS 1.3 by the client's own keys (RFC 8446 §5.2), so that a test can send what no library does.
fn record(secrets: &rustls::ConnectionTrafficSecrets, sequence: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another cipher") };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (byte, sequence) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= sequence;
    }
    let mut inner = [payload, &[kind]].concat();
    let header = [&[0x17, 3, 3][..], &(inner.len() as u16 + 16).to_be_bytes()].concat();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&header), &mut inner).unwrap();
    [header, inner].concat()
}

#[test]
fn a_key_update_in_two_records_is_refused() {
    let pki = Pki::new();
    let mut client = pki.client_of(Some("client"), BOTH[1]);
    client.enable_secret_extraction = true;
    let mut wire = Wire::new(&client, "lb1", &pki.terminator(""));
    wire.handshake().unwrap();
    let (mut sequence, secrets) = wire.client.dangerous_extract_secrets().unwrap().tx;
    let mut next = |kind: u8, payload: &[u8]| {
        sequence += 1;
        record(&secrets, sequence - 1, kind, payload)
    };
    let mut receive = |server: &mut evermq_lb::tls::ServerSide, mut bytes: Vec<u8>| {
        server.receive(&mut bytes, &mut wire.plain, &mut wire.out)
    };
    assert_eq!(receive(&mut wire.server, next(0x17, b"x")).unwrap().consumed, 23);
    let fault = receive(&mut wire.server, next(0x16, &[24, 0, 0])).unwrap_err();
    assert!(matches!(fault, TlsFault::TooLarge), "{fault}");
    assert!(matches!(wire.server.send(b"x", &mut wire.out), Err(TlsFault::Ended)));
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
