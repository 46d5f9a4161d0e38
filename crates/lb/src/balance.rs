//! Which backend of a group a new connection goes to.
//!
//! First [`narrow`] leaves those of the best standing; then [`Balancer::choose`] takes one of them by `[lb] balance`. Who is
//! found to be at one of its bounds is closed by the caller ([`Load::open`]), who then chooses again.
//!
//! ```text
//! all ─▶ not tried, ready, weight above 0 ─▶ best tier ─▶ best standing ─▶ choose ─▶ settle
//!                                             tiers: own (up, unproven, suspect) ▶ backup (the same) ▶ rejecting ▶ panic (down)
//! ```

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicU64, Ordering};

use evermq_config::lb::Balance;

use crate::backend::Standing;

pub mod rendezvous;
mod turns;

use turns::Turns;

/// The weight of a backend with `weight = 1` that is not in slow start.
pub const UNIT: u32 = 1024;

/// What the operator wants of a backend, whatever its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Admin {
    /// It takes part.
    #[default]
    Ready = 0,
    /// It gets no new clients; those that it has stay until somebody closes them.
    Drain = 1,
    /// It gets no clients, and has none.
    Maint = 2,
}

impl Admin {
    /// Its name in orders and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ready, Self::Drain, Self::Maint].into_iter().find(|admin| admin.name() == name)
    }

    /// The state whose representation is `value`.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ready),
            1 => Some(Self::Drain),
            2 => Some(Self::Maint),
            _ => None,
        }
    }
}

/// What counts for the choice, for one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What the backend is good for.
    pub standing: Standing,
    /// What the operator wants of it.
    pub admin: Admin,
    /// Gets clients only when all others are down.
    pub backup: bool,
    /// Its share, in [`UNIT`]s for each of the file's; 0: none.
    pub weight: u32,
    /// How much of it counts already, out of [`UNIT`]: less in slow start.
    pub ramp: u32,
    /// Its connections, those being made included.
    pub connections: usize,
    /// The same for the same name, on every host and in every version.
    pub identity: u64,
    /// Whether it may be chosen; at first false for one where this client has been refused already, or that has no address
    /// of the kind that is needed.
    pub open: bool,
}

impl Load {
    /// The weight that counts now: at least a trace of what there is, so that slow start is slow and not never.
    fn weight(&self) -> u64 {
        let full = u64::from(UNIT);
        (u64::from(self.weight) * u64::from(self.ramp).min(full) / full).max(u64::from(self.weight > 0))
    }

    /// Which has less to carry for its weight once it has this client as well.
    fn compare(&self, other: &Self) -> Order {
        let after = |load: &Self| load.connections as u128 + 1;
        (after(self) * u128::from(other.weight())).cmp(&(after(other) * u128::from(self.weight())))
    }

    /// Lower is better; none is not chosen.
    fn class(&self) -> Option<(Tier, u8)> {
        if !self.open || self.weight == 0 {
            return None;
        }
        match (self.admin, self.standing.rank()) {
            (Admin::Drain | Admin::Maint, _) => None,
            (Admin::Ready, Some(rank)) => {
                // One that answers but refuses our session may refuse its clients too: a backup is better than that.
                let lets_in = Some(rank) < Standing::Rejecting.rank();
                let tier = match (lets_in, self.backup) {
                    (true, false) => Tier::Own,
                    (true, true) => Tier::Backup,
                    (false, _) => Tier::LastResort,
                };
                Some((tier, rank))
            }
            // Nothing better is left: it may be our session alone that fails, and clients lose nothing by trying.
            (Admin::Ready, None) => (self.standing == Standing::Down).then_some((Tier::Panic, 0)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Own,
    Backup,
    LastResort,
    Panic,
}

/// Closes all but those of the best standing; false if there is none.
pub fn narrow(loads: &mut [Load]) -> bool {
    let best = loads.iter().filter_map(Load::class).min();
    for load in loads.iter_mut() {
        load.open = best.is_some() && load.class() == best;
    }
    best.is_some()
}

/// What the choice depends on beside the loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Of the client's address or identifier: see [`rendezvous::key`].
    pub key: u64,
    /// Any number, each as likely as the next.
    pub random: u64,
}

/// Chooses backends of one group; shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    /// Advances with each choice, so that equals take turns.
    turn: AtomicU64,
    turns: Turns,
}

impl Balancer {
    /// A balancer for `[lb] balance` and a group of `backends`.
    #[must_use]
    pub fn new(balance: Balance, backends: usize) -> Self {
        Self { balance, turn: AtomicU64::new(0), turns: Turns::new(backends) }
    }

    /// Whether the same client is to come to the same backend, and so waits for that one.
    #[must_use]
    pub const fn is_consistent(&self) -> bool {
        match self.balance {
            Balance::SourceIp | Balance::ClientId => true,
            Balance::LeastConn | Balance::RoundRobin | Balance::RandomTwo => false,
        }
    }

    /// Begins a choice: leaves out for this once whoever is in slow start and has had its share.
    ///
    /// For those that go by connections, which would otherwise give an empty backend every client whatever its weight.
    pub fn begin(&self, loads: &mut [Load]) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.balance {
            Balance::LeastConn | Balance::RandomTwo => {}
            Balance::RoundRobin | Balance::SourceIp | Balance::ClientId => return,
        }
        // Multiples of the golden ratio spread evenly over any number of turns, without a state for each backend.
        let point = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let takes_part = |load: &Load| point < u64::from(load.ramp) * (1 << 32) / u64::from(UNIT);
        if loads.iter().any(|load| load.open && takes_part(load)) {
            for load in loads.iter_mut() {
                load.open = load.open && takes_part(load);
            }
        }
    }

    /// The index of the backend for a new connection, among those that are open.
    #[must_use]
    pub fn choose(&self, loads: &[Load], request: Request) -> Option<usize> {
        match self.balance {
            Balance::LeastConn => self.least_conn(loads),
            Balance::RoundRobin => self.turns.next(loads),
            Balance::RandomTwo => random_two(loads, request.random),
            Balance::SourceIp | Balance::ClientId => rendezvous::choose(loads, request.key),
        }
    }

    /// The connection goes there.
    pub fn settle(&self, loads: &[Load], index: usize) {
        match self.balance {
            Balance::RoundRobin => self.turns.settle(loads, index),
            Balance::LeastConn | Balance::RandomTwo | Balance::SourceIp | Balance::ClientId => {}
        }
    }

    fn least_conn(&self, loads: &[Load]) -> Option<usize> {
        let least = open(loads).map(|(_, load)| load).min_by(|a, b| a.compare(b))?;
        let equals = || open(loads).filter(|(_, load)| load.compare(least) == Order::Equal);
        let turn = self.turn.load(Ordering::Relaxed) % (equals().count() as u64);
        equals().nth(usize::try_from(turn).ok()?).map(|(index, _)| index)
    }
}

fn open(loads: &[Load]) -> impl Iterator<Item = (usize, &Load)> {
    loads.iter().enumerate().filter(|(_, load)| load.open)
}

/// The less loaded of two that are drawn by weight.
fn random_two(loads: &[Load], random: u64) -> Option<usize> {
    let (first, second) = (random >> 32, random & 0xFFFF_FFFF);
    let one = draw(loads, first, None)?;
    let Some(other) = draw(loads, second, Some(one)) else { return Some(one) };
    Some(if loads[other].compare(&loads[one]).is_lt() { other } else { one })
}

/// The one on which `point`, of 2^32, falls when each has a stretch as long as its weight.
fn draw(loads: &[Load], point: u64, except: Option<usize>) -> Option<usize> {
    let others = || open(loads).filter(|(index, _)| Some(*index) != except);
    let all: u64 = others().map(|(_, load)| load.weight()).sum();
    let mut left = u64::try_from((u128::from(all) * u128::from(point)) >> 32).ok()?;
    for (index, load) in others() {
        match left.checked_sub(load.weight()) {
            Some(rest) => left = rest,
            None => return Some(index),
        }
    }
    None
}

#[cfg(test)]
mod tests;
