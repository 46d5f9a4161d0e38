//! WebSocket over a socket or TLS: bytes of MQTT in and out, frames below.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Transport;
use super::socket::write_now;
use crate::websocket::frames::{self, Decoder, Said};
use crate::websocket::upgrade::{self, Upgrade};

/// Bytes of one frame to a client.
const WRITE: usize = 64 * 1024;
/// Pongs that may wait; beyond, a ping goes unanswered (RFC 6455 §5.5.3 asks for the latest one's only).
const MAX_PONGS: usize = 1024;
/// Room of the request to begin with.
const FIRST_READ: usize = 1024;

/// MQTT in binary frames.
#[derive(Debug)]
pub struct WebSocketStream {
    transport: Transport,
    decoder: Decoder,
    /// Frames, or what came behind the request.
    unread: BytesMut,
    /// Frames that the transport has not taken.
    unsent: BytesMut,
    /// A Close has been sent.
    closed: bool,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a client does not get through the upgrade.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The transport failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended before.
    #[error("connection ended in the WebSocket upgrade")]
    Ended,
    /// It does not ask for MQTT over WebSocket.
    #[error("{0}")]
    Refused(&'static str),
}

impl WebSocketStream {
    /// Waits for the HTTP request and answers it.
    ///
    /// # Errors
    /// It is not what it should be; the client has been told.
    pub async fn accept(mut transport: Transport) -> Result<Box<Self>, UpgradeError> {
        let mut bytes = BytesMut::with_capacity(FIRST_READ);
        loop {
            if transport.read_buf(&mut bytes).await? == 0 {
                return Err(UpgradeError::Ended);
            }
            match upgrade::judge(&bytes) {
                // It grows with what has come, up to what a request may have.
                Upgrade::NeedMore => bytes.reserve(bytes.len()),
                Upgrade::Refused { response, reason } => {
                    transport.write_all(&response).await?;
                    transport.shutdown().await?;
                    return Err(UpgradeError::Refused(reason));
                }
                Upgrade::Accepted { consumed, response } => {
                    transport.write_all(&response).await?;
                    transport.flush().await?;
                    let unread = BytesMut::from(&bytes[consumed..]);
                    return Ok(Box::new(Self {
                        transport,
                        decoder: Decoder::default(),
                        unread,
                        unsent: BytesMut::new(),
                        closed: false,
                    }));
                }
            }
        }
    }

    /// What [`frames::Decoder`] makes of raw bytes at `from..` of `buf`.
    fn decode(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, from: usize) -> io::Result<()> {
        let mut said = Vec::new();
        let decoded = self.decoder.decode(&mut buf.filled_mut()[from..], &mut said);
        for said in said {
            match said {
                Said::Ping(payload) if self.unsent.len() < MAX_PONGS => {
                    self.send(cx, OpCode::Control(Control::Pong), &payload)?;
                }
                Said::Ping(_) => {}
                Said::Close(code) => self.close(cx, code)?,
            }
        }
        match decoded {
            Ok(count) => {
                buf.set_filled(from + count);
                Ok(())
            }
            Err(violation) => {
                buf.set_filled(from);
                self.close(cx, violation.code())?;
                Err(io::Error::new(io::ErrorKind::InvalidData, violation))
            }
        }
    }

    /// RFC 6455 §5.5.1: the last frame.
    fn close(&mut self, cx: &mut Context<'_>, code: CloseCode) -> io::Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.send(cx, OpCode::Control(Control::Close), &u16::from(code).to_be_bytes())
    }

    /// Writes a frame behind those that wait; what the transport does not take waits with them.
    fn send(&mut self, cx: &mut Context<'_>, opcode: OpCode, payload: &[u8]) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            frames::encode(opcode, payload, scratch);
            let mut rest = scratch.as_slice();
            if self.unsent.is_empty() {
                let done = write_now(&mut self.transport, cx, rest)?;
                rest = rest.get(done..).unwrap_or_default();
            }
            self.unsent.extend_from_slice(rest);
            io::Result::Ok(())
        })?;
        // TLS may hold on to it otherwise.
        let _ = Pin::new(&mut self.transport).poll_flush(cx)?;
        Ok(())
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let done = write_now(&mut self.transport, cx, &self.unsent)?;
        self.unsent.advance(done);
        if self.unsent.is_empty() {
            self.unsent = BytesMut::new();
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl AsyncRead for WebSocketStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A Pong may wait, and nobody may have anything to write.
        let _ = this.poll_unsent(cx)?;
        if this.decoder.is_closed() || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let from = buf.filled().len();
        if this.unread.is_empty() {
            // Into the reader's own buffer, where frames are taken apart.
            ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
            if buf.filled().len() == from {
                return Poll::Ready(Ok(()));
            }
        } else {
            let count = this.unread.len().min(buf.remaining());
            buf.put_slice(&this.unread[..count]);
            this.unread.advance(count);
            if this.unread.is_empty() {
                this.unread = BytesMut::new();
            }
        }
        this.decode(cx, buf, from)?;
        if buf.filled().len() == from && !this.decoder.is_closed() {
            // Headers and control frames only. Others have their turn before more of them.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocketStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(cx))?;
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let now = &bytes[..bytes.len().min(WRITE)];
        this.send(cx, OpCode::Data(Data::Binary), now)?;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(cx))?;
        Pin::new(&mut this.transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close(cx, CloseCode::Normal)?;
        ready!(this.poll_unsent(cx))?;
        Pin::new(&mut this.transport).poll_shutdown(cx)
    }
}
