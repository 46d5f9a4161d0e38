//! Packets in and out over an open stream, and keep alive.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use evermq_mqtt::codec::{Limits, Sender, check_sender, decode, encode, encoded_len, packet_type};
use evermq_mqtt::packet::{Connect, Disconnect};
use evermq_mqtt::{Packet, ReasonCode, TopicFilter, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::Voice;
use super::failure::Failure;

/// Room for one read.
const READ_SIZE: usize = 16 * 1024;
/// Bytes waiting to be written above which a publisher waits: enough to fill the pipe, little enough to lose at QoS 0.
const WRITE_MARK: usize = 64 * 1024;
/// A server that has not answered a ping for so long is gone, however long the keep alive is.
const PONG_LIMIT: Duration = Duration::from_secs(10);
/// How long a closing connection waits for the other side to close too.
const LINGER: Duration = Duration::from_secs(1);

/// A plain or a TLS stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An MQTT connection.
pub(super) struct Connection {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    version: Version,
    limits: Limits,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Bytes were written that TLS may still hold.
    is_unflushed: bool,
    /// The largest packet that the server takes.
    maximum_packet_size: Option<u32>,
    keep_alive: Option<Duration>,
    last_sent: Instant,
    /// When the answer to the last ping is overdue.
    pong_due: Option<Instant>,
    voice: Voice,
}

impl Connection {
    /// A connection over `stream` as `connect` asks for it: its version, and the largest packet that is taken.
    pub(super) fn new(stream: Box<dyn Stream>, connect: &Connect, voice: Voice) -> Self {
        let default = Limits::default();
        let max_packet_size = connect.properties.maximum_packet_size.unwrap_or(default.max_packet_size);
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            version: connect.version,
            limits: Limits { max_packet_size },
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            is_unflushed: false,
            maximum_packet_size: None,
            keep_alive: None,
            last_sent: Instant::now(),
            pong_due: None,
            voice,
        }
    }

    /// Takes what the CONNACK says about the connection; pings from now on.
    pub(super) fn start(&mut self, keep_alive: u16, maximum_packet_size: Option<u32>) {
        self.keep_alive = (keep_alive > 0).then(|| Duration::from_secs(keep_alive.into()));
        self.maximum_packet_size = maximum_packet_size;
    }

    /// Queues a packet; [`Connection::next`] writes it.
    pub(super) fn send(&mut self, packet: &Packet) -> Result<(), Failure> {
        let size = encoded_len(packet, self.version);
        if let Some(limit) = self.maximum_packet_size.filter(|limit| size > *limit as usize) {
            return Err(Failure::TooLarge { size, limit });
        }
        encode(packet, self.version, &mut self.outgoing)?;
        self.is_unflushed = true;
        self.last_sent = Instant::now();
        self.voice.trace(|| format!("-> {}", describe(packet)));
        Ok(())
    }

    /// Whether more should be queued now.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < WRITE_MARK
    }

    /// Whether all that was queued is on its way.
    pub(super) fn is_flushed(&self) -> bool {
        !self.is_unflushed
    }

    /// The next packet from the server, pings aside; writes what is queued meanwhile. Cancel-safe.
    ///
    /// Returns `None` each time that all that was queued has been written.
    pub(super) async fn next(&mut self) -> Result<Option<Packet>, Failure> {
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(Some(packet));
            }
            let timer = self.timer();
            let sleep = async {
                match timer {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            self.incoming.reserve(READ_SIZE);
            tokio::select! {
                read = self.reader.read_buf(&mut self.incoming) => {
                    if read.map_err(Failure::Lost)? == 0 {
                        return Err(Failure::Closed);
                    }
                }
                written = write_some(&mut self.writer, &mut self.outgoing), if self.is_unflushed => {
                    if written.map_err(Failure::Lost)? {
                        self.is_unflushed = false;
                        return Ok(None);
                    }
                }
                () = sleep => self.handle_timeout()?,
            }
        }
    }

    fn take_packet(&mut self) -> Result<Option<Packet>, Failure> {
        while let Some(packet) = decode(&mut self.incoming, self.version, &self.limits)? {
            self.voice.trace(|| format!("<- {}", describe(&packet)));
            check_sender(&packet, Sender::Server)?;
            match packet {
                Packet::PingResp => self.pong_due = None,
                Packet::Disconnect(disconnect) => {
                    let text = disconnect.properties.and_then(|properties| properties.reason_string);
                    let text = text.map(|text| text.to_string());
                    return Err(Failure::Disconnected { reason: disconnect.reason, text });
                }
                packet => return Ok(Some(packet)),
            }
        }
        Ok(None)
    }

    fn timer(&self) -> Option<Instant> {
        self.pong_due.or_else(|| self.keep_alive.map(|keep_alive| self.last_sent + keep_alive))
    }

    /// [MQTT-3.1.2-20]: nothing was sent for the keep alive, or a ping has not been answered.
    fn handle_timeout(&mut self) -> Result<(), Failure> {
        let wait = self.keep_alive.unwrap_or(PONG_LIMIT).min(PONG_LIMIT);
        if self.pong_due.is_some() {
            return Err(Failure::PingTimeout(wait.as_secs_f32()));
        }
        self.pong_due = Some(Instant::now() + wait);
        self.send(&Packet::PingReq)
    }

    /// The bytes that have come, for the judgement of a server that does not speak MQTT.
    pub(super) fn incoming(&self) -> &[u8] {
        &self.incoming
    }

    /// Says goodbye, and waits a moment until the server has read it.
    pub(super) async fn close(mut self, disconnect: Disconnect) {
        if self.send(&Packet::Disconnect(disconnect)).is_err() {
            return;
        }
        let farewell = async {
            while self.is_unflushed {
                if write_some(&mut self.writer, &mut self.outgoing).await? {
                    self.is_unflushed = false;
                }
            }
            self.writer.shutdown().await?;
            // A reset would discard what the server has not read yet.
            while self.reader.read_buf(&mut self.incoming).await? > 0 {
                self.incoming.clear();
            }
            io::Result::Ok(())
        };
        // Whether the server heard it changes nothing any more.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}

/// Writes a part of `outgoing`; true when nothing is left, not even in TLS. Cancel-safe.
async fn write_some(writer: &mut WriteHalf<Box<dyn Stream>>, outgoing: &mut BytesMut) -> io::Result<bool> {
    if outgoing.is_empty() {
        writer.flush().await?;
        return Ok(true);
    }
    match writer.write_buf(outgoing).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(false),
    }
}

fn describe(packet: &Packet) -> String {
    let name = packet_type(packet);
    match packet {
        Packet::Connect(connect) => format!("{name} as {}", connect.client_id),
        Packet::ConnAck(connack) => {
            format!("{name} {}, session present {}", connack.reason.name(), connack.session_present)
        }
        Packet::Publish(publish) => format!(
            "{name} {} ({} bytes), QoS {}{}{}{}",
            publish.topic,
            publish.payload.len(),
            publish.qos as u8,
            if publish.retain { ", retained" } else { "" },
            if publish.dup { ", again" } else { "" },
            publish.packet_id.map(|id| format!(", id {}", id.0)).unwrap_or_default(),
        ),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            let outcome = if ack.reason == ReasonCode::Success { "" } else { ack.reason.name() };
            format!("{name} id {} {outcome}", ack.packet_id.0).trim_end().to_owned()
        }
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.iter().map(|filter| filter.filter.as_str()).collect::<Vec<_>>();
            format!("{name} {}", filters.join(", "))
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters = unsubscribe.filters.iter().map(TopicFilter::as_str).collect::<Vec<_>>();
            format!("{name} {}", filters.join(", "))
        }
        Packet::SubAck(suback) => format!("{name} {:?}", suback.reasons),
        Packet::UnsubAck(unsuback) => format!("{name} {:?}", unsuback.reasons),
        Packet::PingReq | Packet::PingResp => name.to_string(),
        Packet::Disconnect(disconnect) => format!("{name} {}", disconnect.reason.name()),
        Packet::Auth(auth) => format!("{name} {}", auth.reason.name()),
    }
}
