//! Bytes between a relay and its two ends.

use std::io;

use bytes::{Buf as _, BytesMut};
use evermq_mqtt::codec::{self, DecodeError, Sender};
use evermq_mqtt::packet::Disconnect;
use evermq_mqtt::{Packet, ReasonCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

/// Bytes that may wait for one end before the other is read no further.
const MAX_UNSENT: usize = 256 * 1024;
/// Room that is made before reading.
const CHUNK: usize = 64 * 1024;

/// One end: what it has sent and what it is to get.
pub(super) struct End<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    version: Version,
    input: BytesMut,
    output: BytesMut,
    unflushed: bool,
}

/// Why an end is gone.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    #[error("the connection has ended")]
    Closed,
    #[error("the connection is lost: {0}")]
    Io(#[from] io::Error),
    #[error("what came is no MQTT: {0}")]
    Malformed(#[from] DecodeError),
}

impl<S: AsyncRead + AsyncWrite> End<S> {
    pub(super) fn new(stream: S, version: Version, unread: BytesMut) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader, writer, version, input: unread, output: BytesMut::new(), unflushed: false }
    }

    /// Whether so much waits for it that the other end is to be read no further.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= MAX_UNSENT
    }

    pub(super) fn is_idle(&self) -> bool {
        self.output.is_empty() && !self.unflushed
    }

    /// The next whole packet of what has been read.
    pub(super) fn next(&mut self) -> Result<Option<Packet>, EndError> {
        let packet = codec::decode(&mut self.input, self.version, &codec::Limits::default())?;
        if let Some(packet) = &packet {
            codec::check_sender(packet, Sender::Server)?;
        }
        Ok(packet)
    }

    /// Reads some if it `reads`, or writes some if it `writes`, whichever goes first. Nothing is lost if it is dropped.
    pub(super) async fn step(&mut self, reads: bool, writes: bool) -> Result<(), EndError> {
        let Self { reader, writer, input, output, unflushed, .. } = self;
        tokio::select! {
            read = async { input.reserve(CHUNK); reader.read_buf(input).await }, if reads => {
                if read? == 0 { Err(EndError::Closed) } else { Ok(()) }
            }
            written = write(writer, output, unflushed), if writes => written,
            else => std::future::pending().await,
        }
    }

    /// Appends a packet to what is to be written. One that cannot be said is left out, which is logged.
    pub(super) fn push(&mut self, packet: &Packet) {
        if let Err(error) = codec::encode(packet, self.version, &mut self.output) {
            tracing::warn!(packet = %codec::packet_type(packet), %error, "a bridge cannot write a packet");
        }
    }

    /// Says goodbye and writes all that is left.
    pub(super) async fn close(&mut self) -> Result<(), EndError> {
        self.push(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None }));
        while !self.is_idle() {
            write(&mut self.writer, &mut self.output, &mut self.unflushed).await?;
        }
        Ok(self.writer.shutdown().await?)
    }
}

async fn write<S>(writer: &mut WriteHalf<S>, output: &mut BytesMut, unflushed: &mut bool) -> Result<(), EndError>
where
    S: AsyncRead + AsyncWrite,
{
    if output.is_empty() {
        writer.flush().await?;
        *unflushed = false;
        return Ok(());
    }
    let written = writer.write(output).await?;
    if written == 0 {
        return Err(EndError::Closed);
    }
    output.advance(written);
    *unflushed = true;
    Ok(())
}
