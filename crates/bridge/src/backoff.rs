//! How long to wait before the next attempt: doubling, with jitter, so that brokers that lost each other at the same moment
//! do not come back at the same moment.
//!
//! Pure: the seed comes in.

use std::time::Duration;

/// The longest first wait.
const FIRST: Duration = Duration::from_millis(50);
/// The longest wait. Short, because an attempt within a site costs next to nothing, and a peer that returns also makes itself
/// known by its own connection to us.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits between attempts to reach one peer.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// `seed` should differ from peer to peer and from start to start.
    pub(crate) fn new(seed: u64) -> Self {
        // xorshift stands still at 0.
        Self { failures: 0, random: seed | 1 }
    }

    /// The wait before the next attempt: between a half and the whole of 50 ms, 100 ms, ... 2 s.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Marsaglia's xorshift64: jitter needs no more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = longest / 2;
        half + half.mul_f64((self.random >> 32) as f64 / f64::from(u32::MAX))
    }

    /// The peer was reached: the next wait is a short one again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_over() {
        let mut backoff = Backoff::new(42);
        for round in 0..2 {
            for attempt in 0..40 {
                let longest = Duration::from_millis(50 * (1 << attempt.min(10))).min(LONGEST);
                let wait = backoff.next();
                assert!(wait >= longest / 2 && wait <= longest, "round {round}, attempt {attempt}: {wait:?}");
            }
            backoff.reset();
        }
    }

    #[test]
    fn differs_between_seeds() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..8).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_ne!(waits(0x1234_5678_9abc), waits(0xdef0_1234_5678));
        assert_eq!(waits(7), waits(7));
    }
}
