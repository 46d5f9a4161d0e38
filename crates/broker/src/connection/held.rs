//! What the client may not hear before the store has it: acknowledgements, and the packets of QoS 2 that change what both
//! sides remember.
//!
//! They wait in their order, each with how far the store has to be. Everything else goes past them, but nothing before a
//! CONNACK or a SUBACK. Nothing waits, and nothing is allocated, for a client that relies on nothing stored.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::BytesMut;
use evermq_mqtt::Packet;
use evermq_store::Position;

use crate::journal::Journal;

/// Packets that wait.
#[derive(Debug, Default)]
pub(super) struct Held(Option<Box<Lane>>);

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<(Position, BytesMut)>,
    bytes: usize,
    /// A CONNACK or SUBACK waits: all else waits behind it.
    is_closed: bool,
}

/// How far the store is.
pub(super) trait Progress {
    /// Whether all up to there is on the disk.
    fn is_durable(&self, at: Position) -> bool;
    /// Ready when it is.
    fn poll_durable(&self, at: Position, cx: &mut Context<'_>) -> Poll<()>;
}

impl Progress for Journal {
    fn is_durable(&self, at: Position) -> bool {
        Self::is_durable(self, at)
    }

    fn poll_durable(&self, at: Position, cx: &mut Context<'_>) -> Poll<()> {
        Self::poll_durable(self, at, cx)
    }
}

/// Whether a packet relies on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// It says nothing that could be forgotten.
    None,
    /// It does.
    Made,
    /// It does, and nothing may overtake it.
    First,
}

impl Promise {
    /// What an answer promises.
    pub(super) fn of(packet: &Packet) -> Self {
        match packet {
            Packet::ConnAck(_) | Packet::SubAck(_) => Self::First,
            Packet::PingResp => Self::None,
            // A DISCONNECT is the last packet, so it stays behind the others; the rest only a client sends.
            Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::UnsubAck(_)
            | Packet::Disconnect(_)
            | Packet::Auth(_)
            | Packet::Connect(_)
            | Packet::Publish(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq => Self::Made,
        }
    }
}

impl Held {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |lane| lane.bytes)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Has a packet written by `write`: to `output`, or to where it waits until the store is at `position`.
    pub(super) fn write<E>(
        &mut self,
        store: Option<&impl Progress>,
        (promise, position): (Promise, Position),
        output: &mut BytesMut,
        write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_free = match (&self.0, promise) {
            (None, Promise::None) => true,
            (None, Promise::Made | Promise::First) => {
                position == Position::default() || store.is_none_or(|store| store.is_durable(position))
            }
            (Some(lane), Promise::None) => !lane.is_closed,
            (Some(_), Promise::Made | Promise::First) => false,
        };
        if is_free {
            return write(output);
        }
        let lane = self.0.get_or_insert_default();
        lane.is_closed |= promise == Promise::First;
        if lane.waiting.back().is_none_or(|(last, _)| *last < position) {
            lane.waiting.push_back((position, BytesMut::new()));
        }
        let Some((_, bytes)) = lane.waiting.back_mut() else { return Ok(()) };
        let before = bytes.len();
        let written = write(bytes);
        lane.bytes += bytes.len() - before;
        written
    }

    /// Moves to `output` what need not wait any longer; for the rest the task is woken when it is time.
    pub(super) fn release(&mut self, store: Option<&impl Progress>, cx: &mut Context<'_>, output: &mut BytesMut) {
        let (Some(lane), Some(store)) = (&mut self.0, store) else { return };
        while let Some((position, bytes)) = lane.waiting.front() {
            if store.poll_durable(*position, cx).is_pending() {
                return;
            }
            lane.bytes -= bytes.len();
            output.extend_from_slice(bytes);
            lane.waiting.pop_front();
        }
        self.0 = None;
    }
}

#[cfg(test)]
mod tests;
