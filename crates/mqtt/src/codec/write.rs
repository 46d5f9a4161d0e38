//! Writing primitives (§1.5), over a sink that either keeps the bytes or counts them.

use bytes::BytesMut;

use crate::packet::PacketId;
use crate::text::Text;

use super::frame::integer_len;

/// Where a packet's bytes go. Each packet is described once, for its length and for its bytes.
pub(super) trait Sink {
    fn slice(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.slice(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.slice(&value.to_be_bytes());
    }

    /// A variable byte integer, minimal (`[MQTT-1.5.5-1]`). `value` is at most 268,435,455.
    fn integer(&mut self, value: u32) {
        let mut bytes = [0; 4];
        let len = integer_len(value);
        for (index, byte) in bytes[..len].iter_mut().enumerate() {
            let seven_bits = (value >> (7 * index)) as u8 & 0x7F;
            *byte = if index + 1 < len { seven_bits | 0x80 } else { seven_bits };
        }
        self.slice(&bytes[..len]);
    }

    /// Binary data behind its two-byte length; `check` has seen that it fits.
    fn binary(&mut self, bytes: &[u8]) {
        self.u16(bytes.len() as u16);
        self.slice(bytes);
    }

    /// A string behind its two-byte length; [`Text`] is never longer.
    fn text(&mut self, text: &Text) {
        self.binary(text.as_bytes());
    }

    fn pair(&mut self, (name, value): &(Text, Text)) {
        self.text(name);
        self.text(value);
    }

    fn packet_id(&mut self, id: PacketId) {
        self.u16(id.0.get());
    }
}

impl Sink for BytesMut {
    fn slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes.
#[derive(Debug, Default)]
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    fn slice(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Bytes that `write` puts out.
pub(super) fn count(write: impl FnOnce(&mut Count)) -> usize {
    let mut count = Count::default();
    write(&mut count);
    count.0
}
