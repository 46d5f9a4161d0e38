//! The fixed header (§2.1).
//!
//! ```text
//!  bit      7   6   5   4   3   2   1   0
//!         +---------------+---------------+
//! byte 1  |  packet type  |     flags     |
//!         +---------------+---------------+
//! byte 2  |  remaining length, 1 to 4     |
//!   ...   |  bytes, 7 bits each, low first|
//!         +-------------------------------+
//! ```

use std::fmt;

use crate::packet::Version;

use super::error::DecodeError;

/// The largest remaining length and the largest variable byte integer (§1.5.5).
pub(super) const MAX_INTEGER: u32 = 268_435_455;
/// The largest packet: one byte of type and flags, four of remaining length.
pub(super) const MAX_PACKET_SIZE: u32 = 5 + MAX_INTEGER;

/// Type of a control packet (§2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The flags that every packet of this type but PUBLISH carries (§2.1.3, table 2-2).
    pub(super) const fn fixed_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The standard's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fixed header that has arrived whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) packet: PacketType,
    pub(super) flags: u8,
    /// Bytes of the header itself.
    pub(super) len: usize,
    /// Bytes that follow it.
    pub(super) remaining: usize,
    /// Whether the remaining length uses the fewest bytes.
    pub(super) minimal: bool,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` while bytes are missing.
    ///
    /// Type and flags are checked as soon as the first byte is there.
    pub(super) fn parse(bytes: &[u8], version: Version) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let packet = PacketType::from_u8(first >> 4).ok_or(DecodeError::ForbiddenType(first >> 4))?;
        if packet == PacketType::Auth && version != Version::V5 {
            return Err(DecodeError::ForbiddenType(first >> 4));
        }
        let flags = first & 0x0F;
        check_flags(packet, flags, version)?;
        let Some(integer) = Integer::parse(rest)? else { return Ok(None) };
        let header = Self {
            packet,
            flags,
            len: 1 + integer.len,
            remaining: integer.value as usize,
            minimal: integer.len == integer_len(integer.value),
        };
        // A CONNECT names its version later; see `connect::decode`.
        if packet != PacketType::Connect {
            header.check_minimal(version)?;
        }
        Ok(Some(header))
    }

    /// MQTT 5.0 says that every variable byte integer is minimal (`[MQTT-1.5.5-1]`); 3.1.1 does not.
    pub(super) fn check_minimal(&self, version: Version) -> Result<(), DecodeError> {
        if version == Version::V5 && !self.minimal {
            return Err(DecodeError::NonMinimalInteger);
        }
        Ok(())
    }

    /// Whether this is an acknowledgement that is nothing but its packet identifier, as most are.
    pub(super) fn is_short_ack(&self) -> bool {
        use PacketType::{PubAck, PubComp, PubRec, PubRel};
        self.remaining == 2 && matches!(self.packet, PubAck | PubRec | PubRel | PubComp)
    }

    /// Whole packet in bytes.
    pub(super) fn packet_size(&self) -> usize {
        self.len + self.remaining
    }
}

fn check_flags(packet: PacketType, flags: u8, version: Version) -> Result<(), DecodeError> {
    let reserved = match packet {
        PacketType::Publish => false,
        // [MQTT-2.1.3-1]; 3.1.1 [MQTT-2.2.2-2]. A CONNECT's flags were reserved as 0 in every version.
        PacketType::Connect => flags != 0,
        // MQTT 3.1 §2.1: the flags of other packets are unused, and PUBREL, SUBSCRIBE and UNSUBSCRIBE may carry DUP.
        _ if version == Version::V3 => false,
        // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.15.1-1].
        _ => flags != packet.fixed_flags(),
    };
    if reserved { Err(DecodeError::ReservedFlags { packet, flags }) } else { Ok(()) }
}

/// A variable byte integer (§1.5.5) and the bytes that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Integer {
    pub(super) value: u32,
    pub(super) len: usize,
}

impl Integer {
    /// `None` while bytes are missing.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        // Most are below 128.
        if let Some(&byte) = bytes.first()
            && byte < 0x80
        {
            return Ok(Some(Self { value: byte.into(), len: 1 }));
        }
        let mut value = 0;
        for (index, &byte) in bytes.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(Some(Self { value, len: index + 1 }));
            }
        }
        // The fourth byte may not announce a fifth.
        if bytes.len() >= 4 { Err(DecodeError::OverlongInteger) } else { Ok(None) }
    }
}

/// Bytes of `value` as a variable byte integer.
pub(super) const fn integer_len(value: u32) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_at_the_bounds_of_each_length() {
        // MQTT 5.0 table 1-1.
        let table: &[(u32, &[u8])] = &[
            (0, &[0x00]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ];
        for &(value, bytes) in table {
            let len = bytes.len();
            assert_eq!(Integer::parse(bytes), Ok(Some(Integer { value, len })));
            assert_eq!(integer_len(value), len);
            assert_eq!(Integer::parse(&bytes[..len - 1]), Ok(None), "{value} cut short");
        }
    }

    #[test]
    fn an_integer_of_five_bytes_is_refused_at_the_fourth() {
        assert_eq!(Integer::parse(&[0x80, 0x80, 0x80, 0x80]), Err(DecodeError::OverlongInteger));
        assert_eq!(Integer::parse(&[0xFF, 0xFF, 0xFF, 0xFF, 0x01]), Err(DecodeError::OverlongInteger));
    }

    #[test]
    fn only_version_5_insists_on_minimal_lengths() {
        let padded = [0xC0, 0x80, 0x00];
        assert_eq!(Header::parse(&padded, Version::V5), Err(DecodeError::NonMinimalInteger));
        let header = Header::parse(&padded, Version::V4).unwrap().unwrap();
        assert_eq!((header.packet, header.len, header.remaining), (PacketType::PingReq, 3, 0));
    }

    #[test]
    fn every_packet_has_one_set_of_flags() {
        for kind in 1..=15_u8 {
            for flags in 0..16_u8 {
                let parsed = Header::parse(&[kind << 4 | flags, 0], Version::V5);
                let right = match kind {
                    3 => true,
                    6 | 8 | 10 => flags == 2,
                    _ => flags == 0,
                };
                assert_eq!(parsed.is_ok(), right, "type {kind}, flags {flags}");
            }
        }
    }

    #[test]
    fn types_that_a_version_lacks_are_forbidden() {
        for version in [Version::V3, Version::V4, Version::V5] {
            assert_eq!(Header::parse(&[0x00], version), Err(DecodeError::ForbiddenType(0)));
        }
        assert_eq!(Header::parse(&[0xF0], Version::V4), Err(DecodeError::ForbiddenType(15)));
        assert_eq!(Header::parse(&[0xF0], Version::V5), Ok(None));
    }
}
