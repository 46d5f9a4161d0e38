//! One worker's own client connections, and what has changed since the others were told.

use std::net::SocketAddr;

use super::{Change, Connection, Roster};

/// Changes that are remembered one by one; beyond that the whole list is told. As many as a busy worker has in a tenth of a
/// second.
const MAX_CHANGES: usize = 4096;

/// The connections of one worker. It alone gives their numbers.
#[derive(Debug, Default)]
pub struct Own {
    roster: Roster,
    /// Numbers that were given before.
    free: Vec<u32>,
    /// Numbers that came or went, some perhaps more than once.
    changed: Vec<u32>,
    /// More has changed than `changed` holds, or somebody knows nothing yet.
    anew: bool,
    not_kept: u64,
}

/// What the others are told at one time.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// All that is not in here is gone: this is the whole list.
    pub anew: bool,
    /// What has become of numbers.
    pub changes: Vec<Change>,
}

impl Own {
    /// A connection has come. Gives its number, which is owed to [`Own::leave`]; none if it cannot be kept.
    pub fn join(&mut self, client: SocketAddr, local: SocketAddr) -> Option<u32> {
        let number = self.free.last().copied().map_or_else(|| u32::try_from(self.roster.slots()).ok(), Some);
        let (Some(number), Some(connection)) = (number, Connection::new(client, local)) else {
            self.not_kept += 1;
            return None;
        };
        if !self.roster.put(number, connection) {
            self.not_kept += 1;
            return None;
        }
        self.free.pop();
        self.change(number);
        Some(number)
    }

    /// The connection of that number has gone.
    pub fn leave(&mut self, number: u32) {
        if self.roster.take(number).is_some() {
            self.free.push(number);
            self.change(number);
        }
    }

    /// Whether there is something to tell.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.anew || !self.changed.is_empty()
    }

    /// Somebody knows nothing yet: the next batch is the whole list.
    pub fn begin_anew(&mut self) {
        self.anew = true;
        self.changed = Vec::new();
    }

    /// What there is to tell.
    pub fn take_news(&mut self) -> Batch {
        let anew = std::mem::take(&mut self.anew);
        let mut changed = std::mem::take(&mut self.changed);
        let changes = if anew {
            self.roster.iter().map(|(number, connection)| Change::Joined(number, connection)).collect()
        } else {
            changed.sort_unstable();
            changed.dedup();
            let now = |number| self.roster.get(number).map_or(Change::Left(number), |to| Change::Joined(number, to));
            changed.into_iter().map(now).collect()
        };
        Batch { anew, changes }
    }

    /// Connections.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.roster.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.roster.is_empty()
    }

    /// Connections that were not kept, since the start.
    #[must_use]
    pub const fn not_kept(&self) -> u64 {
        self.not_kept
    }

    fn change(&mut self, number: u32) {
        if self.anew {
            return;
        }
        if self.changed.len() < MAX_CHANGES {
            self.changed.push(number);
        } else {
            self.begin_anew();
        }
    }
}
