use proptest::prelude::*;

use super::*;

fn joined(number: u32, client: &str, local: &str) -> Change {
    Change::Joined(number, Connection::new(client.parse().unwrap(), local.parse().unwrap()).unwrap())
}

fn frames() -> Vec<Frame> {
    vec![
        Frame::Hello(Hello { version: 1, workers: 4, cluster: "home".into(), host: "lb1".into() }),
        Frame::Welcome { version: 1 },
        Frame::Refused("because".into()),
        Frame::Begin { worker: 3 },
        Frame::Changes {
            worker: 3,
            changes: vec![
                joined(0, "10.1.0.7:40007", "10.0.0.100:9000"),
                joined(1, "10.1.0.8:40008", "10.0.0.100:9000"),
                Change::Left(70_000),
                joined(2, "[2001:db8::7]:40007", "[2001:db8::100]:9000"),
                joined(3, "10.1.0.9:40009", "10.0.0.100:9000"),
            ],
        },
        Frame::End { worker: 3 },
        Frame::Ping,
        Frame::Pong,
        backend("broker1", Admin::Drain, Some(7), Some(100)),
        backend("broker2", Admin::Ready, None, None),
    ]
}

fn backend(name: &str, admin: Admin, weight: Option<u16>, rate: Option<u32>) -> Frame {
    let stamp = Stamp { time: 0x0102, host: "lb1".to_owned() };
    Frame::Backend { name: name.to_owned(), word: Word { admin, rate, weight, stamp } }
}

fn bytes(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes);
    bytes
}

#[test]
fn bytes_are_as_they_are_described() {
    let hello = [1, 0, 0, 0, 12, 1, 0, 4, 4, b'h', b'o', b'm', b'e', 3, b'l', b'b', b'1'];
    assert_eq!(bytes(&frames()[0])[..], hello);
    let changes =
        Frame::Changes { worker: 1, changes: vec![joined(5, "10.1.0.7:258", "10.0.0.100:9000"), Change::Left(6)] };
    let expected = [
        &[5, 0, 0, 0, 25][..],
        &[0, 1],                             // worker
        &[1, 10, 0, 0, 100, 0x23, 0x28],     // local
        &[3, 0, 0, 0, 5, 10, 1, 0, 7, 1, 2], // joined
        &[4, 0, 0, 0, 6],                    // left
    ];
    assert_eq!(bytes(&changes)[..], expected.concat());
    assert_eq!(bytes(&Frame::Ping)[..], [7, 0, 0, 0, 0]);
    let expected = [
        &[9, 0, 0, 0, 23][..],
        &[0, 0, 0, 0, 0, 0, 1, 2],    // time
        &[3, b'l', b'b', b'1'],       // host
        &[1, b'b'],                   // backend
        &[1, 1, 0, 7, 0, 0, 0, 0, 0], // drain, weight 7, no rate
    ];
    assert_eq!(bytes(&backend("b", Admin::Drain, Some(7), None))[..], expected.concat());
}

#[test]
fn every_frame_comes_back_in_whatever_pieces_it_comes() {
    let mut all = BytesMut::new();
    frames().iter().for_each(|frame| encode(frame, &mut all));
    let (mut input, mut decoded) = (BytesMut::new(), Vec::new());
    for byte in all {
        input.put_u8(byte);
        decoded.extend(decode(&mut input).unwrap());
    }
    assert_eq!(decoded, frames());
    assert!(input.is_empty());
}

#[test]
fn a_large_batch_takes_several_frames_of_bounded_length() {
    let change =
        |number: u32| joined(number, &format!("10.1.{}.{}:4000", number >> 8, number & 255), "10.0.0.100:9000");
    let changes: Vec<_> = (0..20_000).map(change).collect();
    let mut encoded = BytesMut::from(&encode_batch(2, &Batch { anew: true, changes: changes.clone() })[..]);
    assert!(encoded.len() < 20_000 * 12, "{} bytes", encoded.len());
    assert_eq!(decode(&mut encoded).unwrap(), Some(Frame::Begin { worker: 2 }));
    let mut decoded = Vec::new();
    let end = loop {
        match decode(&mut encoded).unwrap().unwrap() {
            Frame::Changes { worker: 2, changes } => decoded.extend(changes),
            other => break other,
        }
    };
    assert_eq!(end, Frame::End { worker: 2 });
    assert_eq!(decoded, changes);
    assert!(encoded.is_empty());
}

#[test]
fn what_is_no_frame_is_refused_before_it_costs_anything() {
    let cases: [(&[u8], FrameError); 10] = [
        (b"GET / HTTP/1.1", FrameError::Kind(b'G')),
        (&[5, 0, 0, 0x40, 1], FrameError::TooLong(0x4001)),
        (&[5, 0xff, 0xff, 0xff, 0xff], FrameError::TooLong(u32::MAX)),
        (&[4, 0, 0, 0, 3, 0, 1, 0], FrameError::Length),
        (&[1, 0, 0, 0, 4, 1, 0, 4, 9], FrameError::Length),
        (&[3, 0, 0, 0, 1, 0xff], FrameError::Text),
        (&[5, 0, 0, 0, 3, 0, 0, 9], FrameError::Entry(9)),
        (&[9, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3], FrameError::State(3)),
        (&[9, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], FrameError::Length),
        // A client without the address that it has connected to.
        (&[5, 0, 0, 0, 13, 0, 0, 3, 0, 0, 0, 1, 10, 0, 0, 1, 0, 1], FrameError::Entry(3)),
    ];
    for (input, expected) in cases {
        let mut bytes = BytesMut::from(input);
        assert_eq!(decode(&mut bytes), Err(expected), "{input:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(kind in 0_u8..11, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut input = BytesMut::from(&[kind, 0, 0, 0, body.len() as u8][..]);
        input.extend_from_slice(&body);
        if let Ok(Some(frame)) = decode(&mut input) {
            let mut again = bytes(&frame);
            prop_assert_eq!(decode(&mut again), Ok(Some(frame)));
        }
    }
}
