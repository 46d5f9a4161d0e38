//! What a client says first where TLS passes through: its ClientHello (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301 §3.1).
//!
//! Pure. Looks at all bytes that have come so far and takes none of them: they go on to the broker. A stranger who says
//! something else is known by its first wrong byte.
//!
//! ```text
//! record      type 22 | 3, minor | length (2)                        at most 2^14 bytes; the hello may go over several
//! handshake   type 1  | length (3)
//! ClientHello version (2) | random (32) | session id <0..32> | cipher suites <2..> | compression <1..255> | extensions
//! extension   type (2) | length (2)   0 server_name, 16 ALPN, 43 supported_versions are looked at
//! ```
//!
//! Bounds: a hello of [`MAX_HELLO`] bytes in [`MAX_RECORDS`] records, thus at most [`MAX`] bytes to keep. Each look costs a
//! step for each record; what is in them is read once, when the hello is whole.

use std::borrow::Cow;
use std::net::IpAddr;

/// Longest ClientHello, its handshake header included. Those of browsers with post-quantum keys have about 2 kB.
pub const MAX_HELLO: usize = 16 * 1024;
/// Most records that one may be cut into.
pub const MAX_RECORDS: usize = 64;
/// Most bytes before the answer is certain: no more need be kept for a look.
pub const MAX: usize = MAX_HELLO + MAX_RECORDS * RECORD_HEADER;

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
/// RFC 8446 §5.1.
const MAX_FRAGMENT: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// What the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// So far a ClientHello.
    NeedMore,
    /// A whole one.
    Hello(Hello),
    /// Something else; the connection must be ended.
    NotTls(NotTls),
}

/// What a ClientHello asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The host name: lower case, without a dot at its end. None where an address stands instead, which RFC 6066 §3 does
    /// not allow but some devices send.
    pub sni: Option<Box<str>>,
    /// ALPN offers `mqtt`.
    pub alpn_mqtt: bool,
    /// TLS 1.3 is offered.
    pub tls13: bool,
}

/// Why the bytes are no ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotTls {
    /// The first byte is of no protocol that is known here.
    #[error("not TLS")]
    Unknown,
    /// The first byte is that of an MQTT CONNECT.
    #[error("plain MQTT where TLS is expected")]
    PlainMqtt,
    /// The first byte is that of a PROXY protocol header of version 2.
    #[error("a PROXY protocol header from an address that is not in accept_proxy_from")]
    ProxyHeader,
    /// The first byte could begin an SSLv2 hello (RFC 6176 forbids it).
    #[error("not TLS, or SSLv2")]
    Ssl2,
    /// A TLS record of another type.
    #[error("a TLS record that is no handshake")]
    NotHandshake,
    /// The record's version is not that of TLS.
    #[error("a record of an unknown TLS version")]
    Version,
    /// A record without content (RFC 8446 §5.1).
    #[error("an empty TLS record")]
    EmptyRecord,
    /// A record above 2^14 bytes (RFC 8446 §5.1).
    #[error("an oversize TLS record")]
    OversizeRecord,
    /// More records than [`MAX_RECORDS`].
    #[error("a ClientHello in too many TLS records")]
    TooManyRecords,
    /// A handshake message of another type.
    #[error("a handshake message that is no ClientHello")]
    NotClientHello,
    /// Longer than [`MAX_HELLO`].
    #[error("an oversize ClientHello")]
    OversizeHello,
    /// Its parts do not fit together.
    #[error("a malformed ClientHello")]
    Malformed,
    /// The server name is no host name.
    #[error("a ClientHello with a malformed server name")]
    ServerName,
}

/// Looks for a ClientHello at the start of `bytes`.
#[must_use]
pub fn look(bytes: &[u8]) -> Look {
    match message(bytes).and_then(|message| message.map(|message| read_hello(&message)).transpose()) {
        Ok(None) => Look::NeedMore,
        Ok(Some(hello)) => Look::Hello(hello),
        Err(not_tls) => Look::NotTls(not_tls),
    }
}

/// Whether `bytes` begin as a ClientHello does: the first record's header and the message's type, six bytes. False while
/// they are not there. For listeners that route nothing by name.
///
/// # Errors
/// They begin otherwise.
pub fn looks_like_hello(bytes: &[u8]) -> Result<bool, NotTls> {
    record_length(bytes)?;
    match bytes.get(RECORD_HEADER) {
        None => Ok(false),
        Some(&CLIENT_HELLO) => Ok(true),
        Some(_) => Err(NotTls::NotClientHello),
    }
}

/// The body of the first handshake message, out of as many records as it is in; none while it is not whole.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotTls> {
    let Some((records, length)) = measure(bytes)? else { return Ok(None) };
    if records == 1 {
        return Ok(bytes.get(RECORD_HEADER + HANDSHAKE_HEADER..RECORD_HEADER + length).map(Cow::Borrowed));
    }
    let mut whole = Vec::with_capacity(length);
    let mut rest = bytes;
    // What comes after the message, such as early data, is not looked at.
    while whole.len() < length
        && let Some((fragment, tail)) = next_fragment(rest)?
    {
        whole.extend_from_slice(&fragment[..fragment.len().min(length - whole.len())]);
        rest = tail;
    }
    whole.drain(..HANDSHAKE_HEADER);
    Ok(Some(Cow::Owned(whole)))
}

/// In how many records the first handshake message is, and its bytes with its header; none while they are not all there.
fn measure(bytes: &[u8]) -> Result<Option<(usize, usize)>, NotTls> {
    let mut start = [0; HANDSHAKE_HEADER];
    let (mut records, mut have) = (0, 0);
    let mut rest = bytes;
    while let Some((fragment, tail)) = next_fragment(rest)? {
        records += 1;
        if records > MAX_RECORDS {
            return Err(NotTls::TooManyRecords);
        }
        for (place, byte) in start.iter_mut().skip(have).zip(fragment) {
            *place = *byte;
        }
        have += fragment.len();
        if have >= 1 && start[0] != CLIENT_HELLO {
            return Err(NotTls::NotClientHello);
        }
        if have >= HANDSHAKE_HEADER {
            let [_, length @ ..] = start;
            let length = HANDSHAKE_HEADER + length.into_iter().fold(0, |sum, byte| sum << 8 | usize::from(byte));
            if length > MAX_HELLO {
                return Err(NotTls::OversizeHello);
            }
            if have >= length {
                return Ok(Some((records, length)));
            }
        }
        rest = tail;
    }
    Ok(None)
}

/// What is there of a record's content, and what comes after the record.
type Fragment<'a> = (&'a [u8], &'a [u8]);

/// The next record's; none at the end of what is there.
fn next_fragment(rest: &[u8]) -> Result<Option<Fragment<'_>>, NotTls> {
    if rest.is_empty() {
        return Ok(None);
    }
    let Some(length) = record_length(rest)? else { return Ok(Some((&[], &[]))) };
    let content = &rest[RECORD_HEADER..];
    Ok(Some(content.split_at(length.min(content.len()))))
}

/// Bytes of the record's content; none while its header is not whole.
fn record_length(bytes: &[u8]) -> Result<Option<usize>, NotTls> {
    match bytes.first() {
        None | Some(&HANDSHAKE) => {}
        // RFC 8446 §5.1, and the heartbeat of RFC 6520.
        Some(20 | 21 | 23 | 24) => return Err(NotTls::NotHandshake),
        Some(0x10) => return Err(NotTls::PlainMqtt),
        Some(b'\r') => return Err(NotTls::ProxyHeader),
        Some(0x80..) => return Err(NotTls::Ssl2),
        Some(_) => return Err(NotTls::Unknown),
    }
    // RFC 8446 §5.1: the minor version of a record says nothing; the major one has been 3 since SSLv3.
    if bytes.get(1).is_some_and(|&major| major != 3) {
        return Err(NotTls::Version);
    }
    let Some(&[_, _, _, high, low]) = bytes.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    match usize::from(u16::from_be_bytes([high, low])) {
        0 => Err(NotTls::EmptyRecord),
        length if length > MAX_FRAGMENT => Err(NotTls::OversizeRecord),
        length => Ok(Some(length)),
    }
}

fn read_hello(body: &[u8]) -> Result<Hello, NotTls> {
    let mut body = Parts(body);
    // Version (2) and random (32).
    if body.take(34)?[0] != 3 {
        return Err(NotTls::Malformed);
    }
    let session_id = body.take_u8_prefixed()?;
    let cipher_suites = body.take_u16_prefixed()?;
    let compression = body.take_u8_prefixed()?;
    if session_id.len() > 32 || cipher_suites.is_empty() || cipher_suites.len() % 2 != 0 || compression.is_empty() {
        return Err(NotTls::Malformed);
    }
    let mut hello = Hello { sni: None, alpn_mqtt: false, tls13: false };
    if body.is_empty() {
        // RFC 5246 §7.4.1.2: before TLS 1.3 there need not be any extensions.
        return Ok(hello);
    }
    let mut extensions = Parts(body.take_u16_prefixed()?);
    body.finish()?;
    let mut seen = [false; 3];
    while !extensions.is_empty() {
        let kind = extensions.take_u16()?;
        let content = Parts(extensions.take_u16_prefixed()?);
        let index = match kind {
            0 => 0,
            16 => 1,
            43 => 2,
            _ => continue,
        };
        // RFC 8446 §4.2: no extension twice. Which of two names counts would be anyone's guess.
        if std::mem::replace(&mut seen[index], true) {
            return Err(NotTls::Malformed);
        }
        match index {
            0 => hello.sni = read_server_name(content)?,
            1 => hello.alpn_mqtt = offers_mqtt(content)?,
            _ => hello.tls13 = offers_tls13(content)?,
        }
    }
    Ok(hello)
}

/// RFC 6066 §3: a list of names, at most one of each type; type 0 is a host name, and no other has ever been defined.
fn read_server_name(mut content: Parts<'_>) -> Result<Option<Box<str>>, NotTls> {
    let mut names = Parts(content.take_u16_prefixed()?);
    content.finish()?;
    let mut found = None;
    while !names.is_empty() {
        let is_host_name = names.take_u8()? == 0;
        let name = names.take_u16_prefixed()?;
        if is_host_name && found.replace(name).is_some() {
            return Err(NotTls::Malformed);
        }
    }
    host_name(found.ok_or(NotTls::Malformed)?)
}

/// RFC 6066 §3: ASCII, no dot at the end. Many send one all the same, and some an address, or names with `_`.
fn host_name(bytes: &[u8]) -> Result<Option<Box<str>>, NotTls> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let text = std::str::from_utf8(bytes).map_err(|_| NotTls::ServerName)?;
    if text.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    // RFC 1035 §2.3.4: 255 bytes as DNS writes a name, which is 253 as text.
    if bytes.len() > 253 || !bytes.split(|&byte| byte == b'.').all(is_label) {
        return Err(NotTls::ServerName);
    }
    Ok(Some(text.to_ascii_lowercase().into()))
}

fn offers_mqtt(mut content: Parts<'_>) -> Result<bool, NotTls> {
    let mut protocols = Parts(content.take_u16_prefixed()?);
    content.finish()?;
    let mut found = false;
    while !protocols.is_empty() {
        found |= protocols.take_u8_prefixed()? == b"mqtt";
    }
    Ok(found)
}

fn offers_tls13(mut content: Parts<'_>) -> Result<bool, NotTls> {
    let versions = content.take_u8_prefixed()?;
    content.finish()?;
    Ok(versions.chunks_exact(2).any(|version| version == [3, 4]))
}

/// What is left of a message. Nothing is read past its end.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], NotTls> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotTls::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn take_u8(&mut self) -> Result<u8, NotTls> {
        Ok(self.take(1)?[0])
    }

    fn take_u16(&mut self) -> Result<u16, NotTls> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn take_u8_prefixed(&mut self) -> Result<&'a [u8], NotTls> {
        let length = self.take_u8()?;
        self.take(length.into())
    }

    fn take_u16_prefixed(&mut self) -> Result<&'a [u8], NotTls> {
        let length = self.take_u16()?;
        self.take(length.into())
    }

    const fn finish(&self) -> Result<(), NotTls> {
        if self.is_empty() { Ok(()) } else { Err(NotTls::Malformed) }
    }
}

#[cfg(test)]
mod tests;
