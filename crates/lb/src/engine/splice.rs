//! Pipes for bulk: bytes go from socket to socket through a pipe without being copied into this program.
//!
//! A direction has a pipe only while it splices, and gives it back empty. Where all are in use bytes are copied instead.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{pipe2, read};

use super::flow::Outcome;
use super::socket::outcome;

/// Pipes of one worker, in use or not: two descriptors each. A slow reader keeps one full, so there are more of them than
/// there are bulk transfers that a core can feed.
pub(crate) const PIPES: usize = 16;
/// What a pipe should hold: several reads' worth, which also bounds what one splice moves.
const CAPACITY: usize = 256 * 1024;

/// A worker's pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
    made: usize,
}

/// A pipe and what is in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    input: OwnedFd,
    output: OwnedFd,
    level: usize,
}

impl Pipes {
    /// An empty pipe, if there is one to be had.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.made == PIPES {
            return None;
        }
        let pipe = Pipe::new().inspect_err(|errno| tracing::debug!(%errno, "no pipe: bytes are copied")).ok()?;
        self.made += 1;
        Some(pipe)
    }

    /// Takes a pipe back. One that is not empty is closed: what is in it has nobody who would take it.
    pub(crate) fn give_back(&mut self, pipe: Pipe) {
        if pipe.level == 0 {
            self.idle.push(pipe);
        } else {
            self.made -= 1;
        }
    }
}

impl Pipe {
    fn new() -> nix::Result<Self> {
        let (output, input) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // The default of 64 kB does too, where /proc/sys/fs/pipe-user-pages-soft is used up.
        let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(i32::try_from(CAPACITY).expect("fits")));
        Ok(Self { input, output, level: 0 })
    }

    /// Bytes in it.
    pub(crate) const fn level(&self) -> usize {
        self.level
    }

    /// From a socket into the pipe, which is empty.
    pub(crate) fn fill(&mut self, source: &OwnedFd) -> Outcome {
        let outcome = outcome(|| splice(source, None, &self.input, None, CAPACITY, FLAGS));
        if let Outcome::Moved(count) = outcome {
            self.level += count;
        }
        outcome
    }

    /// What is in it.
    ///
    /// # Errors
    /// It cannot be read; it is not empty then.
    pub(crate) fn take_out(&mut self) -> nix::Result<Vec<u8>> {
        let mut bytes = vec![0; self.level];
        let mut filled = 0;
        while filled < bytes.len() {
            match read(&self.output, &mut bytes[filled..]) {
                Ok(0) => return Err(Errno::EPIPE),
                Ok(count) => filled += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.level = 0;
        Ok(bytes)
    }

    /// From the pipe to a socket.
    pub(crate) fn drain(&mut self, sink: &OwnedFd) -> Outcome {
        let outcome = outcome(|| splice(&self.output, None, sink, None, self.level, FLAGS));
        if let Outcome::Moved(count) = outcome {
            self.level -= count;
        }
        outcome
    }
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_NONBLOCK.union(SpliceFFlags::SPLICE_F_MOVE);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        (one, other)
    }

    #[test]
    fn bytes_go_through_and_a_pipe_that_is_not_empty_is_not_used_again() {
        let ((mut writer, source), (sink, mut reader)) = (pair(), pair());
        let mut pipes = Pipes::default();
        let mut pipe = pipes.take().unwrap();
        writer.write_all(b"through").unwrap();
        let source = OwnedFd::from(source);
        assert_eq!(pipe.fill(&source), Outcome::Moved(7));
        assert_eq!(pipe.level(), 7);
        assert_eq!(pipe.drain(&OwnedFd::from(sink)), Outcome::Moved(7));
        let mut heard = [0; 7];
        reader.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"through");
        pipes.give_back(pipe);
        assert_eq!((pipes.idle.len(), pipes.made), (1, 1));

        let mut pipe = pipes.take().unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(pipe.fill(&source), Outcome::Moved(1));
        pipes.give_back(pipe);
        assert_eq!((pipes.idle.len(), pipes.made), (0, 0));
    }

    #[test]
    fn there_are_only_so_many() {
        let mut pipes = Pipes::default();
        let taken: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!(taken.len(), PIPES);
    }
}
