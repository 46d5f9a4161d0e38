//! What a client says first where the lb sees MQTT: its CONNECT (§3.1), as far as the client identifier.
//!
//! Pure. Looks at all bytes that have come so far and takes none of them: they go on to the broker, and what comes after
//! the client identifier (will, user name, password) need not be there. So a CONNECT may be as large as the broker takes
//! it, while at most [`MAX`] bytes of it are kept here.
//!
//! ```text
//! fixed header     0x10 | remaining length (1 to 4)
//! variable header  protocol name (2 + 4 or 6) | level | flags | keep alive (2) | properties (5.0: length, content)
//! payload          client identifier (2 + n) | ...
//! ```
//!
//! What is wrong behind that, or in what is not looked at, is for the broker to refuse.

use bytes::BytesMut;
use evermq_mqtt::packet::{ConnAck, Packet};
use evermq_mqtt::properties::ConnAckProperties;
use evermq_mqtt::{ReasonCode, Version, codec};

/// Most bytes from the packet's first to the client identifier's last. Properties are little, as a rule; where tokens are
/// in them (authentication data) they have a few kB.
pub const MAX: usize = 16 * 1024;

const CONNECT: u8 = 0x10;
const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;
/// mosquitto's bridges set it in the protocol level of 3.1 and 3.1.1, so that the other side knows what they are.
const BRIDGE: u8 = 0x80;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look<'a> {
    /// So far a CONNECT.
    NeedMore,
    /// One, whole at least up to its client identifier.
    Connect(Connect<'a>),
    /// Something else; the connection must be ended.
    NotConnect(NotConnect),
}

/// What a CONNECT says of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Of the protocol.
    pub version: Version,
    /// UTF-8 without U+0000; empty where the broker is to choose one.
    pub client_id: &'a [u8],
    /// A user name comes.
    pub has_user_name: bool,
    /// A password comes.
    pub has_password: bool,
    /// In seconds; 0 for none.
    pub keep_alive: u16,
    /// Clean start, or clean session.
    pub clean_start: bool,
    /// Bytes of the whole packet.
    pub length: usize,
}

/// Why the bytes are no CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotConnect {
    /// The first byte is that of a TLS handshake.
    #[error("TLS where plain MQTT is expected")]
    Tls,
    /// The first byte is that of a PROXY protocol header of version 2.
    #[error("a PROXY protocol header from an address that is not in accept_proxy_from")]
    ProxyHeader,
    /// Another packet, or none at all.
    #[error("the first packet is no CONNECT")]
    OtherPacket,
    /// The remaining length goes beyond four bytes.
    #[error("a CONNECT with a malformed length")]
    Length,
    /// The protocol has another name than MQTT's.
    #[error("a CONNECT with an unknown protocol name")]
    ProtocolName,
    /// Not MQTT 3.1, 3.1.1 or 5.0.
    #[error("a CONNECT of an unknown protocol level")]
    ProtocolLevel,
    /// The reserved connect flag is set.
    #[error("a CONNECT with its reserved flag set")]
    ReservedFlag,
    /// More than [`MAX`] bytes up to the end of the client identifier.
    #[error("a CONNECT whose properties and client identifier are above 16 KiB")]
    TooLong,
    /// Ends before its client identifier does.
    #[error("a CONNECT that ends too early")]
    Truncated,
    /// The client identifier is not UTF-8, or holds U+0000.
    #[error("a CONNECT with a malformed client identifier")]
    ClientId,
}

impl NotConnect {
    /// What a client may be told: only that its version is not served (3.1.1 `[MQTT-3.1.2-2]`, 5.0 §3.1.2.2). Anything
    /// else is no client.
    #[must_use]
    pub const fn reason(self) -> Option<ReasonCode> {
        match self {
            Self::ProtocolLevel => Some(ReasonCode::UnsupportedProtocolVersion),
            Self::Tls
            | Self::ProxyHeader
            | Self::OtherPacket
            | Self::Length
            | Self::ProtocolName
            | Self::ReservedFlag
            | Self::TooLong
            | Self::Truncated
            | Self::ClientId => None,
        }
    }
}

/// Looks for a CONNECT at the start of `bytes`. Refuses as soon as that is certain.
#[must_use]
pub fn look(bytes: &[u8]) -> Look<'_> {
    match read(bytes) {
        Ok(connect) => Look::Connect(connect),
        Err(Stop::Missing) => Look::NeedMore,
        Err(Stop::Not(not_connect)) => Look::NotConnect(not_connect),
    }
}

/// A CONNACK that refuses (§3.2.2.2; 3.1.1 §3.2.2.3, where fewer reasons are known: the nearest is taken). None for a reason
/// that no CONNACK carries.
#[must_use]
pub fn refuse(version: Version, reason: ReasonCode) -> Option<Vec<u8>> {
    let connack = ConnAck { session_present: false, reason, properties: ConnAckProperties::default() };
    let mut out = BytesMut::new();
    codec::encode(&Packet::ConnAck(Box::new(connack)), version, &mut out).ok()?;
    Some(out.into())
}

enum Stop {
    /// More bytes are needed.
    Missing,
    Not(NotConnect),
}

impl From<NotConnect> for Stop {
    fn from(not_connect: NotConnect) -> Self {
        Self::Not(not_connect)
    }
}

fn read(bytes: &[u8]) -> Result<Connect<'_>, Stop> {
    let mut parts = Parts { bytes, at: 0, end: MAX };
    match parts.u8()? {
        CONNECT => {}
        22 => return Err(NotConnect::Tls.into()),
        b'\r' => return Err(NotConnect::ProxyHeader.into()),
        _ => return Err(NotConnect::OtherPacket.into()),
    }
    let length = parts.integer()?;
    let length = parts.at + length;
    parts.end = length;

    let version = read_version(&mut parts)?;
    let flags = parts.u8()?;
    // [MQTT-3.1.2-3]; MQTT 3.1 leaves the bit unused.
    if flags & RESERVED != 0 && version != Version::V3 {
        return Err(NotConnect::ReservedFlag.into());
    }
    let keep_alive = parts.u16()?;
    if version == Version::V5 {
        let properties = parts.integer()?;
        parts.take(properties)?;
    }
    let client_id = usize::from(parts.u16()?);
    let client_id = parts.take(client_id)?;
    // [MQTT-1.5.4-1], [MQTT-1.5.4-2]
    if client_id.contains(&0) || std::str::from_utf8(client_id).is_err() {
        return Err(NotConnect::ClientId.into());
    }
    Ok(Connect {
        version,
        client_id,
        has_user_name: flags & USER_NAME != 0,
        has_password: flags & PASSWORD != 0,
        keep_alive,
        clean_start: flags & CLEAN_START != 0,
        length,
    })
}

fn read_version(parts: &mut Parts<'_>) -> Result<Version, Stop> {
    // Whatever is not a name of MQTT is refused by its first wrong byte.
    let name: &[u8] = match parts.u16()? {
        4 => b"MQTT",
        6 => b"MQIsdp",
        _ => return Err(NotConnect::ProtocolName.into()),
    };
    for &expected in name {
        if parts.u8()? != expected {
            return Err(NotConnect::ProtocolName.into());
        }
    }
    match (name, parts.u8()?) {
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", level) if level & !BRIDGE == 4 => Ok(Version::V4),
        (b"MQIsdp", level) if level & !BRIDGE == 3 => Ok(Version::V3),
        _ => Err(NotConnect::ProtocolLevel.into()),
    }
}

/// What has come of a packet that ends at `end`.
struct Parts<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Parts<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let to = self.at + length;
        if to > self.end {
            return Err(NotConnect::Truncated.into());
        }
        if to > MAX {
            return Err(NotConnect::TooLong.into());
        }
        let taken = self.bytes.get(self.at..to).ok_or(Stop::Missing)?;
        self.at = to;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A variable byte integer (§1.5.5): at most four bytes, thus below 2^28.
    fn integer(&mut self) -> Result<usize, Stop> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(NotConnect::Length.into())
    }
}

#[cfg(test)]
mod tests;
