//! What the standard asks of a server, in bytes written by hand. `docs/conformance.md` says which statement is shown where.

mod connect;
mod disconnect;
mod format;
mod publish;
mod qos;
mod shared;
mod subscribe;
mod table;
mod topics;
mod versions;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::running::{PATIENCE, Running};

/// A client that knows bytes only.
pub(super) struct Raw {
    stream: TcpStream,
}

/// Joins parts of a packet.
pub(super) fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A string or binary data behind its length.
pub(super) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    cat(&[&u16::try_from(text.len()).unwrap().to_be_bytes(), text])
}

/// A fixed header before `body`.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        out.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// A property section, behind its length.
pub(super) fn section(properties: &[u8]) -> Vec<u8> {
    assert!(properties.len() < 128);
    cat(&[&[u8::try_from(properties.len()).unwrap()], properties])
}

/// CONNECT of MQTT 5.0 without keep alive; `payload` follows the properties.
pub(super) fn connect5(flags: u8, properties: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let head = [0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 0];
    packet(0x10, &cat(&[&head, &section(properties), &payload.concat()]))
}

/// CONNECT of MQTT 3.1.1 without keep alive.
pub(super) fn connect4(flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &cat(&[&[0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0], &payload.concat()]))
}

/// PUBLISH of MQTT 5.0: DUP, QoS and RETAIN in `flags`, packet identifier where it is not 0.
pub(super) fn publish5(flags: u8, topic: &str, id: u16, properties: &[u8], payload: &str) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id: &[u8] = if id == [0, 0] { &[] } else { &id };
    packet(0x30 | flags, &cat(&[&string(topic), id, &section(properties), payload.as_bytes()]))
}

/// PUBLISH of MQTT 3.1.1.
pub(super) fn publish4(flags: u8, topic: &str, id: u16, payload: &str) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id: &[u8] = if id == [0, 0] { &[] } else { &id };
    packet(0x30 | flags, &cat(&[&string(topic), id, payload.as_bytes()]))
}

/// SUBSCRIBE of MQTT 5.0 with packet identifier 1 for filters with their options.
pub(super) fn subscribe5(properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(|(filter, options)| cat(&[&string(filter), &[*options]])).collect();
    packet(0x82, &cat(&[&[0, 1], &section(properties), &filters]))
}

/// SUBSCRIBE of MQTT 3.1.1 with packet identifier 1.
pub(super) fn subscribe4(filters: &[(&str, u8)]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(|(filter, options)| cat(&[&string(filter), &[*options]])).collect();
    packet(0x82, &cat(&[&[0, 1], &filters]))
}

/// Asks for a session of 100 s.
pub(super) const STAYS: &[u8] = &[0x11, 0, 0, 0, 100];
const PINGREQ: &[u8] = &[0xC0, 0];
const PINGRESP: &[u8] = &[0xD0, 0];

impl Raw {
    /// A connection, nothing sent.
    pub(super) fn open(broker: &Running) -> Self {
        let stream = TcpStream::connect(broker.plain).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// A connected client of MQTT 5.0 with a clean start.
    pub(super) fn v5(broker: &Running, id: &str) -> Self {
        let (raw, connack) = Self::with(broker, &connect5(0x02, &[], &[&string(id)]));
        assert_eq!(connack[2..4], [0, 0]);
        raw
    }

    /// A connected client of MQTT 3.1.1 with a clean session.
    pub(super) fn v4(broker: &Running, id: &str) -> Self {
        let (raw, connack) = Self::with(broker, &connect4(0x02, &[&string(id)]));
        assert_eq!(connack, [0x20, 2, 0, 0]);
        raw
    }

    /// Sends CONNECT and takes what is answered.
    pub(super) fn with(broker: &Running, connect: &[u8]) -> (Self, Vec<u8>) {
        let mut raw = Self::open(broker);
        raw.send(connect);
        let connack = raw.packet();
        assert_eq!(connack[0], 0x20, "{connack:02x?}");
        (raw, connack)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet, whole.
    pub(super) fn packet(&mut self) -> Vec<u8> {
        self.next().expect("the broker closed the connection")
    }

    /// The next packet; `None` if the broker closed.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let mut packet = self.read(1)?;
        let (mut remaining, mut shift) = (0_usize, 0);
        loop {
            let byte = self.read(1).expect("a header ends")[0];
            packet.push(byte);
            remaining |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        packet.extend(self.read(remaining).expect("a packet ends"));
        Some(packet)
    }

    fn read(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }

    /// Exactly these bytes come next.
    pub(super) fn expect(&mut self, bytes: &[u8]) {
        let got = self.packet();
        assert_eq!(got, bytes, "{got:02x?} came, not {bytes:02x?}");
    }

    /// Nothing is on its way. The first answer may overtake what was there; the second comes after it.
    pub(super) fn expect_nothing(&mut self) {
        for _ in 0..2 {
            self.send(PINGREQ);
            self.expect(PINGRESP);
        }
    }

    /// The broker closes and says nothing.
    pub(super) fn closed(&mut self) {
        assert_eq!(self.next(), None);
    }

    /// DISCONNECT with `reason`, then the end.
    pub(super) fn disconnected(&mut self, reason: u8) {
        let got = self.packet();
        assert_eq!((got[0], got[2]), (0xE0, reason), "{got:02x?}");
        self.closed();
    }

    /// Sends `bytes`, for which an MQTT 5.0 client is disconnected with `reason`.
    pub(super) fn refused(broker: &Running, bytes: &[u8], reason: u8) {
        let mut raw = Self::v5(broker, "refused");
        raw.send(bytes);
        match raw.next() {
            Some(got) => assert_eq!((got[0], got[2]), (0xE0, reason), "{bytes:02x?}: {got:02x?}"),
            None => panic!("{bytes:02x?}: closed without DISCONNECT"),
        }
        raw.closed();
    }

    /// Sends `bytes`, for which an MQTT 3.1.1 client's connection is closed.
    pub(super) fn refused4(broker: &Running, bytes: &[u8]) {
        let mut raw = Self::v4(broker, "refused");
        raw.send(bytes);
        assert_eq!(raw.next(), None, "{bytes:02x?}");
    }

    /// Disconnects, and waits until the broker has seen it.
    pub(super) fn leave(mut self) {
        self.send(&[0xE0, 0]);
        self.closed();
    }

    /// Subscribes at QoS 2 or less, MQTT 5.0.
    pub(super) fn subscribed(mut self, filter: &str, options: u8) -> Self {
        self.send(&subscribe5(&[], &[(filter, options)]));
        self.expect(&[0x90, 4, 0, 1, 0, options & 3]);
        self
    }
}
