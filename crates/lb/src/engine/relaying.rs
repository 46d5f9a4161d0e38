//! Bytes both ways between a client and its backend.
//!
//! Each direction reads into the worker's one buffer and writes straight on. Only what the other side does not take is kept,
//! at most one buffer, and then nothing more is read until it has gone: that is the back-pressure, and an idle connection
//! holds no buffer at all.
//!
//! End of file of one side is passed on as a half-close, after what was kept; the other direction goes on. A side that is
//! reset is treated alike: what it had sent still goes on, what it will not take is dropped.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::connection::{Bytes, Connection, Fate, Held, Mark, Side, Way};
use super::core::{BUFFER, Core, Name};
use super::ended::{Begun, Why};
use super::flow::{Outcome, Step};
use super::timers::TICK;
use super::{secure, socket};
use crate::backend::Refusal;

/// A client may take so long for its next flight until its handshake counts no more.
pub(super) const SLOW_CLIENT: Duration = Duration::from_secs(2);
/// Bytes that one direction may move before the worker's other connections get their turn.
pub(super) const TURN: u64 = 512 * 1024;

/// Moves what can be moved.
pub(super) fn advance(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    let Some(backend) = &connection.backend else { return Fate::Ends(Why::NoBackend) };
    let (there, back) = if connection.secure.is_some() {
        secure::relay(connection, core)
    } else {
        let last = connection.to_client.flow.is_done();
        let there = pump(&mut connection.to_backend, &connection.client, backend, core, last);
        let last = connection.to_backend.flow.is_done();
        (there, pump(&mut connection.to_client, backend, &connection.client, core, last))
    };
    if there.bytes + back.bytes > 0 {
        count(connection, core, there.bytes, back.bytes);
    }
    note(connection, &there, &back);
    if connection.to_backend.flow.is_done() && connection.to_client.flow.is_done() {
        return Fate::Ends(connection.failed.unwrap_or(match connection.first_ended {
            Some(Side::Backend) => Why::BackendClosed,
            Some(Side::Client) | None => Why::ClientClosed,
        }));
    }
    if connection.to_client.flow.is_blocked() && !connection.client_asked {
        connection.client_asked = true;
        if core.ask_client(&connection.client, name).is_err() {
            return Fate::Ends(Why::Shortage);
        }
    }
    if there.more || back.more { Fate::Again } else { Fate::Waits }
}

/// The handshake is slow, or nothing came for a while; perhaps for `idle_timeout`.
///
/// A client that has had the backend's answer and says no more soon loses its place among the handshakes: a stranger could
/// hold all places otherwise. A backend that has not answered keeps the place, for that is what places are bounded for.
pub(super) fn time_out(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    let silent_backend = connection.to_client.flow.bytes() == 0;
    let age = core.now.saturating_duration_since(connection.accepted);
    let connected = age.saturating_sub(connection.connected.elapsed().unwrap_or(age));
    if let Some(lease) = &mut connection.lease
        && lease.is_handshaking()
    {
        if silent_backend {
            let patience = core
                .settings
                .idle_timeout
                .map_or(core.settings.greeting_timeout, |idle| idle.min(core.settings.greeting_timeout));
            let left = patience.saturating_sub(connected);
            if !left.is_zero() {
                core.set_timer(name, left);
                return Fate::Waits;
            }
            lease.member().refuse(Refusal::HandshakeTimeout);
        }
        lease.abandon_handshake();
    }
    let Some(idle) = core.settings.idle_timeout else { return Fate::Waits };
    let silent = TICK * core.tick().wrapping_sub(connection.active);
    match idle.checked_sub(silent) {
        Some(left) if left > Duration::ZERO => {
            core.set_timer(name, left);
            Fate::Waits
        }
        _ => Fate::Ends(Why::Idle),
    }
}

fn count(connection: &mut Connection, core: &mut Core, there: u64, back: u64) {
    connection.active = core.tick();
    // In the order in which the two went: an answer to what has only just been sent comes with a later turn.
    for (moved, sink) in [(there, Side::Backend), (back, Side::Client)] {
        if moved > 0 && connection.turns.handle_moved(sink) {
            connection.handshaken = Mark::at(connection.accepted, core.now);
            if let Some(lease) = &mut connection.lease {
                lease.handshaken();
            }
            tell_begun(connection, core);
        }
    }
    if let Some(lease) = &connection.lease {
        core.count(lease.member().id(), connection.listener, there, back);
    }
}

/// The handshake is through: long-lived connections would tell of it when nobody asks any more.
fn tell_begun(connection: &Connection, core: &Core) {
    if let Some(lease) = &connection.lease {
        core.worker.sink.begun(&Begun {
            id: connection.id,
            listener_name: &core.fronts[usize::from(connection.listener)].name,
            backend: lease.member(),
            greeted: connection.greeted.elapsed(),
            placed: connection.placed.elapsed(),
            connected: connection.connected.elapsed(),
            handshaken: connection.handshaken.elapsed(),
        });
    }
}

/// Notes who ended or failed, and what that means for the other direction.
fn note(connection: &mut Connection, there: &Moved, back: &Moved) {
    let backend_gone = back.ended || back.source_failed || there.sink_failed;
    let client_gone =
        there.ended || there.source_failed || connection.first_ended.is_some() || connection.failed.is_some();
    if backend_gone && !client_gone && connection.to_client.flow.bytes() == 0 {
        // It took the connection and let go of it without a word.
        if let Some(lease) = connection.lease.as_ref().filter(|lease| !lease.is_stale()) {
            lease.member().refuse(Refusal::ResetEarly);
        }
    }
    for (moved, source, sink) in [(there, Side::Client, Side::Backend), (back, Side::Backend, Side::Client)] {
        if moved.ended {
            connection.first_ended = connection.first_ended.or(Some(source));
        }
        let failed = if moved.source_failed {
            Some(source)
        } else if moved.sink_failed {
            Some(sink)
        } else {
            None
        };
        connection.failed = connection.failed.or(failed.map(|side| match side {
            Side::Client => Why::ClientReset,
            Side::Backend => Why::BackendReset,
        }));
    }
    // A side that takes no more has nobody left behind it whose answer could matter beyond what it has sent already.
    if there.source_failed {
        connection.to_client.give_up();
    }
    if back.source_failed {
        connection.to_backend.give_up();
    }
}

/// What one turn of a direction did.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) bytes: u64,
    /// The end of file has come.
    ended: bool,
    source_failed: bool,
    pub(super) sink_failed: bool,
    /// There is more to move, but others come first.
    pub(super) more: bool,
}

/// `last`: the other direction has ended already.
fn pump(way: &mut Way, source: &OwnedFd, sink: &OwnedFd, core: &mut Core, last: bool) -> Moved {
    let mut moved = Moved::default();
    let before = way.flow.bytes();
    loop {
        let step = way.flow.step();
        if step == Step::Rest {
            break;
        }
        if way.flow.bytes() - before >= TURN {
            moved.more = true;
            break;
        }
        take(step, way, source, sink, core, last, &mut moved);
    }
    moved.bytes = way.flow.bytes() - before;
    moved
}

fn take(step: Step, way: &mut Way, source: &OwnedFd, sink: &OwnedFd, core: &mut Core, last: bool, moved: &mut Moved) {
    match step {
        Step::Rest => {}
        Step::Receive => {
            let outcome = socket::receive(source, &mut core.buffer);
            way.flow.handle_received(outcome, BUFFER);
            moved.see_source(outcome);
            if let Outcome::Moved(count) = outcome {
                let read = &core.buffer[..count];
                let sent = socket::transmit(sink, read);
                way.flow.handle_sent(sent, count);
                moved.see_sink(sent);
                let gone = if let Outcome::Moved(gone) = sent { gone } else { 0 };
                if gone < count && !way.flow.is_done() {
                    way.held = Held::Bytes(Box::new(Bytes { bytes: read[gone..].into(), gone: 0 }));
                }
            }
        }
        Step::Send => send_held(way, sink, moved),
        Step::Fill => {
            let Some(mut pipe) = core.pipes.take() else { return way.flow.copy() };
            let outcome = pipe.fill(source);
            way.flow.handle_filled(outcome);
            moved.see_source(outcome);
            if let Outcome::Moved(count) = outcome {
                let drained = pipe.drain(sink);
                way.flow.handle_drained(drained, count);
                moved.see_sink(drained);
            }
            if pipe.level() > 0 && !way.flow.is_done() {
                way.held = Held::Pipe(Box::new(pipe));
            } else {
                core.pipes.give_back(pipe);
            }
        }
        Step::Drain => drain_held(way, sink, core, moved),
        Step::End => {
            way.flow.handle_ended();
            // Where the way back has ended, closing the socket says so, and a half-close would be one system call more.
            if !last {
                socket::finish(sink);
            }
        }
    }
}

pub(super) fn send_held(way: &mut Way, sink: &OwnedFd, moved: &mut Moved) {
    let Held::Bytes(held) = &mut way.held else { return way.flow.give_up() };
    let left = held.bytes.len() - held.gone;
    let sent = socket::transmit(sink, &held.bytes[held.gone..]);
    way.flow.handle_sent(sent, left);
    moved.see_sink(sent);
    if let Outcome::Moved(gone) = sent {
        held.gone += gone;
    }
    if held.gone == held.bytes.len() || way.flow.is_done() {
        way.held = Held::Nothing;
    }
}

fn drain_held(way: &mut Way, sink: &OwnedFd, core: &mut Core, moved: &mut Moved) {
    let Held::Pipe(mut pipe) = std::mem::replace(&mut way.held, Held::Nothing) else { return way.flow.give_up() };
    let left = pipe.level();
    let drained = pipe.drain(sink);
    way.flow.handle_drained(drained, left);
    moved.see_sink(drained);
    if pipe.level() > 0 && !way.flow.is_done() {
        way.held = Held::Pipe(pipe);
    } else {
        core.pipes.give_back(*pipe);
    }
}

impl Way {
    /// The receiving side is gone. A pipe that held something for it is closed with it, by its own drop.
    fn give_up(&mut self) {
        self.flow.give_up();
    }
}

impl Moved {
    pub(super) fn see_source(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Moved(_) | Outcome::Blocked => {}
            Outcome::Ended => self.ended = true,
            Outcome::Failed => self.source_failed = true,
        }
    }

    pub(super) fn see_sink(&mut self, outcome: Outcome) {
        self.sink_failed |= outcome == Outcome::Failed;
    }
}
