//! A process that cannot be mistaken for another one.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that is meant, and not another one that got its number later.
#[derive(Debug)]
pub(crate) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// The process that has this number at this moment.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: two numbers; the answer is an error or a new descriptor, closed on exec.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: just made, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an owned descriptor is open until it is dropped, and stays the same one.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// Waits until the process has ended. Cancel-safe.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(|_| ())
    }

    /// Whether the process has ended already.
    pub(crate) fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry, and no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }
}
