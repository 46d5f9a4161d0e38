//! Bytes to packets and back, for MQTT 3.1, 3.1.1 and 5.0, in both directions.
//!
//! | module | subject |
//! |---|---|
//! | `frame` | fixed header: packet type, flags, remaining length |
//! | `read`, `write` | integers, strings and binary data within the bounds of one packet |
//! | `property` | property identifiers, how a property section is read and written |
//! | `connect`, `connack`, `publish`, `ack`, `subscribe`, `disconnect` | one family of packets each |
//! | `check` | what a packet must be before it can be written |
//! | `sender` | what only a client or only a server may send |
//! | `error` | every cause of refusal, with its reason code |

mod ack;
mod check;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod property;
mod publish;
mod read;
mod sender;
mod subscribe;
mod write;

use bytes::{Buf as _, BytesMut};

use crate::packet::{Packet, Version};

pub use connect::connect_version;
pub use error::{DecodeError, EncodeError};
pub use frame::PacketType;
pub use property::PropertyId;
pub use publish::{Alias, PublishFrame, Sent, encode_publish, publish_len};
pub use sender::{Sender, check_sender};

use frame::Header;
use read::Reader;
use write::{Sink, count};

/// Bounds applied before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whole packet in bytes, fixed header included.
    ///
    /// A decoded packet shares the bytes of its frame. Beside them it allocates at most about 20 bytes for each byte
    /// of the frame (the worst case: topic filters of one character).
    pub max_packet_size: u32,
}

impl Default for Limits {
    /// The largest packet that MQTT knows: 268,435,455 bytes after a fixed header of 5.
    fn default() -> Self {
        Self { max_packet_size: frame::MAX_PACKET_SIZE }
    }
}

/// Takes the first packet out of `buffer`, or `None` while bytes are missing; then `buffer` is as it was.
///
/// Strings and payloads share the frame's bytes. For a CONNECT `version` is ignored: the packet names its own.
/// What only one side may send is not checked here, see [`check_sender`].
///
/// # Errors
/// Any [`DecodeError`] but the two of [`check_sender`]. A packet above the limit, of a forbidden type or with reserved
/// flags is refused from its fixed header, before its body has arrived. After an error the content of `buffer` is
/// unspecified and the stream cannot be resumed.
pub fn decode(buffer: &mut BytesMut, version: Version, limits: &Limits) -> Result<Option<Packet>, DecodeError> {
    let Some(header) = Header::parse(buffer, version)? else { return Ok(None) };
    let size = header.packet_size();
    if size > limits.max_packet_size as usize {
        // A header says at most 268,435,460.
        return Err(DecodeError::PacketTooLarge { size: size as u32, limit: limits.max_packet_size });
    }
    if buffer.len() < size {
        return Ok(None);
    }
    if header.is_short_ack() {
        let id = [buffer[size - 2], buffer[size - 1]];
        buffer.advance(size);
        return ack::decode_short(header.packet, id).map(Some);
    }
    let frame = buffer.split_to(size).freeze();
    decode_body(&header, Reader::new(frame, header.len), version).map(Some)
}

/// Bytes of the first packet in `buffer`, fixed header included; `None` while that has not come whole, or is none.
#[must_use]
pub fn packet_len(buffer: &[u8], version: Version) -> Option<usize> {
    Header::parse(buffer, version).ok().flatten().map(|header| header.packet_size())
}

#[inline]
fn decode_body(header: &Header, body: Reader, version: Version) -> Result<Packet, DecodeError> {
    Ok(match header.packet {
        PacketType::Connect => Packet::Connect(Box::new(connect::decode(header, body)?)),
        PacketType::ConnAck => Packet::ConnAck(Box::new(connack::decode(body, version)?)),
        PacketType::Publish => Packet::Publish(publish::decode(header.flags, body, version)?),
        PacketType::PubAck => Packet::PubAck(ack::decode(header.packet, body, version)?),
        PacketType::PubRec => Packet::PubRec(ack::decode(header.packet, body, version)?),
        PacketType::PubRel => Packet::PubRel(ack::decode(header.packet, body, version)?),
        PacketType::PubComp => Packet::PubComp(ack::decode(header.packet, body, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::decode_subscribe(body, version)?),
        PacketType::SubAck => Packet::SubAck(subscribe::decode_suback(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::decode_unsubscribe(body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::decode_unsuback(body, version)?),
        PacketType::PingReq => body.finish().map(|()| Packet::PingReq)?,
        PacketType::PingResp => body.finish().map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(disconnect::decode_disconnect(body, version)?),
        PacketType::Auth => Packet::Auth(disconnect::decode_auth(body)?),
    })
}

/// Appends `packet` to `out`.
///
/// What `version` lacks is left out: before MQTT 5.0 properties, reason codes and all subscription options but the
/// QoS; a CONNACK or SUBACK reason becomes the nearest return code. For a CONNECT `version` is ignored.
///
/// # Errors
/// A packet that `version` cannot say, see [`EncodeError`]; then nothing is appended.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    if let Some(short) = ack::encode_short(packet) {
        out.extend_from_slice(&short);
        return Ok(());
    }
    check::packet(packet, version)?;
    let remaining = check::remaining(remaining_len(packet, version))?;
    out.reserve(1 + frame::integer_len(remaining) + remaining as usize);
    out.u8(first_byte(packet));
    out.integer(remaining);
    encode_body(packet, version, out);
    Ok(())
}

/// How many bytes [`encode`] appends, fixed header included.
///
/// For a packet that [`encode`] refuses as too large this says how large it would be.
#[must_use]
pub fn encoded_len(packet: &Packet, version: Version) -> usize {
    let remaining = remaining_len(packet, version);
    // Above 268,435,455 a length is not encoded at all; four bytes is as good as any.
    1 + u32::try_from(remaining).map_or(4, frame::integer_len) + remaining
}

fn remaining_len(packet: &Packet, version: Version) -> usize {
    count(|counter| encode_body(packet, version, counter))
}

fn first_byte(packet: &Packet) -> u8 {
    let kind = packet_type(packet);
    let flags = match packet {
        Packet::Publish(publish) => publish::flags(publish),
        _ => kind.fixed_flags(),
    };
    (kind as u8) << 4 | flags
}

/// The type of a packet.
#[must_use]
pub fn packet_type(packet: &Packet) -> PacketType {
    match packet {
        Packet::Connect(_) => PacketType::Connect,
        Packet::ConnAck(_) => PacketType::ConnAck,
        Packet::Publish(_) => PacketType::Publish,
        Packet::PubAck(_) => PacketType::PubAck,
        Packet::PubRec(_) => PacketType::PubRec,
        Packet::PubRel(_) => PacketType::PubRel,
        Packet::PubComp(_) => PacketType::PubComp,
        Packet::Subscribe(_) => PacketType::Subscribe,
        Packet::SubAck(_) => PacketType::SubAck,
        Packet::Unsubscribe(_) => PacketType::Unsubscribe,
        Packet::UnsubAck(_) => PacketType::UnsubAck,
        Packet::PingReq => PacketType::PingReq,
        Packet::PingResp => PacketType::PingResp,
        Packet::Disconnect(_) => PacketType::Disconnect,
        Packet::Auth(_) => PacketType::Auth,
    }
}

fn encode_body<S: Sink>(packet: &Packet, version: Version, out: &mut S) {
    match packet {
        Packet::Connect(connect) => connect::encode(connect, out),
        Packet::ConnAck(connack) => connack::encode(connack, version, out),
        Packet::Publish(publish) => publish::encode(publish, version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack::encode(ack, version, out);
        }
        Packet::Subscribe(subscribe) => subscribe::encode_subscribe(subscribe, version, out),
        Packet::SubAck(suback) => subscribe::encode_suback(suback, version, out),
        Packet::Unsubscribe(unsubscribe) => subscribe::encode_unsubscribe(unsubscribe, version, out),
        Packet::UnsubAck(unsuback) => subscribe::encode_unsuback(unsuback, version, out),
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(disconnect) => disconnect::encode_disconnect(disconnect, version, out),
        Packet::Auth(auth) => disconnect::encode_auth(auth, out),
    }
}
