//! A server that does what a test says, packet by packet.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use evermq_mqtt::codec::{Limits, decode, encode};
use evermq_mqtt::packet::{Ack, ConnAck, Connect};
use evermq_mqtt::properties::ConnAckProperties;
use evermq_mqtt::{Packet, PacketId, ReasonCode, Version};

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    listener: TcpListener,
}

/// One client's connection.
pub(crate) struct Peer {
    stream: TcpStream,
    version: Version,
    incoming: BytesMut,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").expect("a free port") }
    }

    pub(crate) fn at(&self) -> String {
        format!("-h 127.0.0.1 -p {}", self.listener.local_addr().expect("an address").port())
    }

    /// The next connection, before its CONNECT is read.
    pub(crate) fn accept(&self, version: Version) -> Peer {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Peer { stream, version, incoming: BytesMut::new() }
    }

    /// The next connection with its CONNECT, answered.
    pub(crate) fn welcome(&self, version: Version, session_present: bool) -> (Peer, Connect) {
        let mut peer = self.accept(version);
        let Packet::Connect(connect) = peer.read() else { panic!("the first packet is no CONNECT") };
        let properties = ConnAckProperties::default();
        peer.write(&Packet::ConnAck(Box::new(ConnAck { session_present, reason: ReasonCode::Success, properties })));
        (peer, *connect)
    }
}

impl Peer {
    pub(crate) fn read(&mut self) -> Packet {
        self.read_or_end().expect("a packet, not the end")
    }

    /// The next packet, `None` where the client has closed.
    pub(crate) fn read_or_end(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = decode(&mut self.incoming, self.version, &Limits::default()).expect("good MQTT") {
                return Some(packet);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.incoming.extend_from_slice(&bytes[..count]),
                // A socket with a timeout says so where the process stood still (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no bytes within the deadline: {error}"),
            }
        }
    }

    pub(crate) fn write(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        encode(packet, self.version, &mut bytes).expect("a good packet");
        self.write_bytes(&bytes);
    }

    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the client reads");
    }

    /// Ends the connection in both directions.
    pub(crate) fn close(self) {
        self.stream.shutdown(Shutdown::Both).expect("an open connection");
    }
}

pub(crate) fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: None }
}
