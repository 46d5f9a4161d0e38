//! Listening sockets.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use evermq_config::broker::ListenAddress;
use evermq_daemon::control::{self, ControlError};
use evermq_daemon::{kept, listen};

use super::Acceptor;

/// A listening socket before its worker's runtime is there.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Why a Unix socket is not listened on.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// Another process has it.
    #[error("{path} answers: another program listens there; stop that one, or choose another path", path = .0.display())]
    InUse(PathBuf),
    /// It cannot be made.
    #[error("cannot listen on {path}; its directory must be writable for this user", path = path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Bound {
    /// Hands it to the present runtime.
    ///
    /// # Errors
    /// The runtime cannot drive it.
    pub fn into_acceptor(self) -> std::io::Result<Acceptor> {
        match self {
            Self::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Acceptor::Tcp),
            Self::Unix(listener) => tokio::net::UnixListener::from_std(listener).map(Acceptor::Unix),
        }
    }
}

/// One for each of `count` workers; and where that is, which only the first one knows if the port is 0.
///
/// # Errors
/// It cannot be had; the text says what to do.
pub fn bind(address: &ListenAddress, count: usize) -> anyhow::Result<(Vec<Bound>, ListenAddress)> {
    match address {
        ListenAddress::Tcp(address) => {
            let (sockets, bound) = tcp(*address, count)?;
            Ok((sockets, ListenAddress::Tcp(bound)))
        }
        ListenAddress::Unix(path) => {
            let first = unix(path)?;
            let mut sockets = vec![];
            for _ in 1..count {
                // The same socket: the kernel gives each connection to one of those who wait for it.
                sockets.push(Bound::Unix(first.try_clone().context("Unix socket")?));
            }
            sockets.push(Bound::Unix(first));
            Ok((sockets, address.clone()))
        }
    }
}

fn tcp(address: SocketAddr, count: usize) -> anyhow::Result<(Vec<Bound>, SocketAddr)> {
    let (mut sockets, mut bound) = (Vec::new(), address);
    for _ in 0..count {
        let listener = listen::tcp(bound, true)?;
        bound = listener.local_addr()?;
        kept::keep(&listener);
        sockets.push(Bound::Tcp(listener));
    }
    Ok((sockets, bound))
}

/// Readable and writable for this user and its group. One that a dead process left is replaced; one that answers is not.
fn unix(path: &Path) -> Result<UnixListener, UnixError> {
    control::bind(path).map_err(|error| match error {
        ControlError::InUse(path) => UnixError::InUse(path),
        ControlError::Bind { path, source } | ControlError::Unreachable { path, source } => {
            UnixError::Bind { path, source }
        }
        ControlError::Refused { path, text } | ControlError::Answer { path, text } => {
            UnixError::Bind { path, source: std::io::Error::other(text) }
        }
    })
}
