//! The connection to the local load balancer's control socket: asks for the health stream and cuts it into lines.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use evermq_daemon::health::{Health, HealthLine};
use socket2::{Domain, SockAddr, Socket, Type};

const REQUEST: &[u8] = b"{\"request\":\"health\"}\n";
/// Several times the longest line that the lb sends.
const LONGEST_LINE: usize = 256;
/// Reads before the advertisements get their turn again, whatever the lb sends.
const READS: usize = 16;

/// A connection to the lb, or none.
#[derive(Debug)]
pub struct LbLink {
    path: PathBuf,
    stream: Option<UnixStream>,
    buffer: [u8; LONGEST_LINE],
    filled: usize,
}

/// What reading brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The latest health line of those that waited; earlier ones are out of date.
    Health(Health),
    /// Nothing yet.
    Nothing,
    /// The stream has ended, or what came is not a health line.
    Lost,
}

impl LbLink {
    /// A link to the socket at `path`, not connected.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stream: None, buffer: [0; LONGEST_LINE], filled: 0 }
    }

    /// Connects and asks for the health stream. Never waits: a frozen lb with a full queue refuses.
    ///
    /// # Errors
    /// Nobody listens, or cannot take the connection at once.
    pub fn connect(&mut self) -> io::Result<()> {
        self.disconnect();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(&self.path)?)?;
        let mut stream = UnixStream::from(std::os::fd::OwnedFd::from(socket));
        stream.write_all(REQUEST)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Reads what waits. After [`Read::Lost`] the link is not connected.
    pub fn read(&mut self) -> Read {
        let mut latest = Read::Nothing;
        for _ in 0..READS {
            let Some(stream) = &mut self.stream else { return Read::Lost };
            match stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return self.lose(),
                Ok(length) => self.filled += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return latest,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.lose(),
            }
            while let Some(end) = self.buffer[..self.filled].iter().position(|byte| *byte == b'\n') {
                match serde_json::from_slice::<HealthLine>(&self.buffer[..end]) {
                    Ok(line) => latest = Read::Health(line.health),
                    Err(_) => return self.lose(),
                }
                self.buffer.copy_within(end + 1..self.filled, 0);
                self.filled -= end + 1;
            }
            if self.filled == LONGEST_LINE {
                return self.lose();
            }
        }
        latest
    }

    /// What to wait for, while connected.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    fn lose(&mut self) -> Read {
        self.disconnect();
        Read::Lost
    }

    fn disconnect(&mut self) {
        self.stream = None;
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests;
