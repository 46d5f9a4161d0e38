//! What goes over the wire between two lbs, to bytes and back.
//!
//! ```text
//!  kind (1) | length of the body (4) | body
//!
//!  1 HELLO    version (1), workers (2), length (1) and cluster, length (1) and host    the first of the one that connects
//!  2 WELCOME  version (1)                                                              its answer
//!  3 REFUSED  text                                                                     or this one, and the end
//!  4 BEGIN    worker (2)           its whole list follows
//!  5 CHANGES  worker (2), entries  what has become of numbers
//!  6 END      worker (2)           the list is whole
//!  7 PING     -                    asks for PONG
//!  8 PONG     -
//!  9 BACKEND  time (8), length (1) and host, length (1) and backend,
//!             state (1), weight (3), rate (5)    what an operator has said of a backend, see [`crate::admin`]
//!
//!  weight, rate: 0 and nothing, or 1 and the number (2, 4); absent ones are filled with zeros
//!
//!  entry: 1, IPv4 address (4), port (2)    those that follow are connected to this one
//!         2, IPv6 address (16), port (2)   the same
//!         3, number (4), address (4 or 16, as the local one), port (2)   joined
//!         4, number (4)                    left
//! ```
//!
//! Numbers are big-endian. No body is longer than [`MAX_BODY`], and nothing is allocated before that has been checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::admin::{Admin, Stamp, Word};
use crate::roster::{Batch, Change, Connection};

/// This version of the protocol.
pub const VERSION: u8 = 2;
/// Longest body that is sent or taken.
pub const MAX_BODY: usize = 16 * 1024;
/// Kind and length.
pub const HEADER: usize = 5;
/// Longest entry together with the local address before it.
const LARGEST_ENTRY: usize = 19 + 23;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The first of the one that connects.
    Hello(Hello),
    /// Its answer.
    Welcome {
        /// Of the protocol.
        version: u8,
    },
    /// Or this one: why not.
    Refused(String),
    /// The worker's whole list follows.
    Begin {
        /// Whose.
        worker: u16,
    },
    /// What has become of numbers.
    Changes {
        /// Whose.
        worker: u16,
        /// In order.
        changes: Vec<Change>,
    },
    /// The list is whole.
    End {
        /// Whose.
        worker: u16,
    },
    /// Asks for [`Frame::Pong`].
    Ping,
    /// The other one is there.
    Pong,
    /// What an operator has said of a backend.
    Backend {
        /// The backend's name.
        name: String,
        /// What was said.
        word: Word,
    },
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Of the protocol.
    pub version: u8,
    /// How many workers have a list.
    pub workers: u16,
    /// Its cluster.
    pub cluster: String,
    /// Its name.
    pub host: String,
}

/// What came is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Of an unknown kind.
    #[error("it sends something else than a load balancer does (kind {0})")]
    Kind(u8),
    /// Above [`MAX_BODY`].
    #[error("it sends a frame of {0} bytes, more than {MAX_BODY}")]
    TooLong(u32),
    /// Its parts do not fit into its length.
    #[error("it sends a frame that ends too early or too late")]
    Length,
    /// A name is not UTF-8.
    #[error("it sends a name that is not UTF-8")]
    Text,
    /// An entry of an unknown kind.
    #[error("it sends an entry that is none (kind {0})")]
    Entry(u8),
    /// A backend's state of an unknown number.
    #[error("it tells of a backend in a state that this lb does not know ({0})")]
    State(u8),
}

/// Appends a frame.
pub fn encode(frame: &Frame, output: &mut BytesMut) {
    match frame {
        Frame::Hello(hello) => put(output, 1, |body| {
            body.put_u8(hello.version);
            body.put_u16(hello.workers);
            put_text(body, &hello.cluster);
            put_text(body, &hello.host);
        }),
        Frame::Welcome { version } => put(output, 2, |body| body.put_u8(*version)),
        Frame::Refused(text) => put(output, 3, |body| body.put_slice(&text.as_bytes()[..text.len().min(MAX_BODY)])),
        Frame::Begin { worker } => put(output, 4, |body| body.put_u16(*worker)),
        Frame::Changes { worker, changes } => {
            let rest = put_changes(output, *worker, changes);
            debug_assert!(rest.is_empty(), "one frame holds what one frame gave");
        }
        Frame::End { worker } => put(output, 6, |body| body.put_u16(*worker)),
        Frame::Ping => put(output, 7, |_| {}),
        Frame::Pong => put(output, 8, |_| {}),
        Frame::Backend { name, word } => put(output, 9, |body| {
            body.put_u64(word.stamp.time);
            put_text(body, &word.stamp.host);
            put_text(body, name);
            body.put_u8(word.admin as u8);
            body.put_u8(u8::from(word.weight.is_some()));
            body.put_u16(word.weight.unwrap_or(0));
            body.put_u8(u8::from(word.rate.is_some()));
            body.put_u32(word.rate.unwrap_or(0));
        }),
    }
}

/// The frames of one batch.
pub fn encode_batch(worker: usize, batch: &Batch) -> Bytes {
    let worker = u16::try_from(worker).unwrap_or(u16::MAX);
    let mut output = BytesMut::new();
    if batch.anew {
        encode(&Frame::Begin { worker }, &mut output);
    }
    let mut changes = &batch.changes[..];
    while !changes.is_empty() {
        changes = put_changes(&mut output, worker, changes);
    }
    if batch.anew {
        encode(&Frame::End { worker }, &mut output);
    }
    output.freeze()
}

/// Cuts the next frame off `input`; none while it is not whole.
///
/// # Errors
/// What came is no frame.
pub fn decode(input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some((mut header, rest)) = input.split_at_checked(HEADER) else { return Ok(None) };
    let (kind, length) = (header.get_u8(), header.get_u32());
    if !(1..=9).contains(&kind) {
        return Err(FrameError::Kind(kind));
    }
    if length as usize > MAX_BODY {
        return Err(FrameError::TooLong(length));
    }
    if rest.len() < length as usize {
        return Ok(None);
    }
    input.advance(HEADER);
    let mut body = input.split_to(length as usize).freeze();
    let frame = decode_body(kind, &mut body)?;
    if body.has_remaining() { Err(FrameError::Length) } else { Ok(Some(frame)) }
}

fn decode_body(kind: u8, body: &mut Bytes) -> Result<Frame, FrameError> {
    let short = |_| FrameError::Length;
    Ok(match kind {
        1 => Frame::Hello(Hello {
            version: body.try_get_u8().map_err(short)?,
            workers: body.try_get_u16().map_err(short)?,
            cluster: take_text(body)?,
            host: take_text(body)?,
        }),
        2 => Frame::Welcome { version: body.try_get_u8().map_err(short)? },
        3 => Frame::Refused(text(&body.split_to(body.len()))?),
        4 => Frame::Begin { worker: body.try_get_u16().map_err(short)? },
        5 => Frame::Changes { worker: body.try_get_u16().map_err(short)?, changes: take_changes(body)? },
        6 => Frame::End { worker: body.try_get_u16().map_err(short)? },
        7 => Frame::Ping,
        8 => Frame::Pong,
        9 => take_backend(body)?,
        other => return Err(FrameError::Kind(other)),
    })
}

fn take_backend(body: &mut Bytes) -> Result<Frame, FrameError> {
    let short = |_| FrameError::Length;
    let time = body.try_get_u64().map_err(short)?;
    let stamp = Stamp { time, host: take_text(body)? };
    let name = take_text(body)?;
    let state = body.try_get_u8().map_err(short)?;
    let admin = Admin::from_u8(state).ok_or(FrameError::State(state))?;
    let weight = (body.try_get_u8().map_err(short)? != 0, body.try_get_u16().map_err(short)?);
    let rate = (body.try_get_u8().map_err(short)? != 0, body.try_get_u32().map_err(short)?);
    let word = Word { admin, rate: rate.0.then_some(rate.1), weight: weight.0.then_some(weight.1), stamp };
    Ok(Frame::Backend { name, word })
}

fn put(output: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = output.len();
    output.put_u8(kind);
    output.put_u32(0);
    body(output);
    let length = u32::try_from(output.len() - start - HEADER).expect("bodies are short");
    output[start + 1..start + HEADER].copy_from_slice(&length.to_be_bytes());
}

/// Puts as many changes as one frame holds. Gives the others.
fn put_changes<'a>(output: &mut BytesMut, worker: u16, changes: &'a [Change]) -> &'a [Change] {
    let mut rest = changes;
    put(output, 5, |body| {
        let start = body.len();
        body.put_u16(worker);
        let mut local = None;
        while let Some((change, others)) = rest.split_first()
            && body.len() - start + LARGEST_ENTRY <= MAX_BODY
        {
            match change {
                Change::Joined(number, connection) => {
                    if local.replace(connection.local) != Some(connection.local) {
                        body.put_u8(if connection.local.is_ipv4() { 1 } else { 2 });
                        put_address(body, connection.local);
                    }
                    body.put_u8(3);
                    body.put_u32(*number);
                    put_address(body, connection.client);
                }
                Change::Left(number) => {
                    body.put_u8(4);
                    body.put_u32(*number);
                }
            }
            rest = others;
        }
    });
    rest
}

fn take_changes(body: &mut Bytes) -> Result<Vec<Change>, FrameError> {
    let short = |_| FrameError::Length;
    let mut changes = Vec::new();
    let mut local = None;
    while body.has_remaining() {
        match body.get_u8() {
            1 => local = Some(take_address(body, true)?),
            2 => local = Some(take_address(body, false)?),
            3 => {
                let local = local.ok_or(FrameError::Entry(3))?;
                let number = body.try_get_u32().map_err(short)?;
                let client = take_address(body, local.is_ipv4())?;
                // Not the form of IPv6 for one that is IPv4: the same client must not be two.
                changes.push(Change::Joined(number, Connection::new(client, local).ok_or(FrameError::Entry(3))?));
            }
            4 => changes.push(Change::Left(body.try_get_u32().map_err(short)?)),
            other => return Err(FrameError::Entry(other)),
        }
    }
    Ok(changes)
}

fn put_address(body: &mut BytesMut, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => body.put_slice(&ip.octets()),
        IpAddr::V6(ip) => body.put_slice(&ip.octets()),
    }
    body.put_u16(address.port());
}

fn take_address(body: &mut Bytes, is_ipv4: bool) -> Result<SocketAddr, FrameError> {
    let short = |_| FrameError::Length;
    let ip = if is_ipv4 {
        IpAddr::V4(Ipv4Addr::from_bits(body.try_get_u32().map_err(short)?))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(body.try_get_u128().map_err(short)?))
    };
    Ok(SocketAddr::new(ip, body.try_get_u16().map_err(short)?))
}

/// At most 255 bytes: names of hosts and clusters are shorter.
fn put_text(body: &mut BytesMut, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    body.put_u8(length);
    body.put_slice(&text.as_bytes()[..usize::from(length)]);
}

fn take_text(body: &mut Bytes) -> Result<String, FrameError> {
    let length = usize::from(body.try_get_u8().map_err(|_| FrameError::Length)?);
    if body.len() < length {
        return Err(FrameError::Length);
    }
    text(&body.split_to(length))
}

fn text(bytes: &[u8]) -> Result<String, FrameError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FrameError::Text)
}

#[cfg(test)]
mod tests;
