//! The broker's end of TLS over a socket.
//!
//! rustls' unbuffered interface: its own buffers would cost each idle connection several times what its keys do.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use evermq_daemon::cluster_topics;
use evermq_daemon::tls::{MAX_HANDSHAKE, Output, Records, TlsFault};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::Socket;
use super::socket::write_now;
use crate::listener::Stranger;

/// Bytes of records that one read may bring.
const READ: usize = 32 * 1024;
/// Plain bytes that one write takes: what of their records the socket does not take is all that waits here.
const WRITE: usize = 64 * 1024;

/// TLS with a client.
pub struct TlsStream {
    socket: Socket,
    records: Records<UnbufferedServerConnection>,
    /// The beginning of a record.
    incomplete: Box<[u8]>,
    /// Decrypted, but more than the reader had room for.
    plain: BytesMut,
    /// Records that the socket has not taken.
    unsent: BytesMut,
    handshaken: bool,
    /// The client has said that it sends nothing more.
    ended: bool,
    /// We have.
    closed: bool,
}

/// What a worker's connections share, one after the other.
struct Scratch {
    records: Box<[u8]>,
    plain: Output,
    out: Output,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        records: vec![0; MAX_HANDSHAKE + READ].into(),
        plain: Output::default(),
        out: Output::default(),
    });
    /// Whether the ClientHello that was taken in last offered [`cluster_topics::ALPN`].
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// A certificate's resolver that notes what else the client asks for: rustls shows the ClientHello nowhere else.
#[derive(Debug)]
pub struct Asked(Arc<dyn ResolvesServerCert>);

impl Asked {
    /// Resolves as `resolver` does.
    #[must_use]
    pub fn wrap(resolver: Arc<dyn ResolvesServerCert>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Self(resolver))
    }
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.alpn().is_some_and(|mut names| names.any(|name| name == cluster_topics::ALPN)));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// The handshake, each of its steps when it is the stranger's turn; and whether the client says in it that it is an lb that
    /// speaks for itself. Dropped, it ends the connection.
    ///
    /// # Errors
    /// The other side is no client with a good certificate. It has been told so, as far as it reads.
    pub async fn accept(
        socket: Socket,
        config: Arc<ServerConfig>,
        stranger: &Stranger,
    ) -> io::Result<(Box<Self>, bool)> {
        let connection = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let mut stream = Box::new(Self {
            socket,
            records: Records::new(connection),
            incomplete: Box::default(),
            plain: BytesMut::new(),
            unsent: BytesMut::new(),
            handshaken: false,
            ended: false,
            closed: false,
        });
        let mut for_itself = false;
        while !stream.handshaken {
            stream.socket.readable().await?;
            let turn = stranger.turn().await;
            ASKED.set(false);
            let received = std::future::poll_fn(|cx| Poll::Ready(stream.poll_receive(cx, None))).await;
            for_itself |= ASKED.get();
            turn.end().await;
            match received {
                Poll::Pending => {}
                Poll::Ready(Ok(())) if stream.ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        stream.flush().await?;
        Ok((stream, for_itself))
    }

    /// What the client has shown, its own certificate first.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.records.tls().peer_certificates()
    }

    /// What was agreed on.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.records.tls().protocol_version()
    }

    /// Reads from the socket once. What it brings goes to `buf`, and where that is full, to `self.plain`.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: Option<&mut ReadBuf<'_>>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { records, plain, out } = scratch;
            let kept = self.incomplete.len();
            records[..kept].copy_from_slice(&self.incomplete);
            let mut read = ReadBuf::new(&mut records[kept..kept + READ]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            let come = read.filled().len();
            if come == 0 {
                // RFC 8446 §6.1: without a close_notify it may have been cut off by anybody.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let bytes = &mut records[..kept + come];
            plain.clear();
            out.clear();
            let received = self.records.receive(bytes, plain, out);
            self.send_now(cx, out)?;
            let received = received.map_err(invalid)?;
            self.incomplete = Box::from(&bytes[received.consumed..]);
            self.handshaken = received.handshaken;
            self.ended = received.closed;
            let mut rest = plain.as_slice();
            if let Some(buf) = buf {
                let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
                buf.put_slice(now);
                rest = later;
            }
            self.plain.extend_from_slice(rest);
            Poll::Ready(Ok(()))
        })
    }

    /// Writes records behind those that wait; what the socket does not take waits with them.
    fn send_now(&mut self, cx: &mut Context<'_>, out: &Output) -> io::Result<()> {
        let mut rest = out.as_slice();
        if self.unsent.is_empty() {
            let done = write_now(&mut self.socket, cx, rest)?;
            rest = rest.get(done..).unwrap_or_default();
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let done = write_now(&mut self.socket, cx, &self.unsent)?;
        self.unsent.advance(done);
        if self.unsent.is_empty() {
            self.unsent = BytesMut::new();
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // An answer of TLS itself may wait, and nobody may have anything to write.
        let _ = this.poll_unsent(cx)?;
        let before = buf.filled().len();
        loop {
            if !this.plain.is_empty() {
                let now = this.plain.len().min(buf.remaining());
                buf.put_slice(&this.plain[..now]);
                this.plain.advance(now);
                if this.plain.is_empty() {
                    this.plain = BytesMut::new();
                }
            }
            if buf.filled().len() > before || buf.remaining() == 0 || this.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_receive(cx, Some(&mut *buf)))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(cx))?;
        let now = &bytes[..bytes.len().min(WRITE)];
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.out.clear();
            this.records.send(now, &mut scratch.out).map_err(invalid)?;
            this.send_now(cx, &scratch.out)
        })?;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_unsent(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.closed, true) {
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.out.clear();
                this.records.close(&mut scratch.out);
                this.send_now(cx, &scratch.out)
            })?;
        }
        ready!(this.poll_unsent(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

fn invalid(error: impl Into<TlsFault>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.into())
}
