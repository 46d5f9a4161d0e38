//! One direction of a connection: what is to be done next, given what the last system call did and what epoll said.
//!
//! ```text
//!            readable                     all gone
//!   Nothing ──────────▶ Receive ─▶ Send ──────────▶ Nothing ─▶ ... end of file ─▶ End ─▶ Done
//!      │ bulk                       │ not all taken: held, until the sink is writable
//!      └──────────▶ Fill ─▶ Drain ──┘
//! ```
//!
//! Epoll is edge-triggered, so readiness is remembered here. A read that comes short has emptied the socket: no second one
//! only to see `EAGAIN`; but where epoll has said that the end of file is in, reading goes on until it is met. A read that
//! fills the whole buffer shows bulk, which is spliced until a splice comes short.
//!
//! Pure.

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until epoll says more.
    Rest,
    /// Receive into the worker's buffer, and send it on at once.
    Receive,
    /// Send what is held.
    Send,
    /// Splice from the source into an empty pipe.
    Fill,
    /// Splice from the pipe to the sink.
    Drain,
    /// Pass on the end of file.
    End,
}

/// What a system call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// That many bytes, not 0.
    Moved(usize),
    /// End of file.
    Ended,
    /// `EAGAIN`.
    Blocked,
    /// The socket has failed.
    Failed,
}

/// How far a direction has come, for another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Reads and writes.
    Open,
    /// Nothing more comes; what is held is still to go, then the end of file.
    Ending,
    /// Nothing more goes.
    Done,
}

/// What has been read and has not been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    Nothing,
    Bytes,
    Pipe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Reads and writes.
    Open,
    /// Nothing more comes; what is held is still to go, then the end of file.
    Ending,
    /// Nothing more goes.
    Done,
}

/// A splice of fewer bytes than this ends the bulk.
pub(crate) const BULK: usize = 32 * 1024;

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    bytes: u64,
    state: State,
    holding: Holding,
    readable: bool,
    /// The end of file, or an error, is in, behind what can still be read.
    hangup: bool,
    writable: bool,
    bulk: bool,
}

impl Flow {
    /// A direction in which nothing has moved. A socket that was never full is writable.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: 0,
            state: State::Open,
            holding: Holding::Nothing,
            readable: false,
            hangup: false,
            writable: true,
            bulk: false,
        }
    }

    /// A direction of which another process has moved `bytes`, with or without some that are to be sent.
    pub(crate) const fn resumed(bytes: u64, standing: Standing, held: bool) -> Self {
        let state = match standing {
            Standing::Open => State::Open,
            Standing::Ending => State::Ending,
            Standing::Done => State::Done,
        };
        let holding = if held { Holding::Bytes } else { Holding::Nothing };
        // Epoll tells of a socket that is new to it whether it can be read; whether it takes more is tried.
        Self { bytes, state, holding, ..Self::new() }
    }

    /// How far it has come.
    pub(crate) const fn standing(&self) -> Standing {
        match self.state {
            State::Open => Standing::Open,
            State::Ending => Standing::Ending,
            State::Done => Standing::Done,
        }
    }

    /// Bytes that the sink has taken.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing more goes.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the source can be read.
    pub(crate) const fn is_readable(&self) -> bool {
        self.readable
    }

    /// Epoll says that the source can be read.
    pub(crate) fn handle_readable(&mut self, hangup: bool) {
        self.readable = true;
        self.hangup |= hangup;
    }

    /// Epoll says that the sink takes more.
    pub(crate) fn handle_writable(&mut self) {
        self.writable = true;
    }

    /// The sink has been full, and epoll has been asked about it.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.writable
    }

    /// What to do next.
    pub(crate) fn step(&self) -> Step {
        match (self.state, self.holding) {
            (State::Done, _) => Step::Rest,
            (State::Open | State::Ending, Holding::Bytes | Holding::Pipe) if !self.writable => Step::Rest,
            (State::Open | State::Ending, Holding::Bytes) => Step::Send,
            (State::Open | State::Ending, Holding::Pipe) => Step::Drain,
            (State::Ending, Holding::Nothing) => Step::End,
            (State::Open, Holding::Nothing) if !self.readable => Step::Rest,
            (State::Open, Holding::Nothing) => {
                if self.bulk {
                    Step::Fill
                } else {
                    Step::Receive
                }
            }
        }
    }

    /// [`Step::Receive`] has read into a buffer of `size` bytes. What was read is held until it is sent.
    pub(crate) fn handle_received(&mut self, outcome: Outcome, size: usize) {
        match outcome {
            Outcome::Moved(count) => {
                self.holding = Holding::Bytes;
                self.bulk = count == size;
                self.readable = self.hangup || count == size;
            }
            Outcome::Ended | Outcome::Failed => self.end(),
            Outcome::Blocked => self.readable = false,
        }
    }

    /// The source has said, within what it sent, that nothing more comes.
    pub(crate) fn handle_closed(&mut self) {
        self.end();
    }

    /// The sink is another one than before, which has taken nothing yet.
    pub(crate) fn handle_new_sink(&mut self) {
        self.holding = Holding::Nothing;
        self.writable = true;
    }

    /// The source is another one than before, of which nothing is known yet.
    pub(crate) fn handle_new_source(&mut self) {
        self.readable = false;
        self.hangup = false;
    }

    /// Bytes of a greeting were read, which somebody else keeps.
    pub(crate) fn handle_greeting(&mut self, outcome: Outcome, size: usize) {
        match outcome {
            Outcome::Moved(count) => self.readable = self.hangup || count == size,
            Outcome::Ended | Outcome::Failed => self.end(),
            Outcome::Blocked => self.readable = false,
        }
    }

    /// The greeting is to be sent.
    pub(crate) fn hold(&mut self) {
        self.holding = Holding::Bytes;
    }

    /// Of `held` bytes a [`Step::Send`] has sent some.
    pub(crate) fn handle_sent(&mut self, outcome: Outcome, held: usize) {
        match outcome {
            Outcome::Moved(count) => {
                self.bytes += count as u64;
                if count >= held {
                    self.holding = Holding::Nothing;
                } else {
                    // The kernel tells when it takes more.
                    self.writable = false;
                }
            }
            Outcome::Ended | Outcome::Blocked => self.writable = false,
            Outcome::Failed => self.give_up(),
        }
    }

    /// [`Step::Fill`] has spliced.
    pub(crate) fn handle_filled(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Moved(count) => {
                self.holding = Holding::Pipe;
                // A receive tells whether the source is empty: a splice that comes short may have met a full pipe.
                self.bulk = count >= BULK;
            }
            Outcome::Ended | Outcome::Failed => self.end(),
            Outcome::Blocked => {
                self.bulk = false;
                self.readable = false;
            }
        }
    }

    /// Of `held` bytes a [`Step::Drain`] has spliced some.
    pub(crate) fn handle_drained(&mut self, outcome: Outcome, held: usize) {
        match outcome {
            Outcome::Moved(count) => {
                self.bytes += count as u64;
                if count >= held {
                    self.holding = Holding::Nothing;
                }
            }
            Outcome::Ended | Outcome::Blocked => self.writable = false,
            Outcome::Failed => self.give_up(),
        }
    }

    /// There is no pipe to be had: bytes are copied.
    pub(crate) fn copy(&mut self) {
        self.bulk = false;
    }

    /// [`Step::End`] has been done.
    pub(crate) fn handle_ended(&mut self) {
        self.state = State::Done;
    }

    /// Nobody is there to take anything: what is held is lost.
    pub(crate) fn give_up(&mut self) {
        self.state = State::Done;
        self.holding = Holding::Nothing;
    }

    fn end(&mut self) {
        self.readable = false;
        self.state = State::Ending;
    }
}

#[cfg(test)]
mod tests;
