//! The task that brings this broker's log to one peer: drives [`Link`], owns its connection.
//!
//! It spawns nothing: connecting, sending, receiving acknowledgements and timers are branches of one `select!`, each of them
//! cancel-safe. It ends when the link is stopped, after the token is cancelled.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use evermq_daemon::{listen, tls};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::batch::{self, Receiver};
use crate::frame::{self, Frame, group};
use crate::identity::Identity;
use crate::link::{Action, Change, Link, Loss, State};
use crate::log::Read;
use crate::mesh::{Mesh, add, now};
use crate::message::Message;
use crate::roster::PeerSlot;
use crate::spool::{Held, Spool};
use crate::telling::Teller;
use crate::wire::{Progress, Wire};
use crate::wire_message;

/// Bytes of a snapshot that are written at one time.
const SNAPSHOT_BYTES: usize = 64 * 1024;
/// Frames from the receiver are small.
const MAX_ANSWER: u32 = frame::MAX_GREETING;

/// Brings the log to one peer.
pub(crate) struct Dialer {
    mesh: Arc<Mesh>,
    slot: Arc<PeerSlot>,
    identity: Arc<Identity>,
    link: Link,
    connection: Connection,
    snapshot: Option<Snapshot>,
    teller: Teller,
    /// The minor of the protocol that the peer speaks.
    minor: u8,
    /// What may not be sent yet.
    held: Option<Held>,
}

enum Connection {
    None,
    Opening(Pin<Box<dyn Future<Output = Result<TlsStream<TcpStream>, io::Error>> + Send>>),
    Open(Box<Wire<TlsStream<TcpStream>>>),
}

/// Retained messages that are still to be sent.
struct Snapshot {
    messages: std::vec::IntoIter<Arc<Message>>,
    base: u64,
}

enum Event {
    Opened(Box<Result<TlsStream<TcpStream>, io::Error>>),
    Progress(Progress),
}

impl Dialer {
    /// For that peer.
    pub(crate) fn new(mesh: Arc<Mesh>, slot: Arc<PeerSlot>, identity: Arc<Identity>) -> Self {
        let seed = mesh.epoch().wrapping_add(slot.reader as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut link = Link::new(mesh.hello(), seed, now());
        let (acknowledged, highest) = mesh.spool.standing(slot.reader);
        link.resume(acknowledged, highest);
        Self {
            mesh,
            slot,
            identity,
            link,
            connection: Connection::None,
            snapshot: None,
            teller: Teller::default(),
            minor: 0,
            held: None,
        }
    }

    /// Until the peer leaves the cluster file; or until `shutdown`, and then until the peer has everything or a deadline has
    /// passed.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let (mesh, slot) = (Arc::clone(&self.mesh), Arc::clone(&self.slot));
        let mut stopping = false;
        self.link.handle_start(now());
        loop {
            self.perform_actions().await;
            if self.link.state() == State::Stopped {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    self.link.handle_shutdown(mesh.spool.state().last, now());
                }
                () = slot.left.cancelled() => self.link.handle_removed(now()),
                () = slot.moved.notified() => self.link.handle_moved(now()),
                () = sleep_until(self.link.poll_timeout()) => self.handle_timeout(),
                () = slot.seen.notified() => self.link.handle_seen(now()),
                () = mesh.spool.news(slot.reader) => self.link.handle_news(),
                () = slot.claims.news() => self.tell(),
                () = freed(&mesh.spool, self.held.as_ref()) => {
                    self.held = None;
                    self.link.handle_news();
                }
                event = self.connection.event() => self.handle_event(event),
            }
        }
    }

    fn handle_timeout(&mut self) {
        if !self.link.state().is_up() {
            self.link.handle_log_start(self.mesh.spool.first());
        }
        self.link.handle_timeout(now());
    }

    fn handle_event(&mut self, event: Event) {
        self.count_bytes();
        match event {
            Event::Opened(opened) => match *opened {
                Ok(stream) => {
                    self.slot.counters.note_answer();
                    self.connection = Connection::Open(Box::new(Wire::new(stream, usize::MAX)));
                    self.link.handle_opened(now());
                }
                Err(error) => {
                    self.connection = Connection::None;
                    self.handle_lost(&error);
                }
            },
            Event::Progress(Progress::Ended(error)) => self.handle_lost(&error),
            Event::Progress(Progress::Sent) => {
                // Before messages: a client that has moved is not to wait behind a log.
                self.tell();
                if self.snapshot.is_some() {
                    self.continue_snapshot();
                } else {
                    self.link.handle_writable();
                }
            }
            Event::Progress(Progress::Received) => self.handle_received(),
        }
    }

    fn handle_lost(&mut self, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "peer has closed the connection".to_owned(),
            _ => error.to_string(),
        };
        self.link.handle_lost(reason, is_refusal(error), now());
    }

    fn handle_received(&mut self) {
        let Connection::Open(wire) = &mut self.connection else { return };
        let now = now();
        self.link.handle_bytes(now);
        loop {
            match wire.next_frame(MAX_ANSWER) {
                Ok(Some(frame)) => self.link.handle_frame(frame, now),
                Ok(None) => return,
                Err(error) => return self.link.handle_lost(error.to_string(), true, now),
            }
        }
    }

    async fn perform_actions(&mut self) {
        while let Some(action) = self.link.poll_action() {
            match action {
                Action::Connect => {
                    self.link.set_hello(self.mesh.hello());
                    self.connection = self.connect();
                }
                Action::Send(frame) => self.send(&frame),
                Action::Snapshot { base } => {
                    self.snapshot = Some(Snapshot { messages: self.mesh.local.retained().into_iter(), base });
                    self.continue_snapshot();
                }
                Action::Read(room) => self.read(room),
                Action::Attach(acknowledged) => self.mesh.spool.attach(self.slot.reader, acknowledged),
                Action::Tell(minor) => {
                    self.minor = minor;
                    self.slot.claims.begin(minor);
                    self.tell();
                }
                Action::Acknowledged(seq) => self.acknowledged(seq),
                Action::Detach => {
                    self.slot.claims.end();
                    self.teller = Teller::default();
                    self.mesh.spool.detach(self.slot.reader);
                }
                Action::LogWasSetBack => {
                    self.mesh.begin_epoch();
                    self.link.set_hello(self.mesh.hello());
                }
                Action::Losing(loss) => self.warn_of(loss),
                Action::Lost(range) => self.count_lost(range),
                Action::Close { last_word } => self.close(last_word).await,
                Action::Changed(change) => self.report(&change),
            }
        }
    }

    fn connect(&self) -> Connection {
        let (name, address) = (self.slot.name.clone(), self.slot.address());
        let (tls, options) = (self.identity.connector(&name), self.mesh.socket);
        Connection::Opening(Box::pin(async move {
            let tls = tls.ok_or_else(|| io::Error::other("it has left the cluster file"))?;
            let stream = TcpStream::connect(address).await?;
            listen::tune(&stream, options)?;
            tls.connect(tls::server_name(&name), stream).await
        }))
    }

    async fn close(&mut self, last_word: bool) {
        self.snapshot = None;
        let connection = std::mem::replace(&mut self.connection, Connection::None);
        if let (Connection::Open(wire), true) = (connection, last_word) {
            wire.finish().await;
        }
    }

    fn send(&mut self, frame: &Frame) {
        if let Connection::Open(wire) = &mut self.connection {
            frame::encode(frame, wire.output());
        }
    }

    /// Tells the peer of clients, as far as there is room.
    fn tell(&mut self) {
        if let Connection::Open(wire) = &mut self.connection {
            self.teller.write(&self.mesh, &self.slot, self.link.max_body(), wire.output());
        }
    }

    fn count_bytes(&mut self) {
        if let Connection::Open(wire) = &mut self.connection {
            self.slot.counters.add_bytes(wire.take_traffic());
        }
    }

    fn read(&mut self, room: crate::cursor::Room) {
        // Whoever is handed a message for a group is to know before that there is nobody of it here.
        self.tell();
        let Connection::Open(wire) = &mut self.connection else { return };
        let now = now();
        match self.mesh.spool.read(self.slot.reader, room) {
            Read::Items(items) => {
                let to = Receiver {
                    name: self.slot.name.as_str(),
                    max_body: self.link.max_body(),
                    is_directed: self.minor >= group::SINCE_MINOR,
                    knows_publishers: self.minor >= frame::PUBLISHERS_SINCE_MINOR,
                };
                let batch = batch::write(room.from, &items, to, now, wire.output());
                let counters = &self.slot.counters;
                add(&counters.sent, batch.messages);
                add(&counters.expired, batch.expired);
                add(&counters.resent, self.link.handle_batch(&batch));
            }
            Read::Held { seq, entry } => {
                self.held = Some(Held::new(seq, entry));
                self.link.handle_held();
            }
            Read::Gone { first } => self.link.handle_gone(first),
            Read::End => self.link.handle_end(now),
        }
    }

    fn continue_snapshot(&mut self) {
        let (Some(snapshot), Connection::Open(wire)) = (&mut self.snapshot, &mut self.connection) else { return };
        let now = now();
        let out = wire.output();
        while out.len() < SNAPSHOT_BYTES {
            let Some(message) = snapshot.messages.next() else {
                frame::encode(&Frame::SnapshotEnd { base: snapshot.base }, out);
                self.snapshot = None;
                return self.link.handle_snapshot_sent();
            };
            write_retained(&message, self.link.max_body(), now, out);
        }
    }

    fn acknowledged(&self, seq: u64) {
        let before = self.mesh.spool.acknowledge(self.slot.reader, seq);
        add(&self.slot.counters.acknowledged, seq.saturating_sub(before));
    }

    fn name(&self) -> &str {
        self.slot.name.as_str()
    }

    fn warn_of(&self, loss: Loss) {
        self.slot.counters.losing.store(true, Ordering::Relaxed);
        let peer = self.name();
        match loss {
            Loss::LogFull => warn!(
                peer,
                "peer misses messages: the queue for it is full, and the oldest ones are dropped; \
                 broker.peer_queue_messages, broker.peer_queue_bytes and broker.peer_queue_age bound it"
            ),
            Loss::TooLarge => warn!(
                peer,
                max_body = self.link.max_body(),
                "peer misses messages: they are larger than it takes; compare broker.max_packet_size on both hosts"
            ),
        }
    }

    fn count_lost(&self, range: frame::Range) {
        let counters = &self.slot.counters;
        let messages = range.to - range.from + 1;
        counters.losing.store(false, Ordering::Relaxed);
        add(&counters.lost, messages);
        add(&counters.gaps, 1);
        info!(peer = self.name(), messages, from_seq = range.from, to_seq = range.to, "peer goes on behind a gap");
    }

    fn report(&self, change: &Change) {
        let counters = &self.slot.counters;
        self.mesh.linked(&self.slot, |links| links.connected = change.to.is_up());
        let (peer, from, to, reason) = (self.name(), change.from.name(), change.to.name(), change.reason.as_str());
        let failed = matches!(change.to, State::Backoff { .. });
        let new_error = failed && {
            let mut last_error = counters.last_error.lock();
            let differs = last_error.as_deref() != Some(reason);
            *last_error = Some(reason.to_owned());
            differs
        };
        // An attempt that fails for the same reason as the one before is no news.
        match (change.refused && new_error, new_error || change.from.is_up() != change.to.is_up()) {
            (true, _) => warn!(peer, from, to, reason, "link to peer"),
            (false, true) => info!(peer, from, to, reason, "link to peer"),
            (false, false) => debug!(peer, from, to, reason, "link to peer"),
        }
    }
}

impl Connection {
    async fn event(&mut self) -> Event {
        match self {
            Self::None => pending().await,
            Self::Opening(opening) => Event::Opened(Box::new(opening.await)),
            Self::Open(wire) => Event::Progress(wire.progress().await),
        }
    }
}

/// Appends a retained message of a snapshot, unless it has expired or the peer cannot take it. Nothing is counted for the
/// latter: the peer has refused the message before, as an entry.
fn write_retained(message: &Message, max_body: u32, now: std::time::Instant, out: &mut bytes::BytesMut) {
    if wire_message::has_expired(message, now) {
        return;
    }
    let origin = &message.stamp.origin;
    let Some(packet) = wire_message::encode(&message.publish) else { return };
    if frame::retained_body(origin, packet.len()) <= max_body as usize {
        frame::retained_head(wire_message::age(message, now), message.stamp.time, origin, packet.len(), out);
        wire_message::write(&packet, message.publish.retain, out);
    }
}

/// Whether one side does not accept the other's certificate, which time does not put right.
fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

/// When what is held may be sent; never if nothing is.
async fn freed(spool: &Spool, held: Option<&Held>) {
    match held {
        Some(held) => spool.freed(held).await,
        None => pending().await,
    }
}

/// Never, if there is no time.
pub(crate) async fn sleep_until(time: Option<std::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}
