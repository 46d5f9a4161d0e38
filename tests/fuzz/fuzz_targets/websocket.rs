//! Any bytes as an HTTP request for WebSocket, and as a client's frames: an answer within the bound, and the same for the bytes in pieces.

#![no_main]

use evermq_broker::websocket::frames::{Decoder, Said, Violation};
use evermq_broker::websocket::upgrade::{MAX_REQUEST, Upgrade, judge};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = judge(bytes);
    assert!(whole != Upgrade::NeedMore || bytes.len() < MAX_REQUEST);
    if let Upgrade::Accepted { consumed, response } = &whole {
        assert!(*consumed <= bytes.len() && response.starts_with(b"HTTP/1.1 101 "));
    }
    let half = judge(&bytes[..bytes.len() / 2]);
    assert!(half == Upgrade::NeedMore || half == whole || matches!(half, Upgrade::Refused { .. }));
    let frames = match whole {
        Upgrade::Accepted { consumed, .. } => &bytes[consumed..],
        _ => bytes,
    };
    let at_once = decode(frames, usize::MAX);
    for size in [1, 3, 64] {
        let in_pieces = decode(frames, size);
        assert_eq!(at_once.2, in_pieces.2, "pieces of {size}");
        if at_once.2.is_none() {
            assert_eq!(at_once, in_pieces, "pieces of {size}");
        }
    }
    assert!(at_once.0.len() <= frames.len());
});

fn decode(bytes: &[u8], size: usize) -> (Vec<u8>, Vec<Said>, Option<Violation>) {
    let (mut decoder, mut carried, mut said) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.min(bytes.len().max(1))) {
        let mut piece = piece.to_vec();
        match decoder.decode(&mut piece, &mut said) {
            Ok(count) => carried.extend_from_slice(&piece[..count]),
            Err(violation) => return (carried, said, Some(violation)),
        }
    }
    (carried, said, None)
}
