//! Accepting: one listener for each worker, all on the same address, so that the kernel spreads clients over the workers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use evermq_daemon::limits;
use evermq_daemon::listen::{self, ListenError, SocketOptions};
use mio::Token;
use mio::net::TcpListener;
use nix::errno::Errno;

use super::core::Core;
use crate::admission::Notice;

/// How long accepting rests when the system lacks descriptors or memory.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Why there is no accepting any more.
#[derive(Debug, thiserror::Error)]
#[error("the listening socket cannot be used any more: {0}")]
pub(crate) struct ListenerLost(#[from] io::Error);

/// Listeners on `address`, one for each worker, under descriptors of at least `lowest`. Those that another process has given
/// come first, and all of them. With port 0 all get the port that the first was given.
///
/// # Errors
/// See [`listen::tcp`].
pub(crate) fn bind(
    address: SocketAddr,
    workers: usize,
    options: SocketOptions,
    lowest: RawFd,
    given: Vec<std::net::TcpListener>,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), ListenError> {
    let mut listeners = Vec::with_capacity(workers);
    let mut address = address;
    let mut given = given.into_iter();
    loop {
        let listener = match given.next() {
            Some(listener) => listener,
            None if listeners.len() < workers => listen::tcp(address, true)?,
            None => break,
        };
        address.set_port(listener.local_addr().map_or(address.port(), |bound| bound.port()));
        // On the listener, which hands them on: six system calls less for each client.
        if let Err(error) = listen::tune(&listener, options) {
            tracing::warn!(%error, "clients' connections have no keepalive: the kernel refuses the options");
        }
        // A process that is killed closes its descriptors by their order. A listener that is closed after clients were takes
        // those that come again at once, and buries them.
        match limits::raise_descriptor(&listener, lowest) {
            Ok(raised) => listeners.push(raised.into()),
            Err(error) => {
                tracing::warn!(%error, lowest, "a listener has a low descriptor: clients may wait in vain if this program is killed");
                listeners.push(listener);
            }
        }
    }
    Ok((address, listeners))
}

/// A worker's own socket at one of the addresses.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: TcpListener,
    /// Which address, in the file's order.
    pub(crate) front: u16,
    pub(crate) token: Token,
    paused: bool,
}

impl Listening {
    /// Takes a socket into use.
    ///
    /// # Errors
    /// Epoll does not take it.
    pub(crate) fn new(socket: std::net::TcpListener, front: u16, token: Token, core: &Core) -> io::Result<Self> {
        let socket = TcpListener::from_std(socket);
        core.watch_listener(&socket, token)?;
        Ok(Self { socket, front, token, paused: false })
    }

    /// Whether clients that wait are left to wait.
    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Leaves clients in the kernel's queue, or takes them again.
    ///
    /// # Errors
    /// Epoll does not know the socket any more.
    pub(crate) fn pause(&mut self, pause: bool, core: &Core) -> io::Result<()> {
        if self.paused != pause {
            core.pause_listener(&self.socket, self.token, pause)?;
            self.paused = pause;
        }
        Ok(())
    }
}

/// Whose trouble a failed accept is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// One client's: accept(2) passes on what its connection met.
    Client,
    /// This system's, and it may pass.
    Shortage,
    /// The listener's, for good.
    Listener,
}

impl Trouble {
    pub(crate) fn of(error: &io::Error) -> Self {
        match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
            Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT => Self::Client,
            Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EFAULT => Self::Listener,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and EPERM from a firewall: try again, but not in a tight loop.
            _ => Self::Shortage,
        }
    }
}

/// Says once that accepting rests, and once that it goes on.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    said: bool,
    notice: Notice,
}

impl Shortage {
    pub(crate) fn begin(&mut self, error: &io::Error, now: Instant) {
        if !self.said && self.notice.is_due(now) {
            self.said = true;
            tracing::warn!(%error, "cannot accept clients: they wait in the kernel's queue until the system has room again");
        }
    }

    pub(crate) fn over(&mut self) {
        if std::mem::take(&mut self.said) {
            tracing::info!("accepts clients again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_trouble_it_is() {
        let cases = [
            (Errno::ECONNABORTED, Trouble::Client),
            (Errno::EPROTO, Trouble::Client),
            (Errno::EMFILE, Trouble::Shortage),
            (Errno::ENFILE, Trouble::Shortage),
            (Errno::ENOBUFS, Trouble::Shortage),
            (Errno::ENOMEM, Trouble::Shortage),
            (Errno::EPERM, Trouble::Shortage),
            (Errno::EBADF, Trouble::Listener),
            (Errno::EINVAL, Trouble::Listener),
        ];
        for (errno, trouble) in cases {
            assert_eq!(Trouble::of(&io::Error::from(errno)), trouble, "{errno}");
        }
    }

    #[test]
    fn accepted_sockets_inherit_what_the_listener_was_given() {
        let options = SocketOptions { keepalive: Duration::from_secs(33), user_timeout: Duration::from_millis(7000) };
        let (address, listeners) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1, options, 300, Vec::new()).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        listeners[0].set_nonblocking(false).unwrap();
        let (accepted, _) = listeners[0].accept().unwrap();
        let socket = socket2::SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(33));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(11));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(7000)));
    }

    #[test]
    fn all_workers_share_the_port_that_the_first_was_given() {
        let options = SocketOptions { keepalive: Duration::from_secs(10), user_timeout: Duration::from_secs(10) };
        let (address, listeners) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3, options, 300, Vec::new()).unwrap();
        assert_ne!(address.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), address);
        }
    }
}
