//! System calls on sockets, each as one [`Outcome`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use evermq_daemon::listen::{self, SocketOptions};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::flow::Outcome;

/// Receives what there is, at most a buffer of it.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Outcome {
    outcome(|| recv(socket.as_raw_fd(), buffer, MsgFlags::empty()))
}

/// Sends what is taken of `bytes`, which are not none.
pub(crate) fn transmit(socket: &OwnedFd, bytes: &[u8]) -> Outcome {
    outcome(|| send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL))
}

/// A system call that moves bytes.
pub(crate) fn outcome(mut call: impl FnMut() -> nix::Result<usize>) -> Outcome {
    loop {
        match call() {
            Ok(0) => return Outcome::Ended,
            Ok(count) => return Outcome::Moved(count),
            Err(Errno::EAGAIN) => return Outcome::Blocked,
            Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::trace!(%errno, "a socket has failed");
                return Outcome::Failed;
            }
        }
    }
}

/// Passes on the end of file. A socket that is gone already needs none: its own direction says so.
pub(crate) fn finish(socket: &OwnedFd) {
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
}

/// Has the close that follows reset the connection.
pub(crate) fn reset_on_close(socket: &OwnedFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Begins a connection to `address`.
pub(crate) fn connect(address: SocketAddr, options: SocketOptions) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    listen::tune(&socket, options)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Whether the connection stands.
pub(crate) fn is_connected(socket: &OwnedFd) -> bool {
    SockRef::from(socket).peer_addr().is_ok()
}

/// What has gone wrong with it, once.
pub(crate) fn error_of(socket: &OwnedFd) -> io::Error {
    let error = SockRef::from(socket).take_error();
    error.map_or_else(|error| error, |error| error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
}

/// This side's address.
pub(crate) fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    SockRef::from(socket).local_addr().ok()?.as_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_says_so() {
        let free = evermq_ports::free_address();
        let options = SocketOptions { keepalive: Duration::from_secs(10), user_timeout: Duration::from_secs(10) };
        let socket = connect(free, options).unwrap();
        assert_eq!(transmit(&socket, b"x"), Outcome::Failed);
    }

    #[test]
    fn bytes_the_end_and_nothing_yet() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let (one, other) = (OwnedFd::from(one), OwnedFd::from(other));
        let mut buffer = [0; 8];
        assert_eq!(receive(&one, &mut buffer), Outcome::Blocked);
        assert_eq!(transmit(&other, b"abc"), Outcome::Moved(3));
        assert_eq!(receive(&one, &mut buffer), Outcome::Moved(3));
        finish(&other);
        assert_eq!(receive(&one, &mut buffer), Outcome::Ended);
        drop(other);
        assert_eq!(transmit(&one, b"x"), Outcome::Failed);
    }
}
