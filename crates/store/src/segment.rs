//! A segment: one file of the log.
//!
//! ```text
//!   0  "EVERMQLG"              8      48  made at (ms since 1970)        8
//!   8  version of the format   2      56  no message has had this number 8
//!  10  0                       6      64  no session has had this number 8
//!  16  identity of the store  16      72  latest stamp                   8
//!  32  number of the segment   8      80  CRC32C of all this             4
//!  40  where the one before    8      84  0                             12
//!      it ends                        96  frames
//! ```
//!
//! Integers have the lowest byte first. A file that is not the last one ends where the next one says, whatever comes there.

use crate::position::SegmentId;
use crate::record::WallTime;

/// Bytes before the first frame.
pub(crate) const HEADER: u64 = 96;

/// The version that this program writes and reads.
pub(crate) const VERSION: u16 = 2;

const MAGIC: &[u8; 8] = b"EVERMQLG";
const CHECKED: usize = 80;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The store.
    pub(crate) identity: [u8; 16],
    /// Its number.
    pub(crate) segment: SegmentId,
    /// Where the segment before it ends, 0 if it is the first.
    pub(crate) previous_end: u64,
    /// When it was made.
    pub(crate) made: WallTime,
    /// Numbers from here on were not used in the segments before.
    pub(crate) next_message: u64,
    /// The same of sessions.
    pub(crate) next_session: u64,
    /// Latest stamp time of the messages before.
    pub(crate) last_stamp: u64,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// It is not one, or was changed.
    Unreadable,
    /// It is of another version.
    Version(u16),
}

/// The name of a segment's file.
pub(crate) fn file_name(segment: SegmentId) -> String {
    format!("{:016x}.log", segment.0)
}

/// The segment whose file has that name.
pub(crate) fn of_file_name(name: &str) -> Option<SegmentId> {
    let number = name.strip_suffix(".log").filter(|number| number.len() == 16)?;
    // Capital letters and signs are no name that was given here.
    let segment = SegmentId(u64::from_str_radix(number, 16).ok()?);
    (file_name(segment) == name).then_some(segment)
}

impl Header {
    /// As it stands in the file.
    pub(crate) fn encode(&self) -> [u8; HEADER as usize] {
        let mut out = [0; HEADER as usize];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.identity);
        let numbers =
            [self.segment.0, self.previous_end, self.made.0, self.next_message, self.next_session, self.last_stamp];
        for (place, number) in out[32..CHECKED].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&out[..CHECKED]);
        out[CHECKED..CHECKED + 4].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// That of the file which begins with `bytes`.
    ///
    /// # Errors
    /// See [`BadHeader`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let header = bytes.first_chunk::<{ HEADER as usize }>().ok_or(BadHeader::Unreadable)?;
        let checksum = crc32c::crc32c(&header[..CHECKED]).to_le_bytes();
        if &header[..8] != MAGIC || header[CHECKED..CHECKED + 4] != checksum {
            return Err(BadHeader::Unreadable);
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let mut identity = [0; 16];
        identity.copy_from_slice(&header[16..32]);
        let mut numbers = [0; 6];
        for (number, place) in numbers.iter_mut().zip(header[32..CHECKED].chunks_exact(8)) {
            *number = place.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        let [segment, previous_end, made, next_message, next_session, last_stamp] = numbers;
        Ok(Self {
            identity,
            segment: SegmentId(segment),
            previous_end,
            made: WallTime(made),
            next_message,
            next_session,
            last_stamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Header = Header {
        identity: *b"0123456789abcdef",
        segment: SegmentId(0x1122),
        previous_end: 3,
        made: WallTime(4),
        next_message: 5,
        next_session: 6,
        last_stamp: u64::MAX,
    };

    #[test]
    fn a_header_as_it_stands_on_disk() {
        let bytes = SAMPLE.encode();
        assert_eq!(&bytes[..10], b"EVERMQLG\x02\x00");
        assert_eq!(&bytes[16..32], b"0123456789abcdef");
        assert_eq!(bytes[32..40], [0x22, 0x11, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Header::decode(&bytes), Ok(SAMPLE));
    }

    #[test]
    fn a_changed_byte_and_another_version_are_told_apart() {
        for at in 0..84 {
            let mut bytes = SAMPLE.encode();
            bytes[at] ^= 1;
            assert_eq!(Header::decode(&bytes), Err(BadHeader::Unreadable), "byte {at}");
        }
        let mut bytes = SAMPLE.encode();
        bytes[8] = 3;
        let checksum = crc32c::crc32c(&bytes[..80]);
        bytes[80..84].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Version(3)));
        assert_eq!(Header::decode(&bytes[..95]), Err(BadHeader::Unreadable));
    }

    #[test]
    fn names_of_files() {
        assert_eq!(file_name(SegmentId(255)), "00000000000000ff.log");
        assert_eq!(of_file_name("00000000000000ff.log"), Some(SegmentId(255)));
        for other in ["00000000000000FF.log", "ff.log", "+0000000000000ff.log", "00000000000000ff.log.old", "lock"] {
            assert_eq!(of_file_name(other), None, "{other}");
        }
    }
}
