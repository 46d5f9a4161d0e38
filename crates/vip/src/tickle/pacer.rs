//! How many clients are told at a time: as many as the lb lets in again.
//!
//! ```text
//!  handle_clients ─► First ──all told──► Resting ──REPEAT_AFTER since it began──► Asked ──handle_refreshed──► Second ──all told──► (gone)
//!                      └────────────────────┴───────────── handle_lost ─────────────┴───────────────────────────┘
//! ```
//!
//! Each virtual router's takeover goes through this; all of them share one rate. Clients that the second asking brings and
//! the first one did not are told once: they came in the last moments of the host before.
//!
//! Pure.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::Connection;

/// Between the beginnings of the two rounds: more than the 500 ms in which a Linux client answers only once, and than the
/// second of others.
pub const REPEAT_AFTER: Duration = Duration::from_millis(1100);
/// Between two bursts.
const TICK: Duration = Duration::from_millis(5);
/// What was not sent in time is made up for up to this; the rest of it just takes longer.
const CATCH_UP: Duration = Duration::from_millis(20);

/// How often a client has been told before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Never.
    First,
    /// Once.
    Second,
}

/// Everyone who is to be told.
#[derive(Debug, Default)]
pub struct Pacer {
    takeovers: Vec<Takeover>,
    /// Between two clients.
    spacing: Duration,
    /// When the next client's turn is, and when the next burst.
    next: Option<Instant>,
    burst: Option<Instant>,
    actions: VecDeque<Action>,
}

/// What the driver has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Tell a client.
    Send {
        /// Of which virtual router.
        instance: usize,
        /// Whom.
        connection: Connection,
        /// Which round.
        round: Round,
    },
    /// Ask the lb for the clients once more.
    Refresh {
        /// Of which virtual router.
        instance: usize,
    },
    /// One round is over.
    Told {
        /// Of which virtual router.
        instance: usize,
        /// Which round.
        round: Round,
        /// How many were told.
        clients: usize,
        /// Since when.
        since: Instant,
    },
}

#[derive(Debug)]
struct Takeover {
    instance: usize,
    connections: Vec<Connection>,
    began: Instant,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Those before this one have been told once.
    First(usize),
    Resting,
    Asked,
    /// Those before this one have been told twice.
    Second(usize),
}

impl Pacer {
    /// This host has become master of `instance`, and these are the clients of others; `rate` of them in a second.
    pub fn handle_clients(&mut self, instance: usize, connections: Vec<Connection>, rate: u32, now: Instant) {
        self.handle_lost(instance);
        self.spacing = Duration::from_secs(1) / rate.max(1);
        self.takeovers.push(Takeover { instance, connections, began: now, phase: Phase::First(0) });
        self.handle_timeout(now);
    }

    /// What [`Action::Refresh`] has brought; nothing if nobody answered.
    pub fn handle_refreshed(&mut self, instance: usize, connections: Vec<Connection>, now: Instant) {
        let takeover = self.takeovers.iter_mut().find(|takeover| takeover.instance == instance);
        if let Some(takeover) = takeover.filter(|takeover| takeover.phase == Phase::Asked) {
            // In the same order, so that nobody's two segments come close together.
            let known: HashSet<_> = takeover.connections.iter().copied().collect();
            takeover.connections.extend(connections.into_iter().filter(|connection| !known.contains(connection)));
            takeover.phase = Phase::Second(0);
        }
        self.handle_timeout(now);
    }

    /// This host is not master of `instance` any more: nobody else is told.
    pub fn handle_lost(&mut self, instance: usize) {
        self.takeovers.retain(|takeover| takeover.instance != instance);
        self.actions.retain(|action| action.instance() != instance);
        if self.takeovers.is_empty() {
            (self.next, self.burst) = (None, None);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.burst.is_none_or(|burst| burst <= now) {
            self.send(now);
        }
        // After that: a first round that took its time is followed by the second at once.
        for takeover in &mut self.takeovers {
            if takeover.phase == Phase::Resting && takeover.began + REPEAT_AFTER <= now {
                takeover.phase = Phase::Asked;
                self.actions.push_back(Action::Refresh { instance: takeover.instance });
            }
        }
    }

    /// When [`Pacer::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |takeover: &Takeover| match takeover.phase {
            Phase::First(_) | Phase::Second(_) => self.burst.max(self.next),
            Phase::Resting => Some(takeover.began + REPEAT_AFTER),
            Phase::Asked => None,
        };
        self.takeovers.iter().filter_map(due).min()
    }

    /// What the driver has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// One burst: everyone whose time has come.
    fn send(&mut self, now: Instant) {
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let mut next = self.next.map_or(now, |next| next.max(earliest));
        for takeover in &mut self.takeovers {
            let (round, mut told) = match takeover.phase {
                Phase::First(told) => (Round::First, told),
                Phase::Second(told) => (Round::Second, told),
                Phase::Resting | Phase::Asked => continue,
            };
            self.burst = Some(now + TICK);
            while next <= now && told < takeover.connections.len() {
                let (instance, connection) = (takeover.instance, takeover.connections[told]);
                self.actions.push_back(Action::Send { instance, connection, round });
                told += 1;
                next += self.spacing;
            }
            let over = told == takeover.connections.len();
            takeover.phase = match round {
                Round::First if over => Phase::Resting,
                Round::First => Phase::First(told),
                Round::Second => Phase::Second(told),
            };
            if over {
                let Takeover { instance, began, .. } = *takeover;
                self.actions.push_back(Action::Told { instance, round, clients: told, since: began });
            }
        }
        self.takeovers.retain(|takeover| takeover.phase != Phase::Second(takeover.connections.len()));
        // A pause between two rounds is nothing to catch up with.
        let is_over = |takeover: &Takeover| matches!(takeover.phase, Phase::Resting | Phase::Asked);
        self.next = if self.takeovers.iter().all(is_over) { None } else { Some(next) };
    }
}

impl Action {
    const fn instance(&self) -> usize {
        match self {
            Self::Send { instance, .. } | Self::Refresh { instance } | Self::Told { instance, .. } => *instance,
        }
    }
}

#[cfg(test)]
mod tests;
