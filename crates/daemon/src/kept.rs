//! Listening sockets that outlive the process: systemd has a copy of each (its file descriptor store), and gives them to the
//! unit's next process. Whoever connects in between waits in the kernel's queue, and is not refused.
//!
//! | when | |
//! |---|---|
//! | start | [`receive`] takes what systemd gives; [`crate::listen::tcp`] finds there what has the wanted address |
//! | serving | [`keep`] gives systemd a copy; again after an upgrade: only the main process is listened to. [`close_unclaimed`] |
//! | kill -9, a hang, a failure | systemd's copies stay |
//! | a stop, an address goes | [`let_go`]: whoever connects is refused, as nobody would serve him here |
//!
//! What else a process leaves for the next one comes the same way: [`bequeath`], [`bequeathed`].
//!
//! Without systemd, or without `FileDescriptorStoreMax=`, nothing is kept. Nothing here waits.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::SockRef;

use crate::notify;

/// The first descriptor that systemd gives (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// What the names begin with of those that are this module's.
const PREFIX: &str = "listen-";
/// And of what else a process has left.
const BEQUEST: &str = "bequest-";

/// Those of the process before, until they are used.
static GIVEN: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
/// What else it has left, by its names for it.
static LEFT: Mutex<Vec<(String, OwnedFd)>> = Mutex::new(Vec::new());

/// Takes what systemd gives. To be called once, before this process opens anything.
pub fn receive() {
    let variable = |name: &str| std::env::var(name).ok();
    let own = variable("LISTEN_PID").is_some_and(|process| process.parse() == Ok(std::process::id()));
    let count = variable("LISTEN_FDS").filter(|_| own).and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    for (descriptor, name) in (FIRST..).zip(names.split(':')).take(count) {
        // SAFETY: systemd has opened these for this process and says so by its number; nobody has used them yet.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // Others, such as those of a .socket unit that somebody has added, close here.
        if name.starts_with(PREFIX) && is_listening(&socket) {
            add(TcpListener::from(socket));
        } else if let Some(name) = name.strip_prefix(BEQUEST).filter(|_| is_closed_on_exec(&socket)) {
            LEFT.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), socket));
        }
    }
}

/// Whether it listens. Also sees to it that no program started by this one has it, and that it does not block.
fn is_listening(socket: &OwnedFd) -> bool {
    let set = fcntl(socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    is_closed_on_exec(socket) && set.is_ok() && getsockopt(socket, sockopt::AcceptConn).unwrap_or(false)
}

fn is_closed_on_exec(file: &OwnedFd) -> bool {
    fcntl(file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_ok()
}

/// Has systemd keep a file for the unit's next process alone, which gets it by [`bequeathed`].
///
/// # Errors
/// There is no systemd, or it was not told.
pub fn bequeath(name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
    if notify::store(&format!("{BEQUEST}{name}"), file) {
        return Ok(());
    }
    Err(io::Error::other("no systemd keeps anything for the next process"))
}

/// Has systemd forget such files, if it has any.
pub fn take_back(names: impl IntoIterator<Item = String>) {
    for name in names {
        notify::remove(&format!("{BEQUEST}{name}"));
    }
}

/// What the process before has left, which systemd gives to nobody again.
#[must_use]
pub fn bequeathed() -> Vec<(String, OwnedFd)> {
    let left = std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner));
    take_back(left.iter().map(|(name, _)| name.clone()));
    left
}

/// One more of the process before, which another way has brought.
pub fn add(listener: TcpListener) {
    GIVEN.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
}

/// One that was given and has that address, if there is one.
pub(crate) fn claim(address: SocketAddr) -> Option<TcpListener> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let has = |listener: &TcpListener| listener.local_addr().is_ok_and(|own| own == address);
    let position = given.iter().position(has)?;
    Some(given.swap_remove(position))
}

/// Gives systemd a copy. One that it has already is no second one.
pub fn keep(listener: &impl AsFd) {
    if let Some(name) = name(listener.as_fd()) {
        notify::store(&name, listener.as_fd());
    }
}

/// Has systemd close its copy, and nobody connects any more from now on: systemd's copy would queue clients until it has read that.
pub fn let_go(listener: &impl AsFd) {
    if let Some(name) = name(listener.as_fd()).filter(|name| notify::remove(name)) {
        // Of the socket, not of this descriptor.
        let shut = SockRef::from(listener).shutdown(Shutdown::Read);
        tracing::debug!(name, ?shut, "a listening socket is closed for good");
    }
}

/// Closes those that were given and that nobody has claimed: queues that nobody would accept from. And what else was left.
pub fn close_unclaimed() {
    drop(bequeathed());
    let given = std::mem::take(&mut *GIVEN.lock().unwrap_or_else(PoisonError::into_inner));
    for listener in given {
        let address = listener.local_addr().ok();
        tracing::info!(?address, "a socket of the process before is closed: nothing listens there any more");
        let_go(&listener);
    }
}

/// Of one socket only, as long as it lives.
fn name(socket: BorrowedFd<'_>) -> Option<String> {
    nix::sys::stat::fstat(socket).ok().map(|file| format!("{PREFIX}{}", file.st_ino))
}
