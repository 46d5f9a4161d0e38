//! This broker's link to one peer: sends the origin log there, learns what arrived.
//!
//! ```text
//!          start                 opened              WELCOME, knows nothing           sent
//!   Idle ────────▶ Connecting ──────────▶ Greeting ───────────────────────▶ Snapshot ──────▶ Streaming
//!                   ▲      │                 │ │                             ▲    │  log's end │  │
//!        timeout or │      │ lost, timeout   │ └── WELCOME, resume ──────────│────│──────────▶ │  │
//!        peer seen  │      ▼                 │                               └────│────────────┘  │
//!                 Backoff ◀──────────────────┴────────────────────────────────────┴───────────────┘
//!                                                 lost, silent, ERROR, BYE
//!   any state, when the peer leaves the cluster file: Stopped
//!   any state, at shutdown: Stopped, but a link that is up or coming up first sends what is left, under a deadline
//! ```
//!
//! Exactly once: what the peer has is what the peer says in WELCOME, not what this side believes. Everything behind that is
//! sent, in order; what the log no longer holds is stood in for by a GAP, and counted when the peer has taken note of it.
//! A peer that knows nothing of this log (it is new, or has lost its store) first gets the retained messages, and then everything
//! that its predecessor had not acknowledged. The same snapshot precedes a GAP, so that retained messages in the gap are not
//! missing for ever.
//!
//! Pure: bytes, sockets and the log are with the driver, [`crate::peer`]. The machine is one file of some 400 lines, because its
//! transitions can only be judged side by side; its states and actions are in [`action`], how a link ends or
//! moves in [`ending`].

mod action;
mod ending;
mod losses;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::batch::Batch;
use crate::cursor::{Cursor, Room};
use crate::frame::{Frame, Hello, Range, VERSIONS, Welcome};

pub(crate) use self::action::{Action, Change, Loss, State};
use self::losses::Losses;

/// For TCP, TLS and WELCOME together.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two PINGs.
pub(crate) const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Without a sign of life for this long the other side is dead.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(3);
/// At shutdown, for sending what is left and hearing that it arrived.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes in one read of the log: a few TLS records, written in one go.
const BATCH_BYTES: u64 = 64 * 1024;

/// The link to one peer.
#[derive(Debug)]
pub(crate) struct Link {
    state: State,
    hello: Hello,
    cursor: Cursor,
    backoff: Backoff,
    /// The peer's instance, once it was reached.
    instance: Option<u64>,
    max_body: u32,
    ping_at: Instant,
    dead_at: Instant,
    stop_at: Option<Instant>,
    /// Whether the driver can take more bytes.
    writable: bool,
    /// Whether a read was asked for and not yet answered.
    reading: bool,
    /// Whether the last read found nothing new that may be sent.
    at_end: bool,
    /// Whether there is something that may not be sent yet.
    held: bool,
    losses: Losses,
    actions: VecDeque<Action>,
}

impl Link {
    /// A link that says `hello`; `seed` is for the jitter of its reconnects.
    pub(crate) fn new(hello: Hello, seed: u64, now: Instant) -> Self {
        Self {
            state: State::Idle,
            hello,
            cursor: Cursor::default(),
            backoff: Backoff::new(seed),
            instance: None,
            max_body: 0,
            ping_at: now,
            dead_at: now,
            stop_at: None,
            writable: false,
            reading: false,
            at_end: false,
            held: false,
            losses: Losses::default(),
            actions: VecDeque::new(),
        }
    }

    /// The log goes on: the peer has everything up to `acknowledged`, and nothing beyond `highest`.
    pub(crate) fn resume(&mut self, acknowledged: u64, highest: u64) {
        self.cursor = Cursor::recovered(acknowledged, highest);
    }

    /// What the next connection begins with: the log's epoch and end as they are now.
    pub(crate) fn set_hello(&mut self, hello: Hello) {
        self.hello = hello;
    }

    /// Where the link is.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Largest body that the peer takes.
    pub(crate) fn max_body(&self) -> u32 {
        self.max_body
    }

    /// What to do next, if anything.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Link::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.state {
            State::Idle | State::Stopped => return None,
            State::Connecting { until } | State::Greeting { until } | State::Backoff { until } => until,
            State::Snapshot { .. } | State::Streaming => self.ping_at.min(self.dead_at),
        };
        Some(self.stop_at.map_or(own, |stop| stop.min(own)))
    }

    /// Begin.
    pub(crate) fn handle_start(&mut self, now: Instant) {
        if self.state == State::Idle {
            self.connect("started", now);
        }
    }

    /// The time of [`Link::poll_timeout`] has come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.state != State::Stopped && self.stop_at.is_some_and(|stop| stop <= now) {
            return self.down("stopping, and the peer has not acknowledged everything in time".into(), false, now);
        }
        match self.state {
            State::Idle | State::Stopped => {}
            State::Connecting { until } if until <= now => self.down("no connection in time".into(), false, now),
            State::Greeting { until } if until <= now => self.down("no WELCOME in time".into(), false, now),
            State::Backoff { until } if until <= now => self.connect("next attempt", now),
            State::Connecting { .. } | State::Greeting { .. } | State::Backoff { .. } => {}
            State::Snapshot { .. } | State::Streaming => {
                if self.dead_at <= now {
                    self.down(format!("peer is silent for {} s", DEAD_AFTER.as_secs()), false, now);
                } else if self.ping_at <= now {
                    self.ping_at = now + PING_INTERVAL;
                    self.actions.push_back(Action::Send(Frame::Ping));
                }
            }
        }
    }

    /// The peer was seen: it has connected to this broker. No reason to wait any longer.
    pub(crate) fn handle_seen(&mut self, now: Instant) {
        match self.state {
            State::Backoff { .. } => self.connect("peer has connected to us", now),
            State::Idle
            | State::Connecting { .. }
            | State::Greeting { .. }
            | State::Snapshot { .. }
            | State::Streaming
            | State::Stopped => {}
        }
    }

    /// The connection is open, and the peer's certificate is the peer's.
    pub(crate) fn handle_opened(&mut self, now: Instant) {
        match self.state {
            State::Connecting { until } => {
                self.actions.push_back(Action::Send(Frame::Hello(self.hello.clone())));
                self.change(State::Greeting { until }, "connection is open".into(), false);
                self.dead_at = now + DEAD_AFTER;
            }
            // The attempt was given up meanwhile.
            State::Idle
            | State::Greeting { .. }
            | State::Snapshot { .. }
            | State::Streaming
            | State::Backoff { .. }
            | State::Stopped => self.actions.push_back(Action::Close { last_word: false }),
        }
    }

    /// The connection, or the attempt at one, has failed; `refused` if one of the two sides does not accept the other.
    pub(crate) fn handle_lost(&mut self, reason: String, refused: bool, now: Instant) {
        match self.state {
            State::Connecting { .. } | State::Greeting { .. } | State::Snapshot { .. } | State::Streaming => {
                self.down(reason, refused, now);
            }
            State::Idle | State::Backoff { .. } | State::Stopped => {}
        }
    }

    /// Bytes came from the peer: it lives.
    pub(crate) fn handle_bytes(&mut self, now: Instant) {
        self.dead_at = now + DEAD_AFTER;
    }

    /// A frame came from the peer.
    pub(crate) fn handle_frame(&mut self, frame: Frame, now: Instant) {
        match (self.state, frame) {
            (State::Idle | State::Connecting { .. } | State::Backoff { .. } | State::Stopped, _) => {}
            (State::Greeting { .. }, Frame::Welcome(welcome)) => self.welcome(welcome, now),
            (State::Snapshot { .. } | State::Streaming, Frame::Ack { seq }) => self.acknowledge(seq, now),
            (State::Snapshot { .. } | State::Streaming, Frame::Pong) => {}
            (State::Greeting { .. } | State::Snapshot { .. } | State::Streaming, Frame::Error { text }) => {
                self.down(format!("peer refuses: this broker {text}"), true, now);
            }
            (State::Greeting { .. } | State::Snapshot { .. } | State::Streaming, Frame::Bye) => {
                self.down("peer stops".into(), false, now);
            }
            (
                State::Greeting { .. } | State::Snapshot { .. } | State::Streaming,
                Frame::Hello(_)
                | Frame::Welcome(_)
                | Frame::Entry(_)
                | Frame::Retained(_)
                | Frame::SnapshotEnd { .. }
                | Frame::Gap(_)
                | Frame::Skip(_)
                | Frame::Ack { .. }
                | Frame::Ping
                | Frame::Pong
                | Frame::Claim(_)
                | Frame::Group(_)
                | Frame::Groups { .. }
                | Frame::Directed(_),
            ) => self.violated("it sent a frame that has no place here", now),
        }
    }

    /// Everything that [`Action::Snapshot`] asked for was sent.
    pub(crate) fn handle_snapshot_sent(&mut self) {
        if let State::Snapshot { gap } = self.state {
            if let Some(range) = gap {
                self.actions.push_back(Action::Send(Frame::Gap(range)));
                self.cursor.sent(range.to, 0);
                self.losses.sent([range]);
            }
            self.change(State::Streaming, "snapshot is sent".into(), false);
            self.pump();
        }
    }

    /// Everything sent so far is on its way: there is room for more.
    pub(crate) fn handle_writable(&mut self) {
        self.writable = true;
        self.pump();
    }

    /// The log has something new.
    pub(crate) fn handle_news(&mut self) {
        self.at_end = false;
        self.held = false;
        self.pump();
    }

    /// A read gave this much, which is sent. Gives how many of the messages had been sent before.
    pub(crate) fn handle_batch(&mut self, batch: &Batch) -> u64 {
        self.reading = false;
        self.writable = false;
        if !batch.too_large.is_empty() {
            self.actions.extend(self.losses.begin(Loss::TooLarge));
            self.losses.sent(batch.too_large.iter().copied());
        }
        self.cursor.sent(batch.last, batch.bytes)
    }

    /// A read found nothing new.
    pub(crate) fn handle_end(&mut self, now: Instant) {
        self.reading = false;
        self.at_end = true;
        self.stop_if_done(now);
    }

    /// A read found something that may not be sent yet. [`Link::handle_news`] says when it may.
    pub(crate) fn handle_held(&mut self) {
        self.reading = false;
        self.at_end = true;
        self.held = true;
    }

    fn welcome(&mut self, welcome: Welcome, now: Instant) {
        let known = self.instance.replace(welcome.instance);
        if !(VERSIONS.0..=VERSIONS.1).contains(&welcome.version) {
            return self.violated("it chose a version that this broker does not speak", now);
        }
        let base = welcome.resume.unwrap_or(self.cursor.acknowledged());
        if base > self.cursor.highest_sent() {
            // Of this epoch, by a log that knew of more than this one: it must not go on under the same name.
            self.actions.push_back(Action::LogWasSetBack);
            let text =
                format!("peer has message {base} of this broker's log, whose newest is {}", self.cursor.highest_sent());
            return self.down(text, true, now);
        }
        self.backoff.reset();
        self.max_body = welcome.max_body;
        self.actions.extend(self.losses.settle(welcome.resume.unwrap_or(0)));
        self.losses.forget_unsettled();
        self.cursor.resume(base);
        self.ping_at = now + PING_INTERVAL;
        self.dead_at = now + DEAD_AFTER;
        self.writable = true;
        self.reading = false;
        self.at_end = false;
        self.held = false;
        self.actions.push_back(Action::Attach(base));
        self.actions.extend((welcome.minor > 0).then_some(Action::Tell(welcome.minor)));
        match (welcome.resume, known) {
            (Some(seq), _) => {
                self.change(State::Streaming, format!("peer goes on after message {seq}"), false);
                self.pump();
            }
            (None, None) => self.snapshot(None, "first contact"),
            (None, Some(instance)) if instance == welcome.instance => {
                self.snapshot(None, "peer knows nothing of this log");
            }
            (None, Some(_)) => self.snapshot(None, "peer has begun anew"),
        }
    }

    fn acknowledge(&mut self, seq: u64, now: Instant) {
        if self.cursor.acknowledge(seq).is_none() {
            return self.violated("it acknowledged a message that was never sent", now);
        }
        self.actions.extend(self.losses.settle(seq));
        self.actions.push_back(Action::Acknowledged(seq));
        self.pump();
        self.stop_if_done(now);
    }

    fn snapshot(&mut self, gap: Option<Range>, reason: &str) {
        self.actions.push_back(Action::Snapshot { base: self.cursor.next() - 1 });
        self.change(State::Snapshot { gap }, reason.into(), false);
    }

    fn pump(&mut self) {
        if self.state != State::Streaming || !self.writable || self.reading || self.at_end {
            return;
        }
        if let Some(room) = self.cursor.room() {
            self.reading = true;
            self.actions.push_back(Action::Read(Room { bytes: room.bytes.min(BATCH_BYTES), ..room }));
        }
    }

    fn violated(&mut self, text: &str, now: Instant) {
        let error = Frame::Error { text: format!("does not keep to the protocol: {text}") };
        self.down_with(Some(error), format!("peer does not keep to the protocol: {text}"), true, now);
    }

    fn connect(&mut self, reason: &str, now: Instant) {
        self.actions.push_back(Action::Connect);
        self.change(State::Connecting { until: now + OPEN_TIMEOUT }, reason.into(), false);
    }

    fn down(&mut self, reason: String, refused: bool, now: Instant) {
        self.down_with(None, reason, refused, now);
    }

    fn down_with(&mut self, last_word: Option<Frame>, reason: String, refused: bool, now: Instant) {
        let close = Action::Close { last_word: last_word.is_some() };
        self.actions.extend(last_word.map(Action::Send));
        self.actions.push_back(close);
        if self.state.is_up() {
            self.actions.push_back(Action::Detach);
        }
        let to = match self.stop_at {
            Some(_) => State::Stopped,
            None => State::Backoff { until: now + self.backoff.next() },
        };
        self.change(to, reason, refused);
    }

    fn change(&mut self, to: State, reason: String, refused: bool) {
        let from = std::mem::replace(&mut self.state, to);
        self.actions.push_back(Action::Changed(Change { from, to, reason, refused }));
    }
}

#[cfg(test)]
mod tests;
