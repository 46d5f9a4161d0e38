//! What programs tell the host that started them, as they tell systemd (sd_notify(3)): which process is the program now.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// In the abstract namespace, which each host has to itself with its network.
const NAME: &str = "evermq-lab-notify";
/// What is read of one message; programs send a few words.
const LONGEST: usize = 4096;

/// Where the host's programs send their messages.
pub(super) struct Notices {
    socket: UnixDatagram,
}

impl Notices {
    pub(super) fn open() -> io::Result<Self> {
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(NAME)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The value of `NOTIFY_SOCKET`.
    pub(super) fn address() -> String {
        format!("@{NAME}")
    }

    /// The next process that a message names as its program's main one, if there is a message that does.
    pub(super) fn next_main_process(&self) -> Option<i32> {
        let mut buffer = [0; LONGEST];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if let Some(pid) = text.lines().find_map(|line| line.strip_prefix("MAINPID=")?.parse().ok()) {
                return Some(pid);
            }
        }
        None
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
