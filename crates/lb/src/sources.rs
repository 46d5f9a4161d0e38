//! What one client address may take: so many connections, and so many new ones in a second.
//!
//! An address is one of IPv4, or a /64 of IPv6, of which anybody may have as many as he likes. Touched when a connection
//! comes and when it goes, by all workers, so the table is in shards with a lock each. An entry lives while the address has
//! connections, or has lately come so fast that it is still owing; strangers that knock once leave nothing behind.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermq_config::lb::SourceLimits;

use crate::pacing::{Debt, Epoch};

const SHARDS: usize = 64;
/// An address may use up a second's connections at once.
const BURST: Duration = Duration::from_secs(1);
/// Entries looked at when a connection comes, in case they can go: more than one, so that they go faster than they come.
const SWEPT: usize = 4;
const NONE: usize = 0;

/// Whose connections count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(u64);

impl Source {
    /// Of an address; IPv4 in either spelling is the same.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // As if from ::/32, of which no host has an address (RFC 4291 §2.4: the rest of ::/8 is reserved).
            IpAddr::V4(address) => Self(address.to_bits().into()),
            IpAddr::V6(address) => Self(u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX)),
        }
    }
}

/// Why an address gets no further connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has as many as it may.
    #[error("its address has as many connections as max_connections_per_source allows")]
    TooMany,
    /// It comes too fast.
    #[error("its address makes connections faster than max_rate_per_source allows")]
    TooFast,
}

/// The addresses with connections; shared by all workers.
#[derive(Debug)]
pub struct Sources {
    /// 0: no bound.
    connections: AtomicUsize,
    /// 0: no bound.
    rate: AtomicU32,
    epoch: Epoch,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Source, Entry>,
    /// Who had no connection when it was entered here, at most once each.
    idle: VecDeque<Source>,
}

#[derive(Debug, Default)]
struct Entry {
    connections: usize,
    debt: Debt,
    /// It stands in [`Shard::idle`].
    queued: bool,
}

/// A connection's place among those of its address; gives it back when dropped.
#[derive(Debug)]
pub struct SourcePlace {
    /// None if it was not counted, because there was no limit.
    sources: Option<Arc<Sources>>,
    source: Source,
}

impl Sources {
    /// Nobody yet.
    #[must_use]
    pub fn new(limits: SourceLimits, now: Instant) -> Self {
        let sources = Self {
            connections: AtomicUsize::new(NONE),
            rate: AtomicU32::new(0),
            epoch: Epoch::new(now),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        };
        sources.set_limits(limits);
        sources
    }

    /// Other limits from now on. Nobody who is in has to leave; who came while there was none is not counted.
    pub fn set_limits(&self, limits: SourceLimits) {
        self.connections.store(limits.connections.unwrap_or(NONE), Ordering::Relaxed);
        self.rate.store(limits.rate.unwrap_or(0), Ordering::Relaxed);
    }

    /// A connection comes.
    ///
    /// # Errors
    /// Its address has too many, or comes too fast.
    pub fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<SourcePlace, Refused> {
        let (connections, rate) = (self.connections.load(Ordering::Relaxed), self.rate.load(Ordering::Relaxed));
        let source = Source::of(address);
        if connections == NONE && rate == 0 {
            return Ok(SourcePlace { sources: None, source });
        }
        let now = self.epoch.nanos(now);
        let mut shard = self.shard(source);
        shard.sweep(now);
        let entry = shard.entries.entry(source).or_default();
        if connections != NONE && entry.connections >= connections {
            return Err(Refused::TooMany);
        }
        // An entry that is refused for its rate has a debt, and one that is refused for its number has connections: none
        // is left behind that nobody takes out.
        if rate != 0 && !entry.debt.take(rate, BURST, now) {
            return Err(Refused::TooFast);
        }
        entry.connections += 1;
        Ok(SourcePlace { sources: Some(Arc::clone(self)), source })
    }

    /// Addresses that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// Whether no address is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leave(&self, source: Source) {
        self.shard(source).leave(source);
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, Shard> {
        // Not by the address's own bits, which strangers choose.
        let hash = usize::try_from(self.hasher.hash_one(source) % SHARDS as u64).unwrap_or_default();
        lock(&self.shards[hash])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn leave(&mut self, source: Source) {
        let Some(entry) = self.entries.get_mut(&source) else { return };
        entry.connections -= 1;
        if entry.connections > 0 {
            return;
        }
        if entry.debt == Debt::default() {
            self.entries.remove(&source);
        } else if !std::mem::replace(&mut entry.queued, true) {
            self.idle.push_back(source);
        }
    }

    /// Takes out a few of those that owe nothing any more.
    fn sweep(&mut self, now: u64) {
        for _ in 0..SWEPT {
            let Some(source) = self.idle.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&source) else { continue };
            if entry.connections > 0 {
                // It is back, and will be queued again when it leaves.
                entry.queued = false;
            } else if entry.debt.is_paid(now) {
                self.entries.remove(&source);
            } else {
                self.idle.push_back(source);
            }
        }
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        if let Some(sources) = &self.sources {
            sources.leave(self.source);
        }
    }
}

#[cfg(test)]
mod tests;
