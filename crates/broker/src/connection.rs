//! One client's connection: owns the socket and the clock of its session.
//!
//! One task for each connection drives [`Connection`] by hand instead of awaiting one thing after the other: each turn reads
//! what has come, gives all of it to the session under one lock, does what the session asks for, and writes all answers and
//! messages at once. Between turns an idle connection holds no buffer: those belong to the worker's thread.
//!
//! What stops reading: output that the client does not take (`MAX_UNSENT`), a peer that is behind
//! (`Pause::Relief`), and, for a moment, a subscriber whose queue fills up (`Pause::Congested`).

mod buffers;
mod pause;
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

use crate::broker::{Accepted, Broker};
use crate::mailbox::Mailbox;
use crate::session::{Action, LinkId};
use buffers::Buffers;
use pause::Pause;

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
    version: Version,
    limits: codec::Limits,
    /// The start of a packet whose rest has not come, or packets that the turn had no room for.
    unread: BytesMut,
    /// There may be whole packets in `unread`.
    undecoded: bool,
    /// What the socket has not taken.
    unsent: BytesMut,
    unflushed: bool,
    /// The one timer, armed for `armed`; that may be earlier than needed, never later.
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    pause: Pause,
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
        let limits = codec::Limits { max_packet_size: broker.limits.max_packet_size };
        let Accepted { mailbox, link, actions } = accepted;
        let mut connection = Self {
            stream,
            broker,
            mailbox,
            link,
            version,
            limits,
            undecoded: !unread.is_empty(),
            unread,
            unsent: BytesMut::new(),
            unflushed: false,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            armed: None,
            pause: Pause::None,
            phase: Phase::Serving,
            look: true,
        };
        let mut buffers = Buffers { actions, ..Buffers::default() };
        connection.perform(&mut buffers, now);
        connection.unsent = buffers.output;
        connection
    }

    /// Serves the client until the connection ends.
    pub async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        buffers::with(|buffers| {
            // What others put into the mailbox wakes the task, so the first turn looks there.
            self.look = true;
            for _ in 0..MAX_TURNS {
                match self.turn(cx, buffers) {
                    Turn::Again => {}
                    Turn::Wait => return Poll::Pending,
                    Turn::Done => return Poll::Ready(()),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn turn(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Turn {
        let now = clock();
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
        let may_read = self.unsent.len() < MAX_UNSENT && self.pause.poll(cx);
        let mut input = if may_read { self.poll_read(cx, buffers) } else { Input::default() };
        if !self.look && !input.any && !timed_out {
            return Turn::Wait;
        }
        let was_blocked = self.is_blocked();
        let more = self.exchange(cx, buffers, &mut input, timed_out, now);
        self.perform(buffers, now);
        self.encode(buffers, now);
        buffers.wakes.wake();
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
        let session = &mut slot.session;
        session.swap_actions(&mut buffers.actions);
        for packet in buffers.packets.drain(..) {
            session.handle_packet(packet, now);
        }
        if let Some(error) = &input.malformed {
            session.handle_malformed(error, now);
        }
        if input.lost.is_some() {
            session.handle_lost(now);
            self.phase = Phase::Lost;
        }
        if timed_out {
            // A client that is not read from cannot be heard.
            if self.pause.is_reading() { session.handle_timeout(now) } else { session.excuse_silence(now) }
        }
        if let Some(reason) = slot.close.take() {
            slot.session.handle_close(reason, now);
        }
        let session = &mut slot.session;
        session.swap_actions(&mut buffers.actions);
        let is_blocked = self.is_blocked();
        if !is_blocked {
            let mut bytes = 0;
            while bytes < MAX_TRANSMIT_BYTES && buffers.transmits.len() < MAX_TRANSMITS {
                let Some(transmit) = session.poll_transmit(now) else { break };
                bytes += transmit.payload_len();
                buffers.transmits.push(transmit);
            }
        }
        let more = session.has_transmit();
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

    /// Does what the session asked for, in its order: a message is on its way before it is acknowledged.
    fn perform(&mut self, buffers: &mut Buffers, now: Instant) {
        let Buffers { actions, output, wakes, .. } = buffers;
        let mut published = 0;
        for action in actions.drain(..) {
            match action {
                Action::Send(packet) => {
                    if let Err(error) = codec::encode(&packet, self.version, output) {
                        tracing::warn!(client = %self.mailbox.client_id(), %error, "packet cannot be written");
                    }
                }
                Action::Publish(publish) => {
                    published += 1;
                    tracing::trace!(client = %self.mailbox.client_id(), topic = %publish.topic, qos = ?publish.qos, "message");
                    let outcome = self.broker.publish(&self.mailbox, publish, now, wakes);
                    self.pause.update(outcome, &self.broker);
                }
                Action::Close { reason, text } => {
                    tracing::debug!(client = %self.mailbox.client_id(), reason = reason.name(), text = &*text, "connection closes");
                    self.phase = if self.phase == Phase::Lost { Phase::Lost } else { Phase::Closing };
                }
                Action::Refused(_)
                | Action::Subscribe { .. }
                | Action::Unsubscribe(_)
                | Action::Watch
                | Action::SendAway(_)
                | Action::End { .. } => {
                    self.broker.apply(&self.mailbox, action, now, wakes);
                }
            }
        }
        if published > 0 {
            self.broker.counters.from_clients.fetch_add(published, Ordering::Relaxed);
        }
    }

    /// Encodes the messages that the session let go.
    fn encode(&mut self, buffers: &mut Buffers, now: Instant) {
        let count = u64::try_from(buffers.transmits.len()).unwrap_or(u64::MAX);
        if count == 0 {
            return;
        }
        for transmit in buffers.transmits.drain(..) {
            if let Err(error) = transmit.write(self.version, now, &mut buffers.output) {
                tracing::warn!(client = %self.mailbox.client_id(), %error, "message cannot be written");
            }
        }
        self.broker.counters.to_clients.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether the socket has not taken all that was written.
    fn is_blocked(&self) -> bool {
        !self.unsent.is_empty() || self.unflushed
    }

    /// [MQTT-3.1.4-3]: another connection has the session now.
    fn handle_taken_over(&mut self, buffers: &mut Buffers) {
        buffers.packets.clear();
        tracing::debug!(client = %self.mailbox.client_id(), "session taken over");
        if self.version == Version::V5 {
            let disconnect = Disconnect { reason: ReasonCode::SessionTakenOver, properties: None };
            buffers.actions.push_back(Action::Send(Packet::Disconnect(disconnect)));
        }
        self.phase = Phase::Closing;
    }

    /// Writing failed.
    fn lose(&mut self, error: &io::Error, now: Instant) {
        tracing::debug!(client = %self.mailbox.client_id(), %error, "connection lost");
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

impl<S> Drop for Connection<S> {
    /// The task was ended from outside, or it panicked: the session must not wait for a connection that is gone.
    fn drop(&mut self) {
        self.let_go(clock());
    }
}

/// The driver's clock; stands still in tests that pause it.
pub fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
