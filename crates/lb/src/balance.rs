//! Which backend a new connection goes to.

use std::sync::atomic::{AtomicUsize, Ordering};

use evermq_config::cluster::Balance;

use crate::backend::Standing;

/// What counts for the choice, for one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What the backend is good for.
    pub standing: Standing,
    /// Its connections, those being made included.
    pub connections: usize,
    /// This client has been refused there already.
    pub tried: bool,
}

/// Chooses backends; shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    /// Advances with each choice, so that equals take turns.
    turn: AtomicUsize,
}

impl Balancer {
    /// A balancer for `[lb] balance`.
    #[must_use]
    pub const fn new(balance: Balance) -> Self {
        Self { balance, turn: AtomicUsize::new(0) }
    }

    /// The index of the backend for a new connection, if any may be tried.
    ///
    /// The best standing comes first: one that is up before one of which nothing is known yet, and so on down to one that
    /// refuses the lb's own session. Among equals `least_conn` takes those with the fewest connections, and equals of that
    /// take turns; `round_robin` only takes turns.
    #[must_use]
    pub fn choose(&self, loads: &[Load]) -> Option<usize> {
        let rank = loads.iter().filter_map(rank).min()?;
        let best = |load: &&Load| self::rank(load) == Some(rank);
        let fewest = match self.balance {
            Balance::LeastConn => loads.iter().filter(best).map(|load| load.connections).min()?,
            Balance::RoundRobin => usize::MAX,
        };
        let equal = |load: &Load| self::rank(load) == Some(rank) && load.connections <= fewest;
        let equals = loads.iter().filter(|load| equal(load)).count();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % equals;
        loads.iter().enumerate().filter(|(_, load)| equal(load)).nth(turn).map(|(index, _)| index)
    }
}

/// Lower is better; `None` is never chosen.
fn rank(load: &Load) -> Option<u8> {
    if load.tried { None } else { load.standing.rank() }
}

#[cfg(test)]
mod tests;
