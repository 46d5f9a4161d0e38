//! One side of a connection whose TLS ends here: what is read from it, what is sent to it.

use std::os::fd::OwnedFd;

use super::super::connection::{Bytes, Held, Way};
use super::super::core::BUFFER;
use super::super::flow::{Flow, Outcome};
use super::super::socket;
use crate::tls::{MAX_HANDSHAKE, Output, Received, Session, TlsFault};

/// What may be held for a side that takes nothing: a buffer's worth of data, and what TLS has to say. A client that makes it
/// say more than that has something else in mind.
const MOST_HELD: usize = 3 * BUFFER;

/// One side: its keys, and the beginning of a record whose rest is to come.
pub(super) struct End<S> {
    pub(super) session: S,
    pub(super) kept: Box<[u8]>,
    /// What is kept has not been looked at yet.
    pub(super) unread: bool,
}

/// A worker's room for one step.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// What was read.
    records: Box<[u8]>,
    /// What that carries.
    pub(super) plain: Output,
    /// What TLS says to where it came from.
    pub(super) back: Output,
    /// What goes on to the other side, encrypted.
    pub(super) sealed: Output,
}

/// What came of a read.
pub(super) enum Read {
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
    pub(super) fn new(session: S) -> Self {
        Self { session, kept: Box::default(), unread: false }
    }

    /// Reads once. What is not a whole record yet is kept.
    pub(super) fn read(
        &mut self,
        source: &OwnedFd,
        flow: &mut Flow,
        scratch: &mut Scratch,
        look: impl FnOnce(&[u8]),
    ) -> Read {
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

/// A backend that speaks plain MQTT.
pub(super) fn read_plain(source: &OwnedFd, flow: &mut Flow, scratch: &mut Scratch) -> Read {
    scratch.plain.clear();
    scratch.back.clear();
    let outcome = socket::receive(source, scratch.plain.space(BUFFER));
    flow.handle_greeting(outcome, BUFFER);
    let Outcome::Moved(count) = outcome else { return Read::Nothing(outcome) };
    scratch.plain.advance(count);
    Read::Taken(Received { consumed: count, handshaken: true, closed: false })
}

/// Sends bytes, behind those that are held already; what is not taken is held.
pub(super) fn push(way: &mut Way, sink: &OwnedFd, bytes: &[u8]) -> Outcome {
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
