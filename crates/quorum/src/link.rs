//! The UDP socket of the heartbeat.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::message::LENGTH;

/// Class selector 6, as routing protocols have (RFC 4594 §3.2).
const TOS_CS6: u32 = 0xc0;
/// The highest queue priority that needs no capability (TC_PRIO_INTERACTIVE).
const PRIORITY_INTERACTIVE: u32 = 6;

/// Room for one datagram and a byte, by which a longer one shows.
pub(crate) type Buffer = [u8; LENGTH + 1];

/// The socket: nonblocking, bound to this host's address.
#[derive(Debug)]
pub(crate) struct Link(UdpSocket);

impl Link {
    /// Binds `address`.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&address.into())?;
        Self::adopt(socket.into())
    }

    /// A socket that is bound already.
    pub(crate) fn adopt(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // A network or a container that refuses these carries heartbeats all the same.
        let options = SockRef::from(&socket);
        let _ = options.set_priority(PRIORITY_INTERACTIVE);
        let _ = options.set_tos_v4(TOS_CS6);
        Ok(Self(socket))
    }

    /// The next datagram that waits; none when there is no more.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut Buffer) -> io::Result<Option<&'a [u8]>> {
        match self.0.recv(buffer) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends without waiting; a full queue is an error, and what was to be said is said again later anyway.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(bytes, to).map(|_| ())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
