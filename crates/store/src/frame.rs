//! A record's frame in a segment.
//!
//! ```text
//!  +-------+------+--------+----------+----------------+
//!  | magic | kind | length | checksum | record         |
//!  |   2   |   1  |   4    |    4     | `length` bytes |
//!  +-------+------+--------+----------+----------------+     integers with the lowest byte first
//! ```
//!
//! The checksum (CRC32C) is over kind, length and record, and starts from a number of the store. Magic and number come from
//! the store's secret identity: what a client writes into a payload is not taken for a frame when the reader looks for the
//! next one behind a damaged place.

use std::fmt;

use bytes::{BufMut as _, BytesMut};

/// Bytes before the record.
pub(crate) const HEADER: usize = 11;

/// What kind of record a frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "named after what they hold, see `record`")]
pub enum Kind {
    Session = 1,
    SessionEnd = 2,
    Subscribe = 3,
    Unsubscribe = 4,
    Enqueue = 5,
    Sent = 6,
    Released = 7,
    Done = 8,
    Dropped = 9,
    Received = 10,
    ReceivedDone = 11,
    Snapshot = 12,
    RetainedGone = 13,
    Message = 14,
    Commit = 15,
    OriginLog = 16,
    Forward = 17,
    PeerCursor = 18,
    Applied = 19,
    WillDue = 20,
    WillSent = 21,
    Moved = 22,
    Directed = 23,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 23] = [
        Self::Session,
        Self::SessionEnd,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Enqueue,
        Self::Sent,
        Self::Released,
        Self::Done,
        Self::Dropped,
        Self::Received,
        Self::ReceivedDone,
        Self::Snapshot,
        Self::RetainedGone,
        Self::Message,
        Self::Commit,
        Self::OriginLog,
        Self::Forward,
        Self::PeerCursor,
        Self::Applied,
        Self::WillDue,
        Self::WillSent,
        Self::Moved,
        Self::Directed,
    ];

    fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::SessionEnd => "session_end",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Enqueue => "enqueue",
            Self::Sent => "sent",
            Self::Released => "released",
            Self::Done => "done",
            Self::Dropped => "dropped",
            Self::Received => "received",
            Self::ReceivedDone => "received_done",
            Self::Snapshot => "snapshot",
            Self::RetainedGone => "retained_gone",
            Self::Message => "message",
            Self::Commit => "commit",
            Self::OriginLog => "origin_log",
            Self::Forward => "forward",
            Self::PeerCursor => "peer_cursor",
            Self::Applied => "applied",
            Self::WillDue => "will_due",
            Self::WillSent => "will_sent",
            Self::Moved => "moved",
            Self::Directed => "directed",
        })
    }
}

/// How the frames of one store look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framing {
    magic: [u8; 2],
    seed: u32,
}

/// What stands at a place of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// A frame, `len` bytes with its header.
    Frame {
        /// Its kind.
        kind: Kind,
        /// Its record.
        record: &'a [u8],
        /// Bytes until the next frame.
        len: usize,
    },
    /// Nothing that can be read.
    Unreadable,
}

impl Framing {
    /// That of the store with this identity.
    pub(crate) fn new(identity: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, ..] = identity;
        // A magic of zeroes would be found in what was never written.
        Self { magic: [a | 0x80, b | 0x01], seed: u32::from_le_bytes([c, d, e, f]) }
    }

    /// Opens a frame at the end of `out`; the record is to be appended, then [`Framing::finish`] called with the result.
    pub(crate) fn begin(out: &mut BytesMut) -> usize {
        let start = out.len();
        out.put_bytes(0, HEADER);
        start
    }

    /// Closes the frame that begins at `start` and ends with `out`.
    ///
    /// # Panics
    /// The record is longer than 4 GiB.
    pub(crate) fn finish(&self, out: &mut BytesMut, start: usize, kind: Kind) {
        let (header, record) = out[start..].split_at_mut(HEADER);
        let len = u32::try_from(record.len()).expect("a record is shorter than 4 GiB").to_le_bytes();
        let checksum = self.checksum(kind as u8, len, record).to_le_bytes();
        header[..2].copy_from_slice(&self.magic);
        header[2] = kind as u8;
        header[3..7].copy_from_slice(&len);
        header[7..].copy_from_slice(&checksum);
    }

    /// What stands at the start of `bytes`.
    pub(crate) fn parse<'a>(&self, bytes: &'a [u8]) -> Parsed<'a> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Parsed::Unreadable };
        let [m0, m1, kind, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let len = [l0, l1, l2, l3];
        let Ok(record_len) = usize::try_from(u32::from_le_bytes(len)) else { return Parsed::Unreadable };
        let (true, Some(known), Some(record)) = ([m0, m1] == self.magic, Kind::from_u8(kind), rest.get(..record_len))
        else {
            return Parsed::Unreadable;
        };
        if self.checksum(kind, len, record) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Parsed::Unreadable;
        }
        Parsed::Frame { kind: known, record, len: HEADER + record_len }
    }

    /// Where in `bytes` the next frame may begin, from `from` on.
    pub(crate) fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let rest = bytes.get(from..)?;
        rest.windows(2).position(|window| window == self.magic).map(|at| from + at)
    }

    fn checksum(&self, kind: u8, len: [u8; 4], record: &[u8]) -> u32 {
        let [l0, l1, l2, l3] = len;
        crc32c::crc32c_append(crc32c::crc32c_append(self.seed, &[kind, l0, l1, l2, l3]), record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAMING: Framing = Framing { magic: [0xE5, 0x4D], seed: 0x1234_5678 };

    fn frame(kind: Kind, record: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&b"before"[..]);
        let start = Framing::begin(&mut out);
        out.extend_from_slice(record);
        FRAMING.finish(&mut out, start, kind);
        out.split_off(6)
    }

    #[test]
    fn numbers_of_kinds_are_their_places() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index + 1);
            assert_eq!(Kind::from_u8(*kind as u8), Some(*kind));
        }
        assert_eq!((Kind::from_u8(0), Kind::from_u8(24)), (None, None));
    }

    #[test]
    fn a_frame_as_it_stands_on_disk() {
        let bytes = frame(Kind::Done, &[7, 1, 0]);
        assert_eq!(bytes[..7], [0xE5, 0x4D, 8, 3, 0, 0, 0]);
        assert_eq!(bytes[11..], [7, 1, 0]);
        // CRC32C of 08 03 00 00 00 07 01 00 from the seed.
        let checksum = crc32c::crc32c_append(0x1234_5678, &[8, 3, 0, 0, 0, 7, 1, 0]);
        assert_eq!(bytes[7..11], checksum.to_le_bytes());
    }

    #[test]
    fn zeroes_are_no_frame_of_any_store() {
        let framing = Framing::new([0; 16]);
        assert_eq!(framing.parse(&[0; 64]), Parsed::Unreadable);
        assert_eq!(framing.find(&[0; 64], 0), None);
    }

    proptest! {
        #[test]
        fn frames_come_back_and_a_changed_byte_does_not(record: Vec<u8>, at: prop::sample::Index, flip in 1..=255_u8) {
            let mut bytes = frame(Kind::Message, &record);
            let len = bytes.len();
            prop_assert_eq!(FRAMING.parse(&bytes), Parsed::Frame { kind: Kind::Message, record: &record, len });
            prop_assert_eq!(FRAMING.parse(&bytes[..len - 1]), Parsed::Unreadable);
            let other = Framing { seed: 1, ..FRAMING };
            prop_assert_eq!(other.parse(&bytes), Parsed::Unreadable);
            bytes[at.index(len)] ^= flip;
            prop_assert_eq!(FRAMING.parse(&bytes), Parsed::Unreadable);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, from: usize) {
            let _ = FRAMING.parse(&bytes);
            if let Some(at) = FRAMING.find(&bytes, from % (bytes.len() + 1)) {
                prop_assert_eq!(&bytes[at..at + 2], &FRAMING.magic);
            }
        }
    }
}
