//! TLS that ends at the lb, without a socket: both ends in memory.

mod certificates;
mod damage;
mod sessions;

use std::io::{Read as _, Write as _};

use evermq_lb::tls::{Session as _, TlsFault};
use rustls::version::{TLS12, TLS13};
use rustls::{Error, SupportedProtocolVersion};

use crate::pki::{Pki, Wire};

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
