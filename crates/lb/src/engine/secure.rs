//! Connections whose TLS ends here: the handshake with the client, with the backend where TLS begins anew, and the relay
//! between them.
//!
//! What a socket has is decrypted in the worker's scratch and goes on from there, encrypted again where the other side speaks
//! TLS. Of a connection that is idle only its keys are kept. What TLS itself has to say to one side (alerts, tickets, key
//! updates) goes out at once, or behind what that side has not taken yet.

use std::os::fd::OwnedFd;

use evermq_daemon::proxy_protocol::{Header, Ssl};

use super::connecting;
use super::connection::{Bytes, Connection, Details, Fate, Held, Side, Way};
use super::core::{BUFFER, Core, Name};
use super::ended::Why;
use super::flow::{Flow, Outcome, Step};
use super::greeting::{self, Judged};
use super::relaying::{Moved, TURN, send_held};
use super::socket;
use crate::backend::Refusal;
use crate::client_hello;
use crate::tls::{ClientSide, Identity, MAX_HANDSHAKE, Output, Received, ServerSide, Session, TlsFault, TlsInfo};

/// Reads and writes of one direction in a turn: records may carry nothing that would count as bytes.
const STEPS: u32 = 64;
/// What may be held for a side that takes nothing: a buffer's worth of data, and what TLS has to say. A client that makes it
/// say more than that has something else in mind.
const MOST_HELD: usize = 3 * BUFFER;

/// The TLS of one connection.
pub(crate) struct Secure {
    client: End<ServerSide>,
    backend: Option<Box<End<ClientSide>>>,
    /// The client's first flight is through: it speaks TLS.
    answered: bool,
    /// The client is who it must be.
    handshaken: bool,
}

/// One side: its keys, and the beginning of a record whose rest is to come.
struct End<S> {
    session: S,
    kept: Box<[u8]>,
    /// What is kept has not been looked at yet.
    unread: bool,
}

/// A worker's room for one step.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// What was read.
    records: Box<[u8]>,
    /// What that carries.
    plain: Output,
    /// What TLS says to where it came from.
    back: Output,
    /// What goes on to the other side, encrypted.
    sealed: Output,
}

/// What came of a read.
enum Read {
    /// Nothing was there, or the source has ended.
    Nothing(Outcome),
    /// Records, as far as they were whole.
    Taken(Received),
    Broken(TlsFault),
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            records: vec![0; MAX_HANDSHAKE + BUFFER].into(),
            plain: Output::default(),
            back: Output::default(),
            sealed: Output::default(),
        }
    }
}

impl<S: Session> End<S> {
    fn new(session: S) -> Self {
        Self { session, kept: Box::default(), unread: false }
    }

    /// Reads once. What is not a whole record yet is kept.
    fn read(&mut self, source: &OwnedFd, flow: &mut Flow, scratch: &mut Scratch, look: impl FnOnce(&[u8])) -> Read {
        scratch.plain.clear();
        scratch.back.clear();
        let before = self.kept.len();
        let Some(room) = scratch.records.get_mut(before..before + BUFFER) else {
            return Read::Broken(TlsFault::TooLarge);
        };
        let count = if std::mem::take(&mut self.unread) {
            0
        } else {
            let outcome = socket::receive(source, room);
            flow.handle_greeting(outcome, BUFFER);
            let Outcome::Moved(count) = outcome else { return Read::Nothing(outcome) };
            count
        };
        let records = &mut scratch.records[..before + count];
        records[..before].copy_from_slice(&self.kept);
        look(records);
        match self.session.receive(records, &mut scratch.plain, &mut scratch.back) {
            Ok(received) => {
                self.kept = records.get(received.consumed..).unwrap_or_default().into();
                Read::Taken(received)
            }
            Err(fault) => {
                self.kept = Box::default();
                Read::Broken(fault)
            }
        }
    }
}

/// Whether the first bytes may be a ClientHello's.
fn looks_like_tls(bytes: &[u8]) -> bool {
    client_hello::looks_like_hello(bytes).is_ok()
}

/// The client's handshake, and the beginning of what it says within.
pub(super) fn greet(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    if !flush(connection, name, core) {
        return Fate::Ends(Why::ClientReset);
    }
    while has_more(connection) && matches!(connection.to_client.held, Held::Nothing) {
        match begin(connection, name, core) {
            Ok(true) => {}
            Ok(false) => return Fate::Waits,
            Err(why) => return Fate::Ends(why),
        }
        let Some(secure) = &mut connection.secure else { return Fate::Ends(Why::Shortage) };
        if !secure.handshaken && !core.handshakes.step() {
            return Fate::Again;
        }
        let mut is_tls = true;
        let answered = secure.answered;
        let look = |records: &[u8]| is_tls = answered || looks_like_tls(records);
        let scratch = &mut core.scratch;
        let read = secure.client.read(&connection.client, &mut connection.to_backend.flow, scratch, look);
        secure.answered |= !scratch.back.is_empty();
        let said = push(&mut connection.to_client, &connection.client, scratch.back.as_slice());
        let received = match read {
            Read::Nothing(Outcome::Ended) => return Fate::Ends(Why::NoGreeting),
            Read::Nothing(Outcome::Failed) => return Fate::Ends(Why::ClientReset),
            Read::Nothing(Outcome::Blocked | Outcome::Moved(_)) => break,
            Read::Broken(_) if !is_tls => return Fate::Ends(Why::NotTls),
            Read::Broken(fault) => {
                tracing::debug!(client = %connection.from, %fault, "TLS handshake failed");
                return Fate::Ends(Why::TlsFailed);
            }
            Read::Taken(_) if !is_tls => return Fate::Ends(Why::NotTls),
            Read::Taken(received) => received,
        };
        if said == Outcome::Failed {
            return Fate::Ends(Why::ClientReset);
        }
        ask_if_blocked(connection, name, core);
        if let Some(fate) = take_greeting(connection, name, core, received) {
            return fate;
        }
    }
    Fate::Waits
}

/// Whether there is something to be read: in the socket, or behind a balancer's header.
fn has_more(connection: &Connection) -> bool {
    let unread = match (&connection.secure, &connection.opening) {
        (Some(secure), _) => secure.client.unread,
        (None, opening) => opening.as_ref().is_some_and(|opening| !opening.bytes.is_empty()),
    };
    unread || connection.to_backend.flow.is_readable()
}

/// Has a place and an end of TLS for the client. `false`: it waits for a place.
fn begin(connection: &mut Connection, name: Name, core: &mut Core) -> Result<bool, Why> {
    if connection.secure.is_some() {
        return Ok(true);
    }
    let opening = connection.opening.get_or_insert_default();
    let spot = *opening.spot.get_or_insert_with(|| core.handshakes.enter(name, core.now));
    if core.handshakes.waits(spot) {
        return Ok(false);
    }
    let tls = core.settings.tls.as_ref().ok_or(Why::Shortage)?;
    let mut client = End::new(tls.accept().map_err(|_| Why::Shortage)?);
    // What came behind a balancer's header.
    client.kept = std::mem::take(&mut opening.bytes).into();
    client.unread = !client.kept.is_empty();
    connection.secure = Some(Box::new(Secure { client, backend: None, answered: false, handshaken: false }));
    Ok(true)
}

/// Takes what the client has said within TLS; what becomes of it where it has said enough.
fn take_greeting(connection: &mut Connection, name: Name, core: &mut Core, received: Received) -> Option<Fate> {
    let (secure, opening) = (connection.secure.as_mut()?, connection.opening.get_or_insert_default());
    if received.handshaken && !secure.handshaken {
        secure.handshaken = true;
        if let Some(spot) = opening.spot.take() {
            core.handshakes.leave(spot);
        }
    }
    opening.bytes.extend_from_slice(core.scratch.plain.as_slice());
    if received.closed {
        return Some(Fate::Ends(Why::NoGreeting));
    }
    if opening.bytes.is_empty() {
        return None;
    }
    let sni = secure.client.session.take_sni();
    let sni = sni.or_else(|| connection.details.take().and_then(|details| details.sni));
    let front = &core.fronts[usize::from(connection.listener)];
    let group = core.settings.routes.by_sni(sni.as_deref()).unwrap_or(front.group);
    let (judged, details) = greeting::judge_connect(group, &core.settings, &opening.bytes);
    connection.details = Some(Box::new(Details { sni, ..details }));
    match judged {
        Judged::NeedMore => None,
        Judged::Bad(why, answer) => {
            let out = &mut core.scratch.sealed;
            out.clear();
            if answer.is_some_and(|answer| secure.client.session.send(&answer, out).is_ok()) {
                push(&mut connection.to_client, &connection.client, out.as_slice());
            }
            Some(Fate::Ends(why))
        }
        Judged::Good(group) => {
            opening.group = Some(group);
            connection.mark_greeted(core.now);
            Some(connecting::begin(connection, name, core))
        }
    }
}

/// Begins TLS with the backend, which has just been connected to, after `header`.
pub(super) fn approach(connection: &mut Connection, core: &mut Core, header: &[u8]) -> Result<(), Refusal> {
    let (Some(secure), Some(backend), Some(lease)) = (&mut connection.secure, &connection.backend, &connection.lease)
    else {
        return Err(Refusal::Refused);
    };
    let session = core.settings.tls.as_ref().and_then(|tls| tls.connect(lease.member().name()));
    let mut session = session.ok_or(Refusal::Refused)?.map_err(|_| Refusal::Refused)?;
    let out = &mut core.scratch.back;
    out.clear();
    out.extend(header);
    session.start(out).map_err(|_| Refusal::Refused)?;
    secure.backend = Some(Box::new(End::new(session)));
    match push(&mut connection.to_backend, backend, out.as_slice()) {
        Outcome::Failed => Err(Refusal::Refused),
        Outcome::Moved(_) | Outcome::Ended | Outcome::Blocked => Ok(()),
    }
}

/// How far TLS with the backend has come.
pub(super) enum Approach {
    Goes,
    /// There is more to do, but others come first.
    Again,
    /// The backend is who it must be.
    Through,
    Failed,
}

/// Goes on with TLS with the backend.
pub(super) fn approach_more(connection: &mut Connection, core: &mut Core) -> Approach {
    let (Some(secure), Some(backend)) = (&mut connection.secure, &connection.backend) else { return Approach::Failed };
    let Some(end) = &mut secure.backend else { return Approach::Failed };
    if connection.to_backend.flow.step() == Step::Send {
        send_held(&mut connection.to_backend, backend, &mut Moved::default());
    }
    while connection.to_client.flow.is_readable() {
        if !core.handshakes.step() {
            return Approach::Again;
        }
        let scratch = &mut core.scratch;
        let read = end.read(backend, &mut connection.to_client.flow, scratch, |_| {});
        let said = push(&mut connection.to_backend, backend, scratch.back.as_slice());
        match read {
            Read::Nothing(Outcome::Blocked | Outcome::Moved(_)) => break,
            Read::Nothing(Outcome::Ended | Outcome::Failed) => return Approach::Failed,
            Read::Broken(fault) => {
                let backend = connection.lease.as_ref().map(|lease| lease.member().name());
                tracing::debug!(backend, %fault, "TLS handshake with a broker failed");
                return Approach::Failed;
            }
            // Before CONNECT a broker has nothing to say.
            Read::Taken(received) if received.closed || !scratch.plain.is_empty() => return Approach::Failed,
            Read::Taken(received) if received.handshaken => return Approach::Through,
            Read::Taken(_) => {}
        }
        if said == Outcome::Failed {
            return Approach::Failed;
        }
    }
    Approach::Goes
}

/// Sends the backend, with which TLS stands, what the client has said so far. Whether it goes.
pub(super) fn send_opening(connection: &mut Connection, core: &mut Core) -> bool {
    let Connection { secure: Some(secure), backend: Some(backend), opening: Some(opening), .. } = connection else {
        return false;
    };
    let Some(end) = &mut secure.backend else { return false };
    let out = &mut core.scratch.sealed;
    out.clear();
    end.session.send(&opening.bytes, out).is_ok()
        && push(&mut connection.to_backend, backend, out.as_slice()) != Outcome::Failed
}

/// Moves what can be moved, both ways.
pub(super) fn relay(connection: &mut Connection, core: &mut Core) -> (Moved, Moved) {
    let (Some(secure), Some(backend)) = (&mut connection.secure, &connection.backend) else {
        return Default::default();
    };
    let mut relay = Relay {
        secure,
        client: &connection.client,
        backend,
        to_backend: &mut connection.to_backend,
        to_client: &mut connection.to_client,
        scratch: &mut core.scratch,
        fault: None,
    };
    let before = (relay.to_backend.flow.bytes(), relay.to_client.flow.bytes());
    let (mut there, mut back) = (Moved::default(), Moved::default());
    relay.pump(Side::Client, &mut there);
    relay.pump(Side::Backend, &mut back);
    if let Some((side, fault)) = relay.fault.take() {
        tracing::debug!(client = %connection.from, %fault, ?side, "TLS ended the connection");
        connection.failed = connection.failed.or(Some(match side {
            Side::Client => Why::TlsFailed,
            Side::Backend => Why::BackendTlsFailed,
        }));
    }
    // After both: what one reads may have the other say something.
    there.bytes = connection.to_backend.flow.bytes() - before.0;
    back.bytes = connection.to_client.flow.bytes() - before.1;
    (there, back)
}

/// Both directions of one connection, and the room for a step.
struct Relay<'a> {
    secure: &'a mut Secure,
    client: &'a OwnedFd,
    backend: &'a OwnedFd,
    to_backend: &'a mut Way,
    to_client: &'a mut Way,
    scratch: &'a mut Scratch,
    /// The side whose TLS failed.
    fault: Option<(Side, TlsFault)>,
}

impl Relay<'_> {
    fn pump(&mut self, source: Side, moved: &mut Moved) {
        let before = self.way(source).flow.bytes();
        for steps in 0.. {
            let step = self.way(source).flow.step();
            if step != Step::Rest && (steps >= STEPS || self.way(source).flow.bytes() - before >= TURN) {
                moved.more = true;
                return;
            }
            match step {
                Step::Rest => return,
                // TLS is never spliced.
                Step::Receive | Step::Fill | Step::Drain => self.receive(source, moved),
                Step::Send => match source {
                    Side::Client => send_held(self.to_backend, self.backend, moved),
                    Side::Backend => send_held(self.to_client, self.client, moved),
                },
                Step::End => self.end(source, moved),
            }
        }
    }

    const fn way(&self, source: Side) -> &Way {
        match source {
            Side::Client => self.to_backend,
            Side::Backend => self.to_client,
        }
    }

    fn receive(&mut self, source: Side, moved: &mut Moved) {
        let scratch = &mut *self.scratch;
        let read = match (source, &mut self.secure.backend) {
            (Side::Client, _) => self.secure.client.read(self.client, &mut self.to_backend.flow, scratch, |_| {}),
            (Side::Backend, Some(end)) => end.read(self.backend, &mut self.to_client.flow, scratch, |_| {}),
            (Side::Backend, None) => read_plain(self.backend, &mut self.to_client.flow, scratch),
        };
        if !self.scratch.back.is_empty() {
            self.answer(source, moved);
        }
        match read {
            Read::Nothing(outcome) => moved.see_source(outcome),
            Read::Taken(received) => {
                self.pass_on(source, moved);
                if received.closed {
                    moved.see_source(Outcome::Ended);
                    self.way_mut(source).flow.handle_closed();
                }
            }
            Read::Broken(fault) => self.break_off(source, fault, moved),
        }
    }

    /// What came goes on to the other side.
    fn pass_on(&mut self, source: Side, moved: &mut Moved) {
        let Scratch { plain, sealed, .. } = &mut *self.scratch;
        if plain.is_empty() {
            return;
        }
        sealed.clear();
        let bytes = match (source, &mut self.secure.backend) {
            (Side::Client, None) => Ok(&*plain),
            (Side::Client, Some(end)) => end.session.send(plain.as_slice(), sealed).map(|()| &*sealed),
            (Side::Backend, _) => self.secure.client.session.send(plain.as_slice(), sealed).map(|()| &*sealed),
        };
        let (way, sink) = match source {
            Side::Client => (&mut *self.to_backend, self.backend),
            Side::Backend => (&mut *self.to_client, self.client),
        };
        match bytes {
            Ok(bytes) => moved.see_sink(push(way, sink, bytes.as_slice())),
            Err(fault) => {
                let sink = match source {
                    Side::Client => Side::Backend,
                    Side::Backend => Side::Client,
                };
                way.flow.give_up();
                moved.see_sink(Outcome::Failed);
                self.fault.get_or_insert((sink, fault));
            }
        }
    }

    /// What TLS has to say goes back to where it read from.
    fn answer(&mut self, source: Side, moved: &mut Moved) {
        let (way, socket) = match source {
            Side::Client => (&mut *self.to_client, self.client),
            Side::Backend => (&mut *self.to_backend, self.backend),
        };
        if push(way, socket, self.scratch.back.as_slice()) == Outcome::Failed {
            moved.see_source(Outcome::Failed);
        }
    }

    fn break_off(&mut self, source: Side, fault: TlsFault, moved: &mut Moved) {
        self.fault.get_or_insert((source, fault));
        self.way_mut(source).flow.handle_closed();
        moved.see_source(Outcome::Failed);
    }

    /// Nothing more goes to that source's other side: TLS says so, then TCP.
    fn end(&mut self, source: Side, moved: &mut Moved) {
        let out = &mut self.scratch.sealed;
        out.clear();
        match (source, &mut self.secure.backend) {
            (Side::Client, None) => {}
            (Side::Client, Some(end)) => end.session.close(out),
            (Side::Backend, _) => self.secure.client.session.close(out),
        }
        let (way, sink, last) = match source {
            Side::Client => (&mut *self.to_backend, self.backend, self.to_client.flow.is_done()),
            Side::Backend => (&mut *self.to_client, self.client, self.to_backend.flow.is_done()),
        };
        if !out.is_empty() {
            // It comes here again when that is gone.
            return moved.see_sink(push(way, sink, out.as_slice()));
        }
        way.flow.handle_ended();
        if !last {
            socket::finish(sink);
        }
    }

    const fn way_mut(&mut self, source: Side) -> &mut Way {
        match source {
            Side::Client => self.to_backend,
            Side::Backend => self.to_client,
        }
    }
}

/// A backend that speaks plain MQTT.
fn read_plain(source: &OwnedFd, flow: &mut Flow, scratch: &mut Scratch) -> Read {
    scratch.plain.clear();
    scratch.back.clear();
    let outcome = socket::receive(source, scratch.plain.space(BUFFER));
    flow.handle_greeting(outcome, BUFFER);
    let Outcome::Moved(count) = outcome else { return Read::Nothing(outcome) };
    scratch.plain.advance(count);
    Read::Taken(Received { consumed: count, handshaken: true, closed: false })
}

/// Sends bytes, behind those that are held already; what is not taken is held.
fn push(way: &mut Way, sink: &OwnedFd, bytes: &[u8]) -> Outcome {
    if bytes.is_empty() || way.flow.is_done() {
        return Outcome::Moved(0);
    }
    if let Held::Bytes(held) = &mut way.held {
        let left = held.bytes.get(held.gone..).unwrap_or_default();
        if left.len() + bytes.len() > MOST_HELD {
            way.flow.give_up();
            return Outcome::Failed;
        }
        **held = Bytes { bytes: [left, bytes].concat().into(), gone: 0 };
        return Outcome::Moved(0);
    }
    way.flow.hold();
    let outcome = socket::transmit(sink, bytes);
    way.flow.handle_sent(outcome, bytes.len());
    let gone = if let Outcome::Moved(gone) = outcome { gone } else { 0 };
    if gone < bytes.len() && !way.flow.is_done() {
        way.held = Held::Bytes(Box::new(Bytes { bytes: bytes[gone..].into(), gone: 0 }));
    }
    outcome
}

/// Sends what the client has not taken yet. Whether the client is still there.
fn flush(connection: &mut Connection, name: Name, core: &mut Core) -> bool {
    let mut moved = Moved::default();
    if connection.to_client.flow.step() == Step::Send {
        send_held(&mut connection.to_client, &connection.client, &mut moved);
    }
    ask_if_blocked(connection, name, core);
    !moved.sink_failed
}

fn ask_if_blocked(connection: &mut Connection, name: Name, core: &Core) {
    if connection.to_client.flow.is_blocked() && !connection.client_asked {
        connection.client_asked = true;
        // Where epoll does not take it, its timer ends it.
        let _ = core.ask_client(&connection.client, name);
    }
}

/// Says to both sides that nothing more comes, if there is nothing left before that, as far as they take it at once; to the
/// client after some last words.
pub(super) fn say_goodbye(connection: &mut Connection, scratch: &mut Scratch, words: Option<&[u8]>) {
    let Some(secure) = &mut connection.secure else { return };
    let out = &mut scratch.sealed;
    if matches!(connection.to_client.held, Held::Nothing) && !connection.to_client.flow.is_done() {
        out.clear();
        // Where the handshake is not over, there is nothing to be said.
        let _ = words.map(|words| secure.client.session.send(words, out));
        secure.client.session.close(out);
        push(&mut connection.to_client, &connection.client, out.as_slice());
    }
    if let (Some(end), Some(backend)) = (&mut secure.backend, &connection.backend)
        && matches!(connection.to_backend.held, Held::Nothing)
        && !connection.to_backend.flow.is_done()
    {
        out.clear();
        end.session.close(out);
        push(&mut connection.to_backend, backend, out.as_slice());
    }
}

impl Secure {
    /// What was agreed on with the client, and who it is; none before its handshake is over.
    pub(super) fn summary(&self) -> Option<(TlsInfo<'_>, Option<Identity>)> {
        let session = &self.client.session;
        self.handshaken.then(|| (session.info(), session.identity()))
    }

    /// Says in a PROXY protocol header who the client is by its TLS.
    pub(super) fn introduce(&self, header: &mut Header) {
        let session = &self.client.session;
        let info = session.info();
        let identity = session.identity();
        let (cn, dn) = identity.map_or((None, None), |Identity { cn, dn }| (cn, Some(dn)));
        header.alpn = info.alpn.map(Into::into);
        header.ssl = Some(Box::new(Ssl {
            is_tls: true,
            shown: info.verified && !info.resumed,
            in_session: info.verified,
            verify: 0,
            version: Some(info.version.into()),
            cipher: Some(info.cipher.into()),
            cn: cn.map(Into::into),
            dn: dn.map(Into::into),
            ..Ssl::default()
        }));
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("handshaken", &self.handshaken).finish_non_exhaustive()
    }
}
