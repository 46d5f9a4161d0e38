//! Hybrid logical clock: times that follow the wall clock, never repeat, and lie after everything seen so far.
//!
//! A time is in nanoseconds since 1970, as long as the wall clock moves on; two times within one nanosecond, or a wall
//! clock that was set back, count up by one instead. A broker that has seen a stamp gives out later ones only, so an answer
//! to a message is newer than the message on every broker, however far apart their wall clocks are.
//!
//! Pure: the wall time comes in.

use std::sync::atomic::{AtomicU64, Ordering};

/// The newest time given out or seen.
#[derive(Debug, Default)]
pub(crate) struct HybridClock {
    last: AtomicU64,
}

impl HybridClock {
    /// A time later than all before it; `wall` is the wall clock in nanoseconds since 1970.
    pub(crate) fn next(&self, wall: u64) -> u64 {
        self.next_of(1, wall)
    }

    /// The first of `count` times, each one more than the one before it, at least one.
    pub(crate) fn next_of(&self, count: u64, wall: u64) -> u64 {
        // Relaxed: one atomic variable has one order of modifications, and nothing else is published by it.
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = wall.max(last.saturating_add(1));
            let newest = next.saturating_add(count.saturating_sub(1));
            match self.last.compare_exchange_weak(last, newest, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return next,
                Err(current) => last = current,
            }
        }
    }

    /// Takes note of another broker's time.
    pub(crate) fn observe(&self, time: u64) {
        // A load first: a peer's stamps are nearly always older than the newest of our own, and a store by every message
        // would take the cache line away from the threads that publish.
        if time > self.last.load(Ordering::Relaxed) {
            self.last.fetch_max(time, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_wall_clock() {
        let clock = HybridClock::default();
        assert_eq!(clock.next(100), 100);
        assert_eq!(clock.next(200), 200);
    }

    #[test]
    fn several_times_at_once_are_nobody_elses() {
        let clock = HybridClock::default();
        assert_eq!(clock.next_of(3, 100), 100);
        assert_eq!(clock.next(100), 103);
        assert_eq!(clock.next_of(2, 50), 104);
        assert_eq!(clock.next(106), 106);
    }

    #[test]
    fn never_repeats_and_never_goes_back() {
        let clock = HybridClock::default();
        assert_eq!(clock.next(100), 100);
        assert_eq!(clock.next(100), 101);
        assert_eq!(clock.next(50), 102);
        assert_eq!(clock.next(103), 103);
    }

    #[test]
    fn is_later_than_what_it_saw() {
        let clock = HybridClock::default();
        clock.observe(1_000);
        assert_eq!(clock.next(10), 1_001);
        clock.observe(5);
        assert_eq!(clock.next(10), 1_002);
    }

    #[test]
    fn survives_the_end_of_time() {
        let clock = HybridClock::default();
        clock.observe(u64::MAX);
        assert_eq!(clock.next(10), u64::MAX);
    }

    #[test]
    fn is_unique_across_threads() {
        let clock = HybridClock::default();
        let times = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..5_000).map(|_| clock.next(7)).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<std::collections::BTreeSet<_>>()
        });
        assert_eq!(times.len(), 20_000);
    }
}
