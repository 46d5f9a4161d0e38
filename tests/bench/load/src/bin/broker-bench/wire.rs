//! MQTT 3.1.1 as bytes: only what this program says and hears, so that it costs next to nothing.

use bytes::{Buf as _, BufMut as _, BytesMut};

/// Publisher number and message number at the head of each payload.
pub(crate) const HEADER: usize = 12;

pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;

/// CONNECT with a keep alive of 600 s, which no run reaches: some brokers take none without.
pub(crate) fn connect(client_id: &str, clean: bool) -> BytesMut {
    let mut out = BytesMut::new();
    header(&mut out, 0x10, 12 + client_id.len());
    out.put_slice(b"\x00\x04MQTT\x04");
    out.put_u8(if clean { 2 } else { 0 });
    out.put_u16(600);
    text(&mut out, client_id);
    out
}

/// SUBSCRIBE with one QoS for all filters.
pub(crate) fn subscribe(filters: &[String], qos: u8) -> BytesMut {
    let mut out = BytesMut::new();
    header(&mut out, 0x82, 2 + filters.iter().map(|filter| 3 + filter.len()).sum::<usize>());
    out.put_u16(1);
    for filter in filters {
        text(&mut out, filter);
        out.put_u8(qos);
    }
    out
}

/// Appends a PUBLISH of `size` payload bytes; its packet identifier is made from `number`.
pub(crate) fn publish(out: &mut BytesMut, topic: &str, flags: u8, publisher: u32, number: u64, size: usize) {
    let size = size.max(HEADER);
    let with_id = flags & 6 != 0;
    header(out, 0x30 | flags, 2 + topic.len() + usize::from(with_id) * 2 + size);
    text(out, topic);
    if with_id {
        out.put_u16(u16::try_from(number % 65_535).unwrap_or_default() + 1);
    }
    out.put_u32(publisher);
    out.put_u64(number);
    out.put_bytes(b'x', size - HEADER);
}

/// Payload bytes as an argument: there is room for publisher, number and a time.
pub(crate) fn payload_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| "it is a number of bytes".to_owned())?;
    if size >= HEADER + 8 { Ok(size) } else { Err(format!("it is {} at least", HEADER + 8)) }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(crate) fn ack(out: &mut BytesMut, kind: u8, id: [u8; 2]) {
    out.put_slice(&[kind << 4 | if kind == PUBREL { 2 } else { 0 }, 2, id[0], id[1]]);
}

/// A PUBLISH that came.
pub(crate) struct Message<'a> {
    pub(crate) id: [u8; 2],
    pub(crate) qos: u8,
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// From byte 1 and what follows the length.
    pub(crate) fn read(first: u8, body: &'a [u8]) -> Option<Self> {
        let (length, rest) = body.split_first_chunk::<2>()?;
        let rest = rest.get(usize::from(u16::from_be_bytes(*length))..)?;
        let qos = first >> 1 & 3;
        if qos == 0 {
            return Some(Self { id: [0; 2], qos, payload: rest });
        }
        let (id, payload) = rest.split_first_chunk::<2>()?;
        Some(Self { id: *id, qos, payload })
    }

    /// Publisher and number.
    pub(crate) fn numbers(&self) -> Option<(u32, u64)> {
        let (publisher, rest) = self.payload.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*publisher), u64::from_be_bytes(*rest.first_chunk()?)))
    }
}

/// Takes whole packets out of `buffer`: byte 1 and what follows the length.
pub(crate) fn packets(buffer: &mut BytesMut, mut found: impl FnMut(u8, &[u8])) {
    let mut done = 0;
    while let Some((from, to)) = extent(&buffer[done..]) {
        let packet = &buffer[done..];
        found(packet[0], &packet[from..to]);
        done += to;
    }
    buffer.advance(done);
}

/// Takes the first whole packet out of `buffer` and leaves the others.
pub(crate) fn first_packet(buffer: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let (from, to) = extent(buffer)?;
    let mut packet = buffer.split_to(to);
    let first = packet[0];
    packet.advance(from);
    Some((first, packet))
}

/// Where what follows the length of the first packet begins and ends; `None` while bytes are missing.
fn extent(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut length, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (bytes.len() >= at + length).then_some((at, at + length))
}

fn header(out: &mut BytesMut, first: u8, mut length: usize) {
    out.put_u8(first);
    while length > 127 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or_default());
    out.put_slice(text.as_bytes());
}
