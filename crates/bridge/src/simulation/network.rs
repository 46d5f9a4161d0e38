//! Connections between the two: bytes late and in odd pieces, resets in the middle, partitions.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use super::random::Random;

pub(super) type ConnectionId = u64;

/// All connections that one of the two still holds or that still have bytes under way.
#[derive(Default)]
pub(super) struct Network {
    last_id: ConnectionId,
    connections: BTreeMap<ConnectionId, Connection>,
    partition_until: Option<Instant>,
}

#[derive(Default)]
struct Connection {
    to_receiver: Pipe,
    to_origin: Pipe,
}

/// One direction.
#[derive(Default)]
struct Pipe {
    /// Bytes and when they arrive.
    under_way: VecDeque<(Instant, BytesMut)>,
    /// Nothing more can be written.
    ended: bool,
}

/// What an end of a connection finds.
pub(super) enum Arrival {
    Nothing,
    Bytes(BytesMut),
    End,
}

impl Pipe {
    fn write(&mut self, bytes: &[u8], random: &mut Random, now: Instant) {
        if self.ended || bytes.is_empty() {
            return;
        }
        let mut at = now + Duration::from_millis(random.below(30));
        // A pipe keeps the order of its bytes.
        if let Some((last, _)) = self.under_way.back() {
            at = at.max(*last);
        }
        self.under_way.push_back((at, BytesMut::from(bytes)));
    }

    fn read(&mut self, random: &mut Random, now: Instant) -> Arrival {
        match self.under_way.front_mut() {
            Some((at, bytes)) if *at <= now => {
                let piece = 1 + usize::try_from(random.below(bytes.len() as u64 * 2)).unwrap();
                let taken = bytes.split_to(piece.min(bytes.len()));
                if !bytes.has_remaining() {
                    self.under_way.pop_front();
                }
                Arrival::Bytes(taken)
            }
            Some(_) => Arrival::Nothing,
            None if self.ended => Arrival::End,
            None => Arrival::Nothing,
        }
    }

    /// Breaks at any byte of those under way.
    fn cut(&mut self, random: &mut Random) {
        self.ended = true;
        let total: u64 = self.under_way.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let mut keep = usize::try_from(random.below(total + 1)).unwrap();
        for (_, bytes) in &mut self.under_way {
            bytes.truncate(keep);
            keep -= bytes.len();
        }
        self.under_way.retain(|(_, bytes)| !bytes.is_empty());
    }
}

impl Network {
    /// A connection, unless the two are apart.
    pub(super) fn connect(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.is_partitioned(now) {
            return None;
        }
        self.last_id += 1;
        self.connections.insert(self.last_id, Connection::default());
        Some(self.last_id)
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    pub(super) fn send_to_receiver(&mut self, id: ConnectionId, bytes: &[u8], random: &mut Random, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.to_receiver.write(bytes, random, now);
        }
    }

    pub(super) fn send_to_origin(&mut self, id: ConnectionId, bytes: &[u8], random: &mut Random, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.to_origin.write(bytes, random, now);
        }
    }

    pub(super) fn receive_at_receiver(&mut self, id: ConnectionId, random: &mut Random, now: Instant) -> Arrival {
        if self.is_partitioned(now) {
            return Arrival::Nothing;
        }
        self.connections.get_mut(&id).map_or(Arrival::End, |connection| connection.to_receiver.read(random, now))
    }

    pub(super) fn receive_at_origin(&mut self, id: ConnectionId, random: &mut Random, now: Instant) -> Arrival {
        if self.is_partitioned(now) {
            return Arrival::Nothing;
        }
        self.connections.get_mut(&id).map_or(Arrival::End, |connection| connection.to_origin.read(random, now))
    }

    /// The origin closes its end: what is under way still arrives, and then the end.
    pub(super) fn origin_closes(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.to_receiver.ended = true;
        }
    }

    /// The receiver closes its end.
    pub(super) fn receiver_closes(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.to_origin.ended = true;
            // Nobody reads any longer.
            connection.to_receiver = Pipe { ended: true, ..Pipe::default() };
        }
    }

    /// Every connection breaks, at any byte of each direction.
    pub(super) fn reset(&mut self, random: &mut Random) {
        for connection in self.connections.values_mut() {
            connection.to_receiver.cut(random);
            connection.to_origin.cut(random);
        }
    }

    pub(super) fn origin_died(&mut self, random: &mut Random) {
        for connection in self.connections.values_mut() {
            connection.to_receiver.cut(random);
        }
    }

    pub(super) fn receiver_died(&mut self) {
        for id in self.ids() {
            self.receiver_closes(id);
        }
    }

    pub(super) fn partition(&mut self, until: Instant) {
        self.partition_until = Some(until);
    }

    pub(super) fn heal(&mut self) {
        self.partition_until = None;
    }

    fn is_partitioned(&self, now: Instant) -> bool {
        self.partition_until.is_some_and(|until| now < until)
    }
}
