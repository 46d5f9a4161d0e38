//! Sockets that send whole packets, with the VIP as source. With protocol 255 they receive nothing (raw(7)).

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::tickle::{self, Connection, LONGEST, Stale};

/// For one burst at the highest rate.
const SEND_BUFFER: usize = 4 * 1024 * 1024;

/// One socket for each family.
#[derive(Debug)]
pub(super) struct RawSockets {
    v4: Socket,
    v6: Option<Socket>,
}

impl RawSockets {
    /// Opens them; the one for IPv6 if it is `wide`.
    ///
    /// # Errors
    /// `CAP_NET_RAW` is missing.
    pub(super) fn open(wide: bool) -> io::Result<Self> {
        let open = |domain| {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_nonblocking(true)?;
            // The kernel may give less; what does not fit is told in the second round.
            socket.set_send_buffer_size(SEND_BUFFER)?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self { v4: open(Domain::IPV4)?, v6: wide.then(|| open(Domain::IPV6)).transpose()? })
    }

    /// Sends one segment; never waits.
    ///
    /// # Errors
    /// The kernel would not: no route, no room, a packet filter.
    pub(super) fn send(&self, connection: &Connection, stale: Stale) -> io::Result<()> {
        let mut packet = [0; LONGEST];
        let length = tickle::encode(connection, stale, &mut packet).ok_or(io::ErrorKind::InvalidInput)?;
        // The port is in the packet; here it would be a protocol.
        let (socket, to) = match connection.client.ip() {
            to @ IpAddr::V4(_) => (Some(&self.v4), to),
            to @ IpAddr::V6(_) => (self.v6.as_ref(), to),
        };
        let socket = socket.ok_or(io::ErrorKind::Unsupported)?;
        socket.send_to(&packet[..length], &SocketAddr::new(to, 0).into())?;
        Ok(())
    }
}
