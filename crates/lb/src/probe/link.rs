//! The connection of one probe, as far as it has come.

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::health::Failure;

/// A PROXY protocol header of version 2 with command LOCAL: the connection is the lb's own (`proxy-protocol.txt` §2.2).
const LOCAL_HEADER: [u8; 16] =
    [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x20, 0x00, 0x00, 0x00];

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The connection.
pub(super) enum Link {
    Closed,
    Connecting(Boxed<TcpStream>),
    Connected(TcpStream),
    Securing(Pin<Box<tokio_rustls::Connect<TcpStream>>>),
    Open { stream: Box<dyn Stream>, input: BytesMut },
}

/// What happened on it.
pub(super) enum Event {
    Connected(io::Result<TcpStream>),
    Secured(io::Result<Box<dyn Stream>>),
    Received(io::Result<usize>),
}

impl Link {
    /// Begins a TCP connection; with a word first that it is the lb's own, where the backend expects such a word.
    pub(super) fn connecting(address: SocketAddr, proxy: bool) -> Self {
        Self::Connecting(Box::pin(async move {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let mut stream = socket?.connect(address).await?;
            stream.set_nodelay(true)?;
            if proxy {
                stream.write_all(&LOCAL_HEADER).await?;
            }
            Ok(stream)
        }))
    }

    /// Begins TLS on a TCP connection.
    pub(super) fn secure(&mut self, tls: &TlsConnector, name: ServerName<'static>) {
        if let Self::Connected(stream) = std::mem::replace(self, Self::Closed) {
            *self = Self::Securing(Box::pin(tls.connect(name, stream)));
        }
    }

    /// Takes a TCP connection as it is for MQTT, if there is no TLS on it.
    pub(super) fn open_if_plain(&mut self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Connected(stream) => Self::opened(Box::new(stream)),
            other => other,
        };
    }

    pub(super) fn opened(stream: Box<dyn Stream>) -> Self {
        Self::Open { stream, input: BytesMut::new() }
    }

    /// Closes it, in whatever state it is. TLS says so, if that can be done at once.
    pub(super) fn close(&mut self) {
        if let Self::Open { stream, .. } = self {
            let _ = Pin::new(stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
        *self = Self::Closed;
    }

    /// The next event; can be dropped and called again without loss.
    pub(super) async fn next(&mut self) -> Event {
        match self {
            Self::Closed | Self::Connected(_) => pending().await,
            Self::Connecting(connecting) => Event::Connected(connecting.await),
            Self::Securing(securing) => Event::Secured(securing.await.map(|stream| Box::new(stream) as _)),
            Self::Open { stream, input } => Event::Received(stream.read_buf(input).await),
        }
    }

    /// Writes all of it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self::Open { stream, .. } = self else { return Ok(()) };
        stream.write_all(bytes).await?;
        stream.flush().await
    }
}

/// What a TCP connection that was not made says of the backend.
pub(super) fn connect_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Failure::Refused
        }
        io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Failure::Unreachable(error.to_string())
        }
        _ => Failure::Local(error.to_string()),
    }
}

/// What a connection that ended says of the backend.
pub(super) fn session_failure(error: &io::Error) -> Failure {
    match error.kind() {
        // What rustls has to say comes as one of these.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            Failure::Rejected(error.to_string())
        }
        io::ErrorKind::TimedOut => Failure::NoAnswer,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Failure::Unreachable(error.to_string())
        }
        _ => Failure::Closed,
    }
}
