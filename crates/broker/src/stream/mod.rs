//! What carries MQTT: TCP or a Unix socket, TLS over it, WebSocket over either.
//!
//! One type for all of them, so that the code of a connection exists once. An idle one holds no buffer: what is read, decrypted
//! and framed lies in the buffers of the worker's thread, and only the rest of it that nobody could take yet stays here.

mod socket;
mod tls;
mod websocket;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::socket::Socket;
pub use self::tls::{Asked, TlsStream};
pub use self::websocket::{UpgradeError, WebSocketStream};

/// The other side's bytes, as MQTT has them.
#[derive(Debug)]
pub enum Stream {
    /// As they are.
    Plain(Socket),
    /// Within TLS.
    Tls(Box<TlsStream>),
    /// Within WebSocket, within TLS or not.
    WebSocket(Box<WebSocketStream>),
}

/// Below WebSocket.
#[derive(Debug)]
pub enum Transport {
    /// As they are.
    Plain(Socket),
    /// Within TLS.
    Tls(Box<TlsStream>),
}

impl From<Transport> for Stream {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Plain(socket) => Self::Plain(socket),
            Transport::Tls(tls) => Self::Tls(tls),
        }
    }
}

/// Calls the same method of whichever it is.
macro_rules! forward {
    ($type:ty { $($variant:ident),+ }) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(inner) => Pin::new(inner).poll_read(cx, buf),)+
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(inner) => Pin::new(inner).poll_write(cx, bytes),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(inner) => Pin::new(inner).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(inner) => Pin::new(inner).poll_shutdown(cx),)+
                }
            }
        }
    };
}
use forward;

forward!(Stream { Plain, Tls, WebSocket });
forward!(Transport { Plain, Tls });
