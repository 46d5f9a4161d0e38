//! How fast and how many at once: a rate in one atomic, and counted places.
//!
//! The rate is the generic cell rate algorithm (GCRA, ITU-T I.371 annex A): one number says when the next one is due if
//! all came at the rate; who comes earlier than the burst allows has to wait. Nobody takes a lock, and a storm of threads
//! that fail leaves no trace.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// So much of a rate may come at once: enough for threads that look every few milliseconds, and no storm.
pub const BURST: Duration = Duration::from_millis(50);

/// How late threads may look without losing any of a low rate.
const LATENESS: Duration = Duration::from_millis(10);

const SECOND: u64 = 1_000_000_000;

/// Where the nanoseconds are counted from.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(Instant);

impl Epoch {
    /// Counts from `start`.
    #[must_use]
    pub const fn new(start: Instant) -> Self {
        Self(start)
    }

    /// Nanoseconds from the start to `instant`; 0 for what was before it.
    #[must_use]
    pub fn nanos(self, instant: Instant) -> u64 {
        nanos(instant.saturating_duration_since(self.0))
    }

    /// The instant that lies so far from the start.
    #[must_use]
    pub fn instant(self, nanos: u64) -> Instant {
        self.0 + Duration::from_nanos(nanos)
    }
}

/// A duration in nanoseconds; the most there is for one of centuries.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The rate at which to go on so that, with a [`BURST`] before it, no second has more than `per_second`; at least 1.
#[must_use]
pub fn steady(per_second: u32) -> u32 {
    let at_once = u64::from(per_second) * nanos(BURST) / SECOND;
    per_second.saturating_sub(u32::try_from(at_once.max(1)).unwrap_or(u32::MAX)).max(1)
}

/// So many in a second, and those of a burst at once; can be changed while others take.
#[derive(Debug)]
pub struct Rate {
    /// Nanoseconds between two; 0: no bound.
    interval: AtomicU64,
    /// How far ahead of time one may come.
    tolerance: AtomicU64,
    /// When the next one is due (GCRA's theoretical arrival time).
    due: AtomicU64,
}

impl Rate {
    /// `per_second`, none for no bound; what comes in `burst` may come at once, at least one.
    #[must_use]
    pub fn new(per_second: Option<u32>, burst: Duration) -> Self {
        let rate = Self { interval: AtomicU64::new(0), tolerance: AtomicU64::new(0), due: AtomicU64::new(0) };
        rate.set(per_second, burst);
        rate
    }

    /// Another rate from now on.
    pub fn set(&self, per_second: Option<u32>, burst: Duration) {
        let interval = per_second.map_or(0, |rate| SECOND / u64::from(rate.max(1)));
        self.interval.store(interval, Ordering::Relaxed);
        self.tolerance.store(tolerance(interval, burst), Ordering::Relaxed);
    }

    /// Takes one at `now`, in nanoseconds since an epoch.
    #[must_use]
    pub fn take(&self, now: u64) -> bool {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 {
            return true;
        }
        let latest = now.saturating_add(self.tolerance.load(Ordering::Relaxed));
        let next = |due: u64| (due <= latest).then(|| due.max(now).saturating_add(interval));
        self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Gives one back that was taken and not used.
    pub fn give_back(&self) {
        let interval = self.interval.load(Ordering::Relaxed);
        // Never fails: the closure always has a value.
        let _ = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| Some(due.saturating_sub(interval)));
    }

    /// When one can be taken if nobody else does; not before `now`.
    #[must_use]
    pub fn ready_at(&self, now: u64) -> u64 {
        if self.interval.load(Ordering::Relaxed) == 0 {
            return now;
        }
        let due = self.due.load(Ordering::Relaxed);
        due.saturating_sub(self.tolerance.load(Ordering::Relaxed)).max(now)
    }
}

/// How far ahead one may come so that `burst` of them may come at once.
fn tolerance(interval: u64, burst: Duration) -> u64 {
    // The first of a burst is on time. At a low rate, who looks a little late may make up for it with the next one.
    nanos(burst).saturating_sub(interval).max(nanos(LATENESS).min(interval / 2))
}

/// A rate without atomics, for what stands under a lock: [`Rate`]'s one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Debt {
    due: u64,
}

impl Debt {
    /// Takes one at `now`, at `per_second` with `burst` at once.
    #[must_use]
    pub fn take(&mut self, per_second: u32, burst: Duration, now: u64) -> bool {
        let interval = SECOND / u64::from(per_second.max(1));
        let taken = self.due <= now.saturating_add(tolerance(interval, burst));
        if taken {
            self.due = self.due.max(now).saturating_add(interval);
        }
        taken
    }

    /// Whether it makes no difference any more.
    #[must_use]
    pub const fn is_paid(self, now: u64) -> bool {
        self.due <= now
    }
}

/// So many at once; the limit can be changed while others take.
#[derive(Debug)]
pub struct Places {
    limit: AtomicUsize,
    taken: AtomicUsize,
}

impl Places {
    /// `limit` places.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), taken: AtomicUsize::new(0) }
    }

    /// Another limit from now on; who has a place above it keeps it.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Places taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether there is none left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken() >= self.limit()
    }

    /// Takes a place if there is one: [`Places::give_back`] is owed.
    #[must_use]
    pub fn take(&self) -> bool {
        let limit = self.limit();
        let next = |taken: usize| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Takes a place whether there is one or not: [`Places::give_back`] is owed.
    pub fn take_anyway(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives a place back.
    pub fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
