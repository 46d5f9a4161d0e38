//! One client's connection: owns the socket and the clock of its session.
//!
//! One task for each connection drives [`Connection`] by hand instead of awaiting one thing after the other: each turn reads
//! what has come, gives all of it to the session under one lock, does what the session asks for, and writes all answers and
//! messages at once. Between turns an idle connection holds no buffer: those belong to the worker's thread.
//!
//! What relies on the store waits until the store is so far (`held`): acknowledgements leave in their order, and everything
//! else past them.
//!
//! What stops reading: output that the client does not take (`MAX_UNSENT`), a peer that is behind
//! (`Pause::Relief`), messages faster than they may come (`Pause::Slowed`), and, for a moment, a subscriber whose queue fills up
//! (`Pause::Congested`).

mod aliases;
mod buffers;
mod held;
mod pause;
mod perform;
mod rest;
mod seen;
mod socket;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evermq_mqtt::codec::{self, DecodeError};
use evermq_mqtt::packet::Disconnect;
use evermq_mqtt::{Packet, ReasonCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use evermq_store::Position;

use crate::broker::{Accepted, Broker};
use crate::mailbox::{Closing, Mailbox};
use crate::presence::Presence;
use crate::rate::Meter;
use crate::session::queue::AHEAD;
use crate::session::{Action, LinkId, Transmit};
use aliases::Aliases;
use buffers::Buffers;
use held::{Held, Promise};
use pause::Pause;
use rest::Rest;

/// Answers that may wait for a client that sends without reading; then it is not read from either.
const MAX_UNSENT: usize = 256 * 1024;
/// Packets of one turn, so that a flood of tiny ones neither fills memory nor keeps the thread.
const MAX_PACKETS: usize = 512;
/// Messages for the client in one turn.
const MAX_TRANSMITS: usize = 512;
/// Their payload bytes.
const MAX_TRANSMIT_BYTES: usize = 128 * 1024;
/// Turns before other connections of the thread have theirs.
const MAX_TURNS: usize = 4;
/// How long a closing connection waits until the client has taken what is left and has closed too.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's connection.
pub struct Connection<S> {
    stream: S,
    broker: Arc<Broker>,
    mailbox: Arc<Mailbox>,
    link: LinkId,
    /// What others see of this connection.
    presence: Arc<Presence>,
    version: Version,
    limits: codec::Limits,
    aliases: Aliases,
    /// The start of a packet whose rest has not come, or packets that the turn had no room for.
    unread: Rest,
    /// There may be whole packets in `unread`.
    undecoded: bool,
    /// What the store is to have first.
    held: Held,
    /// How far it has to be to have all that was recorded of the session.
    recorded: Position,
    /// Its latest messages went into the store, so it is not read from while that does not keep up.
    fills_store: bool,
    /// What the socket has not taken.
    unsent: Rest,
    unflushed: bool,
    /// The one timer, armed for `armed`; that may be earlier than needed, never later.
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    pause: Pause,
    /// How fast it may send, where that is bounded.
    meter: Option<Box<Meter>>,
    phase: Phase,
    /// The session may have something that this connection has not seen.
    look: bool,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The session is connected through it.
    Serving,
    /// The session has let go of it; what is left is to be written.
    Closing,
    /// Everything is written and the client has been told so; it is to close its side.
    Lingering,
    /// Nothing more can be read or written.
    Lost,
}

/// What came in a turn, besides packets.
#[derive(Debug, Default)]
struct Input {
    /// Something was read, or the connection has ended.
    any: bool,
    /// It has ended or failed.
    lost: Option<io::Error>,
    malformed: Option<DecodeError>,
}

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// There may be more to do.
    Again,
    /// Wakers are in place.
    Wait,
    /// The connection is over.
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection whose CONNECT was accepted; `unread` came after it.
    pub fn new(stream: S, broker: Arc<Broker>, version: Version, accepted: Accepted, unread: BytesMut) -> Self {
        let now = clock();
        let Accepted { mailbox, link, facts, connect_len, max_packet_size, client, actions, recorded } = accepted;
        let limits = codec::Limits { max_packet_size };
        let presence = seen::appear(&broker, &mailbox, link, facts, version, now);
        let mut connection = Self {
            stream,
            broker,
            mailbox,
            link,
            presence,
            version,
            limits,
            aliases: Aliases::new(client.topic_aliases, client.max_packet_size),
            undecoded: !unread.is_empty(),
            unread: Rest::new(unread),
            held: Held::default(),
            recorded,
            fills_store: false,
            unsent: Rest::default(),
            unflushed: false,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            armed: None,
            pause: Pause::None,
            meter: None,
            phase: Phase::Serving,
            look: true,
        };
        let mut buffers = Buffers { actions, ..Buffers::default() };
        connection.perform(&mut buffers, now);
        connection.unsent = Rest::new(buffers.output);
        buffers.tally.connected(connect_len, connection.unsent.len());
        connection.settle(&mut buffers.tally);
        connection
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        buffers::with(|buffers| {
            // What others put into the mailbox wakes the task, so the first turn looks there.
            self.look = true;
            let polled = self.turns(cx, buffers);
            self.settle(&mut buffers.tally);
            polled
        })
    }

    fn turns(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<()> {
        for _ in 0..MAX_TURNS {
            match self.turn(cx, buffers) {
                Turn::Again => {}
                Turn::Wait => return Poll::Pending,
                Turn::Done => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn turn(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Turn {
        let now = clock();
        if !self.held.is_empty() {
            self.held.release(self.broker.journal.as_deref(), cx, &mut buffers.output);
        }
        if let Err(error) = self.poll_write(cx, buffers) {
            self.lose(&error, now);
        }
        let timed_out = self.poll_timer(cx);
        match self.phase {
            Phase::Serving => {}
            Phase::Closing | Phase::Lingering if timed_out => return Turn::Done,
            Phase::Closing | Phase::Lingering => return self.poll_close(cx, buffers),
            Phase::Lost => return Turn::Done,
        }
        let may_read = self.unsent.len() + self.held.len() < MAX_UNSENT && self.pause.poll(cx) && self.keeps_pace(cx);
        let mut input = if may_read { self.poll_read(cx, buffers) } else { Input::default() };
        if !self.look && !input.any && !timed_out {
            return Turn::Wait;
        }
        if self.presence.is_traced() {
            self.show_received(buffers);
        }
        let was_blocked = self.is_blocked();
        self.slow_down(buffers, now);
        let more = self.exchange(cx, buffers, &mut input, timed_out, now);
        self.perform(buffers, now);
        self.encode(buffers, now);
        buffers.wakes.wake();
        if !self.held.is_empty() {
            self.held.release(self.broker.journal.as_deref(), cx, &mut buffers.output);
        }
        match self.poll_write(cx, buffers) {
            Ok(()) => {}
            Err(error) => self.lose(&error, now),
        }
        if self.phase != Phase::Serving {
            self.broker.watch(&self.mailbox);
            self.arm(cx, now.checked_add(CLOSE_TIMEOUT));
            return Turn::Again;
        }
        // Another look if the session has more to send, or if it was told that nothing can be sent, which has changed.
        self.look = (more || was_blocked) && !self.is_blocked();
        if input.any || self.look { Turn::Again } else { Turn::Wait }
    }

    /// Gives the session what came, and takes what it wants done and sent. True: it has more to send.
    fn exchange(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        input: &mut Input,
        timed_out: bool,
        now: Instant,
    ) -> bool {
        let mut slot = self.mailbox.lock();
        if slot.session.link() != Some(self.link) {
            drop(slot);
            self.handle_taken_over(buffers);
            return false;
        }
        let is_blocked = self.is_blocked();
        let close = slot.close.take();
        let Buffers { packets, actions, transmits, wakes, tally, .. } = buffers;
        self.mailbox.change(&mut slot, wakes.changes(), |session| {
            session.swap_actions(actions);
            for packet in packets.drain(..) {
                tally.received(&packet);
                session.handle_packet(packet, now);
            }
            if let Some(error) = &input.malformed {
                session.handle_malformed(error, now);
            }
            if input.lost.is_some() {
                session.handle_lost(now);
                self.broker.counters.lost.fetch_add(1, Ordering::Relaxed);
                self.phase = Phase::Lost;
            }
            if timed_out {
                // A client that is not read from cannot be heard.
                if self.pause.is_reading() && !self.fills_store {
                    session.handle_timeout(now);
                } else {
                    session.excuse_silence(now);
                }
            }
            if let Some(closing) = close {
                let Closing { reason, text, ends_session } = *closing;
                session.handle_close_because(reason, text, now);
                if ends_session {
                    session.handle_end(now);
                }
            }
            session.swap_actions(actions);
            let mut bytes = 0;
            while !is_blocked && bytes < MAX_TRANSMIT_BYTES && transmits.len() < MAX_TRANSMITS {
                if transmits.len() % AHEAD == 0 {
                    session.queue().look_ahead();
                }
                let Some(transmit) = session.poll_transmit(now) else { break };
                bytes += transmit.payload_len();
                transmits.push(transmit);
            }
        });
        self.recorded = slot.recorded;
        let session = &slot.session;
        let more = session.has_transmit() || session.waits_for().is_some_and(|hold| !hold.wakes(cx.waker()));
        let deadline = session.poll_timeout();
        let is_connected = session.link().is_some();
        slot.is_blocked = is_blocked;
        slot.waker = if is_connected && (is_blocked || !more) { Some(cx.waker().clone()) } else { None };
        drop(slot);
        if is_connected {
            self.arm(cx, deadline);
        }
        more
    }

    /// Encodes the messages that the session let go.
    fn encode(&mut self, buffers: &mut Buffers, now: Instant) {
        if let Some(received) = buffers.transmits.first().and_then(Transmit::received) {
            // The one that has waited for longest stands for its turn.
            self.broker.counters.observe_latency(now.saturating_duration_since(received));
        }
        let is_traced = self.presence.is_traced();
        for transmit in buffers.transmits.drain(..) {
            buffers.tally.transmitted(&transmit);
            if is_traced {
                self.show_transmitted(&transmit, now);
            }
            // §4.3.3: the identifier of a message of QoS 2 is the same message's until both sides have said so.
            let promise = if transmit.is_exactly_once() { Promise::Made } else { Promise::None };
            // An alias is set by the first packet that has it, so only those that do not overtake each other have one.
            let may_wait =
                transmit.is_exactly_once() && (self.recorded != Position::default() || !self.held.is_empty());
            let alias = if may_wait { None } else { self.aliases.choose(&transmit, self.version, now) };
            let journal = self.broker.journal.as_deref();
            let write = |out: &mut BytesMut| transmit.write(self.version, alias, now, out);
            if let Err(error) = self.held.write(journal, (promise, self.recorded), &mut buffers.output, write) {
                tracing::warn!(client = %self.mailbox.client_id(), %error, "message cannot be written");
                self.aliases.withdraw(alias);
            }
        }
    }

    /// Whether the socket has not taken all that was written, or more waits for the store than is good.
    fn is_blocked(&self) -> bool {
        !self.unsent.is_empty() || self.unflushed || self.held.len() >= MAX_TRANSMIT_BYTES
    }

    /// Whether the store takes the client's messages as fast as they come.
    fn keeps_pace(&mut self, cx: &Context<'_>) -> bool {
        if self.fills_store {
            self.fills_store = self.broker.journal.as_ref().is_some_and(|journal| !journal.poll_pace(cx));
        }
        !self.fills_store
    }

    /// [MQTT-3.1.4-3]: another connection has the session now.
    fn handle_taken_over(&mut self, buffers: &mut Buffers) {
        buffers.packets.clear();
        tracing::debug!(client = %self.mailbox.client_id(), "session taken over");
        self.broker.counters.ended.count(ReasonCode::SessionTakenOver);
        if self.version == Version::V5 {
            let disconnect = Disconnect { reason: ReasonCode::SessionTakenOver, properties: None };
            buffers.actions.push_back(Action::Send(Packet::Disconnect(disconnect)));
        }
        self.phase = Phase::Closing;
    }

    /// Writing failed.
    fn lose(&mut self, error: &io::Error, now: Instant) {
        tracing::debug!(client = %self.mailbox.client_id(), %error, "connection lost");
        self.broker.counters.lost.fetch_add(1, Ordering::Relaxed);
        self.phase = Phase::Lost;
        self.let_go(now);
    }
}

impl<S> Connection<S> {
    /// The session goes on without this connection.
    fn let_go(&mut self, now: Instant) {
        self.broker.update(&self.mailbox, now, |session| {
            if session.link() == Some(self.link) {
                session.handle_lost(now);
            }
        });
    }
}

/// Serves the client until the connection ends. A future of its own rather than an `async fn`, which would keep room for the
/// connection more than once.
impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.get_mut();
        // `EVERMQ_LOG='info,[client{id=NAME}]=trace'` logs everything about one client. Made at each poll, which costs nothing
        // while nobody asks for it; kept, it would cost each client 40 bytes.
        let span = tracing::debug_span!("client", id = connection.mailbox.client_id().as_str());
        span.in_scope(|| connection.poll_turns(cx))
    }
}

impl<S> Drop for Connection<S> {
    /// The task was ended from outside, or it panicked: the session must not wait for a connection that is gone.
    fn drop(&mut self) {
        self.let_go(clock());
        self.disappear();
    }
}

/// The driver's clock; stands still in tests that pause it.
pub fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
