//! The task that takes one peer's messages from one connection: drives [`Inbound`](crate::inbound::Inbound).
//!
//! All machine calls and the deliveries that they bring about happen under the origin's lock, without a wait in between. So a
//! newer connection of the same origin finds everything delivered that was applied, and an older one can deliver nothing after it.
//!
//! What came in one read is given to the broker at once, and behind all that the store then has of it stands the record
//! that it was applied. Only when that is on the disk does the origin get its acknowledgement.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use evermq_store::{Position, Record};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::claim;
use crate::directions::Directions;
use crate::frame::{self, Claim, Entry, Head, Hello, Range, Retained};
use crate::inbound::{Action, Change, LinkId};
use crate::link::PING_INTERVAL;
use crate::mesh::{Mesh, add, now};
use crate::message::{Arrived, Stamp};
use crate::peer::sleep_until;
use crate::roster::{Origin, PeerSlot};
use crate::wire::{Progress, Wire};
use crate::wire_message::{self, MessageError};

/// Up to here a packet is copied out of the read buffer of 64 KiB.
const SMALL_PACKET: usize = 8 * 1024;

/// One connection of a peer whose identity is proven.
pub(crate) struct Incoming<S> {
    mesh: Arc<Mesh>,
    slot: Arc<PeerSlot>,
    /// The peer's name as it stands in the stamps of its messages.
    origin: Arc<str>,
    id: LinkId,
    wire: Wire<S>,
    replaced: CancellationToken,
    closing: Option<Closing>,
    /// What came in this read, for the broker.
    arrived: Vec<Arrived>,
}

enum Closing {
    /// After what is to be sent.
    Politely,
    /// A newer connection has taken over.
    AtOnce,
}

impl<S: AsyncRead + AsyncWrite> Incoming<S> {
    /// Begins the link; an older one of the same peer is replaced. The peer is known to be up now, so the link to it need not
    /// wait either.
    pub(crate) fn begin(mesh: Arc<Mesh>, slot: Arc<PeerSlot>, hello: &Hello, wire: Wire<S>) -> Self {
        let replaced = CancellationToken::new();
        let origin = Arc::from(slot.name.as_str());
        let id = {
            let mut origin = slot.origin.lock();
            std::mem::replace(&mut origin.current, replaced.clone()).cancel();
            settle(&mesh, &mut origin);
            origin.machine.handle_hello(hello, now())
        };
        slot.counters.note_answer();
        slot.seen.notify_one();
        Self { mesh, slot, origin, id, wire, replaced, closing: None, arrived: Vec::new() }
    }

    /// Until the connection ends, is replaced, or `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.with_machine(|_, _| {});
        while self.closing.is_none() {
            let timeout = self.slot.origin.lock().machine.poll_timeout();
            let (mesh, slot) = (Arc::clone(&self.mesh), Arc::clone(&self.slot));
            let is_ready = poll_once(|cx| mesh.local.poll_ready(cx)).await;
            tokio::select! {
                () = self.replaced.cancelled() => self.closing = Some(Closing::AtOnce),
                () = shutdown.cancelled() => self.with_machine(|origin, _| origin.machine.handle_shutdown("shutdown")),
                () = slot.left.cancelled() => {
                    self.with_machine(|origin, _| origin.machine.handle_shutdown("it has left the cluster file"));
                }
                () = sleep_until(timeout) => self.with_machine(|origin, _| origin.machine.handle_timeout(now())),
                () = recorded(&mesh, &slot) => self.with_machine(|_, _| {}),
                () = poll_fn(|cx| mesh.local.poll_ready(cx)), if !is_ready => {}
                () = tokio::time::sleep(PING_INTERVAL), if !is_ready => {
                    self.with_machine(|origin, _| origin.machine.handle_paused(now()));
                }
                progress = self.wire.progress_if(is_ready) => self.handle_progress(progress),
            }
        }
        match self.closing {
            Some(Closing::Politely) => self.wire.finish().await,
            Some(Closing::AtOnce) | None => {}
        }
    }

    fn handle_progress(&mut self, progress: Progress) {
        let traffic = self.wire.take_traffic();
        self.slot.counters.add_bytes(traffic);
        match progress {
            Progress::Sent => {}
            Progress::Ended(error) => {
                let reason = match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => "it has closed the connection".to_owned(),
                    _ => error.to_string(),
                };
                self.with_machine(|origin, _| origin.machine.handle_lost(reason, false));
            }
            Progress::Received => {
                let max_body = self.mesh.max_body;
                self.with_machine(|origin, incoming| {
                    let now = now();
                    origin.machine.handle_bytes(now);
                    loop {
                        match incoming.wire.next_frame(max_body) {
                            Ok(Some(frame)) => origin.machine.handle_frame(frame),
                            Ok(None) => break origin.machine.handle_read_end(),
                            Err(error) => break origin.machine.handle_lost(error.to_string(), true),
                        }
                        incoming.perform_actions(origin, now);
                    }
                });
            }
        }
    }

    /// Feeds the machine, if this is still the current link, and carries out what it says.
    fn with_machine(&mut self, feed: impl FnOnce(&mut Origin, &mut Self)) {
        let (mesh, slot) = (Arc::clone(&self.mesh), Arc::clone(&self.slot));
        let mut origin = slot.origin.lock();
        if !origin.machine.is_current(self.id) {
            self.closing = Some(Closing::AtOnce);
            return;
        }
        settle(&mesh, &mut origin);
        feed(&mut origin, self);
        self.perform_actions(&mut origin, now());
        self.hand_over(&mut origin, None);
        if origin.machine.is_filled() {
            slot.counters.filled.store(true, Ordering::Relaxed);
        }
    }

    fn perform_actions(&mut self, origin: &mut Origin, now: Instant) {
        while let Some(action) = origin.machine.poll_action() {
            match action {
                Action::Send(frame) => frame::encode(&frame, self.wire.output()),
                Action::Deliver { epoch, entry, directions } => self.take(epoch, entry, directions, now),
                Action::Record { epoch, seq } => {
                    self.hand_over(origin, Some((epoch, seq)));
                    settle(&self.mesh, origin);
                }
                // By their stamps: it makes no difference what is handed over first.
                Action::ApplyRetained(retained) => self.apply_retained(retained, now),
                Action::Claimed(claim) => self.claimed(claim),
                Action::Heard(heard) => self.mesh.heard(&self.slot, heard),
                Action::Missed(range) => self.count_missed(range),
                Action::Duplicate => add(&self.slot.counters.duplicates, 1),
                Action::Close => self.closing = Some(Closing::Politely),
                Action::Changed(change) => self.report(&change, origin.machine.is_linked()),
            }
        }
    }

    fn take(&mut self, epoch: u64, entry: Entry, directions: Option<Directions>, now: Instant) {
        let Head { seq, age, time, publisher } = entry.head;
        let stamp = Stamp { time, origin: Arc::clone(&self.origin) };
        self.mesh.clock.observe(time);
        match wire_message::decode(of_its_own(entry.packet), stamp, age, publisher, now) {
            Ok(message) => {
                add(&self.slot.counters.received, 1);
                self.arrived.push(Arrived { message, epoch, seq, directions });
            }
            Err(error) => self.count_malformed(Some(seq), &error),
        }
    }

    /// Gives the broker what has come, and writes down how far that is.
    fn hand_over(&mut self, origin: &mut Origin, applied: Option<(u64, u64)>) {
        let keeper = self.mesh.spool.keeper();
        let mut record = || {
            let Some((epoch, seq)) = applied else { return Position::default() };
            let at = keeper.as_ref().map_or(Position::default(), |keeper| {
                keeper.store().append(&Record::Applied { origin: (&*self.origin).into(), epoch, seq })
            });
            origin.recorded.push_back((at, epoch, seq));
            at
        };
        if self.arrived.is_empty() {
            record();
        } else {
            self.mesh.local.deliver(&mut self.arrived, &mut record);
            self.arrived.clear();
        }
    }

    fn apply_retained(&self, retained: Retained, now: Instant) {
        let stamp = Stamp { time: retained.time, origin: Arc::from(retained.origin) };
        self.mesh.clock.observe(retained.time);
        match wire_message::decode(of_its_own(retained.packet), stamp, retained.age, None, now) {
            Ok(message) => self.mesh.local.apply_retained(message),
            Err(error) => self.count_malformed(None, &error),
        }
    }

    fn claimed(&self, claim: Claim) {
        let Claim { time, clean_start, client_id, user } = claim;
        // Before the client is looked for: whoever is not found then connects later than this claim.
        self.mesh.clock.observe(time);
        let stamp = Stamp { time, origin: Arc::clone(&self.origin) };
        let user = user.map(|user| Arc::from(user.as_str()));
        let claim = claim::Claim { client_id, user, stamp, clean_start };
        if self.mesh.clients.get().is_some_and(|clients| clients.claimed(&claim, self.mesh.me())) {
            add(&self.slot.counters.taken_over, 1);
        }
    }

    /// To break the connection off would not help: the peer would send the same message again, for ever.
    fn count_malformed(&self, seq: Option<u64>, error: &MessageError) {
        add(&self.slot.counters.malformed, 1);
        warn!(peer = &*self.origin, seq, %error, "peer's message cannot be understood and is left out");
    }

    fn count_missed(&self, range: Range) {
        let messages = range.to - range.from + 1;
        add(&self.slot.counters.missed, messages);
        info!(
            peer = &*self.origin,
            messages,
            from_seq = range.from,
            to_seq = range.to,
            "peer no longer has messages that this broker missed"
        );
    }

    fn report(&self, change: &Change, linked: bool) {
        self.mesh.linked(&self.slot, |links| links.receiving = linked);
        let (peer, from, to, reason) = (&*self.origin, change.from, change.to, change.reason.as_str());
        if change.violated {
            warn!(peer, from, to, reason, "link from peer");
        } else {
            info!(peer, from, to, reason, "link from peer");
        }
    }
}

/// Tells the machine what has come to the disk.
fn settle(mesh: &Mesh, origin: &mut Origin) {
    let keeper = mesh.spool.keeper();
    while let Some((at, epoch, seq)) = origin.recorded.front().copied() {
        if keeper.as_ref().is_some_and(|keeper| !keeper.store().is_durable(at)) {
            return;
        }
        origin.recorded.pop_front();
        origin.machine.handle_recorded(epoch, seq);
    }
}

/// Waits until something that was recorded comes to the disk. Cancel-safe.
async fn recorded(mesh: &Mesh, slot: &PeerSlot) {
    let Some(keeper) = mesh.spool.keeper() else { return pending().await };
    let first = slot.origin.lock().recorded.front().map(|(at, ..)| *at);
    match first {
        Some(at) => poll_fn(|cx| keeper.store().poll_durable(at, cx)).await,
        None => pending().await,
    }
}

/// Whether it is ready now.
async fn poll_once(mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>) -> bool {
    poll_fn(|cx| Poll::Ready(poll(cx).is_ready())).await
}

/// A small packet gets bytes of its own. One that shares the read buffer would keep all of it alive for as long as one session's
/// queue or the retained store holds the message, and no bound on queued bytes would count that.
fn of_its_own(packet: BytesMut) -> BytesMut {
    if packet.len() < SMALL_PACKET { BytesMut::from(&packet[..]) } else { packet }
}
