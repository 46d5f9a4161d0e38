use proptest::prelude::*;

use super::*;

const CLUSTER: ClusterId = ClusterId(0x0102_0304_0506_0708);
const FROM: HostId = HostId(0x1112_1314_1516_1718);
const TO: HostId = HostId(0x2122_2324_2526_2728);
const VIP: Resource = Resource::new(true, 51);

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32]).unwrap()
}

fn message(body: Body) -> Message {
    let header = Header {
        cluster: CLUSTER,
        sender: FROM,
        receiver: TO,
        epoch: 0x3132_3334_3536_3738,
        counter: 0x4142_4344_4546_4748,
        receiver_epoch: 0x5152_5354_5556_5758,
        members: Members { count: 4, digest: 0x6162_6364_6566_6768 },
        echo: 0x7172_7374_7576_7778,
        stamp: 0x0182_8384_8586_8788,
    };
    Message { header, body }
}

fn bodies() -> Vec<Body> {
    let (resource, claim, lease) = (VIP, 9, Duration::from_micros(200_001));
    let mut bodies = vec![
        Body::Probe,
        Body::Request { resource, claim, rank: 150, lease },
        Body::Yield { resource, claim },
        Body::Heard { resource, claim },
        Body::Grant { resource, claim, lease },
        Body::Unacquainted,
        Body::Outdated { known: 77 },
    ];
    for refusal in [Refusal::Held, Refusal::Abstains, Refusal::Membership, Refusal::Full] {
        bodies.push(Body::Refuse { resource, claim, refusal, left: lease });
    }
    bodies
}

#[test]
fn every_message_is_read_as_it_was_written() {
    for body in bodies() {
        let written = message(body);
        assert_eq!(decode(&encode(&written, &key(1)), CLUSTER, TO, &key(1)), Ok(written));
    }
}

#[test]
fn the_layout_is_as_documented() {
    let bytes = encode(&message(bodies()[1]), &key(1));
    assert_eq!(bytes[..8], *b"EMQH\x01\x02\x01\x33");
    for (at, first) in [(8, 0x01), (16, 0x11), (24, 0x21), (32, 0x31), (40, 0x41), (48, 0x51), (56, 0x61), (80, 0x71)] {
        assert_eq!((bytes[at], bytes[at + 7]), (first, first + 7), "at {at}");
    }
    assert_eq!(bytes[64..80], [4, 150, 0, 0, 0, 0, 0, 9, 0, 3, 0x0d, 0x41, 0, 0, 0, 0]);
    assert_eq!(bytes[96..104], [0; 8]);
    assert_eq!(bytes[104..], key(1).tag(&bytes[..104]));
}

/// All that is said is under the tag, and what is not for this host is told apart.
#[test]
fn any_changed_byte_is_found() {
    let good = encode(&message(bodies()[1]), &key(1));
    for at in 0..LENGTH {
        let mut bytes = good;
        bytes[at] ^= 1;
        let expected = match at {
            0..=4 => Discard::Version,
            8..=15 => Discard::Cluster,
            24..=31 => Discard::Receiver,
            _ => Discard::Tag,
        };
        assert_eq!(decode(&bytes, CLUSTER, TO, &key(1)), Err(expected), "byte {at}");
    }
    assert_eq!(decode(&good, CLUSTER, TO, &key(2)), Err(Discard::Tag), "another key");
    assert_eq!(decode(&good[..LENGTH - 1], CLUSTER, TO, &key(1)), Err(Discard::Length));
    assert_eq!(decode(&[&good[..], &[0]].concat(), CLUSTER, TO, &key(1)), Err(Discard::Length));
    assert_eq!(decode(&[], CLUSTER, TO, &key(1)), Err(Discard::Length));
}

#[test]
fn what_a_host_with_the_key_says_wrongly_is_malformed() {
    let signed = |at: usize, byte: u8| {
        let mut bytes = encode(&message(bodies()[7]), &key(1));
        bytes[at] = byte;
        let tag = key(1).tag(&bytes[..104]);
        bytes[104..].copy_from_slice(&tag);
        decode(&bytes, CLUSTER, TO, &key(1)).map(|_| ())
    };
    assert_eq!(signed(5, 6), Ok(()));
    assert_eq!(signed(5, 0), Err(Discard::Malformed));
    assert_eq!(signed(5, 9), Err(Discard::Malformed));
    assert_eq!(signed(66, 0), Err(Discard::Malformed));
    assert_eq!(signed(66, 5), Err(Discard::Malformed));
}

#[test]
fn resources() {
    assert_eq!((VIP.vrid(), VIP.is_ipv6(), VIP.family()), (51, true, "ipv6"));
    let four = Resource::new(false, 51);
    assert_eq!((four.vrid(), four.is_ipv6(), four.family()), (51, false, "ipv4"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
        if like && bytes.len() >= LENGTH {
            bytes.truncate(LENGTH);
            bytes[..5].copy_from_slice(b"EMQH\x01");
            bytes[8..16].copy_from_slice(&CLUSTER.0.to_be_bytes());
            bytes[24..32].copy_from_slice(&TO.0.to_be_bytes());
            let tag = key(1).tag(&bytes[..104]);
            bytes[104..].copy_from_slice(&tag);
        }
        let read = decode(&bytes, CLUSTER, TO, &key(1));
        if let Ok(message) = read {
            prop_assert_eq!(decode(&encode(&message, &key(1)), CLUSTER, TO, &key(1)), Ok(message));
        }
    }
}
