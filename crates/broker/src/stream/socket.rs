//! The kernel's end of a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::forward;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// From anywhere.
    Tcp(TcpStream),
    /// From this host.
    Unix(UnixStream),
}

impl Socket {
    /// Ready when something has come, the end included.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }
}

forward!(Socket { Tcp, Unix });

/// Writes as much of `bytes` as `writer` takes now, and gives how much that was.
pub(super) fn write_now<W: AsyncWrite + Unpin>(
    writer: &mut W,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match Pin::new(&mut *writer).poll_write(cx, rest)? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(written) => done += written,
            Poll::Pending => break,
        }
    }
    Ok(done)
}
