//! A connection that may break at any time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::packet::{ConnAck, Connect};
use evermq_mqtt::{Packet, ReasonCode, Version};

use super::Site;
use crate::client::connect;

/// How long a client looks for a packet before it does something else.
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct Line {
    stream: TcpStream,
    buffer: BytesMut,
    version: Version,
}

/// What came.
pub(super) enum Came {
    Packet(Packet),
    Nothing,
    /// The connection has ended.
    End,
}

/// A session that outlives its connections, and this test.
pub(super) fn lasting(client_id: &str, version: Version) -> Connect {
    let mut connect = Connect { version, clean_start: false, ..connect(client_id) };
    connect.properties.session_expiry = (version == Version::V5).then_some(3000);
    connect
}

impl Line {
    /// Connects until the broker lets the client in, or the site winds down and `gives_up`.
    pub(super) fn open(site: &Site, connect: &Connect) -> (Self, ConnAck) {
        let since = site.now();
        loop {
            if let Some(opened) = Self::try_open(site, connect) {
                return opened;
            }
            site.go_on("a connection", since);
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Connects once.
    pub(super) fn try_open(site: &Site, connect: &Connect) -> Option<(Self, ConnAck)> {
        let stream = TcpStream::connect(site.address()?).ok()?;
        stream.set_read_timeout(Some(LOOK)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut line = Self { stream, buffer: BytesMut::new(), version: connect.version };
        if !line.send(&Packet::Connect(Box::new(connect.clone()))) {
            return None;
        }
        let since = site.now();
        loop {
            match line.look() {
                Came::Packet(Packet::ConnAck(connack)) if connack.reason == ReasonCode::Success => {
                    return Some((line, *connack));
                }
                Came::Packet(_) | Came::End => return None,
                Came::Nothing => site.go_on("a CONNACK", since),
            }
        }
    }

    /// Whether the connection took it.
    pub(super) fn send(&mut self, packet: &Packet) -> bool {
        let mut out = BytesMut::new();
        codec::encode(packet, self.version, &mut out).unwrap();
        self.stream.write_all(&out).is_ok()
    }

    /// The next packet, if one comes soon.
    pub(super) fn look(&mut self) -> Came {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(packet) = codec::decode(&mut self.buffer, self.version, &Limits::default()).unwrap() {
                // A server that stops is as good as gone.
                return if matches!(packet, Packet::Disconnect(_)) { Came::End } else { Came::Packet(packet) };
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Came::End,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Came::Nothing;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Came::End,
            }
        }
    }
}
