//! Reading primitives within the bounds of one packet (§1.5).

use std::num::NonZeroU16;

use bytes::{Buf as _, Bytes};

use crate::packet::PacketId;
use crate::reason::ReasonCode;
use crate::text::{self, Text};
use crate::topic::{TopicError, TopicFilter, TopicName};

use super::error::DecodeError;
use super::frame::{Integer, PacketType, integer_len};

/// What is left of a packet's body, or of its property section. No read goes past its end.
///
/// Numbers are read in place; only what a packet keeps takes a share of the frame's bytes.
#[derive(Debug)]
pub(super) struct Reader {
    frame: Bytes,
    at: usize,
    end: usize,
}

impl Reader {
    /// All of `frame` from `at` on.
    pub(super) fn new(frame: Bytes, at: usize) -> Self {
        let end = frame.len();
        Self { frame, at, end }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    #[inline]
    fn left(&self) -> &[u8] {
        &self.frame[self.at..self.end]
    }

    /// The next `len` bytes.
    #[inline]
    fn skip(&mut self, len: usize) -> Result<&[u8], DecodeError> {
        let from = self.at;
        if len > self.end - from {
            return Err(DecodeError::Truncated);
        }
        self.at = from + len;
        Ok(&self.frame[from..self.at])
    }

    /// The next `len` bytes, shared.
    #[inline]
    fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let from = self.at;
        self.skip(len)?;
        Ok(self.frame.slice(from..self.at))
    }

    /// Ends the reader after `len` more bytes; returns where it ended, for [`Reader::widen`].
    pub(super) fn narrow(&mut self, len: usize) -> Result<usize, DecodeError> {
        if len > self.end - self.at {
            return Err(DecodeError::Truncated);
        }
        Ok(std::mem::replace(&mut self.end, self.at + len))
    }

    /// Undoes [`Reader::narrow`]. What was not read of the narrow part is skipped.
    pub(super) fn widen(&mut self, end: usize) {
        self.at = self.end;
        self.end = end;
    }

    /// All that is left, shared.
    #[inline]
    pub(super) fn rest(mut self) -> Bytes {
        self.frame.truncate(self.end);
        self.frame.advance(self.at);
        self.frame
    }

    /// Nothing may be left.
    #[inline]
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.left().len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer of MQTT 5.0 (§1.5.5).
    #[inline]
    pub(super) fn integer(&mut self) -> Result<u32, DecodeError> {
        let integer = Integer::parse(self.left())?.ok_or(DecodeError::Truncated)?;
        // [MQTT-1.5.5-1]
        if integer.len != integer_len(integer.value) {
            return Err(DecodeError::NonMinimalInteger);
        }
        self.at += integer.len;
        Ok(integer.value)
    }

    /// Binary data behind its two-byte length, in place.
    pub(super) fn binary_in_place(&mut self) -> Result<&[u8], DecodeError> {
        let len = self.u16()?;
        self.skip(usize::from(len))
    }

    /// Binary data behind its two-byte length (§1.5.6).
    #[inline]
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string (§1.5.4; `[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`; a byte order mark stays, `[MQTT-1.5.4-3]`).
    #[inline]
    pub(super) fn text(&mut self) -> Result<Text, DecodeError> {
        let len = usize::from(self.u16()?);
        let from = self.at;
        text::check(self.skip(len)?)?;
        Ok(Text::of_checked(self.frame.slice(from..self.at)))
    }

    /// A pair of strings, for a user property (§1.5.7, `[MQTT-1.5.7-1]`).
    pub(super) fn pair(&mut self) -> Result<(Text, Text), DecodeError> {
        Ok((self.text()?, self.text()?))
    }

    /// A topic name; the empty one passes, since a topic alias may stand for it.
    #[inline]
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
    #[inline]
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

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.left().first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(array)
    }
}
