//! What every connection of a worker uses when it takes a step.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::connection::Side;
use super::handshakes::Handshakes;
use super::lobby::Lobby;
use super::secure::Scratch;
use super::splice::Pipes;
use super::timers::Timers;
use super::worker::{Front, Settings, Traffic, Worker};
use crate::admission::Notice;
use crate::pool::Pool;

/// Read at once, and kept at most for each direction.
pub(crate) const BUFFER: usize = 32 * 1024;

/// A worker's own things.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) worker: Arc<Worker>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) fronts: Arc<[Front]>,
    pub(crate) buffer: Box<[u8]>,
    pub(crate) pipes: Pipes,
    pub(crate) handshakes: Handshakes<Name>,
    pub(crate) scratch: Scratch,
    pub(crate) timers: Timers,
    pub(crate) lobby: Lobby,
    /// The time of this turn: the clock is read once for all events of a batch.
    pub(crate) now: Instant,
    registry: Registry,
    /// The same epoll instance, for what mio has no word for: listeners that are level-triggered, and clients that are not
    /// asked whether they take more until they once have not.
    epoll: Epoll,
    shortage: Notice,
    /// By [`Member::id`](crate::pool::Member::id).
    traffic: Vec<Arc<Traffic>>,
}

/// What epoll calls a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl Name {
    /// Generations are of 31 bits.
    pub(crate) const GENERATIONS: u32 = u32::MAX >> 1;

    pub(crate) const fn token(self, side: Side) -> Token {
        let side = match side {
            Side::Client => 0,
            Side::Backend => 1 << 32,
        };
        Token((self.generation as usize) << 33 | side | self.key as usize)
    }

    pub(crate) const fn of(token: Token) -> (Self, Side) {
        let side = if token.0 & 1 << 32 == 0 { Side::Client } else { Side::Backend };
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the key")]
        let key = token.0 as u32;
        #[expect(clippy::cast_possible_truncation, reason = "31 bits are left")]
        let generation = (token.0 >> 33) as u32;
        (Self { key, generation }, side)
    }
}

const _: () = assert!(usize::BITS == 64, "a token holds a key, a generation and a side");

impl Core {
    pub(crate) fn new(
        worker: Arc<Worker>,
        settings: Arc<Settings>,
        fronts: Arc<[Front]>,
        poll: &mio::Poll,
        now: Instant,
    ) -> io::Result<Self> {
        use std::os::fd::BorrowedFd;
        // SAFETY: `poll` is borrowed for as long as the descriptor is, and keeps it open.
        let epoll = unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) }.try_clone_to_owned()?;
        Ok(Self {
            pool: Arc::clone(&worker.pool),
            traffic: Vec::new(),
            worker,
            lobby: Lobby::new(settings.queue.size, settings.queue.timeout),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            pipes: Pipes::default(),
            handshakes: Handshakes::new(settings.handshakes),
            scratch: Scratch::new(),
            settings,
            fronts,
            timers: Timers::new(now),
            now,
            registry: poll.registry().try_clone()?,
            epoll: Epoll(epoll),
            shortage: Notice::default(),
        })
    }

    /// Has epoll say when a backend's socket can be read or written.
    pub(crate) fn watch_backend(&self, socket: &OwnedFd, name: Name) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), name.token(Side::Backend), interest)
    }

    /// Has epoll say when a client's socket can be read.
    pub(crate) fn watch_client(&self, socket: &OwnedFd, name: Name) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), name.token(Side::Client), Interest::READABLE)
    }

    /// From now on also when it takes more; at once if it does so by now.
    pub(crate) fn ask_client(&self, socket: &OwnedFd, name: Name) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.reregister(&mut SourceFd(&socket.as_raw_fd()), name.token(Side::Client), interest)
    }

    /// Has epoll say nothing more of a socket. Closing it does not where another process has it as well.
    pub(crate) fn unwatch(&self, socket: &OwnedFd) {
        if let Err(error) = self.registry.deregister(&mut SourceFd(&socket.as_raw_fd())) {
            tracing::debug!(%error, "epoll does not know a socket");
        }
    }

    /// Has epoll say as long as clients wait at a listener.
    pub(crate) fn watch_listener(&self, listener: &mio::net::TcpListener, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, token.0 as u64))?)
    }

    /// Has epoll say nothing more of a listener.
    pub(crate) fn unwatch_listener(&self, listener: &mio::net::TcpListener) {
        if let Err(error) = self.epoll.delete(listener) {
            tracing::debug!(%error, "epoll does not know a listener");
        }
    }

    /// No more, or again.
    pub(crate) fn pause_listener(&self, listener: &mio::net::TcpListener, token: Token, pause: bool) -> io::Result<()> {
        let flags = if pause { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
        Ok(self.epoll.modify(listener, &mut EpollEvent::new(flags, token.0 as u64))?)
    }

    /// Counts bytes of a backend's connections.
    pub(crate) fn count(&mut self, member: u32, front: u16, to_backend: u64, to_clients: u64) {
        self.fronts[usize::from(front)].figures.count_bytes(self.worker.index, to_backend, to_clients);
        if self.traffic.len() <= member as usize {
            self.traffic = self.worker.traffic_up_to(member);
        }
        if let Some(traffic) = self.traffic.get(member as usize) {
            traffic.count(to_backend, to_clients);
        }
    }

    /// Sets the deadline of a connection.
    pub(crate) fn set_timer(&mut self, name: Name, after: Duration) {
        self.timers.set(name.key, self.now + after);
    }

    /// The present tick, as a connection keeps it.
    pub(crate) fn tick(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "differences are taken modulo 2^32: half a year")]
        let tick = self.timers.ticks_passed(self.now) as u32;
        tick
    }

    /// A client found no backend because this system lacks something; said once in a while.
    pub(crate) fn say_shortage(&mut self, error: &io::Error) {
        if self.shortage.is_due(self.now) {
            tracing::warn!(%error, "cannot connect to brokers: this system lacks descriptors, ports or memory; clients are closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_a_socket() {
        for side in [Side::Client, Side::Backend] {
            for (key, generation) in [(0, 0), (7, 3), (u32::MAX - 1, Name::GENERATIONS)] {
                let name = Name { key, generation };
                assert_eq!(Name::of(name.token(side)), (name, side));
            }
        }
    }
}
