//! What two brokers say to each other inside TLS.
//!
//! The origin of messages connects, sends HELLO and, after WELCOME, its log; the receiver answers on the same connection.
//!
//! ```text
//! every frame            0        4      5
//!                        | length | kind | body: `length` bytes |            all integers big-endian
//!
//! origin to receiver
//!   1 HELLO              | magic "EvMQ" | oldest u8 | newest u8 | minor u8 | instance u64 | cluster str8 | host str8 |
//!                        | from minor 2 on: last u64 |
//!   3 ENTRY              | seq u64 | age u64 | time u64 | MQTT 5.0 PUBLISH packet |
//!   4 RETAINED           | age u64 | time u64 | origin str8 | MQTT 5.0 PUBLISH packet |
//!   5 SNAPSHOT_END       | base u64 |
//!   6 GAP                | from u64 | to u64 |
//!   7 SKIP               | from u64 | to u64 |
//!   9 PING               |
//! receiver to origin
//!   2 WELCOME            | version u8 | minor u8 | instance u64 | known u8 | resume u64 | max_body u32 |
//!   8 ACK                | seq u64 |
//!  10 PONG               |
//! both
//!  11 ERROR              | text, UTF-8 to the end |
//!  12 BYE                |
//! 128 CLAIM              | from minor 1 on, origin to receiver: see [`claim`] |
//! 129 GROUP, 130 GROUPS, 131 DIRECTIONS, from minor 2 on, origin to receiver: see [`group`]
//! 132 ENTRY_BY           | from minor 3 on, origin to receiver: seq u64 | age u64 | time u64 | publisher u64 | MQTT 5.0 PUBLISH packet |
//!
//! str8 is one byte of length and that many bytes of UTF-8.
//! ```
//!
//! - **Versions**: HELLO names the range of versions that the origin speaks, WELCOME the one chosen; without a common one the
//!   receiver answers ERROR. Within a version, a newer minor may append to a body and may send kinds from 128 on: both are
//!   ignored by who does not know them.
//! - **last** is the newest entry of the origin's log: who has that has all that there was before the connection.
//! - **instance** is the epoch of the sender's log, which grows at each start, so it tells one start from the next.
//! - **resume**: with `known` = 1 the receiver has every entry of this instance up to `resume`; with 0 it knows nothing, and
//!   the origin sends RETAINED frames and SNAPSHOT_END, after which entries go on behind `base`.
//! - **ENTRY** numbers go up by one. GAP stands for entries that are lost, SKIP for entries that had expired.
//! - **age** is in milliseconds since the origin received the message from its publisher; **time** is its stamp's.
//! - **ENTRY_BY** is an ENTRY that says which client published it, as a hash that is never 0; see [`Publisher`].
//! - **CLAIM**, **GROUP** are not about the log: they come anywhere between the others, and are never acknowledged.
//! - **ACK** is cumulative. A receiver sends PONG for each PING, and unasked while a long frame is on its way.

pub(crate) mod claim;
pub(crate) mod group;
mod message;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) use self::claim::Claim;
pub(crate) use self::group::{Directed, Group};
pub(crate) use self::message::{
    Entry, Head, MAX_FIELDS, PUBLISHERS_SINCE_MINOR, Retained, entry_body, entry_head, retained_body, retained_head,
};
#[cfg(doc)]
use crate::message::Publisher;

/// First bytes of a HELLO's body.
const MAGIC: [u8; 4] = *b"EvMQ";
/// Oldest and newest version of the protocol that this program speaks.
pub(crate) const VERSIONS: (u8, u8) = (1, 1);
/// What is new within the newest version.
pub(crate) const MINOR: u8 = 3;
/// Bytes before a frame's body.
pub(crate) const HEADER: usize = 5;
/// Largest body before the other side is known: a HELLO or WELCOME of a newer minor has room to grow.
pub(crate) const MAX_GREETING: u32 = 1024;
/// Longest text of an ERROR that is sent or kept.
const MAX_ERROR_TEXT: usize = 512;
/// From 128 on a frame that is not known is ignored; from this kind on, none is known.
const FIRST_UNKNOWN: u8 = message::ENTRY_BY + 1;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The origin says who it is.
    Hello(Hello),
    /// The receiver says where to go on.
    Welcome(Welcome),
    /// One message of the log.
    Entry(Entry),
    /// One retained message of a snapshot.
    Retained(Retained),
    /// The snapshot is complete; entries follow from `base + 1`.
    SnapshotEnd {
        /// The newest entry that does not follow.
        base: u64,
    },
    /// Entries that will never come, because the log was too short.
    Gap(Range),
    /// Entries that will never come, because they had expired.
    Skip(Range),
    /// The receiver has delivered everything up to here.
    Ack {
        /// The newest entry delivered.
        seq: u64,
    },
    /// Are you there?
    Ping,
    /// I am here.
    Pong,
    /// Why the sender of this frame closes the connection.
    Error {
        /// For the other side's log.
        text: String,
    },
    /// The sender of this frame stops.
    Bye,
    /// A client has connected to the origin.
    Claim(Claim),
    /// A group's members at the origin.
    Group(Group),
    /// All of its groups are told from here on, or until here if it is `is_complete`.
    Groups {
        /// The last of them.
        is_complete: bool,
    },
    /// Where the next entry is to go.
    Directed(Directed),
}

/// HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Oldest version spoken.
    pub(crate) oldest: u8,
    /// Newest version spoken.
    pub(crate) newest: u8,
    /// Minor of the newest version.
    pub(crate) minor: u8,
    /// Epoch of the origin's log.
    pub(crate) instance: u64,
    /// The cluster that it belongs to.
    pub(crate) cluster: String,
    /// The host that it runs on.
    pub(crate) host: String,
    /// From minor 2 on: the newest entry of its log. Whoever has that has all that there was when the connection began.
    pub(crate) last: Option<u64>,
}

/// WELCOME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The version to speak.
    pub(crate) version: u8,
    /// Its minor.
    pub(crate) minor: u8,
    /// Epoch of the receiver's own log.
    pub(crate) instance: u64,
    /// The newest entry of the HELLO's instance that the receiver has; `None` if it knows nothing of that instance.
    pub(crate) resume: Option<u64>,
    /// Largest body that the receiver takes.
    pub(crate) max_body: u32,
}

/// Sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first.
    pub(crate) from: u64,
    /// The last, not below the first.
    pub(crate) to: u64,
}

/// Why bytes are no frame. The connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Longer than the limit.
    #[error("frame of {length} bytes is longer than the {limit} that are allowed here")]
    TooLong {
        /// What the header says.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// A kind that is not known and not to be ignored.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The body ends too early, or holds what it must not.
    #[error("malformed {0} frame")]
    Malformed(&'static str),
    /// HELLO without the magic bytes.
    #[error("the other side does not speak EvMQ's peer protocol")]
    BadMagic,
}

/// Appends `frame` to `out`.
pub(crate) fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Hello(hello) => framed(1, out, |out| {
            out.put_slice(&MAGIC);
            out.put_slice(&[hello.oldest, hello.newest, hello.minor]);
            out.put_u64(hello.instance);
            put_str8(&hello.cluster, out);
            put_str8(&hello.host, out);
            if let Some(last) = hello.last {
                out.put_u64(last);
            }
        }),
        Frame::Welcome(welcome) => framed(2, out, |out| {
            out.put_slice(&[welcome.version, welcome.minor]);
            out.put_u64(welcome.instance);
            out.put_u8(u8::from(welcome.resume.is_some()));
            out.put_u64(welcome.resume.unwrap_or(0));
            out.put_u32(welcome.max_body);
        }),
        Frame::Entry(entry) => {
            entry_head(entry.head, entry.packet.len(), out);
            out.put_slice(&entry.packet);
        }
        Frame::Retained(retained) => {
            retained_head(retained.age, retained.time, &retained.origin, retained.packet.len(), out);
            out.put_slice(&retained.packet);
        }
        Frame::SnapshotEnd { base } => framed(5, out, |out| out.put_u64(*base)),
        Frame::Gap(range) => framed(6, out, |out| put_range(*range, out)),
        Frame::Skip(range) => framed(7, out, |out| put_range(*range, out)),
        Frame::Ack { seq } => framed(8, out, |out| out.put_u64(*seq)),
        Frame::Ping => framed(9, out, |_| {}),
        Frame::Pong => framed(10, out, |_| {}),
        Frame::Error { text } => framed(11, out, |out| out.put_slice(cut(text).as_bytes())),
        Frame::Bye => framed(12, out, |_| {}),
        Frame::Claim(claim) => framed(claim::KIND, out, |out| claim::put(claim, out)),
        Frame::Group(group) => framed(group::GROUP, out, |out| group::put_group(group, out)),
        Frame::Groups { is_complete } => framed(group::GROUPS, out, |out| group::put_groups(*is_complete, out)),
        Frame::Directed(directed) => framed(group::DIRECTIONS, out, |out| group::put_directed(directed, out)),
    }
}

/// Takes the first frame out of `buffer`; `None` while bytes are missing, then `buffer` is as it was. Frames of unknown kinds
/// that may be ignored are taken out too. No body above `max_body` is waited for.
///
/// # Errors
/// The bytes are no frame; the content of `buffer` is unspecified then.
pub(crate) fn decode(buffer: &mut BytesMut, max_body: u32) -> Result<Option<Frame>, FrameError> {
    loop {
        let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let kind = header[4];
        if length > max_body {
            return Err(FrameError::TooLong { length, limit: max_body });
        }
        if buffer.len() - HEADER < length as usize {
            return Ok(None);
        }
        buffer.advance(HEADER);
        let body = buffer.split_to(length as usize);
        if kind < FIRST_UNKNOWN {
            return decode_body(kind, body).map(Some);
        }
    }
}

/// Bytes that are missing until `buffer` holds its first frame; 0 if that is not known yet or the frame is there.
pub(crate) fn missing(buffer: &[u8]) -> usize {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return 0 };
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    (HEADER + length as usize).saturating_sub(buffer.len())
}

fn decode_body(kind: u8, body: BytesMut) -> Result<Frame, FrameError> {
    match kind {
        1 => decode_hello(body.freeze()),
        2 => decode_welcome(body.freeze()).ok_or(FrameError::Malformed("WELCOME")),
        3 => message::get_entry(body).map(Frame::Entry).ok_or(FrameError::Malformed("ENTRY")),
        message::ENTRY_BY => message::get_entry_by(body).map(Frame::Entry).ok_or(FrameError::Malformed("ENTRY_BY")),
        4 => message::get_retained(body).map(Frame::Retained).ok_or(FrameError::Malformed("RETAINED")),
        5 => number(body, "SNAPSHOT_END").map(|base| Frame::SnapshotEnd { base }),
        6 => range(body, "GAP").map(Frame::Gap),
        7 => range(body, "SKIP").map(Frame::Skip),
        8 => number(body, "ACK").map(|seq| Frame::Ack { seq }),
        9 => Ok(Frame::Ping),
        10 => Ok(Frame::Pong),
        11 => Ok(Frame::Error { text: cut(&String::from_utf8_lossy(&body)).to_owned() }),
        12 => Ok(Frame::Bye),
        claim::KIND => claim::get(body).map(Frame::Claim).ok_or(FrameError::Malformed("CLAIM")),
        group::GROUP => group::get_group(body).map(Frame::Group).ok_or(FrameError::Malformed("GROUP")),
        group::GROUPS => group::get_groups(body)
            .map(|is_complete| Frame::Groups { is_complete })
            .ok_or(FrameError::Malformed("GROUPS")),
        group::DIRECTIONS => group::get_directed(body).map(Frame::Directed).ok_or(FrameError::Malformed("DIRECTIONS")),
        other => Err(FrameError::UnknownKind(other)),
    }
}

fn decode_hello(mut body: Bytes) -> Result<Frame, FrameError> {
    if body.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(FrameError::BadMagic);
    }
    body.advance(MAGIC.len());
    let mut fields = || {
        let mut hello = Hello {
            oldest: body.try_get_u8().ok()?,
            newest: body.try_get_u8().ok()?,
            minor: body.try_get_u8().ok()?,
            instance: body.try_get_u64().ok()?,
            cluster: get_str8(&mut body)?,
            host: get_str8(&mut body)?,
            last: None,
        };
        if hello.minor >= 2 {
            hello.last = Some(body.try_get_u64().ok()?);
        }
        Some(hello)
    };
    fields().map(Frame::Hello).ok_or(FrameError::Malformed("HELLO"))
}

fn decode_welcome(mut body: Bytes) -> Option<Frame> {
    let version = body.try_get_u8().ok()?;
    let minor = body.try_get_u8().ok()?;
    let instance = body.try_get_u64().ok()?;
    let known = body.try_get_u8().ok()?;
    let resume = body.try_get_u64().ok()?;
    let max_body = body.try_get_u32().ok()?;
    Some(Frame::Welcome(Welcome { version, minor, instance, resume: (known == 1).then_some(resume), max_body }))
}

fn number(mut body: BytesMut, name: &'static str) -> Result<u64, FrameError> {
    body.try_get_u64().map_err(|_| FrameError::Malformed(name))
}

fn range(mut body: BytesMut, name: &'static str) -> Result<Range, FrameError> {
    let (Ok(from), Ok(to)) = (body.try_get_u64(), body.try_get_u64()) else { return Err(FrameError::Malformed(name)) };
    // Numbers begin at 1, and a range is never empty.
    if from == 0 || from > to { Err(FrameError::Malformed(name)) } else { Ok(Range { from, to }) }
}

fn framed(kind: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    header(0, kind, out);
    body(out);
    let length = u32::try_from(out.len() - start - HEADER).expect("these bodies have at most some 130 kB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn header(length: usize, kind: u8, out: &mut BytesMut) {
    out.put_u32(u32::try_from(length).expect("an MQTT packet has at most 256 MiB"));
    out.put_u8(kind);
}

fn put_range(range: Range, out: &mut BytesMut) {
    out.put_u64(range.from);
    out.put_u64(range.to);
}

fn put_str8(text: &str, out: &mut BytesMut) {
    out.put_u8(u8::try_from(text.len()).expect("names of hosts and clusters have at most 63 bytes"));
    out.put_slice(text.as_bytes());
}

fn get_str8(body: &mut impl Buf) -> Option<String> {
    let length = usize::from(body.try_get_u8().ok()?);
    let mut bytes = vec![0; length];
    body.try_copy_to_slice(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_ERROR_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
