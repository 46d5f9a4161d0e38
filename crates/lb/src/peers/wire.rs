//! One connection between two lbs: frames in, bytes out.

use std::io;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::DEAD_AFTER;
use super::frame::{self, Frame, FrameError};

/// For one read.
const ROOM: usize = frame::HEADER + frame::MAX_BODY;
/// For the last word on a connection that is to be closed.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(250);

/// A connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    input: BytesMut,
}

/// Why a connection is at an end, or was never one.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the other side has closed the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("no sign of life for {} s", DEAD_AFTER.as_secs())]
    Silent,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// The next frame. Cancel-safe: what has come is kept.
    ///
    /// # Errors
    /// The connection is at an end, or something else than frames has come.
    pub(super) async fn receive(&mut self) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = frame::decode(&mut self.input)? {
                return Ok(frame);
            }
            // Less than one frame waits here, so the buffer stays as small as two.
            self.input.reserve(ROOM);
            if self.stream.read_buf(&mut (&mut self.input).limit(ROOM)).await.map_err(closed)? == 0 {
                return Err(WireError::Closed);
            }
        }
    }

    /// Sends. Not to be cancelled, unless the connection is dropped as well.
    ///
    /// # Errors
    /// The connection is at an end, or the other side does not take it.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let send = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(DEAD_AFTER, send).await {
            Ok(sent) => Ok(sent.map_err(closed)?),
            Err(_) => Err(WireError::Silent),
        }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// See [`Wire::send`].
    pub(super) async fn send_frame(&mut self, frame: &Frame) -> Result<(), WireError> {
        let mut output = BytesMut::new();
        frame::encode(frame, &mut output);
        self.send(&output).await
    }

    /// Says goodbye in TLS and TCP; gives up after a moment.
    pub(super) async fn finish(mut self) {
        // Whether the last word arrives or not, the connection is at an end.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.stream.shutdown()).await;
    }
}

/// A peer that was killed ends TCP without a word of TLS: that is an end like another.
fn closed(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Closed,
        _ => WireError::Io(error),
    }
}
