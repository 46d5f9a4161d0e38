use std::num::NonZeroU64;

use evermq_mqtt::Text;
use proptest::prelude::*;

use super::*;
use crate::directions::{Directions, GroupId};
use crate::groups::Members;
use crate::message::Publisher;

const LIMIT: u32 = 4096;

fn bytes_of(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    encode(frame, &mut out);
    out
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9-]{0,63}"
}

fn packet() -> impl Strategy<Value = BytesMut> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| BytesMut::from(&bytes[..]))
}

fn a_range() -> impl Strategy<Value = Range> {
    (1..u64::MAX, any::<u64>()).prop_map(|(from, more)| Range { from, to: from.saturating_add(more) })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<(u8, u8, u8, u64, u64)>(), name(), name()).prop_map(|(numbers, cluster, host)| {
            let (oldest, newest, minor, instance, last) = numbers;
            let last = (minor >= 2).then_some(last);
            Frame::Hello(Hello { oldest, newest, minor, instance, cluster, host, last })
        }),
        any::<(u8, u8, u64, Option<u64>, u32)>().prop_map(|(version, minor, instance, resume, max_body)| {
            Frame::Welcome(Welcome { version, minor, instance, resume, max_body })
        }),
        (any::<(u64, u64, u64)>(), any::<Option<NonZeroU64>>(), packet()).prop_map(
            |((seq, age, time), publisher, packet)| {
                let head = Head { seq, age, time, publisher: publisher.map(Publisher) };
                Frame::Entry(Entry { head, packet })
            }
        ),
        (any::<(u64, u64)>(), name(), packet()).prop_map(|((age, time), origin, packet)| Frame::Retained(Retained {
            age,
            time,
            origin,
            packet
        })),
        any::<u64>().prop_map(|base| Frame::SnapshotEnd { base }),
        a_range().prop_map(Frame::Gap),
        a_range().prop_map(Frame::Skip),
        any::<u64>().prop_map(|seq| Frame::Ack { seq }),
        Just(Frame::Ping),
        Just(Frame::Pong),
        "\\PC{0,80}".prop_map(|text| Frame::Error { text }),
        Just(Frame::Bye),
        (any::<u64>(), any::<bool>(), "\\PC{0,40}", proptest::option::of("\\PC{0,40}")).prop_map(
            |(time, clean_start, client_id, user)| {
                let text = |text: String| Text::new(&text).unwrap();
                Frame::Claim(Claim { time, clean_start, client_id: text(client_id), user: user.map(text) })
            }
        ),
        (any::<(u32, u32, u64)>(), "\\PC{0,40}").prop_map(|((connected, all, since), filter)| {
            Frame::Group(Group { filter: Text::new(&filter).unwrap(), members: Members { connected, all, since } })
        }),
        any::<bool>().prop_map(|is_complete| Frame::Groups { is_complete }),
        (any::<u64>(), any::<[u8; 16]>(), name()).prop_map(|(seq, group, broker)| {
            Frame::Directed(Directed { seq, directions: Directions::new(GroupId(group), &broker) })
        }),
    ]
}

/// Feeds `bytes` in two or more pieces and gives every frame.
fn decode_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let (mut buffer, mut frames, mut at) = (BytesMut::new(), Vec::new(), 0);
    for end in ends {
        buffer.extend_from_slice(&bytes[at..end]);
        at = end;
        while let Some(frame) = decode(&mut buffer, LIMIT)? {
            frames.push(frame);
        }
    }
    assert!(buffer.is_empty(), "bytes are left over");
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_come_back_whole_however_they_are_split(
        frames in prop::collection::vec(any_frame(), 1..8),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encode(frame, &mut bytes);
        }
        prop_assert_eq!(decode_in_pieces(&bytes, &cuts).unwrap(), frames);
    }

    #[test]
    fn a_frame_cut_short_waits_for_the_rest(frame in any_frame()) {
        let bytes = bytes_of(&frame);
        for end in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..end]);
            prop_assert_eq!(decode(&mut buffer, LIMIT), Ok(None));
            prop_assert_eq!(&buffer[..], &bytes[..end], "nothing is taken out early");
            if end >= HEADER {
                prop_assert_eq!(missing(&buffer), bytes.len() - end);
            }
        }
    }

    #[test]
    fn a_longer_body_of_a_newer_minor_is_read(frame in any_frame(), more in prop::collection::vec(any::<u8>(), 1..20)) {
        // Bodies that end with a packet or a text have no end of their own, so nothing can be appended to those.
        prop_assume!(!matches!(frame, Frame::Entry(_) | Frame::Retained(_) | Frame::Error { .. }));
        let mut bytes = bytes_of(&frame);
        bytes.extend_from_slice(&more);
        let length = u32::try_from(bytes.len() - HEADER).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        prop_assert_eq!(decode(&mut bytes, LIMIT), Ok(Some(frame)));
    }

    #[test]
    fn garbage_never_panics_and_never_grows(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode(&mut buffer, LIMIT) {}
        prop_assert!(buffer.len() <= bytes.len());
    }

    #[test]
    fn a_damaged_frame_never_panics(frame in any_frame(), at in any::<usize>(), value in any::<u8>()) {
        let mut bytes = bytes_of(&frame);
        let at = at % bytes.len();
        bytes[at] = value;
        while let Ok(Some(_)) = decode(&mut bytes, LIMIT) {}
    }
}

#[test]
fn layouts_are_as_documented() {
    let hello =
        Hello { oldest: 1, newest: 2, minor: 1, instance: 4, cluster: "c".into(), host: "ab".into(), last: None };
    assert_eq!(
        bytes_of(&Frame::Hello(hello.clone()))[..],
        *b"\0\0\0\x14\x01EvMQ\x01\x02\x01\0\0\0\0\0\0\0\x04\x01c\x02ab"
    );
    let of_minor_2 = Frame::Hello(Hello { minor: 2, last: Some(5), ..hello });
    assert_eq!(
        bytes_of(&of_minor_2)[..],
        *b"\0\0\0\x1c\x01EvMQ\x01\x02\x02\0\0\0\0\0\0\0\x04\x01c\x02ab\0\0\0\0\0\0\0\x05"
    );
    let welcome = Welcome { version: 1, minor: 0, instance: 9, resume: Some(7), max_body: 256 };
    assert_eq!(
        bytes_of(&Frame::Welcome(welcome))[..],
        *b"\0\0\0\x17\x02\x01\0\0\0\0\0\0\0\0\x09\x01\0\0\0\0\0\0\0\x07\0\0\x01\0"
    );
    let head = Head { seq: 1, age: 2, time: 3, publisher: None };
    let entry = Entry { head, packet: BytesMut::from("xy") };
    assert_eq!(
        bytes_of(&Frame::Entry(entry.clone()))[..],
        *b"\0\0\0\x1a\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03xy"
    );
    let publisher = NonZeroU64::new(4).map(Publisher);
    assert_eq!((entry_body(None, 2), entry_body(publisher, 2)), (26, 34));
    let entry_by = Entry { head: Head { publisher, ..head }, ..entry.clone() };
    let bytes = *b"\0\0\0\x22\x84\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04xy";
    assert_eq!(bytes_of(&Frame::Entry(entry_by))[..], bytes);
    let mut nobody = BytesMut::from(&bytes[..]);
    nobody[36] = 0;
    assert_eq!(decode(&mut nobody, 100), Ok(Some(Frame::Entry(entry))));
    let user = Some(Text::new("u").unwrap());
    let claim = Claim { time: 1, clean_start: true, client_id: Text::new("id").unwrap(), user };
    assert_eq!(bytes_of(&Frame::Claim(claim.clone()))[..], *b"\0\0\0\x10\x80\0\0\0\0\0\0\0\x01\x03\0\x02id\0\x01u");
    assert_eq!(claim::body(&claim), 16);
    let members = Members { connected: 1, all: 2, since: 3 };
    let group = Group { filter: Text::new("$share/g/t").unwrap(), members };
    assert_eq!(
        bytes_of(&Frame::Group(group.clone()))[..],
        *b"\0\0\0\x1c\x81\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x03\0\x0a$share/g/t"
    );
    assert_eq!(group::group_body(&group), 28);
    assert_eq!(bytes_of(&Frame::Groups { is_complete: false })[..], *b"\0\0\0\x01\x82\0");
    assert_eq!(bytes_of(&Frame::Groups { is_complete: true })[..], *b"\0\0\0\x01\x82\x01");
    let directed = Directed { seq: 5, directions: Directions::new(GroupId([9; 16]), "ab") };
    assert_eq!(
        bytes_of(&Frame::Directed(directed))[..],
        *b"\0\0\0\x1e\x83\0\0\0\0\0\0\0\x05\0\0\x01\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x02ab"
    );
    assert_eq!(bytes_of(&Frame::Ping)[..], *b"\0\0\0\0\x09");
    assert_eq!(
        bytes_of(&Frame::Gap(Range { from: 1, to: 2 }))[..],
        *b"\0\0\0\x10\x06\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02"
    );
}

#[test]
fn a_length_above_the_limit_is_refused_from_the_header() {
    let mut buffer = BytesMut::from(&b"\xff\xff\xff\xff\x03"[..]);
    assert_eq!(decode(&mut buffer, LIMIT), Err(FrameError::TooLong { length: u32::MAX, limit: LIMIT }));
}

#[test]
fn unknown_kinds_are_refused_below_128_and_ignored_above() {
    let mut buffer = BytesMut::from(&b"\0\0\0\x02\x90xx\0\0\0\0\x09"[..]);
    assert_eq!(decode(&mut buffer, LIMIT), Ok(Some(Frame::Ping)));
    let mut buffer = BytesMut::from(&b"\0\0\0\0\x7f"[..]);
    assert_eq!(decode(&mut buffer, LIMIT), Err(FrameError::UnknownKind(127)));
}

#[test]
fn a_stranger_is_told_from_a_broken_peer() {
    let mut buffer = BytesMut::from(&b"\0\0\0\x04\x01HTTP"[..]);
    assert_eq!(decode(&mut buffer, LIMIT), Err(FrameError::BadMagic));
    let mut buffer = BytesMut::from(&b"\0\0\0\x04\x01EvMQ"[..]);
    assert_eq!(decode(&mut buffer, LIMIT), Err(FrameError::Malformed("HELLO")));
}

#[test]
fn empty_and_backward_ranges_are_refused() {
    for range in [Range { from: 0, to: 4 }, Range { from: 5, to: 4 }] {
        let mut bytes = bytes_of(&Frame::Gap(range));
        assert_eq!(decode(&mut bytes, LIMIT), Err(FrameError::Malformed("GAP")));
    }
}

#[test]
fn error_texts_are_cut_at_a_character() {
    let text = "é".repeat(400);
    let mut bytes = bytes_of(&Frame::Error { text });
    assert_eq!(decode(&mut bytes, LIMIT), Ok(Some(Frame::Error { text: "é".repeat(256) })));
}
