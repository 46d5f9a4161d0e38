use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        long @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend((long as u16).to_be_bytes());
        }
        longer => {
            out.push(0x80 | 127);
            out.extend((longer as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Result<(Vec<u8>, Vec<Said>), Violation> {
    let (mut bytes, mut said) = (bytes.to_vec(), Vec::new());
    let count = decoder.decode(&mut bytes, &mut said)?;
    Ok((bytes[..count].to_vec(), said))
}

fn violation(bytes: &[u8]) -> Violation {
    decode(&mut Decoder::default(), bytes).unwrap_err()
}

#[test]
fn the_standards_own_examples() {
    // RFC 6455 §5.7: a masked "Hello", but binary; a masked Pong.
    let mut decoder = Decoder::default();
    let hello = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&mut decoder, &hello), Ok((b"Hello".to_vec(), vec![])));
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&mut decoder, &pong), Ok((vec![], vec![])));
    let mut out = Vec::new();
    encode(OpCode::Control(Control::Ping), b"Hello", &mut out);
    encode(OpCode::Data(Data::Binary), &[7; 256], &mut out);
    assert_eq!(out[..11], [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x82, 0x7E, 0x01, 0x00]);
}

#[test]
fn pings_and_a_close_between_the_pieces_of_a_message() {
    let bytes = [
        frame(0x02, b"ab"),
        frame(0x89, b"there?"),
        frame(0x00, b""),
        frame(0x80, b"cd"),
        frame(0x88, &[0x03, 0xe8, b'o', b'k']),
        frame(0x82, b"too late"),
    ]
    .concat();
    let mut decoder = Decoder::default();
    let (payload, said) = decode(&mut decoder, &bytes).unwrap();
    assert_eq!(payload, b"abcd");
    assert_eq!(said, [Said::Ping(Box::from(&b"there?"[..])), Said::Close(CloseCode::Normal)]);
    assert!(decoder.is_closed());
    assert_eq!(decode(&mut decoder, &frame(0x82, b"later still")), Ok((vec![], vec![])));
}

#[test]
fn what_must_not_be() {
    assert_eq!(violation(&frame(0x81, b"text")), Violation::NotBinary);
    assert_eq!(violation(&frame(0x81, b"text")).code(), CloseCode::Unsupported);
    let unmasked = [0x82, 0x01, 0x00];
    let length = [&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &MASK].concat();
    let in_message = [frame(0x02, b"a"), frame(0x82, b"b")].concat();
    for bytes in [
        &unmasked[..],
        &length,
        &in_message,
        &frame(0x80, b"nothing to continue"),
        &frame(0xc2, b"rsv1"),
        &frame(0x83, b"reserved"),
        &frame(0x8b, b"reserved"),
        &frame(0x09, b"ping in pieces"),
        &frame(0x89, &[0; 126]),
        &frame(0x88, &[3]),
        &frame(0x88, &[0x03, 0xed]),
        &frame(0x88, &[0x03, 0xe8, 0xff]),
    ] {
        let violation = violation(bytes);
        assert!(matches!(violation, Violation::Protocol(_)), "{bytes:02x?}: {violation}");
        assert_eq!(violation.code(), CloseCode::Protocol);
    }
}

#[test]
fn a_promised_length_reserves_nothing() {
    let mut decoder = Decoder::default();
    let header = [&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &MASK, &[0; 3]].concat();
    assert_eq!(decode(&mut decoder, &header).unwrap().0.len(), 3);
    assert!(decoder.kept.is_empty());
}

proptest! {
    #[test]
    fn however_it_is_cut_the_same_comes_out(
        payloads in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 1..8),
        cuts in proptest::collection::vec(1_usize..40, 1..20),
    ) {
        let (mut bytes, mut wanted, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for (is_ping, payload) in &payloads {
            if *is_ping && payload.len() <= MAX_CONTROL {
                bytes.extend(frame(0x89, payload));
                pings.push(Said::Ping(payload.as_slice().into()));
            } else {
                bytes.extend(frame(0x82, payload));
                wanted.extend_from_slice(payload);
            }
        }
        let (mut decoder, mut got, mut said) = (Decoder::default(), Vec::new(), Vec::new());
        let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            let (payload, heard) = decode(&mut decoder, piece).unwrap();
            got.extend(payload);
            said.extend(heard);
            rest = later;
        }
        prop_assert_eq!(got, wanted);
        prop_assert_eq!(said, pings);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let mut decoder = Decoder::default();
        for piece in bytes.chunks(7) {
            if decode(&mut decoder, piece).is_err() {
                break;
            }
        }
    }
}
