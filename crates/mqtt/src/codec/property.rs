//! Property sections (§2.2.2): a length, then properties, each an identifier and its value.
//!
//! ```text
//! +-----------------+----+-------+----+-------+--
//! | property length | id | value | id | value | ...
//! +-----------------+----+-------+----+-------+--
//!   variable byte     variable byte integer, one byte for all that exist
//!   integer
//! ```

use std::fmt;
use std::num::NonZeroU32;

use bytes::Bytes;

use crate::text::Text;

use super::error::DecodeError;
use super::read::Reader;
use super::write::{Sink, count};

macro_rules! property_ids {
    ($($name:ident = $id:literal, $text:literal;)*) => {
        /// Identifier of a property (§2.2.2.2, table 2-4).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum PropertyId {
            $(#[doc = $text] $name = $id,)*
        }

        impl PropertyId {
            /// Every property, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            const fn from_u32(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The standard's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

property_ids! {
    PayloadFormatIndicator = 0x01, "Payload Format Indicator";
    MessageExpiryInterval = 0x02, "Message Expiry Interval";
    ContentType = 0x03, "Content Type";
    ResponseTopic = 0x08, "Response Topic";
    CorrelationData = 0x09, "Correlation Data";
    SubscriptionIdentifier = 0x0B, "Subscription Identifier";
    SessionExpiryInterval = 0x11, "Session Expiry Interval";
    AssignedClientIdentifier = 0x12, "Assigned Client Identifier";
    ServerKeepAlive = 0x13, "Server Keep Alive";
    AuthenticationMethod = 0x15, "Authentication Method";
    AuthenticationData = 0x16, "Authentication Data";
    RequestProblemInformation = 0x17, "Request Problem Information";
    WillDelayInterval = 0x18, "Will Delay Interval";
    RequestResponseInformation = 0x19, "Request Response Information";
    ResponseInformation = 0x1A, "Response Information";
    ServerReference = 0x1C, "Server Reference";
    ReasonString = 0x1F, "Reason String";
    ReceiveMaximum = 0x21, "Receive Maximum";
    TopicAliasMaximum = 0x22, "Topic Alias Maximum";
    TopicAlias = 0x23, "Topic Alias";
    MaximumQoS = 0x24, "Maximum QoS";
    RetainAvailable = 0x25, "Retain Available";
    UserProperty = 0x26, "User Property";
    MaximumPacketSize = 0x27, "Maximum Packet Size";
    WildcardSubscriptionAvailable = 0x28, "Wildcard Subscription Available";
    SubscriptionIdentifierAvailable = 0x29, "Subscription Identifier Available";
    SharedSubscriptionAvailable = 0x2A, "Shared Subscription Available";
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads one property section. Meanwhile the body ends where the section does.
#[derive(Debug)]
pub(super) struct Properties<'a> {
    reader: &'a mut Reader,
    /// Where the body ends.
    end: usize,
    /// Bit N: property N has been read.
    seen: u64,
}

impl Drop for Properties<'_> {
    fn drop(&mut self) {
        self.reader.widen(self.end);
    }
}

impl<'a> Properties<'a> {
    /// Takes the length and the section out of `body`.
    pub(super) fn read(body: &'a mut Reader) -> Result<Self, DecodeError> {
        let len = body.integer()?;
        let end = body.narrow(len as usize)?;
        Ok(Self { reader: body, end, seen: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reader.is_empty()
    }

    /// The next property's identifier, `None` at the end. The caller reads its value next, or refuses it.
    pub(super) fn next(&mut self) -> Result<Option<PropertyId>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = self.reader.integer()?;
        PropertyId::from_u32(id).map(Some).ok_or(DecodeError::UnknownProperty(id))
    }

    /// Says that `id` may appear once only; that it does so twice is a protocol error throughout §3.
    pub(super) fn once(&mut self, id: PropertyId) -> Result<&mut Reader, DecodeError> {
        let bit = 1 << id as u8;
        if self.seen & bit != 0 {
            return Err(DecodeError::DuplicateProperty(id));
        }
        self.seen |= bit;
        Ok(self.reader)
    }

    pub(super) fn u16(&mut self, id: PropertyId) -> Result<Option<u16>, DecodeError> {
        self.once(id)?.u16().map(Some)
    }

    pub(super) fn u32(&mut self, id: PropertyId) -> Result<Option<u32>, DecodeError> {
        self.once(id)?.u32().map(Some)
    }

    /// A two-byte integer that may not be 0, such as Receive Maximum (§3.1.2.11.3).
    pub(super) fn positive_u16(&mut self, id: PropertyId) -> Result<Option<u16>, DecodeError> {
        match self.once(id)?.u16()? {
            0 => Err(DecodeError::PropertyValue { property: id, value: 0 }),
            value => Ok(Some(value)),
        }
    }

    /// A four-byte integer that may not be 0: Maximum Packet Size (§3.1.2.11.4).
    pub(super) fn positive_u32(&mut self, id: PropertyId) -> Result<Option<u32>, DecodeError> {
        match self.once(id)?.u32()? {
            0 => Err(DecodeError::PropertyValue { property: id, value: 0 }),
            value => Ok(Some(value)),
        }
    }

    /// A byte that may be 0 or 1 only, such as Retain Available (§3.2.2.3.5).
    pub(super) fn flag(&mut self, id: PropertyId) -> Result<Option<bool>, DecodeError> {
        match self.once(id)?.u8()? {
            0 => Ok(Some(false)),
            1 => Ok(Some(true)),
            value => Err(DecodeError::PropertyValue { property: id, value: value.into() }),
        }
    }

    pub(super) fn text(&mut self, id: PropertyId) -> Result<Option<Text>, DecodeError> {
        self.once(id)?.text().map(Some)
    }

    pub(super) fn binary(&mut self, id: PropertyId) -> Result<Option<Bytes>, DecodeError> {
        self.once(id)?.binary().map(Some)
    }

    /// A user property, which may appear any number of times (§3.1.2.11.8).
    pub(super) fn pair(&mut self) -> Result<(Text, Text), DecodeError> {
        self.reader.pair()
    }

    /// A subscription identifier, 1 to 268,435,455 (§3.3.2.3.8); how often it may appear is the caller's.
    pub(super) fn subscription_id(&mut self) -> Result<NonZeroU32, DecodeError> {
        let value = self.reader.integer()?;
        let property = PropertyId::SubscriptionIdentifier;
        NonZeroU32::new(value).ok_or(DecodeError::PropertyValue { property, value })
    }
}

/// Properties that can be written, by ascending identifier. Absent values write nothing.
pub(super) trait WriteProperties {
    fn write<S: Sink>(&self, out: &mut S);
}

/// Writes a whole section: its length, then its properties.
pub(super) fn write_section<S: Sink>(out: &mut S, properties: &impl WriteProperties) {
    // A packet whose properties exceed the integer is refused before its bytes are kept.
    out.integer(count(|counter| properties.write(counter)) as u32);
    properties.write(out);
}

pub(super) fn write_u8<S: Sink>(out: &mut S, id: PropertyId, value: Option<u8>) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.u8(value);
    }
}

pub(super) fn write_flag<S: Sink>(out: &mut S, id: PropertyId, value: Option<bool>) {
    write_u8(out, id, value.map(u8::from));
}

pub(super) fn write_u16<S: Sink>(out: &mut S, id: PropertyId, value: Option<u16>) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.u16(value);
    }
}

pub(super) fn write_u32<S: Sink>(out: &mut S, id: PropertyId, value: Option<u32>) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.u32(value);
    }
}

pub(super) fn write_text<S: Sink>(out: &mut S, id: PropertyId, value: Option<&Text>) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.text(value);
    }
}

pub(super) fn write_binary<S: Sink>(out: &mut S, id: PropertyId, value: Option<&Bytes>) {
    if let Some(value) = value {
        out.u8(id as u8);
        out.binary(value);
    }
}

pub(super) fn write_subscription_id<S: Sink>(out: &mut S, id: NonZeroU32) {
    out.u8(PropertyId::SubscriptionIdentifier as u8);
    out.integer(id.get());
}

pub(super) fn write_pairs<S: Sink>(out: &mut S, pairs: &[(Text, Text)]) {
    for pair in pairs {
        out.u8(PropertyId::UserProperty as u8);
        out.pair(pair);
    }
}
