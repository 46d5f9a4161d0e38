//! Accepting: one listener for each worker, all on the same address, so that the kernel spreads clients over the workers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::listen::{self, ListenError, SocketOptions};
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::admission::Notice;
use crate::connection;
use crate::worker::Worker;

/// How long accepting rests when the system lacks descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Why there is no accepting any more.
#[derive(Debug, thiserror::Error)]
#[error("the listening socket cannot be used any more: {0}")]
pub(crate) struct ListenerLost(#[from] io::Error);

/// Listeners on `address`, one for each worker. With port 0 all get the port that the first was given.
///
/// # Errors
/// See [`listen::tcp`].
pub(crate) fn bind(
    address: SocketAddr,
    workers: usize,
    options: SocketOptions,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), ListenError> {
    let mut listeners = Vec::with_capacity(workers);
    let mut address = address;
    for _ in 0..workers {
        let listener = listen::tcp(address, true)?;
        address.set_port(listener.local_addr().map_or(address.port(), |bound| bound.port()));
        // On the listener, which hands them on: six system calls less for each client.
        if let Err(error) = listen::tune(&listener, options) {
            tracing::warn!(%error, "clients' connections have no keepalive: the kernel refuses the options");
        }
        listeners.push(listener);
    }
    Ok((address, listeners))
}

/// Accepts until `stop`; then takes those that the kernel has queued already, since closing the listener would reset them.
///
/// # Errors
/// The listener cannot be used any more.
pub(crate) async fn accept(
    worker: &Arc<Worker>,
    listener: std::net::TcpListener,
    stop: &CancellationToken,
) -> Result<(), ListenerLost> {
    let listener = TcpListener::from_std(listener)?;
    let mut stopped = std::pin::pin!(stop.cancelled());
    let mut shortage = Shortage::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            accepted = next(worker, &listener) => accepted,
        };
        match accepted {
            Ok((client, from)) => {
                shortage.over();
                tokio::select! {
                    () = &mut stopped => break,
                    () = admit(worker, client, from) => {}
                }
            }
            Err(error) => match Trouble::of(&error) {
                Trouble::Client => tracing::debug!(%error, "a client left before it was accepted"),
                Trouble::Shortage => {
                    shortage.begin(&error);
                    tokio::select! {
                        () = &mut stopped => break,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
                Trouble::Listener => return Err(error.into()),
            },
        }
    }
    accept_queued(worker, listener)?;
    Ok(())
}

/// The next client, looked for only while there is room.
async fn next(worker: &Worker, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    worker.gate().room().await;
    listener.accept().await
}

/// Serves a client once there is room; another worker may have taken the last place in the meantime.
async fn admit(worker: &Arc<Worker>, client: TcpStream, from: SocketAddr) {
    let place = worker.enter().await;
    tracing::trace!(client = %from, "accepted");
    tokio::spawn(connection::serve(Arc::clone(worker), client, from, place));
}

fn accept_queued(worker: &Arc<Worker>, listener: TcpListener) -> io::Result<()> {
    let listener = listener.into_std()?;
    while let Ok((client, from)) = listener.accept() {
        let Some(place) = worker.try_enter() else { break };
        client.set_nonblocking(true)?;
        tokio::spawn(connection::serve(Arc::clone(worker), TcpStream::from_std(client)?, from, place));
    }
    Ok(())
}

/// Whose trouble a failed accept is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// One client's: accept(2) passes on what its connection met.
    Client,
    /// This system's, and it may pass.
    Shortage,
    /// The listener's, for good.
    Listener,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
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
struct Shortage {
    said: bool,
    notice: Notice,
}

impl Shortage {
    fn begin(&mut self, error: &io::Error) {
        if !self.said && self.notice.is_due(tokio::time::Instant::now().into_std()) {
            self.said = true;
            tracing::warn!(%error, "cannot accept clients: they wait in the kernel's queue until the system has room again");
        }
    }

    fn over(&mut self) {
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
        let (address, listeners) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1, options).unwrap();
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
        let (address, listeners) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3, options).unwrap();
        assert_ne!(address.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), address);
        }
    }
}
