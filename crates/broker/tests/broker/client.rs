//! A client that says exactly what a test wants and shows every packet that comes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::packet::{Ack, ConnAck, Connect, Disconnect, Subscribe, SubscribeFilter, SubscriptionOptions, Will};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties, WillProperties};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version};

use crate::running::PATIENCE;

pub(crate) struct Client {
    stream: Box<dyn Wire>,
    buffer: BytesMut,
    version: Version,
}

/// TCP, or TLS over it.
pub(crate) trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

pub(crate) fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId(NonZeroU16::new(number).unwrap())
}

/// MQTT 5.0, clean start, no keep alive.
pub(crate) fn connect(client_id: &str) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        client_id: text(client_id),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
        is_bridge: false,
    }
}

/// The same for a session that stays for a minute and is taken up again.
pub(crate) fn resume(client_id: &str) -> Connect {
    let properties = ConnectProperties { session_expiry: Some(60), ..ConnectProperties::default() };
    Connect { clean_start: false, properties, ..connect(client_id) }
}

pub(crate) fn will(topic: &str, delay: u32) -> Will {
    Will {
        topic: TopicName::new(text(topic)).unwrap(),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: WillProperties { delay: Some(delay), ..WillProperties::default() },
    }
}

pub(crate) fn message(topic: &str, payload: &str) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TopicName::new(text(topic)).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

impl Client {
    /// Connects and takes the CONNACK.
    pub(crate) fn open(address: SocketAddr, connect: Connect) -> (Self, ConnAck) {
        Self::raw(address, connect.version).introduce(connect)
    }

    /// Over a connection that stands.
    pub(crate) fn over(stream: impl Wire + 'static, connect: Connect) -> (Self, ConnAck) {
        Self { stream: Box::new(stream), buffer: BytesMut::new(), version: connect.version }.introduce(connect)
    }

    fn introduce(self, connect: Connect) -> (Self, ConnAck) {
        let mut client = self;
        client.send(&Packet::Connect(Box::new(connect)));
        match client.receive() {
            Packet::ConnAck(connack) => (client, *connack),
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// A TCP connection without CONNECT.
    pub(crate) fn raw(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Box::new(stream), buffer: BytesMut::new(), version }
    }

    /// Sends a CONNECT; whether the client gets in.
    pub(crate) fn try_connect(&mut self, connect: Connect) -> bool {
        let mut out = BytesMut::new();
        codec::encode(&Packet::Connect(Box::new(connect)), self.version, &mut out).unwrap();
        if self.stream.write_all(&out).is_err() {
            return false;
        }
        let mut chunk = [0; 1024];
        loop {
            if let Some(packet) = codec::decode(&mut self.buffer, self.version, &Limits::default()).unwrap() {
                return matches!(packet, Packet::ConnAck(connack) if connack.reason == ReasonCode::Success);
            }
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return false,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// Any connection without CONNECT.
    pub(crate) fn raw_over(stream: impl Wire + 'static, version: Version) -> Self {
        Self { stream: Box::new(stream), buffer: BytesMut::new(), version }
    }

    pub(crate) fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        codec::encode(packet, self.version, &mut out).unwrap();
        self.send_bytes(&out);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet.
    pub(crate) fn receive(&mut self) -> Packet {
        self.next().expect("the broker closed the connection")
    }

    /// The next packet; `None` when the broker has closed.
    pub(crate) fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = codec::decode(&mut self.buffer, self.version, &Limits::default()).unwrap() {
                return Some(packet);
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return None;
                }
                Err(error) => panic!("nothing came in time: {error}"),
            }
        }
    }

    /// The next packet, which is a message; acknowledged as its QoS asks.
    pub(crate) fn receive_message(&mut self) -> Publish {
        let Packet::Publish(publish) = self.receive() else { panic!("not a PUBLISH") };
        let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: None };
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::PubAck(ack(id))),
            (QoS::ExactlyOnce, Some(id)) => {
                self.send(&Packet::PubRec(ack(id)));
                assert_eq!(self.receive(), Packet::PubRel(ack(id)));
                self.send(&Packet::PubComp(ack(id)));
            }
            _ => {}
        }
        publish
    }

    /// Topic and payload of the next message.
    pub(crate) fn message(&mut self) -> (String, String) {
        let publish = self.receive_message();
        (publish.topic.to_string(), String::from_utf8(publish.payload.to_vec()).unwrap())
    }

    /// Nothing is on its way to this client. The first answer may overtake what was there; the second comes after it.
    pub(crate) fn expect_nothing(&mut self) {
        for _ in 0..2 {
            self.send(&Packet::PingReq);
            assert_eq!(self.receive(), Packet::PingResp);
        }
    }

    /// The payloads of `count` messages and of all that is on its way behind them, acknowledged as their QoS asks.
    pub(crate) fn drain_at_least(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::new();
        while payloads.len() < count {
            assert!(!self.take_in(&mut payloads), "nobody has asked");
        }
        // As with `expect_nothing`: the first answer may overtake what was there.
        for _ in 0..2 {
            self.send(&Packet::PingReq);
            while !self.take_in(&mut payloads) {}
        }
        payloads
    }

    /// Whether the next packet is the answer to a PINGREQ; otherwise it is of a message, whose payload is added.
    fn take_in(&mut self, payloads: &mut Vec<String>) -> bool {
        let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: None };
        match self.receive() {
            Packet::PingResp => return true,
            Packet::PubRel(rel) => self.send(&Packet::PubComp(ack(rel.packet_id))),
            Packet::Publish(publish) => {
                payloads.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::PubAck(ack(id))),
                    (QoS::ExactlyOnce, Some(id)) => self.send(&Packet::PubRec(ack(id))),
                    _ => {}
                }
            }
            other => panic!("not a message: {other:?}"),
        }
        false
    }

    /// The broker closes with `reason`, then the connection ends.
    pub(crate) fn expect_disconnect(&mut self, reason: ReasonCode) {
        match self.next() {
            Some(Packet::Disconnect(Disconnect { reason: got, .. })) => assert_eq!(got, reason),
            other => panic!("no DISCONNECT with {reason:?}: {other:?}"),
        }
        assert_eq!(self.next(), None);
    }

    pub(crate) fn subscribe(&mut self, filter: &str, options: SubscriptionOptions) -> ReasonCode {
        self.subscribe_with(filter, options, SubscribeProperties::default())
    }

    pub(crate) fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        properties: SubscribeProperties,
    ) -> ReasonCode {
        let filter = TopicFilter::new(text(filter)).unwrap();
        let filters = vec![SubscribeFilter { filter, options }];
        self.send(&Packet::Subscribe(Subscribe { packet_id: id(1), filters, properties }));
        match self.receive() {
            Packet::SubAck(suback) => suback.reasons[0],
            other => panic!("no SUBACK: {other:?}"),
        }
    }

    pub(crate) fn subscribe_at(&mut self, filter: &str, qos: QoS) {
        let reason = self.subscribe(filter, SubscriptionOptions { qos, ..SubscriptionOptions::default() });
        assert!(!reason.is_error(), "{reason:?}");
    }

    /// Publishes at `qos` and waits until the broker has taken it.
    pub(crate) fn publish(&mut self, publish: Publish, qos: QoS) -> ReasonCode {
        let packet_id = (qos > QoS::AtMostOnce).then(|| id(100));
        self.send(&Packet::Publish(Publish { qos, packet_id, ..publish }));
        match qos {
            QoS::AtMostOnce => {
                self.expect_nothing();
                ReasonCode::Success
            }
            QoS::AtLeastOnce => match self.receive() {
                Packet::PubAck(ack) => ack.reason,
                other => panic!("no PUBACK: {other:?}"),
            },
            QoS::ExactlyOnce => {
                let Packet::PubRec(ack) = self.receive() else { panic!("no PUBREC") };
                if ack.reason.is_error() {
                    return ack.reason;
                }
                self.send(&Packet::PubRel(Ack { reason: ReasonCode::Success, properties: None, ..ack }));
                assert!(matches!(self.receive(), Packet::PubComp(_)));
                ReasonCode::Success
            }
        }
    }

    pub(crate) fn disconnect(mut self, reason: ReasonCode) {
        self.send(&Packet::Disconnect(Disconnect { reason, properties: None }));
        assert_eq!(self.next(), None);
    }

    /// The other end of the connection vanishes.
    pub(crate) fn vanish(self) {
        drop(self);
    }
}
