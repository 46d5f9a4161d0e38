//! Clients of a worker that have said what they want and wait for a backend.
//!
//! They are asked one after the other, every few milliseconds at most, and only while somebody waits. What the backends
//! allow is shared by all workers; see [`crate::pool`]. Who waits in vain is refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connecting;
use super::connection::{Phase, Ticket};
use super::core::Name;
use super::ended::Why;
use super::turn::Engine;
use crate::pool::{Choice, Lane, Lease, Pool};
use crate::waiting::{Push, Verdict, WaitingRoom};

/// Clients that get a backend in one turn: more than a rate of 10,000 a second lets through between two looks.
const PORTION: usize = 64;

/// Who waits.
#[derive(Debug)]
pub(crate) struct Lobby {
    room: WaitingRoom<Name>,
    /// When somebody may get what he waits for.
    retry_at: Option<Instant>,
    /// Who had to make room, and is still to be told.
    displaced: Vec<Name>,
}

impl Lobby {
    /// Nobody yet, and `size` at most.
    pub(crate) fn new(size: usize, timeout: Duration) -> Self {
        Self { room: WaitingRoom::new(size, timeout), retry_at: None, displaced: Vec::new() }
    }

    /// Other bounds from now on.
    pub(crate) fn set_bounds(&mut self, size: usize, timeout: Duration) {
        self.room.set_bounds(size, timeout);
    }

    /// Whether a newcomer has to wait behind somebody.
    pub(crate) fn has_waiters(&self, lane: Lane) -> bool {
        self.room.has_waiters(lane)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.room.len()
    }

    /// A client waits until it is placed, or [`Lobby::leave`]; none if there is no room.
    pub(crate) fn enter(
        &mut self,
        source: IpAddr,
        lane: Lane,
        name: Name,
        retry_at: Instant,
        now: Instant,
    ) -> Option<Ticket> {
        let ticket = match self.room.push(source, lane, name, now) {
            Push::Waits(ticket) => ticket,
            Push::WaitsInsteadOf(ticket, other) => {
                self.displaced.push(other);
                ticket
            }
            Push::Refused(_) => return None,
        };
        self.retry_at = Some(self.retry_at.map_or(retry_at, |earlier| earlier.min(retry_at)));
        Some(ticket)
    }

    /// A client waits no longer.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.room.remove(ticket);
    }

    /// When there is something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.retry_at, self.room.poll_timeout()].into_iter().flatten().min()
    }

    fn set_retry(&mut self, pool: &Pool, now: Instant) {
        self.retry_at = self.room.lanes().map(|lane| pool.retry_at(lane, now)).min();
    }
}

/// What one that waited gets.
enum Turn {
    Go(Lease),
    Nobody,
}

impl Engine {
    /// Gives backends to those whose turn it is, and refuses who has waited for too long.
    pub(super) fn serve_lobby(&mut self) {
        let now = self.core.now;
        for name in self.core.lobby.room.handle_timeout(now) {
            self.end(name, Why::QueueTimeout);
        }
        if self.core.lobby.retry_at.is_some_and(|at| at <= now) {
            self.serve_waiting(now);
        }
        for name in std::mem::take(&mut self.core.lobby.displaced) {
            self.end(name, Why::QueueFull);
        }
        self.core.worker.set_waiting(self.core.lobby.len());
    }

    fn serve_waiting(&mut self, now: Instant) {
        let (core, connections) = (&mut self.core, &self.connections);
        let pool = Arc::clone(&core.pool);
        let mut turns = Vec::new();
        core.lobby.room.serve(PORTION, |&name| {
            let connection = connections.get(name.key as usize).filter(|one| one.generation == name.generation);
            let Some(wanted) = connection.and_then(|one| connecting::wanted(one, &core.fronts)) else {
                return Verdict::Gone;
            };
            let turn = match pool.choose(&wanted, now) {
                Choice::Go(lease) => Turn::Go(lease),
                Choice::Wait(_) => return Verdict::StillFull,
                Choice::Nobody => Turn::Nobody,
            };
            turns.push((name, turn));
            Verdict::Placed
        });
        core.lobby.set_retry(&pool, now);
        for (name, turn) in turns {
            let Some(connection) = self.connections.get_mut(name.key as usize) else { continue };
            debug_assert_eq!(connection.phase, Phase::Waiting, "who waits does nothing else");
            let fate = match turn {
                Turn::Go(lease) => connecting::place(connection, name, &mut self.core, lease),
                Turn::Nobody => connecting::nobody(connection, name, &mut self.core),
            };
            self.settle(name, fate);
        }
    }
}
