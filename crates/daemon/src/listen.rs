//! Listening sockets and the TCP options of long-lived connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::kept;

/// Connections that wait in the kernel until they are accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Probes without an answer before a connection is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {hint}")]
pub struct ListenError {
    address: SocketAddr,
    hint: String,
    #[source]
    source: io::Error,
}

/// How long a silent or stuck connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// Idle time before the kernel asks whether the other side is there.
    pub keepalive: Duration,
    /// Sent data unacknowledged for this long ends the connection (RFC 5482).
    pub user_timeout: Duration,
}

/// A listening TCP socket that does not block. With `reuse_port` several sockets share the address, one for each worker, and one
/// of the process before is used if there is one ([`kept`]).
///
/// # Errors
/// The address is in use, not this host's, or not permitted; the text says what to do.
pub fn tcp(address: SocketAddr, reuse_port: bool) -> Result<TcpListener, ListenError> {
    if reuse_port && let Some(listener) = kept::claim(address) {
        return Ok(listener);
    }
    bind(address, reuse_port).map_err(|source| ListenError { address, hint: hint(address, &source), source })
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // "[::]" is every address of the host, IPv4 too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn hint(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has port {port}; `ss -ltnp 'sport = :{port}'` shows which one",
            port = address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this host; compare the file's [[hosts]] with `ip address`", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            format!("port {} needs root or CAP_NET_BIND_SERVICE; choose one above 1023", address.port())
        }
        _ => error.to_string(),
    }
}

/// Sets what a long-lived connection needs: no delay for small packets, keepalive, a bound on unacknowledged data. Set on a
/// listener, Linux hands all of it on to each connection that it accepts.
///
/// # Errors
/// The kernel refuses an option; the connection has gone, as a rule.
pub fn tune(socket: &impl AsFd, options: SocketOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let interval = (options.keepalive / KEEPALIVE_PROBES).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive.max(Duration::from_secs(1)))
        .with_interval(interval)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))
}
