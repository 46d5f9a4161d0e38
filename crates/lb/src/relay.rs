//! Bytes both ways between a client and its backend.
//!
//! Each direction reads into the thread's one buffer and writes straight on. Only what the other side does not take is kept,
//! at most [`BUFFER`] bytes, and then nothing more is read until it has gone: that is the back-pressure, and an idle
//! connection holds no buffer at all. A read that does not fill the buffer is not followed by another that would only see
//! `EAGAIN`; tokio's `poll_read` and `poll_write` know that much of epoll, its `try_read` does not.
//!
//! End of file of one side is passed on as a half-close, after what was kept; the other direction goes on. A side that is
//! reset is treated alike: what it had sent still goes on, what it will not take is dropped.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use evermq_config::HostName;
use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use crate::pool::Lease;
use crate::worker::Registration;

/// Read at once, and kept at most for each direction.
const BUFFER: usize = 32 * 1024;
/// Full buffers that one direction may move before the thread's other connections get their turn.
const TURNS: u32 = 8;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Both sides are through.
    Finished,
    /// The client's side failed first.
    ClientFailed,
    /// The backend's side failed first.
    BackendFailed,
    /// The backend is down.
    BackendDown,
    /// The lb stops.
    Stopping,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::ClientFailed => "the client's side failed",
            Self::BackendFailed => "the broker's side failed",
            Self::BackendDown => "the broker is down",
            Self::Stopping => "the lb stops",
        })
    }
}

/// One client and its backend.
#[derive(Debug)]
pub(crate) struct Relay {
    client: TcpStream,
    backend: TcpStream,
    to_backend: Flow,
    to_client: Flow,
    failed: Option<Why>,
    lease: Lease,
    registration: Registration,
}

impl Relay {
    /// A relay that has moved nothing yet.
    /// The registration's waker must be that of the task that polls it.
    pub(crate) fn new(client: TcpStream, backend: TcpStream, lease: Lease, registration: Registration) -> Self {
        Self { client, backend, to_backend: Flow::new(), to_client: Flow::new(), failed: None, lease, registration }
    }

    /// Bytes to the backend and to the client.
    pub(crate) const fn bytes(&self) -> (u64, u64) {
        (self.to_backend.bytes, self.to_client.bytes)
    }

    /// The backend's name.
    pub(crate) fn backend_name(&self) -> &HostName {
        self.lease.member().name()
    }

    /// Moves what can be moved.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Why> {
        if self.lease.is_stale() {
            // Nobody is there to take what is left; a frozen process must not find its clients still there.
            let _ = SockRef::from(&self.backend).set_linger(Some(Duration::ZERO));
            return Poll::Ready(Why::BackendDown);
        }
        if self.registration.worker().is_closing() {
            return Poll::Ready(Why::Stopping);
        }
        self.pump(context)
    }

    fn pump(&mut self, context: &mut Context<'_>) -> Poll<Why> {
        let (worker, backend) = (self.registration.worker(), self.lease.index());
        let (there, back) = SHARED.with_borrow_mut(|buffer| {
            // Where the way back has ended, closing the socket says so, and a half-close would be one system call more.
            let last = self.to_client.is_done();
            let there = self.to_backend.poll(context, &mut self.client, &mut self.backend, buffer, last);
            let last = self.to_backend.is_done();
            let back = self.to_client.poll(context, &mut self.backend, &mut self.client, buffer, last);
            (there, back)
        });
        worker.count_to_backend(backend, there.moved);
        worker.count_to_client(backend, back.moved);
        self.note(there.trouble, Why::ClientFailed, Why::BackendFailed);
        self.note(back.trouble, Why::BackendFailed, Why::ClientFailed);
        // A side that takes no more has nobody left behind it whose answer could matter beyond what it has sent already.
        if there.trouble == Some(Side::From) {
            self.to_client.give_up();
        }
        if back.trouble == Some(Side::From) {
            self.to_backend.give_up();
        }
        if self.to_backend.is_done() && self.to_client.is_done() {
            return Poll::Ready(self.failed.unwrap_or(Why::Finished));
        }
        if there.again || back.again {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn note(&mut self, trouble: Option<Side>, from: Why, to: Why) {
        let why = trouble.map(|side| match side {
            Side::From => from,
            Side::To => to,
        });
        self.failed = self.failed.or(why);
    }
}

/// One direction.
#[derive(Debug)]
struct Flow {
    state: State,
    /// What was read and not yet taken.
    kept: Option<Box<Kept>>,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Reads and writes.
    Open,
    /// Nothing more comes; what is kept is still to go, then the end of file.
    Ending,
    /// Nothing more goes.
    Done,
}

#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    /// Of these, gone already.
    gone: usize,
}

/// What one poll of a direction did.
#[derive(Debug, Default)]
struct Moved {
    moved: usize,
    /// The side that failed.
    trouble: Option<Side>,
    /// There is more to move, but others come first.
    again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    To,
}

impl Flow {
    const fn new() -> Self {
        Self { state: State::Open, kept: None, bytes: 0 }
    }

    const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The receiving side is gone.
    fn give_up(&mut self) {
        self.state = State::Done;
        self.kept = None;
    }

    /// `last`: the other direction has ended already.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
        last: bool,
    ) -> Moved {
        let mut moved = Moved::default();
        let mut turns = 0;
        while self.state != State::Done {
            if self.state == State::Ending && self.kept.is_none() {
                self.end(context, to, last);
                break;
            }
            match self.step(context, from, to, buffer, &mut moved) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    tracing::trace!(%error, side = ?moved.trouble, "relay");
                    if moved.trouble == Some(Side::To) {
                        self.give_up();
                    }
                }
                Poll::Pending => break,
            }
            turns += 1;
            if turns == TURNS {
                moved.again = self.state != State::Done;
                break;
            }
        }
        self.bytes += moved.moved as u64;
        moved
    }

    /// Passes on the end of file.
    fn end(&mut self, context: &mut Context<'_>, to: &mut TcpStream, last: bool) {
        self.state = State::Done;
        if !last {
            // Ready at once; and a side that is gone needs no half-close, its own direction says so.
            let _ = Pin::new(to).poll_shutdown(context);
        }
    }

    /// Writes what is kept, or reads and writes once.
    fn step(
        &mut self,
        context: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
        moved: &mut Moved,
    ) -> Poll<io::Result<()>> {
        if let Some(kept) = &mut self.kept {
            let written = ready!(Pin::new(to).poll_write(context, &kept.bytes[kept.gone..]));
            let written = written.inspect_err(|_| moved.trouble = Some(Side::To))?;
            moved.moved += written;
            kept.gone += written;
            if kept.gone == kept.bytes.len() {
                self.kept = None;
            }
            return Poll::Ready(Ok(()));
        }
        let mut filled = ReadBuf::new(buffer);
        if let Err(error) = ready!(Pin::new(from).poll_read(context, &mut filled)) {
            moved.trouble = Some(Side::From);
            self.state = State::Ending;
            return Poll::Ready(Err(error));
        }
        let read = filled.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(to).poll_write(context, read) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => {
                moved.trouble = Some(Side::To);
                return Poll::Ready(Err(error));
            }
            Poll::Pending => 0,
        };
        moved.moved += written;
        if written < read.len() {
            self.kept = Some(Box::new(Kept { bytes: read[written..].into(), gone: 0 }));
        }
        Poll::Ready(Ok(()))
    }
}
