//! One MQTT 3.1.1 connection over TCP or TLS.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::packet::{
    Connect, Packet, PacketId, Publish, QoS, Subscribe, SubscribeFilter, SubscriptionOptions, Version,
};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties};
use evermq_mqtt::{ReasonCode, Text, TopicFilter, TopicName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use crate::tls::{Connector, server_name};

const VERSION: Version = Version::V4;
/// Room that a read asks for.
const READ_SIZE: usize = 64 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The receiving half.
pub(crate) struct Receiver {
    stream: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

/// The sending half.
pub(crate) struct Sender {
    stream: WriteHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

/// Connects and waits for CONNACK.
pub(crate) async fn connect(
    address: SocketAddr,
    tls: &Connector,
    client_id: &str,
) -> anyhow::Result<(Sender, Receiver)> {
    let tcp = TcpStream::connect(address).await.context("connect")?;
    tcp.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        Some(connector) => Box::new(connector.connect(server_name(address), tcp).await.context("TLS")?),
        None => Box::new(tcp),
    };
    let (read, write) = tokio::io::split(stream);
    let mut sender = Sender { stream: write, buffer: BytesMut::new() };
    let mut receiver = Receiver { stream: read, buffer: BytesMut::new() };
    sender.put(&Packet::Connect(Box::new(Connect {
        version: VERSION,
        clean_start: true,
        keep_alive: 60,
        client_id: Text::new(client_id)?,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
        is_bridge: false,
    })))?;
    sender.flush().await?;
    match receiver.next().await? {
        Some(Packet::ConnAck(ack)) if ack.reason == ReasonCode::Success => Ok((sender, receiver)),
        other => anyhow::bail!("no CONNACK but {other:?}"),
    }
}

impl Receiver {
    /// The next packet; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Packet>> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(Some(packet));
            }
            self.buffer.reserve(READ_SIZE);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next packet of those that have been read already.
    pub(crate) fn buffered(&mut self) -> anyhow::Result<Option<Packet>> {
        Ok(codec::decode(&mut self.buffer, VERSION, &Limits::default())?)
    }
}

impl Sender {
    /// Appends a packet to what the next flush sends.
    pub(crate) fn put(&mut self, packet: &Packet) -> anyhow::Result<()> {
        Ok(codec::encode(packet, VERSION, &mut self.buffer)?)
    }

    pub(crate) fn pending(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all_buf(&mut self.buffer).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

/// A packet identifier for any number: 1 to 65,535, in turn.
pub(crate) fn packet_id(number: u64) -> PacketId {
    let id = u16::try_from(number % u64::from(u16::MAX)).unwrap_or(0) + 1;
    PacketId(NonZeroU16::new(id).expect("at least 1"))
}

pub(crate) fn publish(topic: &TopicName, qos: QoS, id: PacketId, payload: Bytes) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.clone(),
        packet_id: (qos != QoS::AtMostOnce).then_some(id),
        properties: None,
        payload,
    })
}

pub(crate) fn subscribe(filter: &str, qos: QoS) -> anyhow::Result<Packet> {
    Ok(Packet::Subscribe(Subscribe {
        packet_id: packet_id(0),
        filters: vec![SubscribeFilter {
            filter: TopicFilter::new(Text::new(filter)?)?,
            options: SubscriptionOptions { qos, ..SubscriptionOptions::default() },
        }],
        properties: SubscribeProperties::default(),
    }))
}
