//! One connection to a peer: bytes in, bytes out, at the same time.
//!
//! Reading never waits for writing: two brokers that both wait until the other one reads would wait for ever.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::frame::{self, Frame, FrameError};

/// Least room for one read: several TLS records.
const READ_ROOM: usize = 64 * 1024;
/// A buffer that grew beyond this is let go.
const KEPT_BUFFER: usize = 1024 * 1024;
/// For the last word on a connection that is to be closed.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(250);

/// A connection and what is to be sent on it.
pub(crate) struct Wire<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    input: BytesMut,
    output: BytesMut,
    /// Whether one of the buffers has grown for a large message.
    large: bool,
    /// Whether TLS may still hold bytes that were written.
    unflushed: bool,
    /// Reading pauses while more than this waits to be sent.
    output_limit: usize,
    traffic: Traffic,
}

/// Bytes that have crossed a connection, before TLS.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// What has happened on a connection.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Bytes have come: see [`Wire::next_frame`].
    Received,
    /// Everything is sent: there is room for more.
    Sent,
    /// The connection is at an end.
    Ended(io::Error),
}

impl<S: AsyncRead + AsyncWrite> Wire<S> {
    /// Takes a connection. Reading pauses while more than `output_limit` bytes wait to be sent, so that a peer that only
    /// sends cannot make this side hoard answers.
    pub(crate) fn new(stream: S, output_limit: usize) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            input: BytesMut::new(),
            output: BytesMut::new(),
            large: false,
            unflushed: false,
            output_limit,
            traffic: Traffic::default(),
        }
    }

    /// Where frames to be sent are appended.
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The next whole frame that has come.
    ///
    /// # Errors
    /// What has come is no frame.
    pub(crate) fn next_frame(&mut self, max_body: u32) -> Result<Option<Frame>, FrameError> {
        frame::decode(&mut self.input, max_body)
    }

    /// What has crossed it since this was asked last.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Waits until something happens. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> Progress {
        self.progress_if(true).await
    }

    /// The same, without reading unless that is wanted. Cancel-safe.
    pub(crate) async fn progress_if(&mut self, reading: bool) -> Progress {
        self.shrink();
        let Self { reader, writer, input, output, unflushed, output_limit, traffic, .. } = self;
        let Traffic { received: bytes_in, sent: bytes_out } = traffic;
        let has_output = *unflushed || !output.is_empty();
        let may_read = reading && output.len() <= *output_limit;
        tokio::select! {
            received = receive(reader, input), if may_read => match received {
                Ok(0) => Progress::Ended(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    *bytes_in += count as u64;
                    Progress::Received
                }
                Err(error) => Progress::Ended(error),
            },
            sent = send(writer, output, unflushed, bytes_out), if has_output => match sent {
                Ok(()) => Progress::Sent,
                Err(error) => Progress::Ended(error),
            },
            else => std::future::pending().await,
        }
    }

    /// Lets the memory of a large message go, once that is through.
    fn shrink(&mut self) {
        self.large |= self.output.len() > KEPT_BUFFER || frame::missing(&self.input) > KEPT_BUFFER;
        if self.large && self.output.is_empty() && self.input.is_empty() {
            self.output = BytesMut::new();
            self.input = BytesMut::new();
            self.large = false;
        }
    }

    /// Sends what is left, says goodbye in TLS and TCP, and closes; gives up after a moment.
    pub(crate) async fn finish(mut self) {
        let goodbye = async {
            send(&mut self.writer, &mut self.output, &mut self.unflushed, &mut self.traffic.sent).await?;
            self.writer.shutdown().await
        };
        // Whether the last word arrives or not, the connection is at an end.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}

async fn receive<R: AsyncRead + Unpin>(reader: &mut R, input: &mut BytesMut) -> io::Result<usize> {
    if input.capacity() - input.len() < READ_ROOM / 2 {
        // The length is within the limit: a header beyond it has already ended the connection.
        input.reserve(READ_ROOM.max(frame::missing(input)));
    }
    reader.read_buf(input).await
}

async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    output: &mut BytesMut,
    unflushed: &mut bool,
    bytes: &mut u64,
) -> io::Result<()> {
    while output.has_remaining() {
        *unflushed = true;
        let written = writer.write_buf(output).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *bytes += written as u64;
    }
    writer.flush().await?;
    *unflushed = false;
    Ok(())
}
