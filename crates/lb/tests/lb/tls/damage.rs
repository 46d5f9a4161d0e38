//! Bytes in any pieces, damaged ones, and records that no library sends.

use std::io::Write as _;

use evermq_lb::tls::{Output, Session as _, Terminator, TlsFault};
use proptest::prelude::*;

use super::{BOTH, read_all};
use crate::pki::{Pki, Wire};

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
