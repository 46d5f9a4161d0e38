//! Reading primitives within the bounds of one packet (§1.5).

use std::num::NonZeroU16;

use bytes::Bytes;

use crate::packet::PacketId;
use crate::reason::ReasonCode;
use crate::text::Text;
use crate::topic::{TopicError, TopicFilter, TopicName};

use super::error::DecodeError;
use super::frame::{Integer, PacketType, integer_len};

/// What is left of a packet's body, or of its property section. No read goes past its end.
#[derive(Debug)]
pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `len` bytes, shared.
    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.bytes.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.bytes.split_to(len))
    }

    /// All that is left, shared.
    pub(super) fn rest(self) -> Bytes {
        self.bytes
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer of MQTT 5.0 (§1.5.5).
    pub(super) fn integer(&mut self) -> Result<u32, DecodeError> {
        let integer = Integer::parse(&self.bytes)?.ok_or(DecodeError::Truncated)?;
        // [MQTT-1.5.5-1]
        if integer.len != integer_len(integer.value) {
            return Err(DecodeError::NonMinimalInteger);
        }
        self.take(integer.len)?;
        Ok(integer.value)
    }

    /// Binary data behind its two-byte length (§1.5.6).
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string (§1.5.4; `[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`; a byte order mark stays, `[MQTT-1.5.4-3]`).
    pub(super) fn text(&mut self) -> Result<Text, DecodeError> {
        Ok(Text::from_bytes(self.binary()?)?)
    }

    /// A pair of strings, for a user property (§1.5.7, `[MQTT-1.5.7-1]`).
    pub(super) fn pair(&mut self) -> Result<(Text, Text), DecodeError> {
        Ok((self.text()?, self.text()?))
    }

    /// A topic name; the empty one passes, since a topic alias may stand for it.
    pub(super) fn topic_name(&mut self) -> Result<TopicName, DecodeError> {
        // [MQTT-3.3.2-2], [MQTT-4.7.0-1]
        TopicName::new(self.text()?).map_err(DecodeError::TopicName)
    }

    /// A topic name that may not be empty (`[MQTT-4.7.3-1]`).
    pub(super) fn full_topic_name(&mut self) -> Result<TopicName, DecodeError> {
        let name = self.topic_name()?;
        if name.as_str().is_empty() {
            return Err(DecodeError::TopicName(TopicError::Empty));
        }
        Ok(name)
    }

    /// A topic filter (`[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`, `[MQTT-4.7.3-1]`, `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`).
    pub(super) fn topic_filter(&mut self) -> Result<TopicFilter, DecodeError> {
        TopicFilter::new(self.text()?).map_err(DecodeError::TopicFilter)
    }

    /// A packet identifier (`[MQTT-2.2.1-3]`; 3.1.1 `[MQTT-2.3.1-1]`).
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        NonZeroU16::new(self.u16()?).map(PacketId).ok_or(DecodeError::PacketIdZero)
    }

    /// A reason code out of those that `packet` may carry.
    pub(super) fn reason(&mut self, packet: PacketType, allowed: &[ReasonCode]) -> Result<ReasonCode, DecodeError> {
        let code = self.u8()?;
        ReasonCode::from_u8(code)
            .filter(|reason| allowed.contains(reason))
            .ok_or(DecodeError::InvalidReason { packet, code })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.bytes.first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        bytes::Buf::advance(&mut self.bytes, N);
        Ok(array)
    }
}
